"""One process's share of training by several: batches of its own, and the same update as all others."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from framewake.engine.contract import Engine
from framewake.errors import InputError, PeerError
from framewake.pipeline.messages import Lead, Message, meet

Item = TypeVar("Item")


class Alone:
    """An engine for work that this process does by itself, whoever else is there."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def rank(self) -> int:
        """As in the contract: that of a process alone."""
        return 0

    def size(self) -> int:
        """As in the contract: that of a process alone."""
        return 1


class TrainingShare:
    """What falls to one of the processes that an engine is one of."""

    def __init__(self, engine: Engine) -> None:
        self.rank, self.size = engine.rank(), engine.size()
        self._engine, self._meeting = engine, meet(engine)

    @property
    def leads(self) -> bool:
        """Whether this process writes files and reports; the others only compute."""
        return self.rank == 0

    def of(self, items: Sequence[Item]) -> list[Item]:
        """This process's own of some pieces of work."""
        return list(items[self.rank :: self.size])

    def begin(self) -> None:
        """Wait until all are here, however long one of them encodes, validates or makes a clip.

        In an exchange such a wait has a limit.
        Raises: PeerError when another process has ended.
        """
        if isinstance(self._meeting, Lead):
            self._meeting.wait()
            self._meeting.tell("begin")
            return
        self._meeting.send(Message("ready"))
        if self._meeting.receive().do != "begin":
            raise PeerError("the first process has ended the run.")

    def close(self) -> None:
        """Let the others go."""
        self._meeting.close()

    def compare(self, told: str) -> None:
        """Look whether all make the same run: what tells it has to be the same text in all of them.

        Raises: InputError where it is not; PeerError when another one has ended.
        """
        if self.size == 1:
            return
        own = np.frombuffer(hashlib.sha256(told.encode()).digest(), np.uint8).astype(np.int64)
        sent = [self._engine.asarray(own)] * self.size
        found = [self._engine.numpy(x) for x in self._engine.exchange(sent, [own.shape] * self.size)()]
        other = next((rank for rank, x in enumerate(found) if not np.array_equal(x, found[0])), None)
        if other is not None:
            raise InputError(
                f"process {other} would train otherwise than the first one: give all of them the same options, clips, "
                "checkpoint and saved run."
            )

    def summed(self, found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The sums over all processes, the same bits in each: a piece of every array is added up by one of them.

        Precision: float32, in the order of the processes.
        Raises: PeerError when another one has ended.
        """
        if self.size == 1:
            return found
        engine, total = self._engine, {}
        for name, x in found.items():
            pieces = np.array_split(x.reshape(-1), self.size)
            own = engine.exchange([engine.asarray(piece) for piece in pieces], [pieces[self.rank].shape] * self.size)()
            added = own[0]
            for piece in own[1:]:
                added = added + piece
            whole = engine.exchange([added] * self.size, [piece.shape for piece in pieces])()
            total[name] = np.concatenate([engine.numpy(piece) for piece in whole]).reshape(x.shape)
        return total
