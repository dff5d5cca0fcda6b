"""Ranks as threads of this process: an engine whose exchanges go through a table.

With torch only: MindSpore's CPU crashes when threads compute at once.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from framewake.engine.contract import Engine
from framewake.errors import PeerError

SECONDS = 120.0


class Rank:
    """One of several: the real engine, but for who else is there. ``sent`` are the numbers of each exchange."""

    def __init__(self, engine: Engine, number: int, table: list[Any], meeting: threading.Barrier) -> None:
        self._engine = engine
        self._number = number
        self._table = table
        self._meeting = meeting
        self.sent: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def rank(self) -> int:
        return self._number

    def size(self) -> int:
        return len(self._table)

    def exchange(self, pieces: Sequence[Any], shapes: Sequence[Sequence[int]]) -> Callable[[], list[Any]]:
        assert len(pieces) == len(shapes) == self.size()
        self.sent.append(sum(math.prod(x.shape) for i, x in enumerate(pieces) if i != self._number))
        self._table[self._number] = list(pieces)
        self._meeting.wait()
        arrived = [self._table[source][self._number] for source in range(self.size())]
        self._meeting.wait()
        for piece, shape in zip(arrived, shapes, strict=True):
            assert tuple(piece.shape) == tuple(shape), "what arrives has the shape that was reckoned with"
        return lambda: arrived


def together(engine: Engine, size: int, work: Callable[[Any], Any]) -> list[Any]:
    """What ``work(rank)`` gives on every rank at once; the first error that is not about the others is raised."""
    table: list[Any] = [None] * size
    meeting = threading.Barrier(size, timeout=SECONDS)

    def run(number: int) -> Any:
        with contextlib.ExitStack() as failed:
            failed.callback(meeting.abort)
            result = work(Rank(engine, number, table, meeting))
            failed.pop_all()
        return result

    with ThreadPoolExecutor(size) as pool:
        ranks = [pool.submit(run, number) for number in range(size)]
    errors = [error for rank in ranks if (error := rank.exception()) is not None]
    if errors:
        raise next((e for e in errors if not isinstance(e, threading.BrokenBarrierError | PeerError)), errors[0])
    return [rank.result() for rank in ranks]
