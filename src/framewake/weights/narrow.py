"""Numbers in the type that a device computes in, made on the host: the same bits for every engine."""

from __future__ import annotations

import numpy as np

from framewake.engine.contract import Dtype

# Types of files that are a computing type as they lie there.
STORED: dict[str, Dtype] = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
BYTES: dict[str, int] = {"float32": 4, "float16": 2, "bfloat16": 2}


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
    values = np.ascontiguousarray(values, np.float32)
    bits = values.view(np.uint32)
    rounded = (bits + ((bits >> np.uint32(16)) & np.uint32(1)) + np.uint32(0x7FFF)) >> np.uint32(16)
    found = rounded.astype(np.uint16)
    is_broken = np.isnan(values)
    if is_broken.any():  # rounding up could make infinity of it
        found[is_broken] = 0x7FC0
    return found


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    """The numbers of bfloat16 bits, exactly. Shapes: any uint16 -> the same, float32."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
