"""The flow-matching loss: what the transformer is told of a batch, and how far its answer is off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from framewake.config import DiTConfig
from framewake.engine.contract import Dtype, Engine, Tensor
from framewake.models.dit import TextStates
from framewake.pipeline.velocity import Condition, Wrapping
from framewake.train.batch import Batch


class FlowLoss:
    """Mean squared error of the velocity, noise minus data.

    With first-frame replacement, the frames from 1 on count; the first is given.
    Precision: noise is mixed and errors are squared in float32.
    Source: specification, section 10.3.
    """

    def __init__(self, engine: Engine, config: DiTConfig, *, guidance: float, dtype: Dtype) -> None:
        self.engine, self.config = engine, config
        self.guidance, self.dtype = guidance, dtype
        self._wrappings: dict[tuple[int, ...], Wrapping] = {}

    def __call__(self, transformer: Callable[..., Tensor], batch: Batch) -> Tensor:
        """The loss of a batch; the transformer has its weights in it already."""
        latents, told = self.told(batch)
        return self.error(transformer(latents, **told), batch)

    def told(self, batch: Batch) -> tuple[Tensor, dict[str, Any]]:
        """Noisy latents as the transformer gets them, and its other arguments by name. Shapes: (B, C, F, H, W)."""
        engine = self.engine
        sigma = engine.asarray(batch.sigma.reshape(-1, 1, 1, 1, 1))
        noisy = batch.clean * (1.0 - sigma) + batch.noise * sigma

        def listen(latents: Tensor, *, timestep: Tensor, text: TextStates, rope: Any, guidance: Any) -> Any:
            return latents, {"timestep": timestep, "text": text, "rope": rope, "guidance": guidance}

        image = batch.image if self.config.needs_picture else None
        # What is around a transformer changes what it is told, and without classic guidance not what it answers.
        denoise: Any = self._wrapping(noisy).denoise(listen, Condition(batch.text, image))
        return denoise(noisy, batch.sigma * np.float32(1000))

    def error(self, velocity: Tensor, batch: Batch) -> Tensor:
        """How far a velocity is off. Shapes: (B, C, F, H, W) -> scalar."""
        engine = self.engine
        error = engine.cast(velocity, "float32") - (batch.noise - batch.clean)
        if self.config.replaces_first_frame:
            error = error[:, :, 1:]
        return engine.mean(error * error, (0, 1, 2, 3, 4))

    def _wrapping(self, latents: Tensor) -> Wrapping:
        sizes = tuple(int(size) for size in latents.shape[1:])
        if sizes not in self._wrappings:
            frames = 4 * (sizes[1] - 1) + 1
            self._wrappings[sizes] = Wrapping(
                self.engine, self.config, sizes, frames, guidance=self.guidance, dtype=self.dtype
            )
        return self._wrappings[sizes]
