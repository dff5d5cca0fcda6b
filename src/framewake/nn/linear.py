"""A dense layer whose weights are looked up by name."""

from __future__ import annotations

from typing import Literal

from framewake.engine.contract import Engine, Tensor, Weights

Activation = Literal["silu", "gelu_tanh"]


def linear(engine: Engine, w: Weights, name: str, x: Tensor, *, activation: Activation | None = None) -> Tensor:
    """x through the layer ``name``, whose tensors are ``name.weight`` and ``name.bias``, and an activation.

    Shapes: x (..., I) -> (..., O).
    """
    return engine.linear(x, w[name + ".weight"], w[name + ".bias"], activation)
