"""Results as JSON under results/, and as rows of a file of docs/measurements/."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
NOTES = ROOT / "docs" / "measurements"
PACKAGES = ("framewake", "torch", "mindspore", "diffusers", "transformers", "numpy")


def parser(description: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """Options that every benchmark of several rounds has."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--rounds", type=int, default=rounds, help="how often each program runs, in turns")
    return with_notes(options)


def with_notes(options: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The option that every benchmark has."""
    options.add_argument("--no-notes", action="store_true", help="change nothing under docs/")
    return options


def versions() -> dict[str, str]:
    """Versions of everything whose speed is measured."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def machine() -> str:
    """Processor, cores that this process may use, Python."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{processor()}, {cores} cores, Python {platform.python_version()}"


def processor() -> str:
    """The processor as a person knows it."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    return named[0] if named else platform.processor() or platform.machine()


def today() -> str:
    """The date in UTC."""
    return datetime.now(timezone.utc).date().isoformat()


def setting() -> dict[str, Any]:
    """Machine, versions and threads of a run."""
    threads = os.environ.get("OMP_NUM_THREADS", "default")
    return {"date": today(), "machine": machine(), "versions": versions(), "threads": threads}


def line(cells: Sequence[str]) -> str:
    """A row of a benchmark's table, the day first."""
    return f"| {' | '.join([today(), *cells])} |"


def say(name: str, text: str) -> None:
    """A line for whoever watches."""
    sys.stdout.write(f"{name}: {text}\n")
    sys.stdout.flush()


def write(name: str, content: dict[str, Any], rows: list[str], *, has_notes: bool) -> None:
    """Show the rows, keep everything as JSON, and add the rows to the benchmark's file."""
    place = ROOT / "results" / f"bench-{name}.json"
    place.parent.mkdir(exist_ok=True)
    replace_text(place, json.dumps(setting() | content, indent=2) + "\n")
    sys.stdout.write("".join(f"{row}\n" for row in rows))
    sys.stdout.flush()
    if has_notes:
        note(rows, name)


def note(rows: list[str], name: str) -> None:
    """Add rows of a table below its last one, and anything else at the end of docs/measurements/NAME.md."""
    page = NOTES / f"{name}.md"
    if not page.is_file():
        raise SystemExit(f"{page} does not exist: describe the benchmark there, with the head of its table")
    lines = page.read_text(encoding="utf-8").rstrip().split("\n")
    is_row = [line.startswith("|") for line in lines]
    # A paragraph may stand behind the table: what follows it would be no part of the table.
    end = len(lines) - is_row[::-1].index(True) if rows[0].startswith("|") and any(is_row) else len(lines)
    lines[end:end] = rows
    replace_text(page, "\n".join(lines) + "\n")


def replace_text(path: Path, text: str) -> None:
    """Write a file that is whole at any moment: what stands in it took hours."""
    part = path.with_name(f"{path.name}.partial")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
