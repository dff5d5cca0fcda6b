"""Keeps one worker process alive beside the API: computing never makes the API wait, and a crash costs no job."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from framewake.service.liveness import PIPE, Listener

log = logging.getLogger("framewake.serve")

# A step of the published model takes a minute on slow devices.
PATIENCE_SECONDS = 120.0
LOOK_SECONDS = 0.5
SHORTEST_LIFE = 20.0  # a worker that lived shorter is started again more slowly each time
LONGEST_DELAY = 60.0


class Supervisor:
    """Starts a worker, starts it again when it dies or hangs, and ends it politely.

    The worker holds the reading end of a pipe whose writing end is here: when this process vanishes, even by
    kill -9, the worker sees the pipe end and stops within a step. Through another pipe the worker says that its work
    goes on.
    """

    def __init__(self, arguments: Sequence[str], environment: dict[str, str], *, stall_seconds: float) -> None:
        self.command = [sys.executable, "-m", "framewake.app.cli", "worker", "--attached", *arguments]
        self.environment = {**os.environ, **environment}
        self.stall_seconds = stall_seconds
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, daemon=True, name="supervisor")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End the worker; the job at hand is saved and goes back to the queue."""
        self._stopping.set()
        process = self._process
        if process is None or process.stdin is None:
            return
        process.stdin.close()
        try:
            process.wait(timeout=PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            log.warning("the worker did not stop; killing it (its job goes on from the last saved step)")
            process.kill()
            process.wait()

    def _run(self) -> None:
        delay = 0.5
        while not self._stopping.is_set():
            begin = time.monotonic()
            code = self._live()
            if self._stopping.is_set():
                return
            delay = 0.5 if time.monotonic() - begin > SHORTEST_LIFE else min(delay * 2, LONGEST_DELAY)
            log.error("the worker ended (%d); starting another in %g s", code, delay)
            self._stopping.wait(delay)

    def _live(self) -> int:
        """One life of a worker; the value is how it ended."""
        ours, theirs = os.pipe()
        passed: dict[str, Any] = {"pass_fds": [theirs]} if os.name == "posix" else {}
        with os.fdopen(ours, "rb"):
            # Its own session: Ctrl-C in a terminal reaches this process only, which then ends the worker in order.
            self._process = process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                env=self.environment | {PIPE: str(theirs)},
                start_new_session=True,
                **passed,
            )
            os.close(theirs)
            listener = Listener(process.pid, ours, self.stall_seconds)
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return process.wait(LOOK_SECONDS)
                reason = listener.hangs()
                if reason is not None:
                    log.error("the worker hangs (%s); killing it (its job goes on from the last saved step)", reason)
                    process.kill()
                    return process.wait()
