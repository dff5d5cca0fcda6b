"""A tensor of one dialect as row ranges of another's stored tensors: nothing has to be joined to be moved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from framewake.errors import CheckpointError
from framewake.weights.reading.mapped import MappedTensors
from framewake.weights.reading.names import NameRule
from framewake.weights.reading.narrow import to_bfloat16
from framewake.weights.reading.storage import STORAGE, Tensors, widen

CHUNK_BYTES = 64 * 2**20
FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")


class Piece(NamedTuple):
    """Rows of a stored tensor, from ``first`` to before ``last``."""

    name: str
    first: int
    last: int


class Target(NamedTuple):
    """A tensor to be written: its name, type and shape, and its bits in order, in parts of bounded size."""

    name: str
    kind: str
    shape: tuple[int, ...]
    chunks: Callable[[], Iterator[np.ndarray]]


def targets(source: MappedTensors, rules: list[NameRule], kind: str | None, kept: tuple[str, ...]) -> Iterator[Target]:
    """The tensors of another dialect from a file's.

    ``kind`` is the type of all floating numbers, None leaves each as it is stored; what is not in ``kept``
    becomes bfloat16 then.
    """
    stored = {rule.ours: rule for rule in source.rules()}
    for rule in rules:
        if rule.ours not in stored:
            continue  # the caller has compared with the model; what is left out here is what nothing reads
        rows = _swapped(rule, _pieces(stored[rule.ours], source.file))
        shape = source.shape(rule.ours)
        kinds = {source.file.dtype(piece.name) for piece in rows}
        for name, part, size in _cut(rule, rows, shape):
            wanted = _kind(kinds, kind, kept)
            yield Target(name, wanted, size, _reader(source.file, part, wanted, name))


def _pieces(rule: NameRule, file: Tensors) -> list[Piece]:
    """Our tensor as rows of the file's."""
    return _swapped(rule, [Piece(name, 0, (*file.shape(name), 1)[0]) for name in rule.theirs])


def _swapped(rule: NameRule, pieces: list[Piece]) -> list[Piece]:
    if not rule.is_swapped:
        return pieces
    half = sum(piece.last - piece.first for piece in pieces) // 2
    return [*_rows(pieces, half, 2 * half), *_rows(pieces, 0, half)]


def _rows(pieces: list[Piece], first: int, last: int) -> list[Piece]:
    """Rows ``first`` to before ``last`` of pieces that lie one after another."""
    found, at = [], 0
    for piece in pieces:
        count = piece.last - piece.first
        begin, end = max(first - at, 0), min(last - at, count)
        if begin < end:
            found.append(Piece(piece.name, piece.first + begin, piece.first + end))
        at += count
    return found


def _cut(
    rule: NameRule, pieces: list[Piece], shape: tuple[int, ...]
) -> Iterator[tuple[str, list[Piece], tuple[int, ...]]]:
    """Their tensors of a rule: name, rows, shape."""
    if not rule.rows:
        yield rule.theirs[0], pieces, shape
        return
    at = 0
    for name, count in zip(rule.theirs, rule.rows, strict=True):
        yield name, _rows(pieces, at, at + count), (count, *shape[1:])
        at += count


def _kind(kinds: set[str], kind: str | None, kept: tuple[str, ...]) -> str:
    """The type to write: one for all pieces of a tensor."""
    if not kinds & set(FLOATS):
        return next(iter(kinds))
    if kind is not None:
        return kind
    if len(kinds) > 1:
        return "F32"
    (stored,) = kinds
    return stored if stored in kept else "BF16"


def _reader(file: Tensors, pieces: list[Piece], kind: str, name: str) -> Callable[[], Iterator[np.ndarray]]:
    def chunks() -> Iterator[np.ndarray]:
        for piece in pieces:
            raw, stored = file.raw(piece.name), file.dtype(piece.name)
            if not raw.shape:
                yield cast(raw, stored, kind, name)
                continue
            width = 4 * raw[:1].size or 1
            step = max(1, CHUNK_BYTES // width)
            for first in range(piece.first, piece.last, step):
                yield cast(raw[first : min(first + step, piece.last)], stored, kind, name)

    return chunks


def cast(raw: np.ndarray, stored: str, kind: str, name: str) -> np.ndarray:
    """Stored bits as bits of another type.

    Raises: CheckpointError when a number does not fit into it.
    """
    if stored == kind:
        return np.ascontiguousarray(raw)
    values = widen(raw, stored)
    with np.errstate(over="ignore"):  # told below, by name
        found = to_bfloat16(values) if kind == "BF16" else values.astype(STORAGE[kind])
    is_finite = (found & 0x7F80) != 0x7F80 if kind == "BF16" else np.isfinite(found)
    if not np.array_equal(is_finite, np.isfinite(values)):
        raise CheckpointError(f"{name} has values that {kind} cannot hold; choose a wider --dtype.")
    return found
