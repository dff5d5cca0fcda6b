"""Run as a program: a worker that dies by kill -9, again and again, in the middle of real runs.

Loading a framework takes seconds, so this process loads it once and forks a worker for each life. A worker dies in
one of three ways: at a random time, from outside; by its own hand at the n-th time that it opens, renames or removes a
file in a job's folder (a checkpoint, a preview, the clip); or some milliseconds after it has begun to decode, or to
write the mp4, which happens outside Python. Prints one line a life.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

import sqlalchemy
from engines_here import FIRST

from framewake.pipeline import Pipeline
from framewake.service.database import Database
from framewake.service.storage import Storage
from framewake.service.store import JobStore
from framewake.service.worker import Worker, WorkerSettings

EVENTS = {"open", "os.rename", "os.remove"}
FOREVER = 10**9


class Death(NamedTuple):
    """How a life ends: after so many seconds or files, or in a stage. Units: ``delay`` in seconds."""

    seconds: float = FOREVER
    files: int = FOREVER
    stage: str = ""
    delay: float = 0.0


def die() -> None:
    """As by kill -9."""
    os.kill(os.getpid(), signal.SIGKILL)


def watch_stages(database: Database, death: Death) -> None:
    """Die after a stage has begun."""

    def executed(_connection, _cursor, statement, parameters, _context, _many):
        values = parameters.values() if isinstance(parameters, dict) else parameters
        if statement.startswith("UPDATE jobs SET stage=") and death.stage in values:
            threading.Timer(death.delay, die).start()

    sqlalchemy.event.listen(database.engine, "after_cursor_execute", executed)


def work(url: str, folder: Path, pipeline: Pipeline, death: Death) -> None:
    """One life."""
    store, storage = JobStore(Database(url)), Storage(folder)
    worker = Worker(store, storage, pipeline, WorkerSettings(save_every=2))
    left, is_last = death.files, death == Death()
    watch_stages(store.database, death)

    def count(event, arguments):
        nonlocal left
        # Inside a job's folder all names are relative.
        if event in EVENTS and isinstance(arguments[0], str | Path) and not str(arguments[0]).startswith("/"):
            left -= 1
            if left == 0:
                die()

    sys.addaudithook(count)
    while not worker.stop.is_set():
        worker.presence.bury()
        taken = store.claim(worker.name, worker.model)
        if taken is None:
            if not is_last or not set(store.counts()) & {"queued", "in_progress", "paused"}:
                os._exit(0)
            time.sleep(0.05)
            continue
        worker.work(*taken)


def live(url: str, folder: Path, pipeline: Pipeline, death: Death) -> int:
    """Fork a worker and let it die; the value is how it ended."""
    child = os.fork()
    if child == 0:
        try:
            work(url, folder, pipeline, death)
        finally:
            os._exit(1)
    end = time.monotonic() + death.seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def main() -> None:
    """Arguments: database URL, data folder, checkpoint, kills, seed. The one job that is there first is undisturbed."""
    url, folder, checkpoint = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    kills, dice = int(sys.argv[4]), random.Random(int(sys.argv[5]))

    pipeline = Pipeline.load(checkpoint, engine=FIRST)
    begin = time.monotonic()
    print("undisturbed", live(url, folder, pipeline, Death(seconds=300)), flush=True)  # noqa: T201
    seconds = time.monotonic() - begin
    sys.stdin.readline()
    for number in range(kills):
        deaths = (
            Death(seconds=60, files=dice.randint(1, 24)),
            Death(seconds=60, stage="decode", delay=dice.uniform(0, 0.01)),
            Death(seconds=dice.uniform(0.05, seconds)),
            Death(seconds=60, stage="write", delay=dice.uniform(0, 0.02)),
        )
        status = live(url, folder, pipeline, deaths[number % 4])
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        print("killed" if killed else f"ended {status}", flush=True)  # noqa: T201 - the test reads it
        sys.stdin.readline()
    status = live(url, folder, pipeline, Death())
    print(f"last {status}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
