"""Pairs of factors cut along the rows of a fused layer, and joined again."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from framewake.weights.lora.file import Lora
from framewake.weights.lora.targets import Place
from framewake.weights.lora.updates import WeightUpdate
from framewake.weights.reading.storage import widen


class FactorPiece(NamedTuple):
    """A pair for the rows from ``start`` to ``stop`` of one of our weights, in our order.

    ``up`` and ``down`` are stored bits of the type ``kind``; ``alpha`` None means the rank. ``magnitude`` are those
    of DoRA in float32, by row or by column.
    Shapes: up (rows, rank, ...), down (rank, columns, ...), magnitude (rows, 1) or (1, columns).
    """

    start: int
    stop: int
    up: np.ndarray
    down: np.ndarray
    kind: str
    alpha: float | None
    magnitude: np.ndarray | None = None

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    def factor(self) -> float:
        """What the product is multiplied with."""
        return 1.0 if self.alpha is None else self.alpha / self.rank


def pieces_of(lora: Lora, updates: Sequence[WeightUpdate]) -> list[FactorPiece]:
    """The updates of one weight as pieces, in the order of their rows."""
    return [_piece(lora, update) for update in updates]


def joined(pieces: Sequence[FactorPiece], rows: int) -> FactorPiece:
    """One pair for a whole weight of so many rows.

    Pieces that share their down factor share it again; others become blocks, with zeros in between.
    """
    first = pieces[0]
    if len(pieces) > 1 and first.magnitude is not None:  # by row, or it could not be joined
        magnitude = np.concatenate([piece.magnitude for piece in pieces if piece.magnitude is not None])
        return joined([piece._replace(magnitude=None) for piece in pieces], rows)._replace(magnitude=magnitude)
    covers = [first.start == 0, pieces[-1].stop == rows]
    covers += [before.stop == after.start for before, after in itertools.pairwise(pieces)]
    if all(covers) and all(_is_same_down(first, piece) for piece in pieces):
        return first._replace(start=0, stop=rows, up=np.concatenate([piece.up for piece in pieces]))
    factors = [piece.factor() for piece in pieces]
    has_one_factor = len(set(factors)) == 1
    if len({piece.kind for piece in pieces}) > 1 or not has_one_factor:
        pieces = [_float32(piece, 1.0 if has_one_factor else piece.factor()) for piece in pieces]
    rank = sum(piece.rank for piece in pieces)
    up = np.zeros((rows, rank), pieces[0].up.dtype)
    column = 0
    for piece in pieces:
        up[piece.start : piece.stop, column : column + piece.rank] = piece.up
        column += piece.rank
    alpha = None if not has_one_factor or first.alpha is None else factors[0] * rank
    return FactorPiece(0, rows, up, np.concatenate([piece.down for piece in pieces]), pieces[0].kind, alpha)


def split(piece: FactorPiece, places: Sequence[tuple[str, Place]]) -> dict[str, FactorPiece]:
    """The parts of a piece that lie in the given places, by name; swapped where the place is.

    Where every part uses columns of its own, each keeps only these: the inverse of joining by blocks.
    """
    parts = {}
    for name, place in places:
        if piece.start <= place.start and place.stop <= piece.stop:
            up = piece.up[place.start - piece.start : place.stop - piece.start]
            own = piece.magnitude
            if own is not None and own.shape[1] == 1:
                own = _swapped(own[place.start - piece.start : place.stop - piece.start], place)
            parts[name] = FactorPiece(
                place.start, place.stop, _swapped(up, place), piece.down, piece.kind, piece.alpha, own
            )
    if len(parts) > 1:
        # Zero has only zero bits in every type that a factor comes in, but for its sign.
        used = {name: np.any(_values(part) != 0, axis=0) for name, part in parts.items()}
        if np.sum(list(used.values()), axis=0).max() == 1:
            parts = {name: _narrowed(parts[name], columns) for name, columns in used.items() if columns.any()}
    return parts


def _piece(lora: Lora, update: WeightUpdate) -> FactorPiece:
    file = lora.tensors
    up, down = update.keys["up"], update.keys["down"]
    kinds = {file.dtype(up), file.dtype(down)}  # type: ignore[attr-defined]  # a conversion reads a file
    alpha = None if update.alpha is None else update.factor() * update.rank
    if alpha is not None and not update.has_root_rank:
        alpha = update.alpha
    if len(kinds) == 1 and kinds <= {"F32", "F16", "BF16"}:
        values, kind = (file.raw(up), file.raw(down)), kinds.pop()  # type: ignore[attr-defined]
    else:
        values, kind = (file.read(up).astype(np.float32), file.read(down).astype(np.float32)), "F32"
    place = update.place
    magnitude = lora.part(update, "magnitude") if "magnitude" in update.keys else None
    if magnitude is not None and magnitude.shape[1] == 1:
        magnitude = _swapped(magnitude, place)
    return FactorPiece(place.start, place.stop, _swapped(values[0], place), values[1], kind, alpha, magnitude)


def _swapped(up: np.ndarray, place: Place) -> np.ndarray:
    return np.concatenate(np.split(up, 2)[::-1]) if place.is_swapped else up


def _is_same_down(one: FactorPiece, other: FactorPiece) -> bool:
    return (one.kind, one.factor()) == (other.kind, other.factor()) and np.array_equal(one.down, other.down)


def _values(piece: FactorPiece) -> np.ndarray:
    return widen(piece.up, piece.kind)


def _float32(piece: FactorPiece, factor: float) -> FactorPiece:
    up = _values(piece).astype(np.float32) * np.float32(factor)
    down = widen(piece.down, piece.kind).astype(np.float32)
    return piece._replace(up=up, down=down, kind="F32", alpha=piece.alpha if factor == 1.0 else None)


def _narrowed(piece: FactorPiece, columns: np.ndarray) -> FactorPiece:
    alpha = None if piece.alpha is None else piece.factor() * int(columns.sum())
    up, down = np.ascontiguousarray(piece.up[:, columns]), piece.down[columns]
    return piece._replace(up=up, down=down, alpha=alpha)
