"""A dense layer whose weights are looked up by name."""

from __future__ import annotations

from framewake.engine.contract import Engine, Tensor, Weights


def linear(engine: Engine, w: Weights, name: str, x: Tensor) -> Tensor:
    """x through the layer ``name``, whose tensors are ``name.weight`` and ``name.bias``.

    Shapes: x (..., I) -> (..., O).
    """
    return engine.linear(x, w[name + ".weight"], w[name + ".bias"])
