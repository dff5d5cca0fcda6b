"""GGUF files read lazily; blocks become numbers a few rows at a time, wherever weights are read.

Nothing in a header is believed before it is checked: a file that fails a check raises ``CheckpointError``.
Source: the format as ggml describes it; ComfyUI's key for shapes that it has flattened.
"""

from __future__ import annotations

import math
import os
import re
import struct
from typing import Any, NamedTuple

import numpy as np

from framewake.engine.contract import Dtype
from framewake.errors import CheckpointError
from framewake.weights.reading.gguf_blocks import KINDS, NOT_READ, READ, BlockKind
from framewake.weights.reading.lazy_file import LazyFile
from framewake.weights.reading.narrow import CHUNK, fill_from
from framewake.weights.reading.storage import STORAGE, is_addressable

_NUMBERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_TEXT, _LIST = 8, 9
_FLATTENED = "comfy.gguf.orig_shape."
MOST_DIMENSIONS = 8
KEPT_LIST = 64  # numbers; longer lists are vocabularies, which nobody asks for


class GgufEntry(NamedTuple):
    """Where a tensor lies. Units: ``start`` in bytes from the beginning of the file.

    ``heads``: of a matrix whose rows llama.cpp has put into another order within each of so many heads; 0 of others.
    """

    kind: BlockKind
    shape: tuple[int, ...]
    start: int
    size: int
    heads: int

    @property
    def dtype(self) -> str:
        """The type of the values; what lies in blocks is float32 once it is read."""
        return self.kind.name if self.kind.widen is None else "F32"


# llama.cpp turns pairs of neighbouring channels where all others turn the halves of a head.
_TURNED = {
    r"blk\.\d+\.attn_q\.(weight|bias)": "llama.attention.head_count",
    r"blk\.\d+\.attn_k\.(weight|bias)": "llama.attention.head_count_kv",
}


