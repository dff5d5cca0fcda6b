"""What a forecast is made for: a checkpoint on an engine, and what one step of a plan works on there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from framewake.engine.contract import Dtype, Engine
from framewake.models.arrangement import Arrangement, arrange
from framewake.pipeline.family import Family
from framewake.pipeline.forecast import cost
from framewake.pipeline.forecast.links import Links
from framewake.pipeline.jobs import Plan
from framewake.pipeline.precision import Precision
from framewake.shapes import token_count
from framewake.text.crop import TextLength
from framewake.weights.checkpoint.load import Checkpoint


class Setup(NamedTuple):
    """What a forecast is made for; ``text`` is the longest prompt's, ``devices`` share a clip, over ``links``."""

    engine: Engine
    checkpoint: Checkpoint
    family: Family
    models: Mapping[str, Any]
    precision: Precision
    text: TextLength
    devices: int = 1
    links: Links | None = None


def arrangement_of(setup: Setup, plan: Plan) -> Arrangement:
    """How the devices share a step."""
    samples = 2 if plan.request.guidance_scale > 1 else 1
    return arrange(setup.devices, setup.checkpoint.configs[plan.transformer].heads, samples=samples)


def scene_of(setup: Setup, plan: Plan) -> cost.Scene:
    """What one step works on, on each device."""
    arrangement = arrangement_of(setup, plan)
    batch = 1 if arrangement.is_halved or plan.request.guidance_scale <= 1 else 2
    count = arrangement.neighbours * arrangement.groups
    config = setup.checkpoint.configs[plan.transformer]
    tokens = token_count(plan.latent, config.patch_size)
    cached = 0 if plan.cache is None else plan.cache.kept_tensors
    dtype, (read, kept) = setup.precision.transformer, setup.text
    kept += -kept % (setup.engine.traits.text_bucket or 1)  # compiled blocks pad it
    first = tokens // plan.latent.frames if config.replaces_first_frame else 0
    composed, is_host = is_composed(setup.engine, dtype), setup.engine.traits.is_host
    return cost.Scene(batch, tokens, kept, dtype, composed, cached, read, count, first, is_host)


def is_composed(engine: Engine, dtype: Dtype) -> bool:
    """Whether attention is put together from matrix products, because no fused kernel takes it."""
    return dtype not in engine.traits.fused_attention
