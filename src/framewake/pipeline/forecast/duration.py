"""Seconds of a run, stage by stage, from what was measured of a device."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from framewake.config import DiTConfig
from framewake.engine.contract import Engine
from framewake.models.tiles_shared import shared_out
from framewake.pipeline.events import Stage
from framewake.pipeline.forecast import cost
from framewake.pipeline.forecast.autoencoder import decode_operations, decode_tiles, encode_operations
from framewake.pipeline.forecast.links import Links
from framewake.pipeline.forecast.place import Placement
from framewake.pipeline.forecast.probe import Rates
from framewake.pipeline.forecast.setup import Setup, arrangement_of, scene_of
from framewake.pipeline.jobs import Plan
from framewake.weights.checkpoint.component import UPSAMPLER

WRITTEN = 1e7  # pixels a second from decoded numbers to a file


class Duration(NamedTuple):
    """Seconds of a usual step, and of each stage with what it loads and what its first calls take longer."""

    step: float
    stages: dict[Stage, float]

    @property
    def total(self) -> float:
        """Seconds of the run."""
        return sum(self.stages.values())


def duration(setup: Setup, plan: Plan, scene: cost.Scene, rates: Rates, found: dict[str, Placement]) -> Duration:
    """How long a run takes on an idle machine. Opening the picture is not in it: milliseconds."""
    numbers = {name: sum(map(math.prod, model.shapes().values())) for name, model in setup.models.items()}
    # Published files hold two bytes a number, whatever it becomes on the device.
    read = {name: 2 * count / rates.disk for name, count in numbers.items()}
    fresh, larger = fresh_seconds(setup, plan, rates, found), plan.larger
    step, steps = _stepping(setup, plan, scene, rates, found[plan.transformer], read[plan.transformer])
    encoders = [encoder.name for encoder in setup.family.present(setup.checkpoint)]
    text = sum((read[name] for name in encoders), _text(setup, scene, rates, numbers))
    encode, decode = _pictures(setup, plan, rates)
    start = _starts(rates)
    stages: dict[Stage, float] = {
        "encode text": text + fresh["encode text"],
        "encode image": encode + read["vae"] + start["encode image"] + fresh["encode image"],
        "denoise": steps + start["denoise"] + fresh["denoise"],
        "decode": decode + start["decode"] + fresh["decode"],
    }
    if larger is not None:
        place, bytes_read = found[larger.transformer], read[larger.transformer]
        _, further = _stepping(setup, larger, _scene_beside(setup, larger, scene), rates, place, bytes_read)
        stages["enlarge"] = further + read[UPSAMPLER] + fresh["enlarge"]
    if plan.output is not None:
        stages["write"] = math.prod(plan.made) / WRITTEN
    return Duration(step, stages)


def _scene_beside(setup: Setup, larger: Plan, scene: cost.Scene) -> cost.Scene:
    """What a step of the larger clip works on: the same prompt, counted or the longest."""
    return scene_of(setup, larger)._replace(text=scene.text, read=scene.read)


def _stepping(
    setup: Setup, plan: Plan, scene: cost.Scene, rates: Rates, place: Placement, read: float
) -> tuple[float, float]:
    """Seconds of a step, and of all of them with the ``read`` ones in which their weights come from disk."""
    step = sum(step_parts(setup.engine, setup.checkpoint.configs[plan.transformer], scene, rates))
    if setup.links is not None:
        waits, arriving = _exchanges(setup, plan, scene, setup.links, is_shared=place.is_shared)
        step = waits + (step + arriving if setup.engine.traits.is_host else max(step, arriving))
    if place.is_streamed:
        # A device computes while the host copies; on a CPU both are work for the same cores. Devices that share
        # weights read them once between them, from one disk.
        step = step + read if setup.engine.traits.is_host else max(step, read)
        read = 0.0
    return step, step * computed_steps(plan) + read


def fresh_seconds(setup: Setup, plan: Plan, rates: Rates, found: dict[str, Placement]) -> dict[str, float]:
    """Seconds until the system has handed out a stage's memory: each stage gives back what it does not keep."""
    encoders = [found[encoder.name] for encoder in setup.family.present(setup.checkpoint)]
    work = {
        "encode text": sum(place.weights for place in encoders) + encoders[0].work,
        "encode image": found["vae"].weights,
        "denoise": found["dit"].peak - found["vae"].weights,  # which the work counts as being there beside it
        "decode": found["vae"].work + cost.host_bytes(plan.made),
    }
    if plan.larger is not None:
        work["enlarge"] = found[plan.larger.transformer].peak - found["vae"].weights + found[UPSAMPLER].weights
    is_free = not setup.engine.traits.is_host or not rates.fresh
    return {stage: 0.0 if is_free else size / rates.fresh for stage, size in work.items()}


