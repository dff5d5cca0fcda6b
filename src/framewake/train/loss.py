"""The flow-matching loss of a transformer whose weights are seen through the trained factors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from framewake.engine.contract import Dtype, Engine, Tensor, Weights
from framewake.models.dit import DiT
from framewake.nn.rope import rope_table
from framewake.sampling import guide
from framewake.sampling.flow import rounded_guidance
from framewake.train.batch import Batch
from framewake.train.factors import Factors, Shapes
from framewake.weights.lora.view import LoraView

LossAndGradients = Callable[[Weights, Any, Batch], tuple[Tensor, Weights]]


class FlowLoss:
    """Mean squared error of the velocity, noise minus data.

    With first-frame replacement, the frames from 1 on count; the first is given.
    Source: specification, section 10.3.
    """

    def __init__(self, model: DiT, modules: Shapes, *, rank: int, alpha: float, guidance: float, dtype: Dtype) -> None:
        self.model = model
        self.engine: Engine = model.engine
        self.modules = modules
        self.rank, self.alpha = rank, alpha
        self.guidance = rounded_guidance(guidance, dtype) if model.config.has_guidance else None
        self._rope: dict[tuple[int, ...], tuple[Tensor, Tensor]] = {}

    def with_gradients(self) -> LossAndGradients:
        """(factors, store, batch) -> the loss and its gradient for every factor; the store gets none."""
        return self.engine.grad(self)

    def __call__(self, factors: Weights, store: Any, batch: Batch) -> Tensor:
        """The loss of a batch.

        Precision: noise is mixed and errors are squared in float32; between them the store's type.
        """
        engine = self.engine
        sigma = engine.asarray(batch.sigma.reshape(-1, 1, 1, 1, 1))
        noisy = batch.clean * (1.0 - sigma) + batch.noise * sigma
        velocity = engine.cast(self.velocity(self.view(factors, store), noisy, batch), "float32")
        error = velocity - (batch.noise - batch.clean)
        if self.model.config.condition == "token_replace":
            error = error[:, :, 1:]
        return engine.mean(error * error, (0, 1, 2, 3, 4))

    def view(self, factors: Weights, store: Any) -> LoraView:
        """A store's weights with the factors added, made anew for each block that is asked for."""
        adapter = Factors(self.modules, self.rank, self.alpha, factors)
        return LoraView(self.engine, store, [adapter], keeps=False)

    def velocity(self, weights: Any, noisy: Tensor, batch: Batch) -> Tensor:
        """What the transformer says about noisy latents. Shapes: (B, C, F, H, W) -> the same."""
        engine, config = self.engine, self.model.config
        times = engine.asarray(batch.sigma * np.float32(1000))

        def denoise(latents: Tensor, _timestep: float) -> Tensor:
            count = (int(latents.shape[0]),)
            return self.model(
                weights,
                latents,
                timestep=times,
                text=batch.text,
                guidance=None if self.guidance is None else engine.full(count, self.guidance),
                rope=self._rope_of(latents),
            )

        if config.condition == "latent_concat":
            return guide.with_image_channels(engine, denoise, batch.image)(noisy, 0.0)
        if config.condition == "token_replace":
            noisy = guide.with_first_frame(engine, noisy, batch.image)
        return denoise(noisy, 0.0)

    def _rope_of(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        config = self.model.config
        sizes = tuple(int(size) for size in latents.shape[2:])
        if sizes not in self._rope:
            frames, height, width = (size // step for size, step in zip(sizes, config.patch_size, strict=True))
            tables = rope_table((frames, height, width), config.rope_dims, config.rope_theta, 4 * sizes[0] - 3)
            self._rope[sizes] = tuple(self.engine.asarray(table) for table in tables)  # type: ignore[assignment]
        return self._rope[sizes]
