"""Two dense layers with an activation between them."""

from __future__ import annotations

from framewake.engine.contract import Engine, Tensor, Weights
from framewake.nn.linear import Activation, linear


def mlp(engine: Engine, w: Weights, names: tuple[str, str], x: Tensor, activation: Activation) -> Tensor:
    """Second layer of activation of first layer; ``names`` are the two layers' names.

    Shapes: x (..., D) -> (..., D).
    """
    return linear(engine, w, names[1], linear(engine, w, names[0], x, activation=activation))
