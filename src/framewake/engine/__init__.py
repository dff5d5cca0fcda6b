"""Choosing an engine by name."""

from __future__ import annotations

from framewake.engine.contract import Engine


def get(name: str = "auto") -> Engine:
    """The engine of a name such as "torch:cpu"."""
    from framewake.engine.torch import make

    kind, _, device = name.partition(":")
    return make(device or "cpu", "asked for")
