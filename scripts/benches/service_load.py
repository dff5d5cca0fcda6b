"""Load on the service: many clients hand in all their videos at once; some are cancelled, the worker is killed.

A real server with its worker process, on the embedded checkpoint at its smallest setting. Every job has a webhook, so
that a second end of one job would be seen. Writes results/bench-service-load.json and a line to
docs/measurements/service-load.md, and fails when a target is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from measuring import record
from measuring.load_checks import Memory, check_files, check_states, percentile
from measuring.load_server import Hooks, Server

from framewake.demo import PICTURES

NAME = "service-load"
FINAL = {"completed", "failed", "cancelled"}
SEEDS = 8  # equal seeds must give equal clips, whatever happened on the way
STATUS_MS, GROWTH = 50.0, 0.05


class Load:
    """What the clients do, and what they saw."""

    def __init__(self, url: str, hook: str, arguments: argparse.Namespace) -> None:
        self.url, self.hook, self.arguments = url, hook, arguments
        self.dice = random.Random(arguments.seed)
        self.picture = (PICTURES / "red-circle.png").read_bytes()
        self.seeds: dict[str, int] = {}
        self.states: dict[str, str] = {}
        self.status_ms: list[tuple[float, float]] = []  # when it was asked, how long it took
        self.submit_ms: list[float] = []
        self.handed_in = 0.0  # when the last one was
        self.cancelled: set[str] = set()

    def ended(self) -> int:
        """Jobs that somebody has seen in a final state."""
        return sum(state in FINAL for state in self.states.values())

    async def run(self) -> None:
        """All clients at once, until every job has ended."""
        begin = [index * self.arguments.jobs // self.arguments.clients for index in range(self.arguments.clients + 1)]
        await asyncio.gather(*(self._client(end - start) for start, end in itertools.pairwise(begin)))

    async def _client(self, count: int) -> None:
        async with httpx.AsyncClient(base_url=self.url, timeout=60, trust_env=False) as client:
            mine = [await self._submit(client) for _ in range(count)]
            doomed = {job for job in mine if self.dice.random() < self.arguments.cancels}
            while mine:
                await asyncio.sleep(self.dice.uniform(0.7, 1.3) * self.arguments.pause)
                job = self.dice.choice(mine)
                if job in doomed and self.dice.random() < 0.2:
                    doomed.remove(job)
                    await self._cancel(client, job)
                state = await self._status(client, job)
                if state in FINAL:
                    mine.remove(job)

    async def _submit(self, client: httpx.AsyncClient) -> str:
        seed = self.dice.randrange(SEEDS)
        data = {"prompt": "the red circle moves right", "resolution": "360p", "num_frames": "5", "seed": str(seed)}
        data |= {"num_inference_steps": str(self.arguments.steps), "callback_url": self.hook}
        begin = time.perf_counter()
        answer = await client.post("/v1/videos", data=data, files={"input_reference": ("c.png", self.picture)})
        self.handed_in = time.perf_counter()
        self.submit_ms.append((self.handed_in - begin) * 1000)
        job = answer.raise_for_status().json()["id"]
        self.seeds[job], self.states[job] = seed, "queued"
        return job

    async def _status(self, client: httpx.AsyncClient, job: str) -> str:
        begin = time.perf_counter()
        answer = await client.get(f"/v1/videos/{job}")
        self.status_ms.append((begin, (time.perf_counter() - begin) * 1000))
        state = answer.raise_for_status().json()["status"]
        if self.states[job] in FINAL and state != self.states[job]:
            raise AssertionError(f"{job} was {self.states[job]} and is {state} now")
        self.states[job] = state
        return state

    async def _cancel(self, client: httpx.AsyncClient, job: str) -> None:
        if self.states[job] in FINAL:
            return
        answer = (await client.get(f"/v1/videos/{job}")).raise_for_status().json()
        if answer["status"] not in FINAL:  # DELETE of an ended one would remove it
            answer = (await client.delete(f"/v1/videos/{job}")).raise_for_status().json()
            if answer["status"] == "cancelled":
                self.cancelled.add(job)


async def disturb(load: Load, server: Server, kills: list[int], memory: Memory) -> None:
    """Kill the worker when so many jobs have ended, and look at memory on the way."""
    waiting = sorted(kills)
    while True:
        await asyncio.sleep(0.2)
        ended = load.ended()
        memory.look(ended, server.process.pid, server.worker())
        if waiting and ended >= waiting[0]:
            worker = server.worker()
            if worker is not None:
                waiting.pop(0)
                os.kill(worker, signal.SIGKILL)
                memory.worker_died()


async def measure(server: Server, hooks: Hooks, arguments: argparse.Namespace) -> dict[str, Any]:
    """One whole load."""
    load, memory = Load(server.url, hooks.url, arguments), Memory()
    first = min(arguments.first, arguments.jobs // 2)
    kills = sorted(load.dice.sample(range(2, first - 2), arguments.kills))
    await server.ready()
    begin = time.perf_counter()
    disturbing = asyncio.create_task(disturb(load, server, kills, memory))
    await load.run()
    seconds = time.perf_counter() - begin
    disturbing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await disturbing
    memory.look(arguments.jobs, server.process.pid, server.worker())
    await hooks.wait(len(load.states))
    problems = check_states(server.storage, load.states, hooks.ends) + check_files(
        server.storage, server.log.read_text(), load.states, load.seeds
    )
    if len(load.submit_ms) != arguments.jobs:
        problems.append(f"{arguments.jobs - len(load.submit_ms)} jobs were not taken")
    took = [ms for _, ms in load.status_ms]
    quiet = [ms for begun, ms in load.status_ms if begun > load.handed_in]
    states = list(load.states.values())
    found = {
        "jobs": arguments.jobs,
        "clients": arguments.clients,
        "seconds": round(seconds, 1),
        **{state: states.count(state) for state in sorted(FINAL)},
        "kills": kills,
        "status_requests": len(took),
        "status_p50_ms": round(statistics.median(took), 1),
        "status_p99_ms": round(percentile(took, 0.99), 1),
        "status_max_ms": round(max(took), 1),
        "status_p99_ms_when_all_are_handed_in": round(percentile(quiet or took, 0.99), 1),
        "submit_p50_ms": round(statistics.median(load.submit_ms), 1),
        "submit_p99_ms": round(percentile(load.submit_ms, 0.99), 1),
        "memory": memory.growth(first),
    }
    if found["failed"]:
        problems.append(f"{found['failed']} jobs failed")
    if found["status_p99_ms"] >= STATUS_MS:
        problems.append(f"status p99 is {found['status_p99_ms']} ms, at most {STATUS_MS:g} are allowed")
    for name, (before, after) in found["memory"].items():
        if after > before * (1 + GROWTH):
            problems.append(f"memory of the {name} grew from {before} to {after} MiB")
    return found | {"problems": problems}


def line(found: dict[str, Any]) -> str:
    """A row of the table."""
    memory = ", ".join(f"{name} {before} -> {after}" for name, (before, after) in found["memory"].items())
    ends = f"{found['completed']} + {found['cancelled']} + {found['failed']}"
    times = f"{found['status_p50_ms']} / {found['status_p99_ms']} / {found['status_max_ms']}"
    verdict = "; ".join(found["problems"]) or "all targets met"
    load = f"{found['clients']} x {found['jobs']}"
    return record.line([record.machine(), load, str(found["seconds"]), ends, times, memory, verdict])


def main() -> int:
    """Run the load, write down what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--cancels", type=float, default=0.25, help="share of the jobs that a client wants to cancel")
    parser.add_argument("--first", type=int, default=50, help="the job from which on memory must not grow")
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between two questions of one client")
    parser.add_argument("--engine", default="torch:cpu")
    parser.add_argument("--seed", type=int, default=1)
    record.with_notes(parser)
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        hooks = stack.enter_context(Hooks())
        server = stack.enter_context(Server(folder, arguments.engine))
        found = asyncio.run(measure(server, hooks, arguments))
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    record.write(NAME, found, [line(found)], has_notes=not arguments.no_notes)
    return 1 if found["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
