"""What the machine can do, measured in the run whose floor it gives."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F

SIDE = 1536  # of the square matrices: larger ones were no faster
COPIED = 1 << 28  # bytes, many times the largest cache
SECONDS = 0.6


class Ceilings(NamedTuple):
    """Units: operations a second in a matrix product, bytes a second through memory (read and written)."""

    products: float
    bandwidth: float

    def floor(self, operations: float, moved: float = 0.0) -> float:
        """Seconds below which this work cannot be done: its operations, or the bytes that it must move."""
        return max(operations / self.products, moved / self.bandwidth)


def ceilings(kind: torch.dtype) -> Ceilings:
    """The best of several runs of each."""
    x = torch.full((SIDE, SIDE), 0.5, dtype=kind)
    source = torch.ones(COPIED // 4)
    target = torch.empty_like(source)
    products = 2.0 * SIDE**3 / _best(lambda: F.linear(x, x))
    return Ceilings(products, 2.0 * COPIED / _best(lambda: target.copy_(source)))


def _best(work: Callable[[], object]) -> float:
    work()
    found, end = [], time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(found) < 3:
        begin = time.perf_counter()
        work()
        found.append(time.perf_counter() - begin)
    # The best, but not a single stroke of luck.
    return statistics.mean(sorted(found)[:2])


class CountedOperations:
    """Operations of the convolutions and matrix products inside the block, as torch runs them."""

    def __enter__(self) -> CountedOperations:
        from torch.utils.flop_counter import FlopCounterMode

        self._counter = FlopCounterMode(display=False)
        self._counter.__enter__()
        return self

    def __exit__(self, *details) -> None:
        self._counter.__exit__(*details)
        self.operations = float(self._counter.get_total_flops())
