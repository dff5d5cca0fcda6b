"""Progress for a log: a plain line every minute, even while nothing happens, and at every tenth of a stage."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable

from framewake.app.render import LABELS, drafted, duration, made
from framewake.console.escape import escaped
from framewake.pipeline.events import Draft, Event, Note, Result, StageFinished, StageStarted, Step, Tile, Written

LINE_SECONDS = 60.0
LEAST_SECONDS = 1.0  # between two tenths: what is quick needs no lines


class Pacer:
    """Says what is going on. The minutes come from a thread: encoders and long steps tell nothing by themselves."""

    def __init__(self, say: Callable[[str], None], *, seconds: float = LINE_SECONDS) -> None:
        self._say, self._seconds = say, seconds
        self._lock = threading.Lock()
        self._label, self._detail, self._tenth = "", "", 0
        self._begun = self._told = time.monotonic()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, label: str) -> None:
        """A stage begins."""
        with self._lock:
            self._label, self._detail, self._tenth = label, "", 0
            self._begun = self._told = time.monotonic()
        if self._thread is None:
            self._stop.clear()
            self._thread = threading.Thread(target=self._tick, daemon=True, name="progress lines")
            self._thread.start()

    def move(self, share: float, detail: str) -> None:
        """So much of the stage is done."""
        with self._lock:
            self._detail = detail
            tenth, now = int(share * 10 + 1e-9), time.monotonic()
            # The end has a line of its own.
            if self._tenth < tenth < 10 and now - self._told >= min(LEAST_SECONDS, self._seconds):
                self._tenth, self._told = tenth, now
                self._say(f"{self._label}: {detail}")

    def end(self, text: str = "") -> None:
        """The stage has ended, with a last line about it."""
        with self._lock:
            label, self._label = self._label, ""
            if text:
                self._say(f"{label}: {text}")

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _tick(self) -> None:
        while not self._stop.wait(self._seconds / 20):
            with self._lock:
                now = time.monotonic()
                if self._label and now - self._told >= self._seconds:
                    self._told = now
                    detail = f"{self._detail}, " if self._detail else ""
                    self._say(f"{self._label}: {detail}{duration(now - self._begun)} so far")


class Lines:
    """A run as lines on stderr, and what was made on stdout."""

    def __init__(self, clips: int = 1, *, seconds: float = LINE_SECONDS) -> None:
        self._clips, self._done = clips, 0
        self._begin = time.monotonic()
        self._pacer = Pacer(say, seconds=seconds)

    def show(self, event: Event) -> None:
        """Print a line where it is time."""
        match event:
            case StageStarted(stage):
                self._pacer.begin(LABELS[stage])
            case Step(index, count, _, seconds_left):
                self._pacer.move(index / count, f"step {index} of {count}, {duration(seconds_left)} left")
            case Tile(index, count, seconds_left):
                self._pacer.move(index / count, f"tile {index} of {count}, {duration(seconds_left)} left")
            case Written(share, seconds_left):
                self._pacer.move(share, f"{share:.0%}, {duration(seconds_left)} left")
            case StageFinished(_, seconds):
                self._pacer.end(duration(seconds))
            case Draft(is_end=False):
                say(drafted(event))
            case Draft():
                sys.stdout.write(f"{drafted(event)}\n")
                sys.stdout.flush()
            case Note(text):
                say(f"Note: {text}")
            case Result():
                self._done += 1
                seconds, self._begin = time.monotonic() - self._begin, time.monotonic()
                sys.stdout.write(made(event, self._done, self._clips, seconds=seconds))
                sys.stdout.flush()

    def tell(self, text: str) -> None:
        """Print lines."""
        say(text)

    def close(self) -> None:
        """End the thread."""
        self._pacer.close()


def say(text: str) -> None:
    """A line on stderr."""
    sys.stderr.write(f"{escaped(text)}\n")
    sys.stderr.flush()
