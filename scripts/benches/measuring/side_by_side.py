"""One case of a benchmark beside diffusers: timed in turns, and as a row of its table."""

from __future__ import annotations

from typing import Any

import torch

from measuring import clocks, record
from measuring.floors import ceilings
from measuring.pairs import largest_difference

TYPES = ["float32", "bfloat16"]
SIZES = ["demo", "middle", "middle-1.5"]


def parser(description: str | None):
    """The options of such a benchmark."""
    options = record.parser(description, rounds=5)
    options.add_argument("--sizes", nargs="+", default=["demo", "middle"], choices=SIZES)
    options.add_argument("--types", nargs="+", default=TYPES, choices=TYPES)
    return options


def case(pair: Any, dtype: str, rounds: int, references: dict, *, size: str, operations: float) -> dict:
    """Both programs in turns; ``references`` keeps diffusers' result of each size in the first type.

    The floor counts the weights' bytes where the pair knows them.
    """
    with clocks.Watch() as watch:
        times, results = clocks.interleaved({"ours": pair.ours, "diffusers": pair.theirs}, rounds)
        limits = ceilings(getattr(torch, dtype))
    exact = references.setdefault(size, results["diffusers"])
    return {
        "samples": times,
        "ratio": clocks.ratio(times["ours"], times["diffusers"])._asdict(),
        "difference": {name: largest_difference(x, exact) for name, x in results.items() if x is not exact},
        "operations": operations,
        "floor_seconds": limits.floor(operations, getattr(pair, "weight_bytes", 0)),
        "ceilings": limits._asdict(),
        "machine_was": watch.words(),
    }


def row(title: str, case: dict) -> str:
    """A row of the table."""
    ours, theirs = (clocks.median(case["samples"][name]) for name in ("ours", "diffusers"))
    ratio = clocks.Ratio(**case["ratio"])
    differences = ", ".join(f"{name} {x:.0e}" for name, x in case["difference"].items())
    return (
        f"| {record.today()} | {title} | {ours:.3f} | {theirs:.3f} | "
        f"{ratio.wall:.2f} ({ratio.least:.2f} to {ratio.most:.2f}) | {ratio.processor:.2f} | "
        f"{case['floor_seconds']:.3f} | {case['floor_seconds'] / ours:.0%} | {differences} | "
        f"{case['machine_was']} | {record.machine()} |"
    )
