"""How tensors lie in a file: their types as bits, and what every reader of tensor files offers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Protocol

import numpy as np

from framewake.engine.contract import Dtype

# How each type is laid out on disk; numpy has no bfloat16 and no float8, so their bits are kept.
STORAGE: dict[str, np.dtype] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "F8_E4M3": np.dtype("u1"),
    "F8_E5M2": np.dtype("u1"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}


MOST_DIMENSIONS = 32  # numpy 1 has no more
MOST_NUMBERS = 2**59  # in bytes of eight, what numpy can address


def is_addressable(shape: tuple[int, ...] | list[int]) -> bool:
    """Whether numpy can make an array of a shape, also where a size of 0 hides a huge one."""
    return len(shape) <= MOST_DIMENSIONS and math.prod(max(size, 1) for size in shape) <= MOST_NUMBERS


class Tensors(Protocol):
    """Named tensors of one or more files; nothing but headers is read until a tensor is asked for."""

    path: Path

    def names(self) -> tuple[str, ...]:
        """Every tensor name, in the file's order."""

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape."""

    def dtype(self, name: str) -> str:
        """The type of a tensor's values by its name in ``STORAGE``."""

    def stored(self, name: str) -> str:
        """A tensor's type as it lies on the disk: that of its values, or an eight-bit or block type."""

    def raw(self, name: str) -> np.ndarray:
        """The stored bits, not copied where the file holds them as they are."""

    def read(self, name: str) -> np.ndarray:
        """A copy of the values; bfloat16 and float8 widened to float32."""

    def fill(self, name: str, out: np.ndarray, dtype: Dtype, *, first: int = 0) -> None:
        """The values from a number on, as many as a contiguous array of a computing type takes.

        Shapes: the tensor's, or what its numbers fill in order; bfloat16 as bits in uint16.
        """

    def start(self, name: str) -> int:
        """The byte of its file at which a tensor's bits begin."""


def widen(raw: np.ndarray, dtype: str) -> np.ndarray:
    """Stored bits as numbers that numpy has: bfloat16 and float8 become float32."""
    if dtype == "BF16":
        return (raw.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if dtype in ("F8_E4M3", "F8_E5M2"):
        return _float8_table(dtype)[raw]
    return np.array(raw)


def _float8_table(dtype: str) -> np.ndarray:
    """The 256 float32 values of a float8 type."""
    mantissa_bits, bias = (3, 7) if dtype == "F8_E4M3" else (2, 15)
    bits = np.arange(256)
    exponent = (bits & 127) >> mantissa_bits
    fraction = (bits & ((1 << mantissa_bits) - 1)) / (1 << mantissa_bits)
    values = np.where(exponent == 0, fraction, fraction + 1) * 2.0 ** (np.maximum(exponent, 1) - bias)
    if dtype == "F8_E4M3":  # the "fn" form: no infinity, one NaN of each sign
        values[[0x7F, 0xFF]] = np.nan
    else:
        values = np.where(exponent == 31, np.where(fraction == 0, np.inf, np.nan), values)
    return np.where(bits >= 128, -values, values).astype(np.float32)
