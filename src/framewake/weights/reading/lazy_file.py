"""Files of tensors that are mapped into memory: what is the same for every kind of them."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np

from framewake.engine.contract import Dtype
from framewake.errors import CheckpointError
from framewake.weights.reading.direct import CAN_READ, DirectFile
from framewake.weights.reading.narrow import STORED, fill
from framewake.weights.reading.storage import widen

CHUNK_BYTES = 16 * 2**20


class Entry(Protocol):
    """What a file's header says of a tensor; where its bits lie, each kind of file tells in its own way."""

    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...


E = TypeVar("E", bound=Entry)


class LazyFile(Generic[E]):
    """One file; nothing but its header is read until a tensor is asked for. A subclass fills ``_entries``.

    Raises: CheckpointError for a file that cannot be read.
    """

    kind = "file"
    advice = ""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._entries: dict[str, E] = {}
        try:
            self._bytes = np.memmap(self.path, dtype=np.uint8, mode="r")
            self._direct = DirectFile(self.path)
        except (OSError, ValueError) as error:  # an empty file cannot be mapped: ValueError
            raise CheckpointError(f"{self.path} cannot be read: {error}.") from error

    def names(self) -> tuple[str, ...]:
        """Every tensor name, in the file's order."""
        return tuple(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape, in the order of safetensors files."""
        return self._entries[name].shape

    def dtype(self, name: str) -> str:
        """The type of a tensor's values as safetensors files name it, such as "BF16"."""
        return self._entries[name].dtype

    def stored(self, name: str) -> str:
        """A tensor's type as the file has it."""
        return self.dtype(name)

    def raw(self, name: str) -> np.ndarray:
        """The bits of the type that ``dtype`` names, bfloat16 as uint16 and float8 as uint8; not copied if possible."""
        raise NotImplementedError

    def read(self, name: str) -> np.ndarray:
        """A copy of the values; bfloat16 and float8 widened to float32, which is exact."""
        return widen(self.raw(name), self.dtype(name))

    def fill(self, name: str, out: np.ndarray, dtype: Dtype, *, first: int = 0) -> None:
        """The values from a number on into an array of a computing type; what is stored in it is read unmapped."""
        stored = self.dtype(name)
        runs = self._runs(name) if CAN_READ and STORED.get(stored) == dtype else ()
        if not runs:
            fill(out, self.raw(name).reshape(-1)[first : first + out.size], stored, dtype)
            return
        flat, at = out.reshape(-1), -first
        for start, stop in runs:
            count = (stop - start) // out.itemsize
            low, high = max(at, 0), min(at + count, flat.size)
            if low < high:
                self._direct.fill(flat[low:high], start + (low - at) * out.itemsize)
            at += count

    def start(self, name: str) -> int:
        """The byte of the file at which a tensor's bits begin."""
        return self._runs(name)[0][0]

    def _runs(self, name: str) -> tuple[tuple[int, int], ...]:
        """Where a tensor's bits lie in order, from a byte to before another; () where they lie in another order."""
        raise NotImplementedError

    def _damaged(self, why: str) -> CheckpointError:
        return CheckpointError(
            f"{self.path} is not a usable {self.kind}: {why}. Its size is {self._bytes.size} bytes; "
            f"download or copy it again.{self.advice}"
        )


def check_sum(data: np.ndarray) -> int:
    """The CRC-32 of mapped bytes, some megabytes at a time."""
    crc = 0
    for start in range(0, data.size, CHUNK_BYTES):
        crc = zlib.crc32(data[start : start + CHUNK_BYTES].data, crc)
    return crc
