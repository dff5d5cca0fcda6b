"""Noise to latents for one plan: everything around the loop of ``sampling.guide``."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from framewake.config import DiTConfig
from framewake.engine.contract import Engine, Tensor
from framewake.errors import InputError, NumericsError
from framewake.pipeline.adapters import Adapted, by_step
from framewake.pipeline.caching import Caching
from framewake.pipeline.drafts import NO_DRAFTS
from framewake.pipeline.events import Cached, Note, Step
from framewake.pipeline.group import call, division_of, led, told_clip
from framewake.pipeline.jobs import Plan
from framewake.pipeline.latents import Keeper, SavedLatents
from framewake.pipeline.messages import Lead, Message
from framewake.pipeline.parts import Parts
from framewake.pipeline.precision import Precision
from framewake.pipeline.preview import Preview
from framewake.pipeline.velocity import Condition, Wrapping
from framewake.request import Settled
from framewake.sampling import guide
from framewake.sampling.cache.step_cache import StepCache
from framewake.sampling.flow import schedule
from framewake.sampling.noise import draw, stabilised
from framewake.sampling.solvers import SOLVERS


class Denoised(NamedTuple):
    """Latents and what a step cache did: finished ones, or those after ``step`` steps where a draft is due.

    Of the latter, ``expected`` is the clip without its noise, as far as the model knows by then, and ``cache`` is what
    a step cache remembers.
    Shapes: float32 (1, C, F, H, W).
    """

    latents: np.ndarray
    cached: Cached | None
    step: int
    expected: np.ndarray | None = None
    cache: Mapping[str, np.ndarray] = {}


def initial_latents(
    engine: Engine, plan: Plan, image: Tensor | None, precision: Precision, *, config: DiTConfig
) -> Tensor:
    """Noise of the request's seed, with a trace of the picture when the request is stable.

    Shapes: -> (1, C, F, H, W). Precision: the configuration's half type in half-precision runs, else float32.
    Source: specification, section 6.2.
    """
    shape = (1, *plan.latent)
    kind = config.noise_dtype if precision.rounds_to_half else "float32"
    noise = draw_noise(engine, shape, plan.request, kind)
    if plan.request.is_stable and image is not None and config.mixes_picture:
        noise = stabilised(engine, noise, image)
    return noise


def draw_noise(engine: Engine, shape: tuple[int, ...], request: Settled, kind: Any) -> Tensor:
    """Standard normal numbers from the generator that the request names.

    Raises: InputError when torch's generator is asked for without the torch engine.
    """
    if request.rng == "philox":
        return engine.asarray(draw(shape, request.seed), kind)
    if not engine.traits.draws_as_torch:
        raise InputError(f"rng is 'torch' but the engine is {engine.name}: use --rng philox, or a torch engine.")
    return engine.draw_normal(shape, request.seed, kind)


def denoise(
    parts: Parts,
    plan: Plan,
    condition: Condition,
    *,
    precision: Precision,
    preview: Preview,
    keeper: Keeper | None = None,
    start: SavedLatents | None = None,
) -> Generator[Step | Note, None, Denoised]:
    """The loop: a ``Step`` after each; the generator's value is the finished latents on the host.

    It ends earlier behind a step with which the plan's output has a draft: saving that one is up to the caller.
    ``keeper`` saves on the way and when the generator is closed; ``start`` is what it saved of an earlier run.
    Raises: NumericsError for NaN or infinity: in any frame after the first step and before a save, else in the middle.
    Source: specification, section 6.3.
    """
    engine, request = parts.engine, plan.request
    first, latents = begun = begin(parts, plan, condition, precision, start)
    call(parts, plan, condition, precision, begun, cache={} if start is None else start.cache)
    adapted = parts.adapted(plan.transformer, plan.loras, precision.transformer)
    yield from map(Note, adapted.notes)
    steps, caching = cached_steps(parts, plan, condition, precision, adapted=adapted, begun=begun, start=start)
    loop = led(parts.lead, steps)
    drafts = NO_DRAFTS if plan.output is None else plan.output.drafts
    done, is_whole, since = first, False, time.perf_counter()
    before, due = since, tuple[Any, ...]()
    try:
        for step in loop:
            index = step.index + 1
            clean = expected_frame(engine, step)
            is_kept = keeper is not None and keeper.is_due(index) and not drafts.is_planned(index)
            is_kept = is_kept and index < request.steps
            looked_at = engine.numpy(step.latents) if index == first + 1 or is_kept else clean
            check_numbers(looked_at, index, request.steps, precision)
            done, latents = index, step.latents
            is_skipped = caching.finish_step(time.perf_counter() - before)
            if keeper is not None and is_kept:
                failure = keeper.save(done, engine.numpy(latents), cache=all_arrays(parts.lead, caching))
                yield from () if failure is None else (Note(failure),)
            now = time.perf_counter()
            left = (now - since) / (index - first) * (request.steps - index)
            yield Step(index, request.steps, now - before, left, preview(clean), is_skipped)
            before = now
            if index < request.steps and drafts.is_due(index):
                due = expected_clip(parts, step, condition), all_arrays(parts.lead, caching)
                break
        is_whole = True
    finally:
        # Stopped, closed or failed: the last good step is not lost, be it the last of all. Where another process has
        # failed in a step, its part of a step cache is: the file of an earlier step stays.
        is_lost = parts.lead.is_lost and caching.run_blocks is not None and done < request.steps
        if keeper is not None and keeper.every > 0 and keeper.step < done and not is_whole and not is_lost:
            cache = all_arrays(parts.lead, caching) if done < request.steps else None
            keeper.save(done, engine.numpy(latents), cache=cache)
        loop.close()
    finished = engine.numpy(latents)
    check_numbers(finished, done, request.steps, precision)
    return Denoised(finished, caching.report(), done, *due)


def cached_steps(
    parts: Parts,
    plan: Plan,
    condition: Condition,
    precision: Precision,
    *,
    adapted: Adapted,
    begun: tuple[int, Tensor],
    start: SavedLatents | None,
) -> tuple[Iterator[guide.SolverStep], Caching]:
    """The steps of a plan and their step cache, which goes on from what was saved."""
    caching = Caching(parts.engine, plan, adapted.uses, division=division_of(parts, plan), start=start)
    run_blocks = caching.run_blocks
    return solving(parts, plan, condition, precision, adapted=adapted, run_blocks=run_blocks, begun=begun), caching


def followed_steps(parts: Parts, message: Message) -> tuple[Iterator[guide.SolverStep], Callable[[], object]]:
    """The same in a process that follows, with its own weights; and what it does where a step cache is saved."""
    told = told_clip(parts, message)
    adapted = parts.adapted(told.plan.transformer, told.plan.loras, told.precision.transformer)
    steps, caching = cached_steps(
        parts, told.plan, told.condition, told.precision, adapted=adapted, begun=told.begun, start=told.start
    )

    def noted() -> Iterator[guide.SolverStep]:
        for step in steps:
            caching.finish_step(0.0)
            yield step

    return noted(), caching.arrays


def all_arrays(lead: Lead, caching: Caching) -> Mapping[str, np.ndarray]:
    """What a step cache remembers, put together from all processes."""
    if caching.run_blocks is None:
        return caching.arrays()
    with lead.together():
        lead.tell("keep")
        return caching.arrays()


def begin(
    parts: Parts, plan: Plan, condition: Condition, precision: Precision, start: SavedLatents | None
) -> tuple[int, Tensor]:
    """Steps that are done, and the latents after them."""
    if start is None:
        config = parts.checkpoint.configs[plan.transformer]
        return 0, initial_latents(parts.engine, plan, condition.image, precision, config=config)
    return start.step, parts.engine.asarray(start.latents, "float32")


def solving(
    parts: Parts,
    plan: Plan,
    condition: Condition,
    precision: Precision,
    *,
    adapted: Adapted,
    run_blocks: StepCache | None,
    begun: tuple[int, Tensor],
) -> Iterator[guide.SolverStep]:
    """The steps of a plan, on from those that are done and the latents after them."""
    engine, request, name = parts.engine, plan.request, plan.transformer
    config = parts.checkpoint.configs[name]
    guidance, dtype = request.embedded_guidance, precision.transformer
    levels = schedule(request.steps, request.flow_shift)
    times = [float(timestep) for timestep in levels.timesteps]
    size = (plan.latent, plan.shape.frames)
    wrapping = Wrapping(engine, config, *size, guidance=guidance, dtype=dtype, timesteps=times)
    manner = dataclasses.replace(parts.manner(name), arrangement=division_of(parts, plan).arrangement)
    transformer = functools.partial(parts.models[name], adapted.weights, run_blocks=run_blocks, manner=manner)
    velocity = wrapping.denoise(transformer, condition, scale=request.guidance_scale)
    return guide.sample(
        engine,
        by_step(velocity, adapted, start=begun[0]),
        begun[1],
        levels,
        make_solver=SOLVERS[request.solver],
        first_frame=wrapping.first_frame(condition),
        start=begun[0],
    )


def expected_frame(engine: Engine, step: guide.SolverStep) -> np.ndarray:
    """The middle frame without its noise, as far as the model knows by now. Shapes: (1, C, 1, H, W)."""
    middle = step.latents.shape[2] // 2
    velocity = engine.cast(step.velocity[:, :, middle : middle + 1], "float32")
    return engine.numpy(step.latents[:, :, middle : middle + 1] - velocity * step.sigma)


def expected_clip(parts: Parts, step: guide.SolverStep, condition: Condition) -> np.ndarray:
    """The same of all frames; a first frame that is given is there as it is. Shapes: float32 (1, C, F, H, W)."""
    engine, image = parts.engine, condition.image
    clean = step.latents - engine.cast(step.velocity, "float32") * step.sigma
    is_given = image is not None and parts.checkpoint.dit.replaces_first_frame
    return engine.numpy(guide.put_first_frame(engine, clean, image) if is_given else clean)


def check_numbers(values: np.ndarray, index: int, count: int, precision: Precision) -> None:
    """Stop a run whose numbers broke.

    Raises: NumericsError with what to try.
    """
    if np.isfinite(values).all():
        return
    broken = "NaN" if np.isnan(values).any() else "infinity"
    advice = {
        "float32": "The checkpoint is damaged, or a setting (flow shift, guidance) is extreme: try the defaults.",
        "bfloat16": "Try --precision float32; if that fails too, the checkpoint is damaged.",
        "float16": "float16 holds numbers up to 65504 only: try --precision bfloat16 or float32.",
    }[precision.name]
    raise NumericsError(f"{broken} appeared in the latents at step {index} of {count} in {precision.name}. {advice}")
