"""What is measured for each array, and how much it may differ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

import numpy as np

from framewake.golden.cases import Case

# "module" and "loop" are parts of the array's largest magnitude, "level" is absolute, "exact" is nothing.
Level = Literal["exact", "module", "loop", "level"]
PARTS = {"module": 3e-5, "loop": 1e-4}


class Row(NamedTuple):
    """The comparison of one array. Units: ``difference`` and ``tolerance`` in the array's own unit."""

    case: str
    array: str
    difference: float
    tolerance: float
    passed: bool


class Pair(NamedTuple):
    """What was computed and what is stored, cut to the rows that mean something."""

    array: str
    got: np.ndarray
    want: np.ndarray
    level: Level = "module"


def rows(case: Case, arrays: dict[str, np.ndarray], pairs: Iterable[Pair]) -> Iterator[Row]:
    """One row per pair, and a failed row for every stored array that nothing was computed for."""
    left = set(arrays)
    for pair in pairs:
        left.discard(pair.array)
        yield _row(case.id, pair)
    for array in sorted(left):
        yield Row(case.id, array, float("inf"), 0.0, False)


def _row(case: str, pair: Pair) -> Row:
    got, want = np.asarray(pair.got), np.asarray(pair.want)
    if got.shape != want.shape:
        return Row(case, pair.array, float("inf"), 0.0, False)
    level: Level = pair.level
    if level in PARTS and not np.issubdtype(want.dtype, np.floating):
        level = "exact"
    wide_got, wide_want = got.astype(np.float64), want.astype(np.float64)
    difference = float(np.abs(wide_got - wide_want).max(initial=0.0))
    magnitude = float(np.abs(wide_want).max(initial=0.0))
    tolerance = {"exact": 0.0, "level": 1.0}[level] if level not in PARTS else PARTS[level] * magnitude
    # NaN passes no comparison, but a stored infinity would make the tolerance infinite.
    return Row(case, pair.array, difference, tolerance, bool(np.isfinite(difference)) and difference <= tolerance)


def valid_rows(values: np.ndarray, lengths: Iterable[int]) -> np.ndarray:
    """The first lengths[i] rows of each sample, one after another. Shapes: (B, T, D) -> (sum, D)."""
    return np.concatenate([sample[:length] for sample, length in zip(values, lengths, strict=True)])
