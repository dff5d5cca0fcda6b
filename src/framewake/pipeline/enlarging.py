"""Super-resolution: finished latents of a clip become those of a larger one, in a few steps of another transformer.

Source: specification of 1.5, section 13.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator

import numpy as np

from framewake.engine.contract import Tensor
from framewake.models.dit import TextStates
from framewake.models.upsampler import enlarged, upsampled
from framewake.pipeline.denoise import denoise
from framewake.pipeline.drafting import Course
from framewake.pipeline.events import Note, Step
from framewake.pipeline.jobs import Plan
from framewake.pipeline.latents import SavedLatents
from framewake.pipeline.parts import Parts
from framewake.pipeline.velocity import Condition
from framewake.request import MAX_SEED
from framewake.sampling.noise import draw, veiled
from framewake.weights.checkpoint.component import UPSAMPLER


def lesser_clip(parts: Parts, plan: Plan, latents: np.ndarray) -> Tensor:
    """What the transformer of a larger clip is shown of the smaller one: enlarged, sharpened, and most of it noise.

    That noise is the seed's, from beyond the seeds that a request can have: with the same numbers as the noise that the
    steps begin with, one would tell the other. It is Philox's whatever ``rng`` says: the original's cannot be repeated.
    Shapes: latents float32 (1, C, F, h, w) -> (1, C, F, H, W).
    Precision: float32.
    """
    engine = parts.engine
    model, weights, _ = parts.get(UPSAMPLER, "float32")
    wide = enlarged(engine, engine.asarray(latents, "float32"), plan.latent.height, plan.latent.width)
    sharp = upsampled(model, weights.part(""), wide)
    noise = draw((1, *plan.latent), plan.request.seed + MAX_SEED + 1)
    return veiled(sharp, engine.asarray(noise, "float32"))


def enlarge(
    parts: Parts, course: Course, latents: np.ndarray, start: SavedLatents | None
) -> Generator[Step | Note, None, np.ndarray]:
    """The steps of a larger clip; the generator's value is its latents, which are saved.

    ``course`` and ``start``, what was saved of an earlier run, are the larger clip's, ``latents`` the smaller one's.
    Shapes: float32 (1, C, F, h, w) -> (1, C, F, H, W).
    Raises: NumericsError as ``denoise``.
    """
    plan, precision, condition, preview, keeper = course
    condition = condition._replace(lesser=lesser_clip(parts, plan, latents))
    parts.release(UPSAMPLER)
    found = yield from denoise(parts, plan, condition, precision=precision, preview=preview, keeper=keeper, start=start)
    if keeper is not None:
        failure = keeper.save(found.step, found.latents)
        yield from () if failure is None else (Note(failure),)
    return found.latents


def course_of(course: Course, plan: Plan, text: TextStates, image: Tensor | None, latents: np.ndarray) -> Course:
    """The course of a larger clip: its steps are counted behind those of the smaller one, which is saved with them.

    Each takes as long as several of the smaller one, so every one is saved, where any is.
    """
    keeper = course.keeper
    if keeper is not None:
        every, before = min(keeper.every, 1), course.plan.request.steps
        keeper = dataclasses.replace(keeper, every=every, step=0, before=before, lesser=latents)
    return course._replace(plan=plan, condition=Condition(text, image), keeper=keeper)
