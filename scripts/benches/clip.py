"""A whole clip of the demonstration, here and with diffusers' pipeline, each run a process of its own.

Cold is the time from the start of the process to its end; warm is a second clip in the same process; peak is the
largest resident set. Same checkpoint, picture, prompt, steps and encoder of the file. The floor is the clip's
operations over the matrix rate (or its weights' bytes over the bandwidth) measured in the same run, in float32.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from measuring import clocks, record
from measuring.clip_floor import clip_work
from measuring.floors import ceilings

NAME = "clip"
CHILDREN = {
    "torch:cpu": "framewake_clip.py",
    "mindspore:cpu": "framewake_clip.py",
    "diffusers": "diffusers_clip.py",
}


def main() -> int:
    """Run every program in turns, write down what was found."""
    options = record.parser(__doc__, rounds=3)
    options.add_argument("--programs", nargs="+", default=list(CHILDREN), choices=list(CHILDREN))
    options.add_argument("--steps", type=int, default=20)
    options.add_argument("--frames", type=int, default=33)
    arguments = options.parse_args()
    found: dict[str, list[dict]] = {name: [] for name in arguments.programs}
    with clocks.Watch() as watch:
        for number in range(arguments.rounds):
            for name in arguments.programs if number % 2 == 0 else reversed(arguments.programs):
                found[name].append(one_run(name, arguments.steps, arguments.frames))
        limits = ceilings(torch.float32)
    floor = limits.floor(*clip_work(arguments.steps, arguments.frames))
    rows = [row(name, found, floor=floor, words=watch.words()) for name in arguments.programs]
    content = {"runs": found, "floor_seconds": floor, "ceilings": limits._asdict(), "machine_was": watch.words()}
    record.write(NAME, content, rows, has_notes=not arguments.no_notes)
    return 0


def one_run(name: str, steps: int, frames: int) -> dict:
    """One process: seconds until its first step, until its end, of a warm clip; its peak and processor time."""
    script = Path(__file__).parent / "measuring" / CHILDREN[name]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(script), name, str(steps), str(frames), folder]
        found = {}
        for kind in ("cold", "warm"):
            begin = time.time()
            with subprocess.Popen([*command, kind, repr(begin)], stdout=subprocess.PIPE, text=True) as process:
                told = process.stdout.read()
                _, status, usage = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode != 0:
                raise SystemExit(f"{name} ended with {process.returncode}")
            told = json.loads(told.splitlines()[-1])
            if kind == "cold":
                found |= {"cold": time.time() - begin, "peak": usage.ru_maxrss * 1024, "first_step": told["first_step"]}
                found["processor"] = usage.ru_utime + usage.ru_stime
            else:
                found["warm"] = told["warm"]
    return found


def row(name: str, found: dict[str, list[dict]], *, floor: float, words: str) -> str:
    """A row of the table; ratios are against diffusers where it ran, round by round."""
    runs, others = found[name], found.get("diffusers")
    texts = []
    for key, form in (("cold", "{:.1f}"), ("warm", "{:.1f}"), ("processor", "{:.1f}"), ("first_step", "{:.1f}")):
        texts.append(middle([run[key] for run in runs], form) + against(runs, others, key))
    texts.append(middle([run["peak"] / 2**20 for run in runs], "{:.0f}") + against(runs, others, "peak"))
    texts.append(f"{floor:.2f} | {floor / statistics.median([run['warm'] for run in runs]):.0%}")
    version = record.versions()[name.partition(":")[0]]
    return f"| {record.today()} | {name} {version} | {' | '.join(texts)} | {len(runs)} | {words} | {record.machine()} |"


def middle(values: list[float], form: str) -> str:
    """The median, and the two ends."""
    texts = [form.format(x) for x in (statistics.median(values), min(values), max(values))]
    return f"{texts[0]} ({texts[1]} to {texts[2]})"


def against(runs: list[dict], others: list[dict] | None, key: str) -> str:
    """The median ratio to another program in the same rounds."""
    if others is None or others is runs:
        return ""
    return f", x{statistics.median(a[key] / b[key] for a, b in zip(runs, others, strict=True)):.2f}"


if __name__ == "__main__":
    sys.exit(main())
