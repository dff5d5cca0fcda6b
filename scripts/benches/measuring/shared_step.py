"""A step by one device and by several, in turns inside the same processes, and what is exchanged for it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from framewake.engine.contract import Engine
from framewake.pipeline.forecast.cost import BYTES
from framewake.pipeline.messages import Lead, Link, Message, meet
from measuring import clocks

Shape = tuple[int, ...]


class Exchanged(NamedTuple):
    """One exchange: the shapes that left and that came, and their type."""

    left: list[Shape]
    came: list[Shape]
    kind: Any


class Counted:
    """An engine that notes its exchanges: their shapes, and the seconds in which they were begun and waited for."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.forget()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def forget(self) -> None:
        """Count anew."""
        self.seconds, self.seen = 0.0, list[Exchanged]()

    def exchange(self, pieces: Sequence[Any], shapes: Sequence[Sequence[int]]) -> Callable[[], list[Any]]:
        """The engine's own, noted."""
        kind = self._engine.dtype(pieces[self._engine.rank()])
        self.seen.append(Exchanged([tuple(x.shape) for x in pieces], [tuple(shape) for shape in shapes], kind))
        begin = time.perf_counter()
        wait = self._engine.exchange(pieces, shapes)
        self.seconds += time.perf_counter() - begin

        def waited() -> list[Any]:
            begin = time.perf_counter()
            arrived = wait()
            self.seconds += time.perf_counter() - begin
            return arrived

        return waited

    def sent(self) -> int:
        """Bytes that left for others."""
        rank = self._engine.rank()
        return sum(
            BYTES[each.kind] * math.prod(shape)
            for each in self.seen
            for other, shape in enumerate(each.left)
            if other != rank
        )

    def again(self) -> Callable[[], None]:
        """The same exchanges without anything between them."""
        engine, seen = self._engine, list(self.seen)
        pieces = [[engine.zeros(shape, each.kind) for shape in each.left] for each in seen]

        def work() -> None:
            for each, sent in zip(seen, pieces, strict=True):
                engine.exchange(sent, each.came)()
            engine.synchronize()

        return work


class Turns:
    """Works that all processes of an engine do when the first one says so; until then they sleep.

    Nobody waits in an exchange for a process that still works: MindSpore's have a limit of 30 seconds there on a CPU.
    """

    def __init__(self, engine: Engine, works: Mapping[str, Callable[[], Sequence[float]]]) -> None:
        self.engine, self.works = engine, works
        self._meeting: Lead | Link = meet(engine)

    def follow(self) -> bool:
        """Do what the first process says until it closes; False in the first one itself."""
        if not isinstance(self._meeting, Link):
            return False
        while (order := self._meeting.receive()).do != "leave":
            numbers = self._timed(order.do)
            self._meeting.send(Message("done"))
            self._meeting.receive()
            self._gathered(numbers)
        self._meeting.close()
        return True

    def run(self, name: str) -> np.ndarray:
        """Seconds on the wall, seconds of a processor, and the work's own numbers, of each process.

        Shapes: -> (processes, 2 + numbers).
        """
        assert isinstance(self._meeting, Lead)
        self._meeting.tell(name)
        numbers = self._timed(name)
        self._meeting.wait()
        self._meeting.tell("gather")
        return self._gathered(numbers)

    def close(self) -> None:
        """Send the others home."""
        self._meeting.close()

    def _timed(self, name: str) -> list[float]:
        told: list[float] = []

        def work() -> None:
            told.extend(self.works[name]())

        return [*clocks.timed(work), *told]

    def _gathered(self, numbers: Sequence[float]) -> np.ndarray:
        size = self.engine.size()
        own = self.engine.asarray(np.array([round(number * 1e6) for number in numbers], np.int64))
        return np.stack([self.engine.numpy(x) for x in self.engine.exchange([own] * size, [own.shape] * size)()]) / 1e6
