"""Weights in eight bits: one scale for each row of a matrix, applied again when the weight is read.

A file written this way has, beside ``x.weight`` in F8_E4M3 or I8, its scales in ``x.weight_scale`` (float32);
``weights/reading/views.py`` reads both as one float32 tensor, so that no store and no model knows of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

import numpy as np

from framewake.errors import CheckpointError
from framewake.weights.reading.narrow import from_bfloat16, to_bfloat16
from framewake.weights.reading.pieces import Target
from framewake.weights.reading.storage import widen

Kind = Literal["fp8", "int8"]
STORED: dict[Kind, str] = {"fp8": "F8_E4M3", "int8": "I8"}
SCALE = ".weight_scale"  # takes the place of ".weight"
LARGEST_FP8 = 448.0
LARGEST_INT8 = 127.0

# Of a transformer's blocks and a language model's layers, the large matrices; embedders, modulation, norms and the
# final layer keep their 16 bits: they are small, and every token passes through their error.
_QUANTISED = re.compile(
    r"(double_blocks\.\d+\.(img|txt)_(attn_qkv|attn_proj|mlp\.fc[12])"
    r"|single_blocks\.\d+\.linear[12]"
    r"|.*\.layers\.\d+\.(self_attn\.[a-z_]+|mlp\.[a-z_0-9]+))\.weight"
)


class Quantised(NamedTuple):
    """A matrix in eight bits. Shapes: bits (O, I) as the file holds them, scales float32 (O,)."""

    bits: np.ndarray
    scales: np.ndarray


def is_quantised(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor of ours is one that is kept in eight bits."""
    return len(shape) == 2 and _QUANTISED.fullmatch(name) is not None


def quantise(values: np.ndarray, kind: Kind) -> Quantised:
    """A matrix in eight bits, each row with its own scale; rows may be handed in a few at a time.

    An fp8 scale is a power of two, so that what comes back is exact in bfloat16 and a scale costs no accuracy.
    Shapes: values (O, I). Precision: to the nearest, ties to the even one.
    Raises: CheckpointError for NaN or infinity.
    """
    values = np.ascontiguousarray(values, np.float32)
    scales = row_scales(values, kind)
    if kind == "fp8":
        return Quantised(to_float8(values / scales[:, None]), scales)
    return Quantised(np.clip(np.rint(values / scales[:, None]), -LARGEST_INT8, LARGEST_INT8).astype(np.int8), scales)


def row_scales(values: np.ndarray, kind: Kind) -> np.ndarray:
    """The scale of each row alone. Shapes: values (O, I) -> float32 (O,).

    Raises: CheckpointError for NaN or infinity.
    """
    largest = np.abs(values).max(axis=1, initial=0.0)
    if not np.isfinite(largest).all():
        raise CheckpointError("a weight has NaN or infinity in it and cannot be stored in eight bits.")
    if kind == "fp8":
        exponents = np.ceil(np.log2(np.where(largest > 0, largest, 1.0) / LARGEST_FP8))
        return np.exp2(np.clip(exponents, -100, 100)).astype(np.float32)
    return (np.where(largest > 0, largest, 1.0) / LARGEST_INT8).astype(np.float32)


class Tally:
    """The error of many matrices, summed up while they are written."""

    def __init__(self) -> None:
        self.difference = self.power = 0.0

    @property
    def relative(self) -> float | None:
        """Difference over size, in squares; None before anything was added."""
        return None if self.power == 0 else float(np.sqrt(self.difference / self.power))

    def add(self, values: np.ndarray, stored: Quantised, kind: Kind) -> None:
        """Add rows and what became of them. Shapes: values (O, I)."""
        reference = from_bfloat16(to_bfloat16(values))
        found = from_bfloat16(to_bfloat16(dequantise(stored, kind)))
        self.difference += float(np.square(found - reference).sum(dtype=np.float64))
        self.power += float(np.square(reference).sum(dtype=np.float64))


def quantised_targets(wide: Iterable[Target], kind: Kind, *, tally: Tally) -> Iterator[Target]:
    """Float32 matrices to be written, as matrices in eight bits and their scales; rows pass a few at a time."""
    for target in wide:

        def chunks(target: Target = target) -> Iterator[np.ndarray]:
            for rows in target.chunks():
                stored = quantise(rows, kind)
                tally.add(rows, stored, kind)
                yield stored.bits

        def scales(target: Target = target) -> Iterator[np.ndarray]:
            for rows in target.chunks():
                yield row_scales(np.ascontiguousarray(rows, np.float32), kind)

        yield Target(target.name, STORED[kind], target.shape, chunks)
        yield Target(target.name.removesuffix(".weight") + SCALE, "F32", target.shape[:1], scales)


def dequantise(stored: Quantised, kind: Kind) -> np.ndarray:
    """The float32 values. Shapes: -> (O, I)."""
    return widen(stored.bits, STORED[kind]).astype(np.float32) * stored.scales[:, None]


def to_float8(values: np.ndarray) -> np.ndarray:
    """The bits of the nearest e4m3 numbers; values beyond the largest become the largest. Shapes: any -> uint8."""
    clipped = np.clip(np.asarray(values, np.float32), -LARGEST_FP8, LARGEST_FP8)
    magnitude = np.abs(clipped)
    # Below 2^-6 numbers are multiples of 2^-9; above, the mantissa has three bits.
    exponent = np.maximum(np.floor(np.log2(np.maximum(magnitude, 2.0**-20))), -6)
    step = np.exp2(exponent - 3)
    count = np.rint(magnitude / step)  # 0 to 16; 16 is the next exponent's 8
    bits = (exponent + 6).astype(np.int32) * 8 + count.astype(np.int32)
    return (bits + np.where(np.signbit(clipped), 128, 0)).astype(np.uint8)
