"""Numbers in blocks that share their scales, as in GGUF files, turned into float32.

Source: the layouts of ggml's block types; the tests compare each with the ``gguf`` package, bit by bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from framewake.weights.reading.storage import STORAGE

# The sixteen values of the two IQ4 types.
_IQ4 = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)
_BITS = np.arange(8, dtype=np.uint8)


class BlockKind(NamedTuple):
    """A block type. Units: ``numbers`` and ``size`` (bytes) of one block.

    ``widen``: blocks as bytes (N, size) -> float32 (N, numbers); None where the numbers lie as they are.
    """

    name: str
    numbers: int
    size: int
    widen: Callable[[np.ndarray], np.ndarray] | None = None


def _halves(blocks: np.ndarray, at: int) -> np.ndarray:
    """The float16 at a byte of each block. Shapes: (N, size) -> float32 (N, 1)."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view("<f2").astype(np.float32)


def _nibbles(packed: np.ndarray) -> np.ndarray:
    """Low halves of bytes, then high ones. Shapes: (..., B) -> (..., 2, B)."""
    return np.stack([packed & 15, packed >> 4], axis=-2)


def _fifth(blocks: np.ndarray, at: int) -> np.ndarray:
    """32 bits of four bytes, each worth 16. Shapes: (N, size) -> (N, 32)."""
    return ((blocks[:, at : at + 4, None] >> _BITS) & 1).reshape(len(blocks), 32) << 4


def _q4_0(blocks: np.ndarray) -> np.ndarray:
    values = _nibbles(blocks[:, 2:]).reshape(len(blocks), 32)
    return _halves(blocks, 0) * (values.astype(np.float32) - 8)


def _q4_1(blocks: np.ndarray) -> np.ndarray:
    values = _nibbles(blocks[:, 4:]).reshape(len(blocks), 32)
    return _halves(blocks, 0) * values.astype(np.float32) + _halves(blocks, 2)


def _q5_0(blocks: np.ndarray) -> np.ndarray:
    values = _nibbles(blocks[:, 6:]).reshape(len(blocks), 32) | _fifth(blocks, 2)
    return _halves(blocks, 0) * (values.astype(np.float32) - 16)


def _q5_1(blocks: np.ndarray) -> np.ndarray:
    values = _nibbles(blocks[:, 8:]).reshape(len(blocks), 32) | _fifth(blocks, 4)
    return _halves(blocks, 0) * values.astype(np.float32) + _halves(blocks, 2)


def _q8_0(blocks: np.ndarray) -> np.ndarray:
    return _halves(blocks, 0) * blocks[:, 2:].view(np.int8).astype(np.float32)


def _pairs(packed: np.ndarray) -> np.ndarray:
    """Two bits each: of every 32 bytes, first the lowest two of all. Shapes: (N, 64) -> (N, 256)."""
    groups = packed.reshape(len(packed), 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8)[:, None]
    return (groups & 3).reshape(len(packed), 256)


def _q2_k(blocks: np.ndarray) -> np.ndarray:
    scales = blocks[:, :16]
    values = _pairs(blocks[:, 16:80]).reshape(len(blocks), 16, 16).astype(np.float32)
    factor = _halves(blocks, 80) * (scales & 15).astype(np.float32)
    offset = _halves(blocks, 82) * (scales >> 4).astype(np.float32)
    return (factor[..., None] * values - offset[..., None]).reshape(len(blocks), 256)


def _q3_k(blocks: np.ndarray) -> np.ndarray:
    high = (blocks[:, None, :32] >> _BITS[:, None]) & 1  # (N, 8, 32): a bit that is not set takes 4 away
    values = _pairs(blocks[:, 32:96]).astype(np.int8) - ((high ^ 1) << 2).astype(np.int8).reshape(len(blocks), 256)
    packed = blocks[:, 96:108]
    low = np.concatenate([packed[:, :8] & 15, packed[:, :8] >> 4], axis=1)
    top = (packed[:, None, 8:] >> np.array([0, 2, 4, 6], np.uint8)[:, None]) & 3
    scales = (low | (top.reshape(len(blocks), 16) << 4)).astype(np.int8) - 32
    factor = _halves(blocks, 108) * scales.astype(np.float32)
    return (factor[..., None] * values.reshape(len(blocks), 16, 16).astype(np.float32)).reshape(len(blocks), 256)


