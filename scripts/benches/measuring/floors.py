"""What the machine can do, measured in the run whose floor it gives."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

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
    x = torch.randn((SIDE, SIDE), generator=torch.Generator().manual_seed(1)).to(kind)
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


def fewest_operations(*works: Callable[[], object]) -> float:
    """Operations of the work that makes fewest: a floor counts nothing that one of them does without."""
    return min(counted_operations(work) for work in works)


def counted_operations(work: Callable[[], object]) -> float:
    """Multiplications and additions of the convolutions, matrix products and attention that torch runs in some work."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False, custom_mapping=_uncounted()) as counter:
        work()
    return float(counter.get_total_flops())


def _uncounted() -> dict[Any, Callable[..., int]]:
    """What torch's own counter does not know, although it takes nearly all of the time on a CPU."""
    found: dict[Any, Callable[..., int]] = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention}
    if torch.backends.mkldnn.is_available():
        found |= {torch.ops.mkldnn._linear_pointwise: _products, torch.ops.aten.mkldnn_convolution: _products}
    return found


def _products(_x, weight, *_others, out_shape, **_named) -> int:
    """Each number that comes out is a sum over one row of the weight. Shapes: weight (O, ...)."""
    return 2 * math.prod(out_shape) * math.prod(weight[1:])


def _attention(q, k, *_others, **_named) -> int:
    """Scores and what they weigh. Shapes: q (B, A, N, E), k (B, A, M, E)."""
    return 4 * math.prod(q) * k[-2]
