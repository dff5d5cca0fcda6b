"""The transformer wrapped for a clip: ``denoise(latents, timestep) -> velocity``, with all else handed in.

Sampling, training and the golden runner take it from here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from framewake.config import DiTConfig
from framewake.engine.contract import Dtype, Engine, Tensor
from framewake.models.dit import TextStates
from framewake.nn.rope import rope_table
from framewake.sampling.flow import rounded_guidance
from framewake.sampling.guide import (
    Denoise,
    Timestep,
    with_first_frame,
    with_image_channels,
    with_lesser_clip,
    with_negative,
)
from framewake.shapes import LatentShape, token_grid


class Condition(NamedTuple):
    """What steers a clip. Shapes: image (1, C, 1, H, W), None for text-to-video; lesser (1, C, F, H, W).

    ``lesser``: a smaller clip, enlarged and veiled, where it becomes a larger one.
    """

    text: TextStates
    image: Tensor | None
    lesser: Tensor | None = None


class Wrapping:
    """What a transformer is told of all clips of one size: rotary positions, and the guidance it was distilled with.

    ``timesteps`` are those of all steps, for a transformer that is told where a step ends.
    """

    def __init__(
        self,
        engine: Engine,
        config: DiTConfig,
        latent: Sequence[int],
        frames: int,
        *,
        guidance: float,
        dtype: Dtype,
        timesteps: Sequence[float] = (),
    ) -> None:
        self.engine = engine
        self.config = config
        self.rope = clip_rope(engine, config, latent, frames)
        self.guidance = rounded_guidance(guidance, dtype) if config.has_guidance else None
        self.until = dict(zip(timesteps, [*timesteps[1:], 0.0], strict=True)) if config.has_next_timestep else None

    def denoise(self, transformer: Callable[..., Tensor], condition: Condition, *, scale: float = 1.0) -> Denoise:
        """The transformer, with its weights already in it, for clips with this condition.

        With a ``scale`` above 1, classic guidance: the texts are then [negative, positive], the image one.
        """
        engine, image, is_guided = self.engine, condition.image, scale > 1

        def told(latents: Tensor, timestep: Timestep) -> Tensor:
            batch = (int(latents.shape[0]),)
            more = {} if self.until is None else {"until": engine.full(batch, self.until[float(timestep)])}
            return transformer(
                latents,
                timestep=engine.full(batch, timestep) if isinstance(timestep, float) else engine.asarray(timestep),
                text=condition.text,
                guidance=None if self.guidance is None else engine.full(batch, self.guidance),
                rope=self.rope,
                **more,
            )

        function: Denoise = told
        if condition.lesser is not None:
            function = with_lesser_clip(engine, function, condition.lesser)
        if self.config.joins_picture:
            both = engine.concat([image, image], 0) if is_guided and image is not None else image
            function = with_image_channels(engine, function, both)
        if is_guided:
            function = with_negative(engine, function, scale)
        return function if self.first_frame(condition) is None else with_first_frame(engine, function, image)

    def first_frame(self, condition: Condition) -> Tensor | None:
        """What the first latent frame is at every noise level, where it is given; sampling puts it back."""
        return condition.image if self.config.replaces_first_frame else None


def clip_rope(engine: Engine, config: DiTConfig, latent: Sequence[int], frames: int) -> tuple[Tensor, Tensor]:
    """The rotary tables of a clip of so many frames. Shapes: latent (C, F, H, W) -> two (N, E) float32."""
    grid = token_grid(LatentShape(*latent), config.patch_size)
    cos, sin = rope_table(grid, config.rope_dims, config.rope_theta, frames if config.stretches_time else 1)
    return engine.asarray(cos), engine.asarray(sin)
