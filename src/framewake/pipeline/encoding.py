"""What is encoded before a clip's steps begin: prompts and picture, for itself and for the larger one it becomes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from framewake.engine.contract import Tensor
from framewake.models.dit import TextStates
from framewake.pipeline.condition import image_latent
from framewake.pipeline.jobs import Plan
from framewake.pipeline.parts import Parts
from framewake.pipeline.precision import Precision
from framewake.pipeline.preview import Preview, chart, fit

CHART_PX = 128  # side of the colour chart that stands in for a missing picture


class Texts(NamedTuple):
    """Text states of a clip, and of the larger one that it becomes."""

    own: TextStates
    larger: TextStates | None


class Images(NamedTuple):
    """Latents of the picture for both, None without one. Shapes: (1, C, 1, H, W)."""

    own: Tensor | None
    larger: Tensor | None


def encode_text(parts: Parts, reader: Any, plan: Plan, precision: Precision) -> Texts:
    """Prompt and negative prompt, with what the encoders see of the picture."""
    request, picture, larger = plan.request, plan.picture, plan.larger
    prompts = [reader.tokens(request.prompt)]
    semantic = [] if picture is None else [picture.semantic]
    if request.guidance_scale > 1:
        prompts.insert(0, reader.tokens(reader.negative_prompt(request.negative_prompt)))
        semantic = [] if picture is None else [picture.black, picture.semantic]
    own = reader.states(parts, prompts, np.concatenate(semantic) if semantic else None, precision.text)
    if larger is None:
        return Texts(own, None)
    seen = None if larger.picture is None else larger.picture.semantic
    return Texts(own, reader.larger_states(parts, own, seen, precision.text))


def encode_picture(parts: Parts, plan: Plan, precision: Precision) -> tuple[Images, Preview]:
    """The picture's latents, and what previews are made with."""
    picture, larger = plan.picture, plan.larger
    if picture is not None:
        pixels = picture.pixels
    else:  # nothing to condition on, but the preview still needs a picture whose latent is known
        pixels = chart(min(plan.shape.height, CHART_PX), min(plan.shape.width, CHART_PX))
    latent = image_latent(parts, pixels, precision)
    preview = fit(parts.engine.numpy(latent).astype(np.float32), pixels)
    if picture is None:
        return Images(None, None), preview
    seen = None if larger is None else larger.picture
    return Images(latent, None if seen is None else image_latent(parts, seen.pixels, precision)), preview
