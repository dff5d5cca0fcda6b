"""How long the demonstration takes: ``framewake animate`` as a whole process, start included, on each engine.

Writes every run to results/bench-demo-clip.json and one line an engine to docs/measurements/demo-clip.md.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measuring import record

NAME = "demo-clip"


def main() -> int:
    """Time the demonstration, write down what was found."""
    kinds = [kind for kind in ("torch", "mindspore") if importlib.util.find_spec(kind)]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", nargs="+", default=[f"{kind}:cpu" for kind in kinds])
    parser.add_argument("--runs", type=int, default=3)
    record.with_notes(parser)
    arguments = parser.parse_args()
    found = {}
    for engine in arguments.engines:
        found[engine] = [timed(engine) for _ in range(arguments.runs)]
    rows = [line(engine, runs) for engine, runs in found.items()]
    record.write(NAME, {"runs": found}, rows, has_notes=not arguments.no_notes)
    return 0


def timed(engine: str) -> dict[str, float]:
    """One run: whole seconds, and those of each stage."""
    with tempfile.TemporaryDirectory() as folder:
        command = [str(Path(sys.executable).with_name("framewake")), "animate", "demo/red-circle"]
        command += ["the red circle moves right", "--checkpoint", "demo", "--seed", "1", "--engine", engine, "--json"]
        command += ["-o", f"{folder}/clip.mp4"]
        started = time.perf_counter()
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        seconds = time.perf_counter() - started
    events = [json.loads(text) for text in done.stdout.splitlines() if text.strip()]
    return {"total": round(seconds, 2)} | next(e["timings"] for e in events if e["event"] == "result")


def line(engine: str, runs: list[dict[str, float]]) -> str:
    """A row of the table: medians, and the slowest run."""
    middle = {stage: statistics.median(run[stage] for run in runs) for stage in runs[0]}
    stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in middle.items() if stage != "total")
    slowest = max(run["total"] for run in runs)
    version = importlib.metadata.version(engine.partition(":")[0])
    measured = f"{middle['total']:.1f} | {slowest:.1f} | {len(runs)} | {stages}"
    return f"| {record.today()} | {engine} {version} | {record.machine()} | {measured} |"


if __name__ == "__main__":
    sys.exit(main())
