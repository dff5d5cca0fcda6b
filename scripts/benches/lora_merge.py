"""What a LoRA costs each step when its merged weights are not kept: one single block of the published size.

The block has bfloat16 weights, as when it streams; the LoRA adapts its three layers with rank 64. Writes
results/bench-lora-merge.json and adds one line an engine to docs/measurements/lora-merge.md.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measuring import record

from framewake import engine as engines
from framewake.config import HUNYUAN_DIT
from framewake.pipeline.adapters import targets_for
from framewake.weights.lora.file import open_lora
from framewake.weights.lora.view import LoraView
from framewake.weights.stores.store import Resident
from framewake.weights.writing.files import write_tensors

NAME = "lora-merge"
BLOCK = "single_blocks.0"
RANK = 64


def main() -> int:
    """Merge the block, write down how long it took."""
    kinds = [kind for kind in ("torch", "mindspore") if importlib.util.find_spec(kind)]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", nargs="+", default=[f"{kind}:cpu" for kind in kinds])
    parser.add_argument("--runs", type=int, default=3)
    record.with_notes(parser)
    arguments = parser.parse_args()
    found = {name: merged(name, arguments.runs) for name in arguments.engines}
    rows = [row(name, *seconds, arguments.runs) for name, seconds in found.items()]
    record.write(NAME, {"seconds": found}, rows, has_notes=not arguments.no_notes)
    return 0


def merged(name: str, runs: int) -> tuple[float, float]:
    """Median seconds of a merge, and of handing out a block whose merged weights are kept."""
    engine = engines.get(name)
    targets = targets_for(HUNYUAN_DIT)
    shapes = {weight: shape for weight, shape in targets.shapes.items() if weight.startswith(f"{BLOCK}.")}
    base = Resident({weight: engine.full(shape, 0.01, "bfloat16") for weight, shape in shapes.items()})
    with tempfile.TemporaryDirectory() as folder:
        lora = open_lora(written(Path(folder) / "a.safetensors", shapes), targets)
        anew, kept = (LoraView(engine, base, [lora], keeps=keeps) for keeps in (False, True))
        return timed(engine, anew, runs), timed(engine, kept, runs)


def row(name: str, anew: float, kept: float, runs: int) -> str:
    """A row of the table."""
    version = record.versions()[name.partition(":")[0]]
    return record.line([f"{name} {version}", record.machine(), f"{anew:.3f}", f"{kept:.6f}", str(runs)])


def written(path: Path, shapes: dict[str, tuple[int, ...]]) -> Path:
    """A LoRA for the block."""
    tensors = {}
    for weight, (rows, columns) in shapes.items():
        key = f"lora_unet_{weight.removesuffix('.weight').replace('.', '_')}"
        tensors[f"{key}.lora_down.weight"] = np.full((RANK, columns), 0.01, np.float32)
        tensors[f"{key}.lora_up.weight"] = np.full((rows, RANK), 0.01, np.float32)
    write_tensors(path, tensors)
    return path


def timed(engine: engines.Engine, view: LoraView, runs: int) -> float:
    """Median seconds to get the block, after it was got once."""
    found = []
    for _ in range(runs + 1):
        begin = time.perf_counter()
        list(view.blocks("single_blocks"))
        engine.synchronize()
        found.append(time.perf_counter() - begin)
    return statistics.median(found[1:])


if __name__ == "__main__":
    sys.exit(main())
