"""Peak memory and time of a run against its forecast, each in a process of its own, on each engine.

The device is measured first, in a process and a cache of their own, so that no run warms up its own libraries for
that: each run pays for its start as a user's second run does. Measuring and runs take turns for some rounds, each with
a new cache; the medians are compared, and stage by stage, so that a forecast that is wrong shows where.
The demonstration at its own size and two smaller clips; on a CPU the peak is the largest resident set. The floor is a
clip's operations over the matrix rate (or its weights' bytes over the bandwidth) measured in the same run, in float32.
An idle machine is needed for the seconds. Adds one line a clip to docs/measurements/memory.md.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from measuring import clocks, record
from measuring.clip_floor import PROMPT, clip_work
from measuring.record import ROOT

from framewake.demo import PICTURES

if TYPE_CHECKING:
    from measuring.floors import Ceilings

NAME = "memory"
CLIPS = {"demo": (33, 20), "middle": (17, 4), "small": (5, 2)}  # frames and steps
PICTURE = PICTURES / "red-circle.png"
MEMORY, TIME = 0.1, 0.25  # what a forecast may be off

# Runs in its own process: nothing but this clip may add to its peak.
CHILD = """
import json, sys, time
from framewake import engine
from framewake.pipeline import Job, Pipeline, Result, StageFinished
from framewake.request import Request
from framewake.demo import PICTURES
name, frames, steps, memory = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]) or None
pipeline = Pipeline.load("demo", engine=engine.get(name), memory=memory)
request = Request(sys.argv[7], sys.argv[5], frames=frames, steps=steps, seed=1)
forecast = pipeline.forecast(Job(request))
if sys.argv[6] == "probe":
    sys.exit(0)
begin, peaks = time.perf_counter(), {}
for event in pipeline.run(request):
    if isinstance(event, StageFinished):
        peaks[event.stage] = pipeline.engine.memory()["peak"]
    elif isinstance(event, Result):
        stages = dict(event.timings)
seconds = time.perf_counter() - begin
peak = pipeline.engine.memory()["peak"]
print(json.dumps({"expected": forecast.device_peak, "peak": peak, "peaks": peaks, "seconds": seconds,
                  "expected_seconds": forecast.seconds, "expected_stages": dict(forecast.stages), "stages": stages,
                  "lines": forecast.lines}))
"""


def main() -> int:
    """Run and compare."""
    kinds = [kind for kind in ("torch", "mindspore") if importlib.util.find_spec(kind)]
    parser = record.parser(__doc__, rounds=3)
    parser.add_argument("--engines", nargs="+", default=[f"{kind}:cpu" for kind in kinds])
    parser.add_argument("--clips", nargs="+", default=list(CLIPS), choices=list(CLIPS))
    parser.add_argument("--memory", type=int, default=0, help="limit in MiB; 0 is what is free")
    arguments = parser.parse_args()
    rows, found, errors = [], {}, []
    with clocks.Watch() as watch:
        runs = {
            engine: rounds(engine, arguments.clips, arguments.rounds, arguments.memory << 20)
            for engine in arguments.engines
        }
        limits = measured_ceilings()
    for engine, clips in runs.items():
        for name, told in clips.items():
            key, (frames, steps) = f"{engine} {name}", CLIPS[name]
            found[key] = {"runs": told, "floor": limits.floor(*clip_work(steps, frames)), **usual(told)}
            rows.append(line(engine, name, found[key]))
            errors.append(wrong(found[key]))
            record.say(key, stages_said(found[key]))
    memory, seconds = (max(abs(pair[place]) for pair in errors) for place in (0, 1))
    verdict = f"largest error: memory {memory:.0%} (allowed {MEMORY:.0%}), time {seconds:.0%} (allowed {TIME:.0%})"
    content = {"clips": found, "ceilings": limits._asdict(), "machine_was": watch.words()}
    record.write(NAME, content, rows, has_notes=not arguments.no_notes)
    record.say(NAME, f"{verdict}; the machine was {watch.words()}")
    return 0 if memory <= MEMORY and seconds <= TIME else 1


def measured_ceilings() -> Ceilings:
    """What the machine can do, measured behind all runs: a process begins with the peak of the one that starts it."""
    import torch
    from measuring.floors import ceilings

    return ceilings(torch.float32)


def rounds(engine: str, clips: list[str], count: int, limit: int) -> dict[str, list[dict]]:
    """What every run of each clip said; behind each measurement of the device, one run of each."""
    found: dict[str, list[dict]] = {name: [] for name in clips}
    for _ in range(count):
        with tempfile.TemporaryDirectory() as cache:
            child(engine, CLIPS["small"], (0, "probe"), cache)
            for name in clips:
                text = child(engine, CLIPS[name], (limit, "run"), cache)
                found[name].append(json.loads(text.splitlines()[-1]))
    return found


def child(engine: str, clip: tuple[int, int], limit_and_work: tuple[int, str], cache: str) -> str:
    """What a process of its own says about one clip; the device's speed is looked up and kept in ``cache``."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "child.py"
        script.write_text(CHILD)
        limit, work = limit_and_work
        command = [sys.executable, str(script), engine, *map(str, clip), str(limit), str(PICTURE), work, PROMPT]
        named = os.environ | {"XDG_CACHE_HOME": cache}
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=named).stdout


def usual(runs: list[dict]) -> dict:
    """Medians of some runs; of memory the run whose forecast was off most."""
    worst = max(runs, key=lambda run: abs(run["expected"] / run["peak"] - 1))
    found = {name: worst[name] for name in ("expected", "peak", "peaks")}
    for name in ("seconds", "expected_seconds"):
        found[name] = statistics.median(run[name] for run in runs)
    for name in ("stages", "expected_stages"):
        found[name] = {stage: statistics.median(run[name][stage] for run in runs) for stage in runs[0][name]}
    return found


def wrong(found: dict) -> tuple[float, float]:
    """How far memory and time of the forecast were off."""
    return found["expected"] / found["peak"] - 1, found["expected_seconds"] / found["seconds"] - 1


def stages_said(found: dict) -> str:
    """Seconds of each stage, forecast and measured, and the peak after it."""
    said = []
    for stage, seconds in found["stages"].items():
        expected = found["expected_stages"].get(stage)
        forecast = "not counted" if expected is None else f"{expected:.3f}"
        said.append(f"{stage} {forecast} -> {seconds:.3f} s, {found['peaks'][stage] >> 20} MiB")
    return "; ".join(said)


def line(engine: str, name: str, found: dict) -> str:
    """A row of the table."""
    version = importlib.metadata.version(engine.partition(":")[0])
    memory = f"{found['expected'] >> 20} | {found['peak'] >> 20} | {found['expected'] / found['peak'] - 1:+.0%}"
    time = f"{found['expected_seconds']:.1f} | {found['seconds']:.1f} | "
    time += f"{found['expected_seconds'] / found['seconds'] - 1:+.0%} | {found['floor']:.2f} | "
    time += f"{found['floor'] / found['seconds']:.0%}"
    return f"| {record.today()} | {engine} {version} | {name} | {memory} | {time} | {record.machine()} |"


if __name__ == "__main__":
    sys.exit(main())
