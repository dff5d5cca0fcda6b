"""From noise to latents: wrappers around ``denoise(latents, timestep) -> velocity`` and the loop over steps.

A wrapper takes a denoise function and gives one; what it does is invisible to the transformer inside
and to the loop outside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from framewake.engine.contract import Engine, Tensor
from framewake.sampling.flow import Schedule
from framewake.sampling.solvers import Euler, Solver

Timestep = float | np.ndarray  # one for all samples, or one for each
Denoise = Callable[[Tensor, Timestep], Tensor]


LESSER_UNTIL = 700.0  # the timestep below which the smaller clip is not shown any more


class SolverStep(NamedTuple):
    """One finished step; ``index`` counts from 0, ``sigma`` is the noise that is left.

    Shapes: latents and velocity (B, C, F, H, W).
    """

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    latents: Tensor
    velocity: Tensor
    sigma: float


def with_negative(engine: Engine, denoise: Denoise, scale: float) -> Denoise:
    """Classic guidance: away from the negative text, towards the positive one.

    The wrapped function gets every sample twice and must hold the texts as [negative, positive].
    Source: specification, section 3.6.
    """

    def guided(latents: Tensor, timestep: Timestep) -> Tensor:
        count = latents.shape[0]
        both = denoise(engine.concat([latents, latents], 0), timestep)
        negative, positive = both[:count], both[count:]
        return negative + (positive - negative) * scale

    return guided


def with_image_channels(engine: Engine, denoise: Denoise, image: Tensor | None) -> Denoise:
    """The image latent as further input channels: latents, image in frame 0, mask of frame 0; zeros without one.

    Inside ``with_negative`` the image is doubled like the latents; around it, it is not.
    Shapes: image (B, C, 1, H, W); the wrapped function gets (B, 2 * C + 1, F, H, W).
    Source: specification, section 4.8.
    """
    if image is None:

        def alone(latents: Tensor, timestep: Timestep) -> Tensor:
            batch, channels, *sizes = latents.shape
            nothing = engine.zeros((batch, channels + 1, *sizes), engine.dtype(latents))
            return denoise(engine.concat([latents, nothing], 1), timestep)

        return alone
    batch, _, _, height, width = image.shape
    mask = engine.full((batch, 1, 1, height, width), 1.0, engine.dtype(image))
    first_frame = engine.concat([image, mask], 1)

    def conditioned(latents: Tensor, timestep: Timestep) -> Tensor:
        channels = engine.pad(first_frame, ((0, latents.shape[2] - 1), (0, 0), (0, 0)))
        return denoise(engine.concat([latents, engine.cast(channels, engine.dtype(latents))], 1), timestep)

    return conditioned


def with_lesser_clip(engine: Engine, denoise: Denoise, clip: Tensor) -> Denoise:
    """The latents of a smaller clip, enlarged, as the last input channels, with a mask; zeros in the last steps.

    Shapes: clip (B, C, F, H, W); the wrapped function gets C + 1 channels more.
    Source: specification of 1.5, section 13.
    """
    batch, _, *sizes = clip.shape
    channels = engine.concat([clip, engine.full((batch, 1, *sizes), 1.0, engine.dtype(clip))], 1)
    nothing = engine.zeros(channels.shape, engine.dtype(clip))

    def conditioned(latents: Tensor, timestep: Timestep) -> Tensor:
        shown = channels if float(np.max(timestep)) >= LESSER_UNTIL else nothing
        return denoise(engine.concat([latents, engine.cast(shown, engine.dtype(latents))], 1), timestep)

    return conditioned


def with_first_frame(engine: Engine, denoise: Denoise, image: Tensor) -> Denoise:
    """Latents whose first frame is the image latent, whatever comes in. Shapes: image (B, C, 1, H, W)."""

    def given(latents: Tensor, timestep: Timestep) -> Tensor:
        return denoise(put_first_frame(engine, latents, image), timestep)

    return given


def put_first_frame(engine: Engine, latents: Tensor, image: Tensor) -> Tensor:
    """Latents whose first frame is the image latent. Shapes: (B, C, F, H, W), (B, C, 1, H, W)."""
    image = engine.cast(image, engine.dtype(latents))
    return image if latents.shape[2] == 1 else engine.concat([image, latents[:, :, 1:]], 2)


def sample(
    engine: Engine,
    denoise: Denoise,
    latents: Tensor,
    schedule: Schedule,
    *,
    make_solver: Callable[[Engine, Schedule], Solver] = Euler,
    first_frame: Tensor | None = None,
    start: int = 0,
) -> Iterator[SolverStep]:
    """Steps along the schedule, one per item; closing the iterator cancels the run.

    ``first_frame`` (B, C, 1, H, W) replaces the first latent frame after each step, so that this frame is never
    stepped; ``with_first_frame`` shows it to the model. With ``start`` steps done before, ``latents`` are theirs.
    Shapes: latents (B, C, F, H, W). Precision: latents are float32 from the first step on.
    Source: specification, section 6.3.
    """
    solve = make_solver(engine, schedule)
    for index in range(start, len(schedule.timesteps)):
        velocity = denoise(latents, float(schedule.timesteps[index]))
        latents = solve(index, latents, velocity)
        if first_frame is not None:
            latents = put_first_frame(engine, latents, first_frame)
        yield SolverStep(index, latents, velocity, float(schedule.sigmas[index + 1]))
