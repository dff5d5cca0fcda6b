"""How long nothing takes: ``framewake --help``, and a clip of the demonstration up to its first step.

Each a process of its own. The floors are an empty Python, and one that only imports the framework.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measuring import clocks, record

NAME = "startup"
COMMAND = str(Path(sys.executable).with_name("framewake"))
WORKS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "framewake --help": [COMMAND, "--help"],
    "import torch": [sys.executable, "-c", "import torch"],
    "first step, torch:cpu": "torch:cpu",
    "import mindspore": [sys.executable, "-c", "import mindspore"],
    "first step, mindspore:cpu": "mindspore:cpu",
}


def main() -> int:
    """Start everything in turns, write down what was found."""
    options = record.parser(__doc__, rounds=5)
    arguments = options.parse_args()
    found: dict[str, list[float]] = {name: [] for name in WORKS}
    with clocks.Watch() as watch:
        for number in range(arguments.rounds + 1):  # the first one fills the system's cache
            for name, work in WORKS.items():
                seconds = first_step(work) if isinstance(work, str) else run(work)
                if number > 0:
                    found[name].append(seconds)
    rows = [
        f"| {record.today()} | {name} | {statistics.median(times):.2f} | {min(times):.2f} to {max(times):.2f} | "
        f"{len(times)} | {watch.words()} | {record.machine()} |"
        for name, times in found.items()
    ]
    record.write(NAME, {"seconds": found, "machine_was": watch.words()}, rows, has_notes=not arguments.no_notes)
    return 0


def run(command: list[str]) -> float:
    """Seconds of a process from start to end."""
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - begin


def first_step(engine: str) -> float:
    """Seconds from the start of ``framewake animate`` until it tells of its first step; then it is stopped."""
    with tempfile.TemporaryDirectory() as folder:
        command = [COMMAND, "animate", "demo/red-circle", "the red circle moves right", "--json"]
        command += ["--engine", engine, "--seed", "1", "-o", f"{folder}/clip.mp4"]
        begin = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            for line in process.stdout:
                if json.loads(line)["event"] == "step":
                    seconds = time.perf_counter() - begin
                    process.kill()  # no time for a polite end
                    return seconds
    raise SystemExit(f"{engine} never told of a step")


if __name__ == "__main__":
    sys.exit(main())