class GgufFile(LazyFile[GgufEntry]):
    """One GGUF file, mapped into memory.

    ``metadata`` has its texts and numbers by key, and short lists of numbers; ``architecture`` is what it says it is.
    """

    kind = "GGUF file"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self._at = 4
        version = self._number("<I")
        if version not in (2, 3):
            turned = " (it was written for a big-endian machine)" if version & 0xFFFF == 0 else ""
            raise self._damaged(f"it is of version {version}{turned}; 2 and 3 are read")
        tensors, pairs = self._number("<Q"), self._number("<Q")
        self.metadata: dict[str, Any] = {}
        for _ in range(self._count(pairs, 13)):
            key = self._text()
            self.metadata[key] = self._value(self._number("<I"))
        self.architecture = str(self.metadata.get("general.architecture", ""))
        if self.metadata.get("split.count", 1) not in (0, 1):
            raise CheckpointError(
                f"{self.path} is one of {self.metadata['split.count']} pieces: join them with "
                "`llama-gguf-split --merge`, and name the whole file."
            )
        self._entries = self._read_entries(self._count(tensors, 24))

    def stored(self, name: str) -> str:
        """A tensor's type as the file has it, such as "Q4_K"."""
        return self._entries[name].kind.name

    def raw(self, name: str) -> np.ndarray:
        """The bits of the type that ``dtype`` names."""
        entry = self._entries[name]
        if entry.kind.widen is not None:
            return self.read(name)
        bits = self._part(entry).view(STORAGE[entry.kind.name]).reshape(entry.shape)
        return bits[_order(entry)] if entry.heads else bits

    def read(self, name: str) -> np.ndarray:
        """A copy of the values; bfloat16 and blocks widened to float32."""
        entry = self._entries[name]
        if entry.kind.widen is None:
            return super().read(name)
        out = np.empty(entry.shape, np.float32)
        self.fill(name, out, "float32")
        return out

    def fill(self, name: str, out: np.ndarray, dtype: Dtype, *, first: int = 0) -> None:
        """The values from a number on into an array of a computing type, blocks a few at a time."""
        entry = self._entries[name]
        if entry.kind.widen is None:
            super().fill(name, out, dtype, first=first)
            return
        # What is turned within its heads can only be taken by rows, the rest by blocks.
        rows = _order(entry) if entry.heads else None
        blocks = self._part(entry).reshape(-1, 1, entry.kind.size)
        if rows is not None:
            blocks = blocks.reshape(len(rows), -1, entry.kind.size)
        numbers = blocks.shape[1] * entry.kind.numbers
        begin, skipped = divmod(first, numbers)
        end, step = -(-(first + out.size) // numbers), max(1, CHUNK // numbers)
        cuts = (slice(low, min(low + step, end)) for low in range(begin, end, step))
        pieces = (blocks[cut] if rows is None else blocks[rows[cut]] for cut in cuts)
        with np.errstate(invalid="ignore", over="ignore"):  # damage, which the run's own check tells of
            values = (entry.kind.widen(piece.reshape(-1, entry.kind.size)) for piece in pieces)
            fill_from(out, values, dtype, skipped=skipped)

    def start(self, name: str) -> int:
        """The byte of the file at which a tensor's bits begin."""
        return self._entries[name].start

    def _runs(self, name: str) -> tuple[tuple[int, int], ...]:
        entry = self._entries[name]
        return () if entry.heads else ((entry.start, entry.start + entry.size),)

    def _part(self, entry: GgufEntry) -> np.ndarray:
        return np.asarray(self._bytes[entry.start : entry.start + entry.size])

    def _take(self, count: int) -> bytes:
        if count > self._bytes.size - self._at:
            raise self._damaged("its header is cut off")
        self._at += count
        return self._bytes[self._at - count : self._at].tobytes()

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _count(self, claimed: int, least: int) -> int:
        """A number of things that take some bytes each."""
        if claimed * least > self._bytes.size - self._at:
            raise self._damaged(f"its header claims {claimed} things, more than the file can hold")
        return claimed

    def _text(self) -> str:
        data = self._take(self._count(self._number("<Q"), 1))
        return data.decode("utf-8", errors="replace")

    def _value(self, kind: int) -> Any:
        """The next value of the header; long lists are passed over."""
        if kind in _NUMBERS:
            return self._number(_NUMBERS[kind])
        if kind == _TEXT:
            return self._text()
        if kind != _LIST:
            raise self._damaged(f"its header has a value of the unknown type {kind}")
        inner, count = self._number("<I"), self._number("<Q")
        if inner in _NUMBERS:
            form = _NUMBERS[inner]
            data = self._take(self._count(count, struct.calcsize(form)) * struct.calcsize(form))
            return list(np.frombuffer(data, np.dtype(form)).tolist()) if count <= KEPT_LIST else None
        if inner != _TEXT:
            raise self._damaged(f"its header has a list of the type {inner}")
        for _ in range(self._count(count, 8)):
            self._at += self._count(self._number("<Q"), 1)
        return None

    def _read_entries(self, count: int) -> dict[str, GgufEntry]:
        described = [self._described() for _ in range(count)]
        alignment = self.metadata.get("general.alignment", 32)
        if type(alignment) is not int or alignment < 1:
            raise self._damaged(f"its alignment is {alignment!r}")
        first = -(-self._at // alignment) * alignment
        entries: dict[str, GgufEntry] = {}
        for name, dims, number, offset in described:
            kind = KINDS.get(number)
            if kind is None:
                what = NOT_READ.get(number, f"the unknown type {number}")
                raise CheckpointError(
                    f"{self.path}: {name!r} is stored as {what}; {', '.join(READ)} are read. Take a file of those."
                )
            numbers = math.prod(dims)
            size = numbers // kind.numbers * kind.size
            if name in entries:
                raise self._damaged(f"the name {name!r} occurs twice")
            if not is_addressable(dims) or (dims[0] if dims else 1) % kind.numbers:
                raise self._damaged(f"{name!r} has the shape {list(reversed(dims))}, which {kind.name} cannot have")
            if first + offset + size > self._bytes.size:
                raise self._damaged(f"{name!r} ends at {first + offset + size}, beyond the file")
            shape = self._shape(name, dims)
            entries[name] = GgufEntry(kind, shape, first + offset, size, self._heads(name, shape))
        return entries

    def _described(self) -> tuple[str, tuple[int, ...], int, int]:
        name, count = self._text(), self._number("<I")
        if count > MOST_DIMENSIONS:
            raise self._damaged(f"{name!r} has {count} dimensions")
        dims = tuple(self._number("<Q") for _ in range(count))
        return name, dims, self._number("<I"), self._number("<Q")

    def _shape(self, name: str, dims: tuple[int, ...]) -> tuple[int, ...]:
        """A shape in our order: the slowest axis first, and as it was before it was flattened for blocks."""
        shape = tuple(reversed(dims))
        said = self.metadata.get(_FLATTENED + name)
        if said is None:
            return shape
        if (
            not isinstance(said, list)
            or not all(type(x) is int and x > 0 for x in said)
            or math.prod(said) != math.prod(dims)
        ):
            raise self._damaged(f"{name!r} is {list(shape)} and was {said!r} before: these do not hold as many numbers")
        return tuple(said)

    def _heads(self, name: str, shape: tuple[int, ...]) -> int:
        """The heads of a matrix that llama.cpp has turned."""
        key = next((key for pattern, key in _TURNED.items() if re.fullmatch(pattern, name)), None)
        if self.architecture != "llama" or key is None:
            return 0
        heads = self.metadata.get(key, self.metadata.get("llama.attention.head_count"))
        if type(heads) is not int or heads < 1 or not shape or shape[0] % (2 * heads):
            raise self._damaged(f"its {key} is {heads!r}, which {name!r} of {list(shape)} does not fit")
        return heads


def _order(entry: GgufEntry) -> np.ndarray:
    """The rows of a file in the order of all other files."""
    return np.arange(entry.shape[0]).reshape(entry.heads, -1, 2).swapaxes(1, 2).reshape(-1)
