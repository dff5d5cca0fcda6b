"""Whether a worker is making progress: reported to the supervisor through a pipe, and a reason to end if not."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import sys
import threading
import time
from pathlib import Path

from framewake import pulse

log = logging.getLogger("framewake.worker")

PIPE = "FRAMEWAKE_PULSE"  # the variable that holds the number of the pipe
SILENT_SECONDS = 60.0  # without a word, and without any use of the processor
START_SECONDS = 600.0  # until the first word: frameworks are imported, perhaps over a network
LOOK_SECONDS = 1.0
STALLED = 75  # the exit code of a worker that hangs


class Stopwatch:
    """Seconds as this process has lived them: a pause of the machine or a container counts as one look."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._before = time.monotonic()

    def look(self) -> float:
        """Seconds since it was set back."""
        now = time.monotonic()
        self.seconds += min(now - self._before, 5 * LOOK_SECONDS)
        self._before = now
        return self.seconds


class Watch:
    """A thread beside the work: speaks to the supervisor as long as the work goes on, ends the process when not.

    ``stall_seconds`` 0 waits for ever.
    """

    def __init__(self, stall_seconds: float) -> None:
        self._stall_seconds = stall_seconds
        number = os.environ.pop(PIPE, "")  # not for programs that this one may start
        self._pipe = int(number) if number.isdecimal() else None
        if self._pipe is not None:
            os.set_blocking(self._pipe, False)
            os.set_inheritable(self._pipe, False)

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._run, daemon=True, name="watch").start()

    def _run(self) -> None:
        seen, still = pulse.beats(), Stopwatch()
        while True:
            time.sleep(LOOK_SECONDS)
            if pulse.beats() != seen:
                seen, still = pulse.beats(), Stopwatch()
            elif still.look() > self._stall_seconds > 0:
                self._end(still.seconds)
            if self._pipe is not None:
                with contextlib.suppress(OSError):  # it is full, or nobody listens
                    os.write(self._pipe, b".")

    def _end(self, seconds: float) -> None:
        log.error("nothing has gone on for %.0f s: this worker hangs and ends (--stall-seconds); it was here:", seconds)
        faulthandler.dump_traceback(file=sys.__stderr__ or 2)
        os._exit(STALLED)  # a thread that hangs cannot be ended otherwise


class Listener:
    """The supervisor's end of the pipe."""

    def __init__(self, process: int, pipe: int, stall_seconds: float) -> None:
        self._process, self._pipe, self._stall_seconds = process, pipe, stall_seconds
        self._used, self._silent = processor_seconds(process), Stopwatch()
        self._has_begun = False
        os.set_blocking(pipe, False)

    def hangs(self) -> str | None:
        """Why the worker is taken for hung, in words; None while it is not."""
        heard = False
        with contextlib.suppress(BlockingIOError):
            while os.read(self._pipe, 4096):
                heard = True
        seconds = self._silent.look()
        self._has_begun = self._has_begun or heard
        if heard or self._stall_seconds <= 0:
            self._used, self._silent = processor_seconds(self._process), Stopwatch()
            return None
        if not self._has_begun and seconds <= START_SECONDS:
            return None
        used = processor_seconds(self._process)
        is_idle = used is not None and self._used is not None and used - self._used < 0.01 * seconds
        if seconds > self._stall_seconds or (is_idle and seconds > min(SILENT_SECONDS, self._stall_seconds)):
            return f"nothing was heard of it for {seconds:.0f} s" + (", in which it did nothing" if is_idle else "")
        return None


def processor_seconds(process: int) -> float | None:
    """How long a process and those that it has started have used processors; None where the system does not tell."""
    own, place = _own_seconds(process), Path(f"/proc/{process}/task/{process}/children")
    if own is None or not place.is_file():  # not every kernel tells who was started
        return own
    return own + sum(processor_seconds(int(child)) or 0.0 for child in place.read_text().split())


def _own_seconds(process: int) -> float | None:
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None
