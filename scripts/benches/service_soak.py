"""Half an hour of an operator's life: many clients, and every trouble that a service meets, one after the other.

A real server with its worker, on the embedded checkpoint at its smallest setting, its data on a small disk where one
may be mounted (Linux and root). At the end every job is in one final state, the same for its client, the database and
its webhook; every completed clip is there and equal to others of its seed; memory is flat. Bounded by ``--minutes`` and
``--jobs``. Writes results/bench-service-soak.json and a line to docs/measurements/service-soak.md; fails
when a promise is broken.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from measuring import record
from measuring.load_checks import check_files, check_states, percentile
from measuring.load_server import Hooks, Server, resident_mib
from measuring.troubles import MOST_LOG, TROUBLES, Place, built_clock

from framewake.demo import PICTURES

NAME = "service-soak"
FINAL = {"completed", "failed", "cancelled"}
SEEDS = 8
PATIENCE_S = 600  # after the last job was handed in
DISK_MIB = 700
GROWTH, GROWTH_MIB = 0.05, 8.0
WARM = 0.2  # of the samples of a process come before everything is in memory


class Soak:
    """What the clients do, and what they saw."""

    def __init__(self, server: Server, hook: str, arguments: argparse.Namespace) -> None:
        self.server, self.hook, self.arguments = server, hook, arguments
        self.dice = random.Random(arguments.seed)
        self.picture = (PICTURES / "red-circle.png").read_bytes()
        self.states: dict[str, str] = {}
        self.seeds: dict[str, int] = {}
        self.status_ms: list[float] = []
        self.refused: dict[int, int] = {}  # answers that asked a client to come again, by status
        self.unreachable = 0
        self.problems: list[str] = []
        self.is_over = False

    async def client(self) -> None:
        """Hand in videos until the time is over, then wait for the last ones."""
        async with httpx.AsyncClient(base_url=self.server.url, timeout=60, trust_env=False) as client:
            mine: list[str] = []
            while not self.is_over or mine:
                if not self.is_over and len(mine) < 2 and len(self.states) < self.arguments.jobs:
                    mine.append(await self._submit(client))
                await asyncio.sleep(self.dice.uniform(0.5, 1.5) * self.arguments.pause)
                for job in list(mine):
                    if self.dice.random() < self.arguments.cancels:
                        await self._cancel(client, job)
                    if await self._status(client, job) in FINAL:
                        mine.remove(job)

    async def _answer(self, client: httpx.AsyncClient, method: str, path: str, **content: Any) -> httpx.Response:
        """Ask until there is an answer that is not 'later'."""
        while True:
            try:
                answer = await client.request(method, path, **content)
                if answer.status_code not in (429, 503, 507):
                    return answer
                self.refused[answer.status_code] = self.refused.get(answer.status_code, 0) + 1
            except httpx.TransportError:
                self.unreachable += 1
            await asyncio.sleep(self.dice.uniform(0.5, 2))

    async def _submit(self, client: httpx.AsyncClient) -> str:
        seed = self.dice.randrange(SEEDS)
        data = {"prompt": "the red circle moves right", "resolution": "360p", "num_frames": "5", "seed": str(seed)}
        data |= {"num_inference_steps": str(self.arguments.steps), "callback_url": self.hook}
        # Asked again after a killed server: the same key must not make a second video.
        headers = {"Idempotency-Key": str(uuid.UUID(int=self.dice.getrandbits(128)))}
        files = {"input_reference": ("c.png", self.picture)}
        answer = await self._answer(client, "POST", "/v1/videos", data=data, files=files, headers=headers)
        job = answer.raise_for_status().json()["id"]
        self.seeds[job] = seed
        self.states.setdefault(job, "queued")
        return job

    async def _status(self, client: httpx.AsyncClient, job: str) -> str:
        begin = time.perf_counter()
        answer = await self._answer(client, "GET", f"/v1/videos/{job}")
        self.status_ms.append((time.perf_counter() - begin) * 1000)
        state = answer.raise_for_status().json()["status"]
        if self.states[job] in FINAL and state != self.states[job]:
            self.problems.append(f"{job} was {self.states[job]} and is {state} now")
        self.states[job] = state
        return state

    async def _cancel(self, client: httpx.AsyncClient, job: str) -> None:
        if await self._status(client, job) not in FINAL:
            # 404 and 409 tell that it ended meanwhile; a second DELETE would remove it, so the answer is not awaited.
            with contextlib.suppress(httpx.TransportError):
                await client.delete(f"/v1/videos/{job}")


class Memory:
    """Resident sets of the processes that live now; what is gone is forgotten."""

    def __init__(self) -> None:
        self.samples: dict[str, list[tuple[int, float]]] = {"server": [], "worker": []}

    def look(self, server: Server) -> None:
        """Note both."""
        for name, process in (("server", server.process.pid), ("worker", server.worker())):
            with contextlib.suppress(OSError):
                if process is not None:
                    samples = self.samples[name]
                    if samples and samples[-1][0] != process:
                        samples.clear()
                    samples.append((process, resident_mib(process)))

    def growth(self) -> dict[str, tuple[float, float]]:
        """MiB once a process is warm, and at the end: the highest of a fifth of its life each."""
        found = {}
        for name, samples in self.samples.items():
            sizes = [size for _, size in samples[int(len(samples) * WARM) :]]
            fifth = max(len(sizes) // 5, 1)
            found[name] = (round(max(sizes[:fifth]), 1), round(max(sizes[-fifth:]), 1))
        return found


async def trouble(soak: Soak, place: Place, seconds: float) -> list[str]:
    """Every trouble once, spread over the time; what broke."""
    begin, problems = time.monotonic(), []
    for index, happening in enumerate(TROUBLES):
        await asyncio.sleep(max(0.0, begin + seconds * index / len(TROUBLES) + 5 - time.monotonic()))
        record.say(NAME, f"{happening.__name__} after {time.monotonic() - begin:.0f} s, {len(soak.states)} videos")
        problems += [f"{happening.__name__}: {problem}" for problem in await happening(place)]
    await asyncio.sleep(max(0.0, begin + seconds - time.monotonic()))
    return problems


async def measure(place: Place, hooks: Hooks, arguments: argparse.Namespace) -> dict[str, Any]:
    """The whole time, and what holds after it."""
    server = place.server
    soak, memory = Soak(server, hooks.url, arguments), Memory()
    await server.ready()

    async def watch() -> None:
        while True:
            memory.look(server)
            await asyncio.sleep(1)

    watching = asyncio.create_task(watch())
    clients = asyncio.gather(*(soak.client() for _ in range(arguments.clients)))
    begin = time.monotonic()
    problems = await trouble(soak, place, arguments.minutes * 60)
    soak.is_over = True
    try:
        await asyncio.wait_for(clients, PATIENCE_S)
    except asyncio.TimeoutError:
        problems.append(f"{sum(state not in FINAL for state in soak.states.values())} jobs did not end")
    seconds = time.monotonic() - begin
    watching.cancel()
    await hooks.wait(len(soak.states))
    log = server.log.read_text()
    problems += soak.problems + check_states(server.storage, soak.states, hooks.ends)
    problems += check_files(server.storage, log, soak.states, soak.seeds)
    if len(log) > MOST_LOG or "Traceback" in log:
        problems.append(f"the log has {len(log)} bytes and {log.count('Traceback')} tracebacks")
    grown = memory.growth()
    for name, (before, after) in grown.items():
        if after > before * (1 + GROWTH) + GROWTH_MIB:
            problems.append(f"memory of the {name} grew from {before} to {after} MiB")
    states = list(soak.states.values())
    if "failed" in states:
        problems.append(f"{states.count('failed')} jobs failed")
    return {
        "seconds": round(seconds, 1),
        "clients": arguments.clients,
        "jobs": len(states),
        **{state: states.count(state) for state in sorted(FINAL)},
        "troubles": [happening.__name__ for happening in TROUBLES],
        "skipped": ["disk_full"] * (place.disk is None) + ["clock_steps"] * (place.clock is None),
        "restarts": place.restarts,
        "unreachable": soak.unreachable,
        "asked_to_come_again": soak.refused,
        "status_requests": len(soak.status_ms),
        "status_p50_ms": round(statistics.median(soak.status_ms), 1),
        "status_p99_ms": round(percentile(soak.status_ms, 0.99), 1),
        "memory": grown,
        "log_bytes": len(log),
        "problems": problems,
    }


def line(found: dict[str, Any]) -> str:
    """A row of the table."""
    memory = ", ".join(f"{name} {before} -> {after}" for name, (before, after) in found["memory"].items())
    ends = f"{found['completed']} + {found['cancelled']} + {found['failed']} of {found['jobs']}"
    times = f"{found['status_p50_ms']} / {found['status_p99_ms']}"
    load = f"{found['clients']} clients, {found['seconds'] / 60:.0f} min, {len(found['troubles'])} troubles"
    verdict = "; ".join(found["problems"]) or "nothing lost"
    return record.line([record.machine(), load, ends, times, memory, verdict])


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """A file system of some hundred megabytes, or None where it may not be mounted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}M", "tmpfs", str(folder)]
    try:
        is_mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except OSError:
        is_mounted = False
    try:
        yield folder if is_mounted else None
    finally:
        if is_mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def main() -> int:
    """Run it, write down what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--clients", type=int, default=30)
    parser.add_argument("--jobs", type=int, default=5000, help="the most that are handed in")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--cancels", type=float, default=0.01, help="chance that a client cancels at a look")
    parser.add_argument("--pause", type=float, default=2.0, help="seconds between two looks of one client")
    parser.add_argument("--engine", default="torch:cpu")
    parser.add_argument("--seed", type=int, default=1)
    record.with_notes(parser)
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        disk = stack.enter_context(small_disk(folder / "disk"))
        hooks = stack.enter_context(Hooks())
        environment = built_clock(folder)
        server = Server(folder / "disk", arguments.engine, environment=environment)
        server.command += ["--save-every", "2"]
        server.log = folder / "log"
        stack.enter_context(server)
        clock = Path(environment["CLOCK_STEP"]) if environment else None
        found = asyncio.run(measure(Place(server, disk=disk, clock=clock), hooks, arguments))
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    record.write(NAME, found, [line(found)], has_notes=not arguments.no_notes)
    return 1 if found["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
