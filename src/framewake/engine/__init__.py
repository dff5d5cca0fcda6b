"""Choosing an engine by name."""

from __future__ import annotations

from framewake.engine.contract import Engine


def get(name: str = "auto") -> Engine:
    """The engine of a name such as "torch:cpu"."""
    from importlib import import_module

    kind, _, device = name.partition(":")
    return import_module(f"framewake.engine.{kind}").make(device or "cpu", "asked for")
