"""The flow-matching loss of a transformer whose weights are seen through the trained factors."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from framewake.engine.contract import Dtype, Engine, Tensor, Weights
from framewake.models.dit import DiT
from framewake.pipeline.velocity import Condition, Wrapping
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
        self.guidance, self.dtype = guidance, dtype
        self._wrappings: dict[tuple[int, ...], Wrapping] = {}

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
        if self.model.config.replaces_first_frame:
            error = error[:, :, 1:]
        return engine.mean(error * error, (0, 1, 2, 3, 4))

    def view(self, factors: Weights, store: Any) -> LoraView:
        """A store's weights with the factors added, made anew for each block that is asked for."""
        adapter = Factors(self.modules, self.rank, self.alpha, factors)
        return LoraView(self.engine, store, [adapter], keeps=False)

    def velocity(self, weights: Any, noisy: Tensor, batch: Batch) -> Tensor:
        """What the transformer says about noisy latents. Shapes: (B, C, F, H, W) -> the same."""
        transformer = functools.partial(self.model, weights)
        denoise = self._wrapping(noisy).denoise(transformer, Condition(batch.text, batch.image))
        return denoise(noisy, batch.sigma * np.float32(1000))

    def _wrapping(self, latents: Tensor) -> Wrapping:
        sizes = tuple(int(size) for size in latents.shape[1:])
        if sizes not in self._wrappings:
            frames = 4 * (sizes[1] - 1) + 1
            self._wrappings[sizes] = Wrapping(
                self.engine, self.model.config, sizes, frames, guidance=self.guidance, dtype=self.dtype
            )
        return self._wrappings[sizes]
