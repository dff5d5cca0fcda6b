"""Peak memory and time of a run against its forecast, each in a process of its own, on each engine.

The demonstration at its own size and two smaller clips; on a CPU the peak is the largest resident set. An idle machine
is needed for the seconds. Adds one line a run to docs/measurements.md.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from demo_clip import ROOT, machine, note, today

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
    rows = []
    for engine in arguments.engines:
        for name in arguments.clips:
            found = measured(engine, *CLIPS[name], arguments.memory << 20)
            rows.append(line(engine, name, found))
            stages = {stage: f"{size >> 20} MiB" for stage, size in found["stages"].items()}
            sys.stdout.write(f"{rows[-1]}\n  peak after each stage: {stages}\n")
            sys.stdout.flush()
    if not arguments.no_notes:
        note(rows, HEADING)
    return 0


def measured(engine: str, frames: int, steps: int, memory: int) -> dict:
    """One clip in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "child.py"
        script.write_text(CHILD)
        command = [sys.executable, str(script), engine, str(frames), str(steps), str(memory), str(PICTURE)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    return json.loads(done.stdout.splitlines()[-1])


def line(engine: str, name: str, found: dict) -> str:
    """A row of the table."""
    version = importlib.metadata.version(engine.partition(":")[0])
    memory = f"{found['expected'] >> 20} | {found['peak'] >> 20} | {found['expected'] / found['peak'] - 1:+.0%}"
    time = f"{found['expected_seconds']:.1f} | {found['seconds']:.1f} | "
    time += f"{found['expected_seconds'] / found['seconds'] - 1:+.0%}"
    return f"| {today()} | {engine} {version} | {name} | {memory} | {time} | {machine()} |"


if __name__ == "__main__":
    sys.exit(main())
