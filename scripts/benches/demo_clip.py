"""How long the demonstration takes: ``framewake animate`` as a whole process, start included, on each engine.

Writes every run to results/bench-demo-clip.json and one line an engine to docs/measurements.md.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).parents[2]
NOTES = ROOT / "docs" / "measurements.md"
RECORD = ROOT / "results" / "bench-demo-clip.json"
HEADING = "## demo-clip"


def main() -> int:
    """Time the demonstration, write down what was found."""
    kinds = [kind for kind in ("torch", "mindspore") if importlib.util.find_spec(kind)]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", nargs="+", default=[f"{kind}:cpu" for kind in kinds])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--no-notes", action="store_true", help="leave docs/measurements.md as it is")
    arguments = parser.parse_args()
    found = {}
    for engine in arguments.engines:
        found[engine] = [timed(engine) for _ in range(arguments.runs)]
        sys.stdout.write(line(engine, found[engine]) + "\n")
    RECORD.parent.mkdir(exist_ok=True)
    RECORD.write_text(json.dumps({"machine": machine(), "date": today(), "runs": found}, indent=2) + "\n")
    if not arguments.no_notes:
        note([line(engine, runs) for engine, runs in found.items()], HEADING)
    return 0


def timed(engine: str) -> dict[str, float]:
    """One run: whole seconds, and those of each stage."""
    with tempfile.TemporaryDirectory() as folder:
        command = [str(Path(sys.executable).with_name("framewake")), "animate", str(ROOT / "examples/red-circle.png")]
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
    return f"| {today()} | {engine} {version} | {machine()} | {measured} |"


def machine() -> str:
    """Processor, cores that this process may use, Python."""
    name = platform.processor() or platform.machine()
    cpu_info = Path("/proc/cpuinfo")
    if cpu_info.exists():
        named = [text.partition(":")[2].strip() for text in cpu_info.read_text().splitlines() if "model name" in text]
        name = named[0] if named else name
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores, Python {platform.python_version()}"


def today() -> str:
    """The date in UTC."""
    return datetime.now(timezone.utc).date().isoformat()


def note(rows: list[str], heading: str) -> None:
    """Add rows of a table below its last one, and anything else at the end of the section."""
    before, found, after = NOTES.read_text().partition(heading)
    if not found:
        raise SystemExit(f"{NOTES} has no section '{heading}'")
    table, rule, rest = after.partition("\n## ")
    lines = table.rstrip().split("\n")
    is_row = [line.startswith("|") for line in lines]
    # A paragraph may stand behind the table: what follows it would be no part of the table.
    end = len(lines) - is_row[::-1].index(True) if rows[0].startswith("|") and any(is_row) else len(lines)
    lines[end:end] = rows
    NOTES.write_text(before + heading + "\n".join(lines) + "\n" + (rule + rest if rule else ""))


if __name__ == "__main__":
    sys.exit(main())
