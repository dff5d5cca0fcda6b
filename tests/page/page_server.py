"""``framewake serve`` with its page, in a process of its own."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

PATIENCE = 240  # seconds; Gradio and a framework are imported on a machine that may be busy


class PageServer:
    """A server on a port of its own, which stays the same when it is started again."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.folder = folder
        self.log = folder / "log"
        self.command = [sys.executable, "-m", "framewake.app.cli", "serve", "--port", str(self.port)]
        self.command += ["--engine", "torch:cpu", "--data", str(folder / "data"), *arguments]
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        """Start it, and wait until a worker lives."""
        with self.log.open("a") as file:
            self.process = subprocess.Popen(
                self.command, stderr=file, stdout=file, env=os.environ | {"OMP_NUM_THREADS": "1"}
            )
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            # 503 is an answer too: there is no worker yet.
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/health") as answer:
                if answer.status == 200:
                    return
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.2)
        raise AssertionError(f"no worker after {PATIENCE} s:\n{self.log.read_text()}")

    def stop(self) -> None:
        """End it politely."""
        self.process.terminate()
        self.process.wait(timeout=120)
