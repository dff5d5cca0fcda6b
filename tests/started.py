"""Real processes for tests: one a rank on the CPU, each in a session of its own, ended by its own id within a limit."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from framewake.app.devices import ASKED_AGAIN_SECONDS, RETRIES

SCHEDULE = "from framewake import engine; engine.join('mindspore:cpu')"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def variables(kind: str, size: int) -> list[dict[str, str]]:
    """What each process has to find in its environment; MindSpore's last one is the scheduler."""
    port = str(free_port())
    if kind == "torch":
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(size)}
        return [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size)]
    shared = {"MS_WORKER_NUM": str(size), "MS_SCHED_HOST": "127.0.0.1", "MS_SCHED_PORT": port}
    shared |= dict.fromkeys(RETRIES, ASKED_AGAIN_SECONDS)
    workers = [shared | {"MS_ROLE": "MS_WORKER", "MS_NODE_ID": str(rank)} for rank in range(size)]
    return [*workers, shared | {"MS_ROLE": "MS_SCHED"}]


class Ranks:
    """``python script *words`` once for each rank; what each has said is in ``folder/rank.txt``."""

    def __init__(self, kind: str, size: int, folder: Path, script: Path, *words: str) -> None:
        self.size = size
        self.logs = [folder / f"{rank}.txt" for rank in range(size + 1)]
        self.processes = []
        for rank, told in enumerate(variables(kind, size)):
            call = [str(script), *words] if rank < size else ["-c", SCHEDULE]
            environment = os.environ | {"OMP_NUM_THREADS": "1"} | told
            with self.logs[rank].open("w") as log:
                one = subprocess.Popen(
                    [sys.executable, *call],
                    env=environment,
                    cwd=folder,
                    stdout=log,
                    stderr=log,
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                )
            self.processes.append(one)

    def __enter__(self) -> Ranks:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait()

    def wait(self, seconds: float) -> list[int | None]:
        """The exit codes of all ranks, None for those that are still there after so many seconds."""
        end = time.monotonic() + seconds
        for process in self.processes[: self.size]:
            while process.poll() is None and time.monotonic() < end:
                time.sleep(0.05)
        return [process.poll() for process in self.processes[: self.size]]

    def said(self) -> str:
        """What all of them have said."""
        return "\n".join(f"--- {log.name}\n{log.read_text()[-2000:]}" for log in self.logs if log.exists())


def finished(kind: str, size: int, folder: Path, script: Path, *words: str, seconds: float = 300) -> None:
    """Run all ranks to their end, which has to be a good one."""
    with Ranks(kind, size, folder, script, *words) as ranks:
        codes = ranks.wait(seconds)
        assert codes == [0] * size, f"{codes}\n{ranks.said()}"


def torchrun(folder: Path, script: Path, *words: str, size: int = 2, seconds: float = 300) -> None:
    """The same with torch's own launcher, which ends what it started when it is asked to end."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}"]
    log = folder / "torchrun.txt"
    with log.open("w") as said:
        launcher = subprocess.Popen(
            [*command, str(script), *words], cwd=folder, stdout=said, stderr=said, stdin=subprocess.DEVNULL
        )
    try:
        code = launcher.wait(seconds)
    except subprocess.TimeoutExpired:
        launcher.terminate()
        code = launcher.wait(60)
    assert code == 0, log.read_text()[-4000:]
