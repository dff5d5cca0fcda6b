"""MindSpore's ``.ckpt`` files read lazily and without MindSpore: a list of tensors in protobuf, which runs nothing.

A tensor of more than half a gigabyte lies in several pieces, one after another.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from framewake.errors import CheckpointError
from framewake.weights.reading.lazy_file import LazyFile, check_sum
from framewake.weights.reading.storage import STORAGE, is_addressable

TYPES = {
    "Float64": "F64", "Float32": "F32", "Float16": "F16", "BFloat16": "BF16", "Int64": "I64", "Int32": "I32",
    "Int16": "I16", "Int8": "I8", "UInt8": "U8", "Bool": "BOOL",
}  # fmt: skip
_TEXT = "str"  # a text among the tensors, such as a note of the trainer
_CHECKED = b"crc_num"  # before the check sum at the end, where one was asked for
_CHECK_BYTES = len(_CHECKED) + 10


class CkptEntry(NamedTuple):
    """Where a tensor lies: pieces from a byte to before another."""

    dtype: str
    shape: tuple[int, ...]
    pieces: tuple[tuple[int, int], ...]


class MindsporeFile(LazyFile[CkptEntry]):
    """One file that ``mindspore.save_checkpoint`` wrote, mapped into memory."""

    kind = "MindSpore checkpoint"
    advice = " Encrypted ones are not read: save it without enc_key."

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self._end = self._bytes.size
        self._has_sum = self._bytes[-_CHECK_BYTES:][: len(_CHECKED)].tobytes() == _CHECKED
        if self._has_sum:
            self._end -= _CHECK_BYTES
        for name, entry in self._tensors():
            self._entries[name] = self._joined(name, entry)
        for name, entry in self._entries.items():
            self._check(name, entry)

    def raw(self, name: str) -> np.ndarray:
        """The stored bits; copied only where they lie in pieces."""
        entry = self._entries[name]
        parts = [self._bytes[start:stop] for start, stop in entry.pieces]
        data = np.asarray(parts[0]) if len(parts) == 1 else np.concatenate(parts)
        return data.view(STORAGE[entry.dtype]).reshape(entry.shape)

    def _runs(self, name: str) -> tuple[tuple[int, int], ...]:
        return self._entries[name].pieces

    def check_sums(self) -> None:
        """Compare the whole file with its check sum, where it was written with one.

        Raises: CheckpointError when they differ.
        """
        if not self._has_sum:
            return
        if check_sum(self._bytes[: self._end]) != int.from_bytes(self._bytes[-10:].tobytes(), "big"):
            raise self._damaged("its check sum is wrong")

    def _tensors(self) -> Iterator[tuple[str, CkptEntry]]:
        """Every piece of a tensor with its name."""
        for field, value in self._fields(0, self._end):
            if field != 1 or not isinstance(value, tuple):
                raise self._damaged(f"it has the field {field} where tensors are")
            name, found = "", None
            for inner, part in self._fields(*value):
                if inner == 1 and isinstance(part, tuple):
                    name = self._text(part)
                elif inner == 2 and isinstance(part, tuple):
                    found = self._tensor(*part)
                else:
                    raise self._damaged(f"{name!r} is a map of parameters, which no model here has")
            if found is None:
                raise self._damaged(f"{name!r} has no tensor")
            if found.dtype != _TEXT:
                yield name, found

    def _tensor(self, start: int, stop: int) -> CkptEntry:
        shape: list[int] = []
        kind, place = "", (start, start)
        for field, value in self._fields(start, stop):
            if field == 1 and isinstance(value, int):
                shape.append(value)
            elif field == 2 and isinstance(value, tuple):
                kind = self._text(value)
            elif field == 3 and isinstance(value, tuple):
                place = value
        return CkptEntry(kind, tuple(shape), (place,))

    def _joined(self, name: str, piece: CkptEntry) -> CkptEntry:
        """A tensor with one more piece."""
        before = self._entries.get(name)
        if before is None:
            return piece
        if next(reversed(self._entries)) != name or before[:2] != piece[:2]:
            raise self._damaged(f"the name {name!r} occurs twice")
        return before._replace(pieces=before.pieces + piece.pieces)

    def _check(self, name: str, entry: CkptEntry) -> None:
        if entry.dtype not in TYPES:
            raise CheckpointError(f"{self.path}: {name!r} is of the type {entry.dtype!r}; {', '.join(TYPES)} are read.")
        kind, held = TYPES[entry.dtype], sum(stop - start for start, stop in entry.pieces)
        # A number without axes is written as [0].
        shape = () if entry.shape == (0,) and held else entry.shape
        if min(shape, default=0) < 0 or not is_addressable(shape) or math.prod(shape) * STORAGE[kind].itemsize != held:
            raise self._damaged(f"{name!r} of shape {list(shape)} and type {entry.dtype} has {held} bytes")
        self._entries[name] = CkptEntry(kind, shape, entry.pieces)

    def _text(self, place: tuple[int, int]) -> str:
        return self._bytes[slice(*place)].tobytes().decode("utf-8", errors="replace")

    def _fields(self, at: int, stop: int) -> Iterator[tuple[int, int | tuple[int, int]]]:
        """The fields of a message: a number, or the place of its bytes."""
        while at < stop:
            tag, at = self._number(at)
            if tag & 7 == 0:
                value, at = self._number(at)
                yield tag >> 3, value
            elif tag & 7 == 2:
                length, at = self._number(at)
                if length > stop - at:
                    raise self._damaged("a tensor ends beyond the file; it was probably cut off")
                yield tag >> 3, (at, at + length)
                at += length
            else:
                raise self._damaged(f"what stands at {at} is no field of it")

    def _number(self, at: int) -> tuple[int, int]:
        """A number of one to ten bytes, seven bits each, and where it ends."""
        value = 0
        for shift in range(0, 70, 7):
            if at >= self._end:
                break
            byte = int(self._bytes[at])
            value |= (byte & 127) << shift
            at += 1
            if byte < 128:
                return value, at
        raise self._damaged("a number in it has no end")
