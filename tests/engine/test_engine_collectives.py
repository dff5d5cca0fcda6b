"""Two processes exchange tensors, on both engines."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE, STDOUT

import numpy as np

SCRIPT = Path(__file__).with_name("collectives_check.py")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def commands(kind: str, folder: Path) -> list[tuple[list[str], dict[str, str]]]:
    """What to start, and with which variables."""
    port = str(free_port())
    call = [str(SCRIPT), kind, str(folder)]
    if kind == "torch":
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
        return [([sys.executable, *call], shared | {"RANK": str(rank)}) for rank in range(2)]
    launcher = Path(sys.executable).with_name("msrun")
    flags = [
        "--worker_num=2",
        "--local_worker_num=2",
        "--master_addr=127.0.0.1",
        f"--master_port={port}",
        "--join=True",
    ]
    path = f"{launcher.parent}{os.pathsep}{os.environ['PATH']}"  # it starts "python" by that name
    return [([str(launcher), *flags, "--join=True", f"--log_dir={folder / 'log'}", *call], {"PATH": path})]


def test_two_processes(engine, tmp_path):
    started = [
        subprocess.Popen(
            command,
            env=os.environ | variables,
            cwd=tmp_path,
            stdout=PIPE,
            stderr=STDOUT,
            text=True,
            # When a worker fails, msrun kills the whole process group: it must not be the tests' own.
            start_new_session=True,
        )
        for command, variables in commands(engine.kind, tmp_path)
    ]
    outputs = [process.communicate(timeout=300)[0] for process in started]
    assert all(process.returncode == 0 for process in started), "\n".join(outputs)[-3000:]
    sent = [np.arange(8).reshape(2, 4) + 10 * rank for rank in range(2)]
    for rank in range(2):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        halves = [piece[:, 2 * rank : 2 * rank + 2] for piece in sent]
        assert found == {
            "size": 2,
            "all_gather": np.concatenate(sent, 1).tolist(),
            "all_to_all": np.concatenate(halves, 0).tolist(),
            "all_reduce": (sent[0] + sent[1]).tolist(),
            "broadcast": sent[1].tolist(),
            "unchanged": sent[rank].tolist(),
        }
