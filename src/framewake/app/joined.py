"""The processes of a group: the first one leads, and the others follow it until it sends them home."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from framewake import engine as engines
from framewake.app.reporting import is_started
from framewake.app.stopping import SIGNALS
from framewake.engine.group import Group
from framewake.errors import PeerError, exit_code
from framewake.pipeline.checkpoint import open_whole
from framewake.pipeline.forecast import parse_memory
from framewake.pipeline.run import Pipeline
from framewake.weights.checkpoint.layouts import parse_files
from framewake.weights.checkpoint.load import Checkpoint


def follow(given: Mapping[str, Any], group: Group) -> None:
    """Do this process's share of what the first one makes, until that one sends home.

    Raises: FramewakeError of any kind; SystemExit, without a word, where another process has the cause.
    """
    files = parse_files(given["part"] or [])
    checkpoint = open_whole(given["checkpoint"] or "demo", files)
    try:
        engine = engines.join(given["engine"])
        if group.is_scheduler:
            return
        for number in (getattr(signal, name, None) for name in SIGNALS):
            if number is not None:
                signal.signal(number, signal.SIG_IGN)  # the first process hears it, and stops all behind the same step
        Pipeline(checkpoint, engine, memory=parse_memory(given["memory"])).follow()
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