def _six_bits(packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eight scales and eight offsets of six bits. Shapes: (N, 12) -> two float32 (N, 8, 1)."""
    first, second, third = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate([first & 63, (third & 15) | ((first >> 6) << 4)], axis=1)
    offsets = np.concatenate([second & 63, (third >> 4) | ((second >> 6) << 4)], axis=1)
    return scales[..., None].astype(np.float32), offsets[..., None].astype(np.float32)


def _q4_k(blocks: np.ndarray) -> np.ndarray:
    scales, offsets = _six_bits(blocks[:, 4:16])
    values = _nibbles(blocks[:, 16:].reshape(len(blocks), 4, 32)).reshape(len(blocks), 8, 32)
    return _spread(blocks, scales, offsets, values)


def _q5_k(blocks: np.ndarray) -> np.ndarray:
    scales, offsets = _six_bits(blocks[:, 4:16])
    high = ((blocks[:, None, 16:48] >> _BITS[:, None]) & 1) << 4
    values = _nibbles(blocks[:, 48:].reshape(len(blocks), 4, 32)).reshape(len(blocks), 8, 32) | high
    return _spread(blocks, scales, offsets, values)


def _spread(blocks: np.ndarray, scales: np.ndarray, offsets: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values between an offset and a scale of their group, both times the block's own two numbers."""
    factor, offset = _halves(blocks, 0)[..., None] * scales, _halves(blocks, 2)[..., None] * offsets
    return (factor * values.astype(np.float32) - offset).reshape(len(blocks), 256)


def _q6_k(blocks: np.ndarray) -> np.ndarray:
    low = _nibbles(blocks[:, :128].reshape(len(blocks), 2, 64)).reshape(len(blocks), 256)
    high = _pairs(blocks[:, 128:192]) << 4
    values = (low | high).astype(np.int8) - 32
    factor = _halves(blocks, 208) * blocks[:, 192:208].view(np.int8).astype(np.float32)
    return (factor[..., None] * values.reshape(len(blocks), 16, 16).astype(np.float32)).reshape(len(blocks), 256)


def _iq4_nl(blocks: np.ndarray) -> np.ndarray:
    return _halves(blocks, 0) * _IQ4[_nibbles(blocks[:, 2:]).reshape(len(blocks), 32)]


def _iq4_xs(blocks: np.ndarray) -> np.ndarray:
    top = np.ascontiguousarray(blocks[:, 2:4]).view("<u2") >> np.arange(0, 16, 2, dtype=np.uint16)
    low = np.stack([blocks[:, 4:8] & 15, blocks[:, 4:8] >> 4], axis=-1).reshape(len(blocks), 8)
    scales = (low | ((top & 3) << 4)).astype(np.float32) - 32
    values = _IQ4[_nibbles(blocks[:, 8:].reshape(len(blocks), 8, 16)).reshape(len(blocks), 8, 32)]
    return ((_halves(blocks, 0) * scales)[..., None] * values).reshape(len(blocks), 256)


# By the numbers that stand in a file.
KINDS: dict[int, BlockKind] = {
    0: BlockKind("F32", 1, 4),
    1: BlockKind("F16", 1, 2),
    2: BlockKind("Q4_0", 32, 18, _q4_0),
    3: BlockKind("Q4_1", 32, 20, _q4_1),
    6: BlockKind("Q5_0", 32, 22, _q5_0),
    7: BlockKind("Q5_1", 32, 24, _q5_1),
    8: BlockKind("Q8_0", 32, 34, _q8_0),
    10: BlockKind("Q2_K", 256, 84, _q2_k),
    11: BlockKind("Q3_K", 256, 110, _q3_k),
    12: BlockKind("Q4_K", 256, 144, _q4_k),
    13: BlockKind("Q5_K", 256, 176, _q5_k),
    14: BlockKind("Q6_K", 256, 210, _q6_k),
    20: BlockKind("IQ4_NL", 32, 18, _iq4_nl),
    23: BlockKind("IQ4_XS", 256, 136, _iq4_xs),
    24: BlockKind("I8", 1, 1),
    25: BlockKind("I16", 1, 2),
    26: BlockKind("I32", 1, 4),
    27: BlockKind("I64", 1, 8),
    28: BlockKind("F64", 1, 8),
    30: BlockKind("BF16", 1, 2),
}
# Named where they are met; their numbers need tables of a thousand entries each, or belong to no weights.
NOT_READ = {
    9: "Q8_1", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 21: "IQ3_S", 22: "IQ2_S",
    29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4",
}  # fmt: skip
READ = tuple(kind.name for kind in KINDS.values())
_SIZES = {kind.name: kind for kind in KINDS.values() if kind.widen is not None}


def bytes_of(stored: str, numbers: int) -> int:
    """Bytes on the disk of so many numbers in a type of any file."""
    kind = _SIZES.get(stored)
    return numbers * STORAGE[stored].itemsize if kind is None else numbers // kind.numbers * kind.size
