"""A real server with its worker, and a listener for its webhooks."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Server:
    """``framewake serve`` on the embedded checkpoint, with its data in a folder of its own."""

    def __init__(self, folder: Path, engine: str, *, environment: dict[str, str] | None = None) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.storage = folder / "data"
        self.log = folder / "log"
        self.environment = os.environ | (environment or {})
        self.command = [str(Path(sys.executable).with_name("framewake")), "serve", "--port", str(port)]
        self.command += ["--checkpoint", "demo", "--engine", engine, "--data", str(self.storage)]
        self.command += ["--allow-private-callbacks", "--max-per-minute", "100000"]

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=60)
        self.kill()

    def start(self) -> None:
        """Start it, also once more on what a killed one left."""
        with self.log.open("a") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, env=self.environment)

    def kill(self) -> None:
        """As a power cut ends it."""
        self.process.kill()
        self.process.wait()

    async def ready(self, seconds: float = 180) -> None:
        """Until a worker lives."""
        end = time.monotonic() + seconds
        async with httpx.AsyncClient(trust_env=False) as client:
            while time.monotonic() < end:
                with contextlib.suppress(httpx.TransportError):
                    if (await client.get(f"{self.url}/health")).status_code == 200:
                        return
                if self.process.poll() is not None:
                    break
                await asyncio.sleep(0.2)
        raise SystemExit(f"the server did not start:\n{self.log.read_text()}")

    def worker(self) -> int | None:
        """The process of the worker, when there is one."""
        for thread in Path(f"/proc/{self.process.pid}/task").iterdir():
            with contextlib.suppress(OSError):
                children = (thread / "children").read_text().split()
                if children:
                    return int(children[0])
        return None


class Hooks:
    """Takes webhooks. ``ends`` holds, for each job, the events that told its end by their ids."""

    def __init__(self) -> None:
        self.ends: dict[str, dict[str, str]] = {}
        ends = self.ends

        class Listener(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                ends.setdefault(event["data"]["id"], {})[event["id"]] = event["type"]
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Listener)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/"

    def __enter__(self) -> Hooks:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()

    async def wait(self, jobs: int, seconds: float = 60) -> None:
        """Until the ends of so many jobs were told, or too long."""
        end = time.monotonic() + seconds
        while len(self.ends) < jobs and time.monotonic() < end:
            await asyncio.sleep(0.2)
        await asyncio.sleep(2)  # for an end too many


def resident_mib(process: int) -> float:
    """The resident set of a process.

    Raises: OSError when it is gone.
    """
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
