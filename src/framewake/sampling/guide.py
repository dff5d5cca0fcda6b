"""From noise to latents: wrappers around ``denoise(latents, timestep) -> velocity`` and the loop over steps.

A wrapper takes a denoise function and gives one; what it does is invisible to the transformer inside
and to the loop outside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from framewake.engine.contract import Engine, Tensor
from framewake.sampling.flow import Schedule, euler_step

Denoise = Callable[[Tensor, float], Tensor]


class EulerStep(NamedTuple):
    """One finished step. Shapes: latents and velocity (B, C, F, H, W); ``index`` counts from 0."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    latents: Tensor
    velocity: Tensor


def denoiser(
    engine: Engine,
    transformer: Callable[..., Tensor],
    weights: Any,
    *,
    text: Any,
    rope: tuple[Tensor, Tensor],
    guidance: float | None = None,
    run_blocks: Callable[..., Tensor] | None = None,
) -> Denoise:
    """The transformer with everything that stays the same between steps already handed in.

    Units: ``guidance`` as ``flow.rounded_guidance`` gives it.
    """

    def denoise(latents: Tensor, timestep: float) -> Tensor:
        batch = (latents.shape[0],)
        return transformer(
            weights,
            latents,
            timestep=engine.full(batch, timestep),
            text=text,
            guidance=None if guidance is None else engine.full(batch, guidance),
            rope=rope,
            run_blocks=run_blocks,
        )

    return denoise


def with_negative(engine: Engine, denoise: Denoise, scale: float) -> Denoise:
    """Classic guidance: away from the negative text, towards the positive one.

    The wrapped function gets every sample twice and must hold the texts as [negative, positive].
    Source: specification, section 3.6.
    """

    def guided(latents: Tensor, timestep: float) -> Tensor:
        count = latents.shape[0]
        both = denoise(engine.concat([latents, latents], 0), timestep)
        negative, positive = both[:count], both[count:]
        return negative + (positive - negative) * scale

    return guided


def with_image_channels(engine: Engine, denoise: Denoise, image: Tensor) -> Denoise:
    """The image latent as further input channels: latents, image in frame 0, mask of frame 0.

    Inside ``with_negative`` the image is doubled like the latents; around it, it is not.
    Shapes: image (B, C, 1, H, W); the wrapped function gets (B, 2 * C + 1, F, H, W).
    Source: specification, section 4.8.
    """
    batch, _, _, height, width = image.shape
    mask = engine.full((batch, 1, 1, height, width), 1.0, engine.dtype(image))
    first_frame = engine.concat([image, mask], 1)

    def conditioned(latents: Tensor, timestep: float) -> Tensor:
        channels = engine.pad(first_frame, ((0, latents.shape[2] - 1), (0, 0), (0, 0)))
        return denoise(engine.concat([latents, engine.cast(channels, engine.dtype(latents))], 1), timestep)

    return conditioned


def with_first_frame(engine: Engine, latents: Tensor, image: Tensor) -> Tensor:
    """Latents whose first frame is the image latent. Shapes: (B, C, F, H, W), (B, C, 1, H, W)."""
    image = engine.cast(image, engine.dtype(latents))
    return image if latents.shape[2] == 1 else engine.concat([image, latents[:, :, 1:]], 2)


def sample(
    engine: Engine,
    denoise: Denoise,
    latents: Tensor,
    schedule: Schedule,
    *,
    first_frame: Tensor | None = None,
    start: int = 0,
) -> Iterator[EulerStep]:
    """Euler steps along the schedule, one per item; closing the iterator cancels the run.

    ``first_frame`` (B, C, 1, H, W) replaces the first latent frame before the model sees it and after
    each step, so that this frame is never stepped. With ``start`` steps done before, ``latents`` are theirs.
    Shapes: latents (B, C, F, H, W). Precision: latents are float32 from the first step on.
    Source: specification, section 6.3.
    """
    for index in range(start, len(schedule.timesteps)):
        if first_frame is not None:
            latents = with_first_frame(engine, latents, first_frame)
        velocity = denoise(latents, float(schedule.timesteps[index]))
        latents = euler_step(engine, latents, velocity, schedule.sigmas[index], schedule.sigmas[index + 1])
        if first_frame is not None:
            latents = with_first_frame(engine, latents, first_frame)
        yield EulerStep(index, latents, velocity)
