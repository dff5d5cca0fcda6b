"""Peak memory and time of a run against its forecast, each in a process of its own, on each engine.

The device is measured first, in a process and a cache of their own, so that no run warms up its own libraries for
that: each run pays for its start as a user's second run does.
The demonstration at its own size and two smaller clips; on a CPU the peak is the largest resident set. An idle machine
is needed for the seconds. Adds one line a run to docs/measurements.md.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from demo_clip import ROOT, machine, note, today
from measuring import clocks

HEADING = "## memory"
CLIPS = {"demo": (33, 20), "middle": (17, 4), "small": (5, 2)}  # frames and steps
PICTURE = ROOT / "examples" / "red-circle.png"

# Runs in its own process: nothing but this clip may add to its peak.
CHILD = """
import json, sys, time
from framewake import engine
from framewake.pipeline import Job, Pipeline, Result, StageFinished
from framewake.request import Request
name, frames, steps, memory = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]) or None
pipeline = Pipeline.load("demo", engine=engine.get(name), memory=memory)
request = Request("the red circle moves right", sys.argv[5], frames=frames, steps=steps, seed=1)
forecast = pipeline.forecast(Job(request))
if sys.argv[6] == "probe":
    sys.exit(0)
begin, stages = time.perf_counter(), {}
for event in pipeline.run(request):
    if isinstance(event, StageFinished):
        stages[event.stage] = pipeline.engine.memory()["peak"]
seconds = time.perf_counter() - begin
peak = pipeline.engine.memory()["peak"]
print(json.dumps({"expected": forecast.device_peak, "peak": peak, "stages": stages, "seconds": seconds,
                  "expected_seconds": forecast.seconds, "lines": forecast.lines}))
"""


def main() -> int:
    """Run and compare."""
    kinds = [kind for kind in ("torch", "mindspore") if importlib.util.find_spec(kind)]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", nargs="+", default=[f"{kind}:cpu" for kind in kinds])
    parser.add_argument("--clips", nargs="+", default=list(CLIPS), choices=list(CLIPS))
    parser.add_argument("--memory", type=int, default=0, help="limit in MiB; 0 is what is free")
    parser.add_argument("--no-notes", action="store_true", help="leave docs/measurements.md as it is")
    arguments = parser.parse_args()
    rows, errors = [], []
    with tempfile.TemporaryDirectory() as cache, clocks.Watch() as watch:
        for engine in arguments.engines:
            child(engine, CLIPS["small"], (0, "probe"), cache)
            for name in arguments.clips:
                text = child(engine, CLIPS[name], (arguments.memory << 20, "run"), cache)
                found = json.loads(text.splitlines()[-1])
                rows.append(line(engine, name, found))
                errors.append(wrong(found))
                stages = {stage: f"{size >> 20} MiB" for stage, size in found["stages"].items()}
                sys.stdout.write(f"{rows[-1]}\n  peak after each stage: {stages}\n")
                sys.stdout.flush()
    memory, seconds = (max(abs(pair[place]) for pair in errors) for place in (0, 1))
    verdict = f"largest error: memory {memory:.0%} (allowed 10 %), time {seconds:.0%} (allowed 25 %)"
    sys.stdout.write(f"{verdict}; the machine was {watch.words()}\n")
    if not arguments.no_notes:
        note(rows, HEADING)
    return 0 if memory <= 0.1 and seconds <= 0.25 else 1


def child(engine: str, clip: tuple[int, int], limit_and_work: tuple[int, str], cache: str) -> str:
    """What a process of its own says about one clip; the device's speed is looked up and kept in ``cache``."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "child.py"
        script.write_text(CHILD)
        limit, work = limit_and_work
        command = [sys.executable, str(script), engine, *map(str, clip), str(limit), str(PICTURE), work]
        named = os.environ | {"XDG_CACHE_HOME": cache}
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=named).stdout


def wrong(found: dict) -> tuple[float, float]:
    """How far memory and time of the forecast were off."""
    return found["expected"] / found["peak"] - 1, found["expected_seconds"] / found["seconds"] - 1


def line(engine: str, name: str, found: dict) -> str:
    """A row of the table."""
    version = importlib.metadata.version(engine.partition(":")[0])
    memory = f"{found['expected'] >> 20} | {found['peak'] >> 20} | {found['expected'] / found['peak'] - 1:+.0%}"
    time = f"{found['expected_seconds']:.1f} | {found['seconds']:.1f} | "
    time += f"{found['expected_seconds'] / found['seconds'] - 1:+.0%}"
    return f"| {today()} | {engine} {version} | {name} | {memory} | {time} | {machine()} |"


if __name__ == "__main__":
    sys.exit(main())
