"""How soon the server answers while its worker computes, alone and beside clients that mean it harm.

A real server with its worker process, on the embedded checkpoint, makes one long clip; somebody asks ten times a second
how far it is. Then the same beside hostile bodies and beside 400 connections that say nothing. Processor time of server
and worker, and the share of the machine that others had, are written down too. Writes
results/bench-service-status.json and lines to docs/measurements/service-status.md, and fails when a target is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
from measuring import record
from measuring.clocks import IDLE
from measuring.load_checks import percentile
from measuring.load_server import Server

from framewake.demo import PICTURES

NAME = "service-status"
MOST_MS = 100.0  # p99, on a machine that is otherwise idle
TICK = os.sysconf("SC_CLK_TCK")
KEYS = b"{" + b",".join(b'"%x":0' % number for number in range(2_400_000)) + b"}"
LISTS = b"[" + b"[]," * (26_000_000 // 3) + b"[]]"


def used(pid: int | None) -> float:
    """Seconds of processor time of a process."""
    with contextlib.suppress(OSError, TypeError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK
    return 0.0


def busy() -> tuple[float, float]:
    """Seconds of the whole machine: at work, and altogether."""
    numbers = [int(text) for text in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(numbers) - numbers[3] - numbers[4]) / TICK, sum(numbers) / TICK


@contextlib.asynccontextmanager
async def nobody(_server: Server) -> AsyncIterator[None]:
    """Nobody else."""
    yield


@contextlib.asynccontextmanager
async def bodies(server: Server) -> AsyncIterator[None]:
    """Two clients that send 27 MB of keys, or of lists, one after another."""

    async def send(body: bytes) -> None:
        async with httpx.AsyncClient(base_url=server.url, timeout=60, trust_env=False) as client:
            while True:
                with contextlib.suppress(httpx.TransportError):
                    await client.post("/v1/videos", content=body, headers={"content-type": "application/json"})
                await asyncio.sleep(0.2)

    tasks = [asyncio.create_task(send(body)) for body in (KEYS, LISTS)]
    yield
    for task in tasks:
        task.cancel()


@contextlib.asynccontextmanager
async def silence(server: Server) -> AsyncIterator[None]:
    """400 connections with half a header, opened again when they are closed."""
    place = ("127.0.0.1", int(server.url.rpartition(":")[2]))
    opened: list[socket.socket] = []

    async def hold() -> None:
        while True:
            while opened:
                opened.pop().close()
            for _ in range(400):
                with contextlib.suppress(OSError):
                    opened.append(socket.create_connection(place, timeout=1))
                    opened[-1].sendall(b"GET /v1/videos HTTP/1.1\r\nX: ")
                await asyncio.sleep(0)
            await asyncio.sleep(5)

    task = asyncio.create_task(hold())
    yield
    task.cancel()


BESIDE = {"nobody": nobody, "hostile bodies": bodies, "400 silent connections": silence}


async def hand_in(client: httpx.AsyncClient) -> str:
    """One long clip."""
    picture = (PICTURES / "red-circle.png").read_bytes()
    data = {"prompt": "the red circle moves right", "resolution": "360p", "num_inference_steps": "1000"}
    answer = await client.post("/v1/videos", data=data, files={"input_reference": ("c.png", picture)})
    return str(answer.raise_for_status().json()["id"])


async def measure(server: Server, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each kind of company."""
    await server.ready()
    found = []
    async with httpx.AsyncClient(base_url=server.url, timeout=60, trust_env=False) as client:
        for name, company in BESIDE.items():
            job = await hand_in(client)
            while (await client.get(f"/v1/videos/{job}")).json()["step"] < 1:
                await asyncio.sleep(0.2)
            async with company(server):
                await asyncio.sleep(2)
                found.append({"beside": name, **await ask(client, job, server, seconds=arguments.seconds)})
            await client.delete(f"/v1/videos/{job}")
    return found


async def ask(client: httpx.AsyncClient, job: str, server: Server, *, seconds: float) -> dict[str, Any]:
    """Ask ten times a second how far a clip is, and the server how it is."""
    worker, took = server.worker(), []
    own, pids = time.process_time(), (server.process.pid, worker)
    before, (worked, passed) = [used(pid) for pid in pids], busy()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for path in (f"/v1/videos/{job}", "/health"):
            begin = time.perf_counter()
            (await client.get(path)).raise_for_status()
            took.append((time.perf_counter() - begin) * 1000)
        await asyncio.sleep(0.1)
    ours = [used(pid) - start for pid, start in zip(pids, before, strict=True)]
    work, whole = (now - then for now, then in zip(busy(), (worked, passed), strict=True))
    others = max(0.0, work - sum(ours) - (time.process_time() - own)) / whole
    return {
        "requests": len(took),
        "p50_ms": round(statistics.median(took), 1),
        "p95_ms": round(percentile(took, 0.95), 1),
        "p99_ms": round(percentile(took, 0.99), 1),
        "max_ms": round(max(took), 1),
        "server_cpu_s": round(ours[0], 1),
        "worker_cpu_s": round(ours[1], 1),
        "others": round(others, 3),
    }


def line(row: dict[str, Any], seconds: float) -> str:
    """A row of the table."""
    times = " / ".join(str(row[f"{name}_ms"]) for name in ("p50", "p95", "p99", "max"))
    cpu = f"{row['server_cpu_s']} and {row['worker_cpu_s']} of {seconds:g} s"
    return record.line([record.machine(), row["beside"], times, cpu, f"{row['others']:.0%}"])


def missed(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Targets that were not met; nothing is said about a machine that others use."""
    quiet = [row for row in rows if row["beside"] == "nobody" and row["others"] <= IDLE]
    return [f"status p99 is {row['p99_ms']} ms" for row in quiet if row["p99_ms"] > MOST_MS]


def main() -> int:
    """Measure, write down what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--engine", default="torch:cpu")
    record.with_notes(parser)
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(Server(folder, arguments.engine))
        rows = asyncio.run(measure(server, arguments))
    problems = missed(rows)
    notes = [line(row, arguments.seconds) for row in rows]
    record.write(NAME, {"rows": rows, "problems": problems}, notes, has_notes=not arguments.no_notes)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
