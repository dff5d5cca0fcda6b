"""The benchmark of the autoencoder, in one direction."""

from __future__ import annotations

import torch

from measuring import clocks, record
from measuring.floors import CountedOperations, ceilings
from measuring.pairs import largest_difference, vae_pair


def run(name: str, description: str | None, *, is_decode: bool) -> int:
    """Time the autoencoder here and in diffusers, write down what was found."""
    options = record.parser(description, rounds=5)
    options.add_argument("--sizes", nargs="+", default=["demo", "middle"], choices=["demo", "middle"])
    options.add_argument("--types", nargs="+", default=["float32", "bfloat16"])
    arguments = options.parse_args()
    found, rows, references = {}, [], {}  # diffusers' result in the first type
    for size in arguments.sizes:
        for dtype in arguments.types:
            case = measured((size, dtype), arguments.rounds, references, is_decode=is_decode)
            found[f"{size} {dtype}"] = case
            rows.append(row(size, dtype, case))
    record.write(name, {"cases": found}, rows, has_notes=not arguments.no_notes)
    return 0


def measured(case: tuple[str, str], rounds: int, references: dict, *, is_decode: bool) -> dict:
    """One size in one type."""
    size, dtype = case
    pair = vae_pair(size, dtype, is_decode=is_decode)
    with CountedOperations() as counted:
        pair.theirs()
    with clocks.Watch() as watch:
        times, results = clocks.interleaved({"ours": pair.ours, "diffusers": pair.theirs}, rounds)
        limits = ceilings(getattr(torch, dtype))
    exact = references.setdefault(size, results["diffusers"])
    difference = {name: largest_difference(x, exact) for name, x in results.items() if x is not exact}
    return {
        "samples": times,
        "ratio": clocks.ratio(times["ours"], times["diffusers"])._asdict(),
        "difference": difference,
        "operations": counted.operations,
        "floor_seconds": limits.floor(counted.operations),
        "ceilings": limits._asdict(),
        "machine_was": watch.words(),
    }


def row(size: str, dtype: str, case: dict) -> str:
    """A row of the table."""
    ours, theirs = (clocks.median(case["samples"][name]) for name in ("ours", "diffusers"))
    ratio = clocks.Ratio(**case["ratio"])
    return (
        f"| {record.today()} | {size}, {dtype} | {ours:.3f} | {theirs:.3f} | "
        f"{ratio.wall:.2f} ({ratio.least:.2f} to {ratio.most:.2f}) | {ratio.processor:.2f} | "
        f"{case['floor_seconds']:.3f} | {case['floor_seconds'] / ours:.0%} | {differences(case)} | "
        f"{case['machine_was']} | {record.machine()} |"
    )


def differences(case: dict) -> str:
    """How far each program is from diffusers' result in the first type."""
    return ", ".join(f"{name} {x:.0e}" for name, x in case["difference"].items())
