"""Run as a program: a longer clip whose maker dies by kill -9, again and again, until it is made.

This process loads the framework once and forks a maker for each life, which dies by its own hand at the n-th file that
it opens, renames or removes beside the clip, or some time after it has begun. Prints one line a life, with what is
there of the clip.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
from pathlib import Path

from engines_here import FIRST

from framewake.lasting import clear_abandoned
from framewake.pipeline import Pipeline
from framewake.pipeline.longer import begun, make_longer, segments_path

CHANGES = {"os.rename", "os.remove", "os.rmdir"}  # of files and folders beside the clip
WRITING = os.O_WRONLY | os.O_RDWR


def die() -> None:
    """As by kill -9."""
    os.kill(os.getpid(), signal.SIGKILL)


def make(pipeline: Pipeline, clip: Path, files: int, seconds: float) -> None:
    """One life."""
    left = files

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        is_opened = event == "open" and str(arguments[0]).startswith(str(clip.parent))
        if event in CHANGES or (is_opened and isinstance(arguments[2], int) and arguments[2] & WRITING):
            left -= 1
            if left == 0:
                die()

    sys.addaudithook(count)
    timer = threading.Timer(seconds, die)
    timer.daemon = True
    timer.start()
    clear_abandoned(clip.parent)
    for _ in make_longer(pipeline, begun(clip, ())):
        pass


def main() -> None:
    """Arguments: checkpoint, the clip's place, where it was begun; seconds that it takes, kills, seed."""
    checkpoint, clip = sys.argv[1], Path(sys.argv[2])
    seconds, kills, dice = float(sys.argv[3]), int(sys.argv[4]), random.Random(int(sys.argv[5]))
    pipeline = Pipeline.load(checkpoint, engine=FIRST)
    number, is_last = 0, False
    while segments_path(clip).exists() and not is_last:
        number += 1
        is_last = number > kills
        files, after = (0, 3600.0) if is_last else (dice.randint(1, 14), 3600.0)
        if number % 2 and not is_last:
            files, after = 0, dice.uniform(0.0, seconds)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                make(pipeline, clip, files, after)
                code = 0
            finally:
                os._exit(code)
        status = os.waitpid(child, 0)[1]
        done = sum(path.is_dir() for path in segments_path(clip).glob("[0-9]"))
        print("killed" if os.WIFSIGNALED(status) else f"ended {status}", done, clip.exists(), flush=True)  # noqa: T201
    clear_abandoned(clip.parent)


if __name__ == "__main__":
    main()
