"""Random weights in any shape and almost at once: one block of random numbers, cut again for each tensor.

A matrix has standard deviation 1 / sqrt(inputs), to the nearest power of two, so that activations neither grow nor
vanish; weights of norms are 1, biases 0. The same seed gives the same numbers everywhere.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterator, Mapping

import numpy as np

from framewake.engine.contract import Dtype, Engine, Tensor
from framewake.weights.reading.mapped import Empty
from framewake.weights.reading.narrow import from_bfloat16, narrowed, to_bfloat16
from framewake.weights.reading.pieces import Target

Shapes = Mapping[str, tuple[int, ...]]

ELEMENTS = 1 << 25  # 64 MiB in bfloat16
SMALLEST = 2.0**-20  # with nothing smaller, halving is one subtraction from the bits
SPAN = 1 << 22  # positions in the block at which a tensor may begin


class RandomWeights:
    """Hands out the tensors of a model; a file or a device may be larger than memory, the block never is."""

    def __init__(self, seed: int = 1, *, elements: int = ELEMENTS) -> None:
        values = np.random.default_rng(seed).standard_normal(elements, dtype=np.float32)
        tiny = np.abs(values) < SMALLEST
        values[tiny] = SMALLEST
        self._bits = {(0, "BF16"): to_bfloat16(values)}

    def chunks(self, name: str, shape: tuple[int, ...], kind: str = "BF16") -> Iterator[np.ndarray]:
        """A tensor's stored bits in order. Shapes: each chunk (n,), uint16 for BF16, float16 for F16."""
        count = math.prod(shape)
        if len(shape) < 2:
            value = 1.0 if name.endswith("weight") else 0.0
            yield _stored(to_bfloat16(np.full(count, value, np.float32)), kind)
            return
        block = self._block(round(math.log2(math.prod(shape[1:])) / 2), kind)
        start = zlib.crc32(name.encode()) % min(SPAN, len(block))
        while count > 0:
            piece = block[start : start + count]
            yield piece
            count, start = count - len(piece), 0

    def bits(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """A whole tensor in bfloat16. Shapes: uint16 of the shape."""
        found = np.empty(math.prod(shape), np.uint16)
        at = 0
        for piece in self.chunks(name, shape):
            found[at : at + len(piece)] = piece
            at += len(piece)
        return found.reshape(shape)

    def targets(self, shapes: Shapes, kind: str = "BF16") -> list[Target]:
        """The tensors as ``weights/writing/files.py`` writes them to a file."""
        return [
            Target(name, kind, tuple(shape), lambda name=name, shape=shape: self.chunks(name, shape, kind))
            for name, shape in shapes.items()
        ]

    def _block(self, halvings: int, kind: str) -> np.ndarray:
        """The block times 2^-halvings: in bfloat16 that is one less in the exponent for each."""
        if (halvings, kind) not in self._bits:
            bits = self._bits[0, "BF16"] - np.uint16(halvings << 7)
            self._bits[halvings, kind] = _stored(bits, kind)
        return self._bits[halvings, kind]


class HostTensors:
    """A model's random weights in the host's memory, for ``Resident`` and ``Streamed`` alike.

    All blocks of a kind have the same numbers, which are made and kept once.

    Precision: bfloat16 as uint16 bits; other types are made when they are asked for.
    """

    def __init__(self, shapes: Shapes, *, seed: int = 1, elements: int = ELEMENTS) -> None:
        made = RandomWeights(seed, elements=elements)
        self._kinds = {name: (re.sub(r"\.\d+(?=\.)", "", name), tuple(shape)) for name, shape in shapes.items()}
        self._arrays = {kind: made.bits(*kind) for kind in dict.fromkeys(self._kinds.values())}

    @property
    def bytes_held(self) -> int:
        """Bytes that are kept."""
        return sum(array.nbytes for array in self._arrays.values())

    def values(self, name: str, dtype: Dtype, *, empty: Empty | None = None) -> np.ndarray:
        """A tensor as ``engine.asarray`` takes it; in bfloat16 not copied, so that ``empty`` is not needed."""
        array = self._arrays[self._kinds[name]]
        return array if dtype == "bfloat16" else narrowed(from_bfloat16(array), dtype)

    def placed(self, engine: Engine, dtype: Dtype) -> dict[str, Tensor]:
        """All tensors on the device: each of a kind is copied there from the first."""
        names = {kind: name for name, kind in self._kinds.items()}
        first = {kind: engine.asarray(self.values(name, dtype), dtype) for kind, name in names.items()}
        return {name: first[kind] if names[kind] == name else first[kind] * 1 for name, kind in self._kinds.items()}


def _stored(bits: np.ndarray, kind: str) -> np.ndarray:
    return bits if kind == "BF16" else from_bfloat16(bits).astype({"F16": np.float16, "F32": np.float32}[kind])