def computed_steps(plan: Plan) -> int:
    """Steps that are computed, at the most."""
    steps = plan.request.steps
    known = None if plan.cache is None else plan.cache.schedule(steps)
    return steps if known is None else len(known)


def step_parts(engine: Engine, config: DiTConfig, scene: cost.Scene, rates: Rates) -> tuple[float, float]:
    """Seconds of a step that waits for no weights: for everything but attention, and for attention."""
    pace, pairs = rates.pace, cost.pair_operations(config, scene)
    if pace is None:
        step = (cost.step_operations(config, scene) - pairs) / (rates.products * engine.traits.product_share)
    else:
        tokens = scene.batch * scene.joined
        step = pace.outside.at(tokens)
        step += config.double_blocks * pace.double.at(tokens) + config.single_blocks * pace.single.at(tokens)
    return step, pairs / rates.attention


def _exchanges(setup: Setup, plan: Plan, scene: cost.Scene, links: Links, *, is_shared: bool) -> tuple[float, float]:
    """Seconds of a step that a device waits for what others send, and those that shared weights are on their way."""
    config = setup.checkpoint.configs[plan.transformer]
    sent, weights = cost.sent_bytes(config, scene, arrangement_of(setup, plan)), 0.0
    if is_shared:
        model = setup.models[plan.transformer]
        held = cost.weights(model.shapes(), model.streams(), scene.dtype)
        weights = (held.whole - held.kept) * (setup.devices - 1) / setup.devices
    return sent / links.bytes_per_second, weights / links.bytes_per_second


def _text(setup: Setup, scene: cost.Scene, rates: Rates, numbers: Mapping[str, int]) -> float:
    """Seconds for all text encoders."""
    operations, layers = 0.0, 0
    for encoder in setup.family.present(setup.checkpoint):
        config = setup.checkpoint.configs[encoder.name]
        operations += encoder.operations(config, numbers[encoder.name], scene.read * scene.batch)
        layers += encoder.layers(config)
    text = operations / (rates.products * setup.engine.traits.product_share)
    return text if rates.pace is None else text + layers * rates.pace.single.fixed


def _pictures(setup: Setup, plan: Plan, rates: Rates) -> tuple[float, float]:
    """Seconds for encoding the picture and for decoding the clip."""
    made = plan if plan.larger is None else plan.larger
    config, latent, pace = setup.checkpoint.vae, made.latent, rates.pace
    tiling = setup.checkpoint.settings.tiling if plan.request.vae_tiling else None
    tiles = decode_tiles(config, tiling, (latent.frames, latent.height, latent.width))
    is_in_slabs = setup.engine.traits.slab_numbers is not None
    costs = [decode_operations(config, tile, is_in_slabs=is_in_slabs) for tile in tiles]
    # Devices work at the same time: the one with most to do decides.
    share = max(shared_out(costs, setup.devices), key=lambda numbers: sum(costs[number] for number in numbers))
    decode = sum(costs[number] for number in share)
    shapes = [plan.shape] if plan.larger is None else [plan.shape, made.shape]
    encode = sum(encode_operations(config, (1, shape.height, shape.width)) for shape in shapes)
    if pace is None:
        products = rates.products * setup.engine.traits.product_share
        return encode / products, decode / products
    return pace.encode.at(encode), len(share) * pace.decode.fixed + pace.decode.each * decode


def _starts(rates: Rates) -> dict[str, float]:
    """What first calls take longer than later ones; nothing where this process has made them while measuring."""
    pace = rates.pace
    if pace is None or rates.is_measured_now:
        return {"encode image": 0.0, "denoise": 0.0, "decode": 0.0}
    steps = pace.outside.first + pace.double.first + pace.single.first
    return {"encode image": pace.encode.first, "denoise": steps, "decode": pace.decode.first}
