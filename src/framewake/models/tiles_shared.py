"""The autoencoder's tiles spread over devices: each is computed by one of them, and the first puts them together.

Every device has the same table, so nothing is asked. Tiles arrive while the next ones are computed, one exchange a
turn, and are blended where and in the order in which one device does it: not a bit is different.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from framewake.engine.contract import Dtype, Engine, Tensor

Shape = tuple[int, ...]
Arrived = list[tuple[int, np.ndarray]]  # tiles by their number in the plan


def shared_out(costs: Sequence[float], ranks: int) -> tuple[tuple[int, ...], ...]:
    """The tiles of each rank: in the plan's order, each goes to the one that has the least to do so far."""
    shares: list[list[int]] = [[] for _ in range(ranks)]
    busy = [0.0] * ranks
    for number, cost in enumerate(costs):
        rank = busy.index(min(busy))
        shares[rank].append(number)
        busy[rank] += cost
    return tuple(tuple(share) for share in shares)


def turns(
    engine: Engine,
    shares: Sequence[Sequence[int]],
    compute: Callable[[int], Tensor],
    shapes: Sequence[Shape],
    kind: Dtype,
) -> Iterator[Arrived]:
    """Every rank's turns: a tile of its own is computed, what the turn before gave arrives at the first rank.

    ``shapes`` are those of the tiles as they are computed, ``kind`` is their type. Yields what has arrived here, as
    many times on all ranks.
    """
    rank, pending = engine.rank(), None
    sent: tuple[int | None, ...] = ()
    for turn in range(max(map(len, shares)) + 1):
        numbers = tuple(share[turn] if turn < len(share) else None for share in shares)
        number = numbers[rank]
        tile = None if number is None else compute(number)
        arrived = [] if pending is None else _taken(engine, sent, pending())
        pending, sent = _begun(engine, numbers, tile, shapes, engine.zeros((0,), kind)), numbers
        yield arrived


def _begun(engine: Engine, numbers, tile: Tensor | None, shapes: Sequence[Shape], nothing: Tensor):
    """An exchange in which every rank sends its tile of this turn to the first; None where nobody has one."""
    if all(number is None for number in numbers):
        return None
    rank = engine.rank()
    pieces = [nothing if tile is None or to > 0 else tile for to in range(len(numbers))]
    coming = [(0,) if rank > 0 or number is None else shapes[number] for number in numbers]
    return engine.exchange(pieces, coming)


def _taken(engine: Engine, numbers, pieces: list[Tensor]) -> Arrived:
    if engine.rank() > 0:
        return []
    return [(n, engine.numpy(piece)) for n, piece in zip(numbers, pieces, strict=True) if n is not None]


def in_order(arriving: Iterator[Arrived]) -> Iterator[np.ndarray]:
    """Tiles in the plan's order, from those that come in turns; what comes early waits."""
    waiting: dict[int, np.ndarray] = {}
    following = 0
    for arrived in arriving:
        waiting.update(arrived)
        while following in waiting:
            yield waiting.pop(following)
            following += 1
