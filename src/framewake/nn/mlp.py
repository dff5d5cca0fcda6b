"""Two dense layers with an activation between them."""

from __future__ import annotations

from typing import Literal

from framewake.engine.contract import Engine, Tensor, Weights
from framewake.nn.linear import linear

Activation = Literal["silu", "gelu_tanh"]


def mlp(engine: Engine, w: Weights, names: tuple[str, str], x: Tensor, activation: Activation) -> Tensor:
    """Second layer of activation of first layer; ``names`` are the two layers' names.

    Shapes: x (..., D) -> (..., D).
    """
    x = linear(engine, w, names[0], x)
    x = engine.silu(x) if activation == "silu" else engine.gelu(x, "tanh")
    return linear(engine, w, names[1], x)
