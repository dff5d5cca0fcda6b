"""What a model asks of whatever holds its weights; the classes that answer are in ``weights/stores/store.py``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from framewake.engine.contract import Weights


class WeightSource(Protocol):
    """Tensors by part and by block: in memory, streamed, merged or dequantised, the model cannot tell."""

    def part(self, prefix: str) -> Weights:
        """The tensors whose names start with ``prefix`` and a dot, without both; "" gives all."""

    def blocks(self, name: str, count: int | None = None) -> Iterator[Weights]:
        """The parts ``name.0``, ``name.1``, ... in order, all or the first ``count``."""
