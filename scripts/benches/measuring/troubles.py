"""What happens to a service in its life, done on purpose: each returns what went wrong, or nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from measuring.load_server import Server, free_port

Problems = list[str]
SLOW_CLIENTS, STREAMS, METHODS, KEYS = 200, 100, 2000, 400_000
MOST_METRICS, MOST_LOG = 2**20, 20 * 2**20  # bytes
STOPPED_S, FULL_S, STEP_S = 60, 20, 15


class Place:
    """The server under trouble, the small disk that its data lies on (or none) and the file that moves its clock."""

    def __init__(self, server: Server, *, disk: Path | None, clock: Path | None) -> None:
        self.server, self.disk, self.clock = server, disk, clock
        self.restarts = 0

    async def restart(self) -> None:
        """After the server has ended."""
        self.restarts += 1
        self.server.start()
        await self.server.ready()

    def clips(self) -> set[str]:
        """Every finished clip."""
        return {path.parent.name for path in (self.server.storage / "jobs").glob("*/clip.mp4")}


Trouble = Callable[[Place], Awaitable[Problems]]


async def server_killed(place: Place) -> Problems:
    """kill -9 of the server."""
    place.server.kill()
    await place.restart()
    return []


async def server_stopped(place: Place) -> Problems:
    """SIGTERM, as systemd stops it."""
    place.server.process.terminate()
    try:
        await asyncio.to_thread(place.server.process.wait, 120)
    except subprocess.TimeoutExpired:
        return ["the server did not end within 120 s of SIGTERM"]
    left = [path.name for path in place.server.storage.glob("*.sqlite3-wal") if path.stat().st_size]
    await place.restart()
    return [f"{left} were not brought into the database at the end"] if left else []


async def worker_killed(place: Place) -> Problems:
    """kill -9 of the worker, three times."""
    for _ in range(3):
        worker = place.server.worker()
        if worker is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
        await asyncio.sleep(5)
    return []


async def worker_stopped(place: Place) -> Problems:
    """A worker that hangs: it must be replaced although it never ends by itself."""
    worker = place.server.worker()
    if worker is None:
        return ["no worker was there to be stopped"]
    os.kill(worker, signal.SIGSTOP)
    for _ in range(STOPPED_S * 5):
        await asyncio.sleep(1)
        if place.server.worker() not in (worker, None):
            return []
    with contextlib.suppress(ProcessLookupError):
        os.kill(worker, signal.SIGCONT)
    return [f"a stopped worker was not replaced within {STOPPED_S * 5} s"]


async def latents_damaged(place: Place) -> Problems:
    """One bit of what a killed worker saved is another one afterwards."""
    for _ in range(20):
        place.server.kill()
        saved = sorted((place.server.storage / "jobs").glob("*/*latents*"))
        for path in saved:
            content = bytearray(path.read_bytes())
            content[len(content) // 3] ^= 4
            path.write_bytes(content)
        await place.restart()
        if saved:
            return []
        await asyncio.sleep(3)
    return ["no latents were there to be damaged"]


async def wrong_database(place: Place) -> Problems:
    """Another database, and then an empty one, on the folder of the clips: both are refused and nothing is swept."""
    before, problems = place.clips(), []
    place.server.kill()
    data = place.server.storage
    aside = data.parent / "aside"
    for folder in (data / "jobs").iterdir():
        with contextlib.suppress(OSError):
            os.utime(folder, (0, 0))
    other = ["--database", f"sqlite:///{data.parent / 'other.sqlite3'}"]
    aside.mkdir(exist_ok=True)
    for name, options in (("another", other), ("an empty", [])):
        if not options:
            for path in data.glob("jobs.sqlite3*"):
                shutil.move(path, aside / path.name)
            (data / "jobs.sqlite3").touch()
        code = await _start_once(place.server, options)
        if code in (0, None):
            problems.append(f"{name} database was {'taken' if code is None else 'no error'}")
    for path in [*data.glob("jobs.sqlite3*")]:
        path.unlink()
    for path in aside.iterdir():
        shutil.move(path, data / path.name)
    lost = before - place.clips()
    if lost:
        problems.append(f"{len(lost)} finished clips were swept")
    await place.restart()
    return problems


async def _start_once(server: Server, options: list[str]) -> int | None:
    """The exit code of a start with other options, None when it serves."""
    command = [*server.command, "--no-worker", "--no-page", "--port", str(free_port()), *options]
    with server.log.open("a") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=server.environment)
    try:
        return await asyncio.to_thread(process.wait, 30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return None


async def slow_clients(place: Place) -> Problems:
    """Requests that never end, answers that nobody reads, and more event streams than anybody needs."""
    address = urlsplit(place.server.url)
    half = b"POST /v1/videos HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    sockets = []
    for index in range(SLOW_CLIENTS + STREAMS):
        one = socket.create_connection((address.hostname, address.port), timeout=5)
        one.setblocking(False)
        with contextlib.suppress(OSError):
            one.send(half if index < SLOW_CLIENTS else b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50)
        sockets.append(one)
        await asyncio.sleep(0.01)
    await asyncio.sleep(90)
    open_ones = 0
    for one in sockets[:SLOW_CLIENTS]:
        try:
            while one.recv(4096):
                pass
        except BlockingIOError:
            open_ones += 1
        except OSError:
            pass
    for one in sockets:
        one.close()
    return [f"{open_ones} of {SLOW_CLIENTS} half-open requests were still open after 90 s"] if open_ones else []


async def hostile_requests(place: Place) -> Problems:
    """Bodies of many keys, and methods that nobody knows."""
    body = b"{" + b",".join(b'"%x":0' % index for index in range(KEYS)) + b"}"
    problems = []
    async with httpx.AsyncClient(base_url=place.server.url, timeout=60, trust_env=False) as client:
        for _ in range(5):
            with contextlib.suppress(httpx.TransportError):
                answer = await client.post("/v1/videos", content=body, headers={"Content-Type": "application/json"})
                if not 400 <= answer.status_code < 500:
                    problems.append(f"a body of {KEYS} keys was answered with {answer.status_code}")
        for index in range(METHODS):
            with contextlib.suppress(httpx.TransportError):
                await client.request(f"M{index:x}" + "X" * 200, "/health")
        size = len((await client.get("/metrics")).content)
    if size > MOST_METRICS:
        problems.append(f"/metrics has {size} bytes after {METHODS} made-up methods")
    return problems


async def disk_full(place: Place) -> Problems:
    """Nothing more can be written for a while."""
    if place.disk is None:
        return []
    filler = place.disk / "filler"
    with filler.open("wb") as file, contextlib.suppress(OSError):
        os.posix_fallocate(file.fileno(), 0, max(shutil.disk_usage(place.disk).free, 1))
    await asyncio.sleep(FULL_S)
    async with httpx.AsyncClient(base_url=place.server.url, timeout=60, trust_env=False) as client:
        files = {"input_reference": ("c.png", b"\x89PNG\r\n\x1a\n")}
        code = (await client.post("/v1/videos", data={"prompt": "x"}, files=files)).status_code
    filler.unlink()
    return [] if 400 <= code < 500 or code == 507 else [f"a POST on a full disk was answered with {code}"]


async def clock_steps(place: Place) -> Problems:
    """An hour back, then a day forward, then right again."""
    if place.clock is None:
        return []
    for seconds in (-3600, 86_400, 0):
        place.clock.write_text(str(seconds))
        await asyncio.sleep(STEP_S)
    return []


# Those that start processes anew come first: the memory of the last ones is watched over the rest.
TROUBLES: list[Trouble] = [
    server_killed,
    wrong_database,
    latents_damaged,
    worker_stopped,
    server_stopped,
    worker_killed,
    slow_clients,
    hostile_requests,
    disk_full,
    clock_steps,
]


def built_clock(folder: Path) -> dict[str, str]:
    """What a process needs in its environment for its clock to be moved; nothing where there is no compiler."""
    library, file = folder / "clock_step.so", folder / "clock"
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        return {}
    source = Path(__file__).with_name("clock_step.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    file.write_text("0")
    return {"LD_PRELOAD": str(library), "CLOCK_STEP": str(file)}
