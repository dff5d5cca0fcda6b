"""What must hold after a load: one end for each job, no file too many, no memory lost."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

from measuring.load_server import resident_mib

FILES = {"completed": {"picture", "clip.mp4", "thumbnail.jpg"}, "cancelled": {"picture"}, "failed": {"picture"}}
# What may be there besides: a cancelled video can be tried again from where it stopped.
LEFT = {
    "completed": {"preview.png"},
    "cancelled": {"clip.mp4.latents.safetensors"},
    "failed": {"clip.mp4.latents.safetensors"},
}
SETTLED = 20  # videos after which a new worker has everything in memory


class Memory:
    """Resident sets of server and worker over the jobs that have ended."""

    def __init__(self) -> None:
        self.server: list[tuple[int, float]] = []
        self.worker: list[tuple[int, float]] = []

    def look(self, ended: int, server: int, worker: int | None) -> None:
        """Note both."""
        self.server.append((ended, resident_mib(server)))
        if worker is not None:
            with contextlib.suppress(OSError):
                self.worker.append((ended, resident_mib(worker)))

    def worker_died(self) -> None:
        """Another process follows: only the last one is compared with itself."""
        self.worker.clear()

    def growth(self, first: int) -> dict[str, tuple[float, float]]:
        """MiB from job ``first`` on and at the end: the highest of a tenth of the jobs each."""
        found = {}
        for name, samples, begin in (
            ("server", self.server, first),
            ("worker", self.worker, max(first, self.worker[0][0] + SETTLED)),
        ):
            last = samples[-1][0]
            width = max(last // 10, 5)
            early = [size for ended, size in samples if begin <= ended < begin + width]
            late = [size for ended, size in samples if ended > last - width]
            if not early or begin + width > last:
                raise SystemExit(f"too few jobs to judge the memory of the {name}: {begin} to {last}")
            found[name] = (round(max(early), 1), round(max(late), 1))
        return found


def check_states(storage: Path, seen: Mapping[str, str], ends: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Every job has one end: in the database, for its client, and in the webhooks."""
    with contextlib.closing(sqlite3.connect(storage / "jobs.sqlite3")) as connection:
        stored = dict(connection.execute("SELECT id, state FROM jobs").fetchall())
    problems = [
        f"{job} is {stored.get(job)}, its client saw {state}" for job, state in seen.items() if stored.get(job) != state
    ]
    problems += [f"{job} was never handed in" for job in stored.keys() - seen.keys()]
    for job, state in seen.items():
        told = sorted(ends.get(job, {}).values())
        if told != [f"video.{state}"]:
            problems.append(f"{job} is {state}, its webhooks said {told}")
    return problems


def check_files(storage: Path, log: str, states: Mapping[str, str], seeds: Mapping[str, int]) -> list[str]:
    """Whole files and no others; equal requests gave equal clips; no clip was made twice."""
    problems, clips = [], {}
    folders = {path.name: path for path in (storage / "jobs").iterdir()}
    problems += [f"jobs/{name} belongs to no job" for name in folders.keys() - states.keys()]
    for job, state in states.items():
        names = {path.name for path in folders[job].iterdir()}
        if not FILES[state] <= names or names - FILES[state] - LEFT[state]:
            problems.append(f"{job} is {state} and has {sorted(names)}")
        elif state == "completed":
            clip = (folders[job] / "clip.mp4").read_bytes()
            if clips.setdefault(seeds[job], clip) != clip:
                problems.append(f"{job} differs from another clip with seed {seeds[job]}")
        if log.count(f"{job}: completed") > 1:
            problems.append(f"{job} was completed twice")
    return problems


def percentile(values: Sequence[float], share: float) -> float:
    """The value that so large a share does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
