"""``framewake serve`` in a process of its own."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
from engines_here import FIRST

PROGRAM = [sys.executable, "-m", "framewake.app.cli"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
ENGINE = FIRST


@dataclass
class Server:
    """A running server."""

    url: str
    process: subprocess.Popen
    log: Path

    def wait_for_worker(self, seconds: float = 120) -> None:
        """Until a worker lives."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/health").status_code == 200:
                    return
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.2)
        raise AssertionError(f"no worker after {seconds} s:\n{self.log.read_text()}")


def start(folder: Path, toy: Path, *arguments: str) -> Server:
    """Start a server on a free port, with its data in ``folder``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [*PROGRAM, "serve", "--port", str(port), "--checkpoint", str(toy), "--engine", ENGINE, "--no-page"]
    log = folder / "log"
    with log.open("a") as file:
        process = subprocess.Popen(
            [*command, "--data", str(folder / "data"), *arguments], stderr=file, stdout=file, env=ENVIRONMENT
        )
    return Server(f"http://127.0.0.1:{port}", process, log)


@contextlib.contextmanager
def serving(folder: Path, toy: Path, *arguments: str) -> Iterator[Server]:
    """A server with a living worker; ended politely."""
    server = start(folder, toy, *arguments)
    try:
        server.wait_for_worker()
        yield server
    finally:
        server.process.terminate()
        server.process.wait(timeout=120)


def command(*arguments: str) -> subprocess.CompletedProcess:
    """Run a command to its end."""
    return subprocess.run(
        [*PROGRAM, *arguments], capture_output=True, text=True, env=ENVIRONMENT, check=False, timeout=60
    )
