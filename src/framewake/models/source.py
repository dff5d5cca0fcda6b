"""What a model asks of whatever holds its weights; the classes that answer are in ``weights/stores/store.py``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from framewake.engine.contract import Weights

Key = tuple[str, int]  # name of a block list, number of the block


class WeightSource(Protocol):
    """Tensors by part and by block: in memory, streamed, merged or dequantised, the model cannot tell."""

    def part(self, prefix: str) -> Weights:
        """The tensors whose names start with ``prefix`` and a dot, without both; "" gives all."""

    def blocks(self, name: str, count: int | None = None) -> Iterator[Weights]:
        """The parts ``name.0``, ``name.1``, ... in order, all or the first ``count``."""


class Walkable(WeightSource, Protocol):
    """The same for whoever needs blocks in an order of his own."""

    def walk(self, order: Sequence[Key]) -> Iterator[Weights]:
        """The blocks of an order, one after another; the next walk is expected to be the same."""
