"""Interleaved timing, and whether somebody else wanted the machine meanwhile."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

IDLE = 0.05  # share of the machine that others may take before a record says that it was busy


class Sample(NamedTuple):
    """One run. Units: seconds on the wall, and of processor time that this process used."""

    wall: float
    processor: float


def timed(work: Callable[[], object]) -> Sample:
    """One run of the work."""
    begin, used = time.perf_counter(), time.process_time()
    work()
    return Sample(time.perf_counter() - begin, time.process_time() - used)


def interleaved(works: dict[str, Callable[[], Any]], rounds: int) -> tuple[dict[str, list[Sample]], dict[str, Any]]:
    """Every work once a round, after one round for warming up; every other round goes backwards.

    Also what each work gave in the round for warming up.
    """
    results = {name: work() for name, work in works.items()}
    found: dict[str, list[Sample]] = {name: [] for name in works}
    for number in range(rounds):
        for name in list(works) if number % 2 == 0 else reversed(works):
            found[name].append(timed(works[name]))
    return found, results


class Ratio(NamedTuple):
    """Ours over theirs, round by round: the median and the two ends; ``processor`` is the median of processor time."""

    wall: float
    least: float
    most: float
    processor: float


def ratio(ours: list[Sample], theirs: list[Sample]) -> Ratio:
    """The ratio of two works that ran in the same rounds."""
    walls = [a.wall / b.wall for a, b in zip(ours, theirs, strict=True)]
    used = [a.processor / max(b.processor, 1e-9) for a, b in zip(ours, theirs, strict=True)]
    return Ratio(statistics.median(walls), min(walls), max(walls), statistics.median(used))


def median(samples: list[Sample]) -> float:
    """Median seconds on the wall."""
    return statistics.median(sample.wall for sample in samples)


class Watch:
    """How much of the machine other programs took while a block ran; ``others`` is None where nobody tells."""

    def __init__(self) -> None:
        self.others: float | None = None

    def __enter__(self) -> Watch:
        self._before = _busy_seconds(), _own_seconds(), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        busy, own, begin = self._before
        if busy is not None:
            taken = _busy_seconds() - busy - (_own_seconds() - own)
            cores = os.cpu_count() or 1
            self.others = max(0.0, taken / ((time.perf_counter() - begin) * cores))

    def words(self) -> str:
        """For a record: idle, or how busy."""
        if self.others is None:
            return "not known"
        return "idle" if self.others <= IDLE else f"BUSY: others took {self.others:.0%} of it"


def _busy_seconds() -> float | None:
    """Seconds of processor time that anything on this machine has used, and that its host took away."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return None
    numbers = [int(text) for text in stat.read_text().splitlines()[0].split()[1:9]]
    user, nice, system, _idle, _waiting, interrupt, soft, stolen = numbers
    return (user + nice + system + interrupt + soft + stolen) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    """Those of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
