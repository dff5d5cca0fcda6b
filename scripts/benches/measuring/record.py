"""Results as JSON under results/, and as rows of docs/measurements.md."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from demo_clip import ROOT, machine, note, today

PACKAGES = ("framewake", "torch", "mindspore", "diffusers", "transformers", "numpy")


def parser(description: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """Options that every side-by-side benchmark has."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--rounds", type=int, default=rounds, help="how often each program runs, in turns")
    options.add_argument("--no-notes", action="store_true", help="leave docs/measurements.md as it is")
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


def setting() -> dict[str, Any]:
    """Machine, versions and threads of a run."""
    threads = os.environ.get("OMP_NUM_THREADS", "default")
    return {"date": today(), "machine": machine(), "versions": versions(), "threads": threads}


def line(cells: Sequence[str]) -> str:
    """A row of docs/measurements.md, the day first."""
    return f"| {' | '.join([today(), *cells])} |"


def say(name: str, text: str) -> None:
    """A line for whoever watches."""
    sys.stdout.write(f"{name}: {text}\n")
    sys.stdout.flush()


def write(name: str, content: dict[str, Any], rows: list[str], *, has_notes: bool) -> None:
    """Show the rows, keep everything as JSON, and add the rows to the section of this benchmark."""
    place = ROOT / "results" / f"bench-{name}.json"
    place.parent.mkdir(exist_ok=True)
    place.write_text(json.dumps(setting() | content, indent=2) + "\n")
    sys.stdout.write("".join(f"{row}\n" for row in rows))
    sys.stdout.flush()
    if has_notes:
        note(rows, f"## {name}\n")
