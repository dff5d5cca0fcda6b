"""One step of the transformer against diffusers: the same weights and inputs, in turns, in one process.

The demonstration's own transformer, and a random one of middle size (hidden 768, 4 + 8 blocks, 5,184 image tokens).
Texts are padded for diffusers as its pipeline pads them; here padding is never computed.
"""

from __future__ import annotations

import sys

import torch
from measuring import clocks, record
from measuring.floors import ceilings
from measuring.pairs import TEXTS, dit_pair, largest_difference

from framewake.pipeline.forecast.cost import Scene, step_operations

NAME = "dit-step"


def main() -> int:
    """Time the steps, write down what was found."""
    options = record.parser(__doc__, rounds=5)
    options.add_argument("--sizes", nargs="+", default=["demo", "middle"], choices=["demo", "middle"])
    options.add_argument("--types", nargs="+", default=["float32", "bfloat16"])
    options.add_argument("--grid", type=int, nargs=3, help="another latent size for the middle one")
    arguments = options.parse_args()
    found, rows, references = {}, [], {}  # diffusers' result in the first type
    for size in arguments.sizes:
        for dtype in arguments.types:
            case = measured(size, dtype, arguments, references)
            found[f"{size} {dtype}"] = case
            rows.append(row(size, dtype, case))
    record.write(NAME, {"cases": found}, rows, has_notes=not arguments.no_notes)
    return 0


def measured(size: str, dtype: str, arguments, references: dict) -> dict:
    """One size in one type."""
    grid = tuple(arguments.grid) if arguments.grid and size == "middle" else None
    pair = dit_pair(size, dtype, grid=grid)
    rounds = arguments.rounds if size == "demo" else max(2, (arguments.rounds + 1) // 2)
    with clocks.Watch() as watch:
        times, results = clocks.interleaved({"ours": pair.ours, "diffusers": pair.theirs}, rounds)
        limits = ceilings(getattr(torch, dtype))
    exact = references.setdefault(size, results["diffusers"])
    difference = {name: largest_difference(x, exact) for name, x in results.items() if x is not exact}
    scene = Scene(1, pair.tokens, TEXTS[size][1], dtype, False)
    operations = step_operations(pair.config, scene)
    return {
        "tokens": scene.joined,
        "samples": times,
        "ratio": clocks.ratio(times["ours"], times["diffusers"])._asdict(),
        "difference": difference,
        "operations": operations,
        "floor_seconds": limits.floor(operations, pair.weight_bytes),
        "ceilings": limits._asdict(),
        "machine_was": watch.words(),
    }


def row(size: str, dtype: str, case: dict) -> str:
    """A row of the table."""
    ours, theirs = (clocks.median(case["samples"][name]) for name in ("ours", "diffusers"))
    ratio = clocks.Ratio(**case["ratio"])
    return (
        f"| {record.today()} | {size}, {dtype}, {case['tokens']} tokens | {ours:.3f} | {theirs:.3f} | "
        f"{ratio.wall:.2f} ({ratio.least:.2f} to {ratio.most:.2f}) | {ratio.processor:.2f} | "
        f"{case['floor_seconds']:.3f} | {case['floor_seconds'] / ours:.0%} | {differences(case)} | "
        f"{case['machine_was']} | {record.machine()} |"
    )


def differences(case: dict) -> str:
    """How far each program is from diffusers' result in the first type."""
    return ", ".join(f"{name} {x:.0e}" for name, x in case["difference"].items())


if __name__ == "__main__":
    sys.exit(main())
