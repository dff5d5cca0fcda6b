"""Run as a program: a worker that dies by kill -9, again and again, in the middle of real runs.

Loading a framework takes seconds, so this process loads it once and forks a worker for each life. A worker
dies either at a random time, from outside, or by its own hand at the n-th time that it opens, renames or removes
a file in a job's folder: while it writes a checkpoint, the mp4, a preview. Prints one line a life.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from framewake.pipeline import Pipeline
from framewake.service.database import Database
from framewake.service.storage import Storage
from framewake.service.store import JobStore
from framewake.service.worker import Settings, Worker

EVENTS = {"open", "os.rename", "os.remove"}
FOREVER = 10**9


def work(url: str, folder: Path, pipeline: Pipeline, *, files_left: int, is_last: bool) -> None:
    """One life."""
    store, storage = JobStore(Database(url)), Storage(folder)
    worker = Worker(store, storage, pipeline, Settings(save_every=2))
    left = files_left

    def count(event, arguments):
        nonlocal left
        # Inside a job's folder all names are relative.
        if event in EVENTS and isinstance(arguments[0], str | Path) and not str(arguments[0]).startswith("/"):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    while not worker.stop.is_set():
        worker.presence.bury()
        taken = store.claim(worker.name, worker.model)
        if taken is None:
            if not is_last or not set(store.counts()) & {"queued", "in_progress"}:
                os._exit(0)
            time.sleep(0.05)
            continue
        worker.work(*taken)


def live(url: str, folder: Path, pipeline: Pipeline, *, seconds: float, files: int) -> int:
    """Fork a worker and let it die; the value is how it ended."""
    child = os.fork()
    if child == 0:
        try:
            work(url, folder, pipeline, files_left=files, is_last=seconds == FOREVER)
        finally:
            os._exit(1)
    end = time.monotonic() + seconds
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
    torch.set_num_threads(1)
    pipeline = Pipeline.load(checkpoint, engine="torch:cpu")
    begin = time.monotonic()
    print("undisturbed", live(url, folder, pipeline, seconds=300, files=FOREVER), flush=True)  # noqa: T201
    seconds = time.monotonic() - begin
    sys.stdin.readline()
    for number in range(kills):
        if number % 2:
            status = live(url, folder, pipeline, seconds=dice.uniform(0.05, seconds), files=FOREVER)
        else:
            status = live(url, folder, pipeline, seconds=60, files=dice.randint(1, 24))
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        print("killed" if killed else f"ended {status}", flush=True)  # noqa: T201 - the test reads it
        sys.stdin.readline()
    status = live(url, folder, pipeline, seconds=FOREVER, files=FOREVER)
    print(f"last {status}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
