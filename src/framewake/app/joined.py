"""The processes of a group: the first one leads, and the others follow it until it sends them home."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator

from framewake import engine as engines
from framewake.app.reporting import is_started
from framewake.app.stopping import SIGNALS
from framewake.engine.contract import Engine
from framewake.engine.group import Group
from framewake.errors import PeerError, exit_code
from framewake.pipeline.run import Pipeline
from framewake.weights.checkpoint.load import Checkpoint


def follow(group: Group, checkpoint: Checkpoint, engine: str, *, memory: int | None = None) -> None:
    """Do this process's share of what the first one makes of the same checkpoint, until that one sends home.

    Raises: FramewakeError of any kind; SystemExit, without a word, where another process has the cause.
    """
    following(group, engine, lambda made: Pipeline(checkpoint, made, memory=memory).follow())


def following(group: Group, engine: str, work: Callable[[Engine], object]) -> None:
    """Do some work on the engine of a process that is not the first of its group.

    Raises: FramewakeError of any kind; SystemExit, without a word, where another process has the cause.
    """
    try:
        made = engines.join(engine)
        if group.is_scheduler:
            return
        for number in (getattr(signal, name, None) for name in SIGNALS):
            if number is not None:
                signal.signal(number, signal.SIG_IGN)  # the first process hears it, and stops all behind the same step
        work(made)
        engines.leave()
    except PeerError as error:
        if is_started():
            raise
        sys.exit(exit_code(error))


@contextlib.contextmanager
def leading(checkpoint: Checkpoint, engine: str, *, memory: int | None = None) -> Iterator[Pipeline]:
    """A pipeline in the first process of a group, or in the only one; at the end the others are sent home."""
    pipeline = Pipeline(checkpoint, engines.join(engine), memory=memory)
    try:
        yield pipeline
    finally:
        pipeline.close()
    engines.leave()
