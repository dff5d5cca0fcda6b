"""What it costs that an answered video is on the disk: handing videos in and a sign of life, with and without waiting.

Without, nothing is synced. The folder decides on which disk; the default is the temporary one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measuring import clocks, record

from framewake.demo import PICTURES
from framewake.pipeline.jobs import find_checkpoint
from framewake.service.binding import open_place
from framewake.service.database import Database
from framewake.service.desk import Desk
from framewake.service.fields import JsonVideo
from framewake.service.guard import Limits
from framewake.service.store import JobStore
from framewake.weights.checkpoint.load import open_checkpoint

NAME = "service-sync"
PICTURE = (PICTURES / "red-circle.png").read_bytes()


def main() -> int:
    """Measure in turns, write down what was found."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--folder", help="on the disk that is meant")
    options.add_argument("--videos", type=int, default=200)
    record.with_notes(options)
    given = options.parse_args()
    found: dict[str, list[float]] = {}
    sync, writing = os.fsync, Database.writing
    with clocks.Watch() as watch:
        for _ in range(3):
            for waits in (True, False):
                if not waits:
                    os.fsync = lambda _descriptor: None
                    Database.writing = lambda self, **named: writing(self, **{**named, "is_promise": False})
                try:
                    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
                        measure(Path(folder), given.videos, "waits" if waits else "does not wait", found)
                finally:
                    os.fsync, Database.writing = sync, writing
    rows = [
        f"| {record.today()} | {name} | {statistics.median(times):.2f} | {sorted(times)[len(times) * 95 // 100]:.2f} | "
        f"{len(times)} | {watch.words()} | {record.machine()} |"
        for name, times in found.items()
    ]
    record.write(NAME, {"milliseconds": found, "machine_was": watch.words()}, rows, has_notes=not given.no_notes)
    return 0


def measure(folder: Path, videos: int, name: str, found: dict[str, list[float]]) -> None:
    """Hand videos in, then tell a step of one again and again."""
    storage, database = open_place(folder)
    checkpoint = open_checkpoint(find_checkpoint("demo"))
    desk = Desk(JobStore(database), storage, checkpoint, limits=Limits(queued=10**6))
    video = JsonVideo(prompt="the red circle moves right", seed=1)
    timed(videos, f"hand in, {name}", found, lambda: desk.submit(video, "local", picture=PICTURE))
    lease, _ = desk.store.claim("elsewhere:1:ab", desk.model)
    timed(videos, f"tell a step, {name}", found, lambda: desk.store.report(lease, {"step": 1}))
    database.close()


def timed(count: int, name: str, found: dict[str, list[float]], action: Callable[[], Any]) -> None:
    """Milliseconds of an action, one by one."""
    for _ in range(count):
        begin = time.perf_counter()
        action()
        found.setdefault(name, []).append((time.perf_counter() - begin) * 1e3)


if __name__ == "__main__":
    raise SystemExit(main())
