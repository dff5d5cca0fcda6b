"""A program run from outside: its events, and how much memory was its own.

A file that is mapped into a process counts into its resident set, although the system may take those pages back at
any moment: they are the file cache. What a process holds for itself is the anonymous part (RssAnon) and shared memory
(RssShmem); both stand in /proc/PID/status and are read ten times a second. VmHWM, the kernel's own peak of everything
together, is kept beside them: what the sampling may have missed cannot be above it.
"""

from __future__ import annotations

import json
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

PAUSE = 0.1


class Watched(NamedTuple):
    """What a program did. Units: bytes, seconds; ``peaks`` are the largest own memory in each stage."""

    events: list[dict[str, Any]]
    seconds: float
    own_peak: int
    resident_peak: int
    peaks: dict[str, int]
    code: int


def watch(command: list[str], *, say: Any = None) -> Watched:
    """Run a program that writes one JSON event a line, to its end."""
    begin = time.perf_counter()
    events: list[dict[str, Any]] = []
    peaks: dict[str, int] = {}
    resident = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        reader = threading.Thread(target=_read, args=(program, events, say), daemon=True)
        reader.start()
        while program.poll() is None:
            found = _memory(program.pid)
            stage = next(filter(None, map(_stage, reversed(events))), "start")
            own = found.get("RssAnon", 0) + found.get("RssShmem", 0)
            peaks[stage] = max(peaks.get(stage, 0), own)
            resident = max(resident, found.get("VmHWM", 0))
            time.sleep(PAUSE)
        reader.join()
    seconds = time.perf_counter() - begin
    return Watched(events, seconds, max(peaks.values(), default=0), resident, peaks, program.returncode)


def _stage(event: dict[str, Any]) -> str | None:
    """What a program does from an event on; None where it does not tell."""
    if event.get("event") == "encoded":  # behind the last piece of work, training begins
        return "train" if event["done"] == event["count"] else "encode"
    return event["stage"] if event.get("event") == "stage_started" else None


def _read(program: subprocess.Popen[str], events: list[dict[str, Any]], say: Any) -> None:
    for line in program.stdout or ():
        try:
            events.append(json.loads(line))
        except ValueError:
            events.append({"event": "text", "text": line.rstrip()})
        if say is not None:
            say(line.rstrip())


def _memory(process: int) -> dict[str, int]:
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    except OSError:  # it has just ended
        return {}
    pairs = (line.split(":", 1) for line in lines if line.startswith(("Rss", "VmHWM")))
    return {name: int(value.split()[0]) * 1024 for name, value in pairs}
