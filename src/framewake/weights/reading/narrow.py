"""Numbers in the type that a device computes in, made on the host: the same bits for every engine."""

from __future__ import annotations

import functools
from collections.abc import Iterable

import numpy as np

from framewake.engine.contract import Dtype
from framewake.weights.reading.storage import STORAGE, widen

# Types of files that are a computing type as they lie there.
STORED: dict[str, Dtype] = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
BYTES: dict[str, int] = {"float32": 4, "float16": 2, "bfloat16": 2}
BITS: dict[str, np.dtype] = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(np.uint16),
}
_WHOLE = ("I16", "I8", "U8", "BOOL")  # no floating numbers
CHUNK = 1 << 16  # numbers at a time: what is made on the way stays in the cache, and small


def narrowed(values: np.ndarray, dtype: Dtype) -> np.ndarray:
    """Values in a type, bfloat16 as its bits in uint16.

    Precision: to the nearest, ties to the even one.
    """
    if dtype == "bfloat16":
        return to_bfloat16(values)
    with np.errstate(over="ignore"):  # beyond float16 lies infinity; the run's own check tells of it
        return np.asarray(values, dtype)


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """The bits of the nearest bfloat16 numbers. Shapes: any -> the same, uint16."""
    shape = np.shape(values)
    values = np.ascontiguousarray(values, np.float32)  # which has an axis at least
    bits = values.view(np.uint32)
    rounded = (bits + ((bits >> np.uint32(16)) & np.uint32(1)) + np.uint32(0x7FFF)) >> np.uint32(16)
    found = rounded.astype(np.uint16)
    is_broken = np.isnan(values)
    if is_broken.any():  # rounding up could make infinity of it
        found[is_broken] = 0x7FC0
    return found.reshape(shape)


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    """The numbers of bfloat16 bits, exactly. Shapes: any uint16 -> the same, float32."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def fill(out: np.ndarray, raw: np.ndarray, stored: str, dtype: Dtype) -> None:
    """Stored bits into an array of a computing type, a few at a time, so that nothing large is made on the way.

    Shapes: out contiguous, in ``BITS[dtype]``; raw of as many numbers.
    Precision: as ``narrowed``.
    """
    target, source = out.reshape(-1), raw.reshape(-1)
    if STORED.get(stored) == dtype:
        target[...] = source
        return
    table = _table(stored, dtype) if STORAGE[stored].itemsize <= 2 and stored not in _WHOLE else None
    for first in range(0, len(source), CHUNK):
        piece = source[first : first + CHUNK]
        if table is None:
            target[first : first + CHUNK] = narrowed(widen(piece, stored), dtype)
        else:
            index: np.ndarray = piece.view(np.uint16 if piece.itemsize == 2 else np.uint8)
            np.take(table, index, out=target[first : first + CHUNK], mode="clip")


def fill_from(out: np.ndarray, pieces: Iterable[np.ndarray], dtype: Dtype, *, skipped: int) -> None:
    """Values that come one after another into an array, without the first so many and what goes beyond its end.

    Shapes: out contiguous, in ``BITS[dtype]``.
    Precision: as ``narrowed``.
    """
    flat, at = out.reshape(-1), -skipped
    for piece in pieces:
        values, low = piece.reshape(-1), max(at, 0)
        high = min(at + values.size, flat.size)
        flat[low:high] = narrowed(values[low - at : high - at], dtype)
        at += values.size


@functools.lru_cache(maxsize=16)
def _table(stored: str, dtype: Dtype) -> np.ndarray:
    """What every bit pattern of a type of 8 or 16 bits becomes: looking it up is quicker than computing it."""
    kind = STORAGE[stored]
    patterns = np.arange(1 << (8 * kind.itemsize), dtype=np.uint16 if kind.itemsize == 2 else np.uint8)
    return narrowed(widen(patterns.view(kind), stored), dtype)
