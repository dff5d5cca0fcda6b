"""An update of a LoRA (--model; the 13B at 352x640x129 by default) in bounded memory, and with all that there is.

For a machine with a GPU and little else, as gpu_memory.py. Weights are random, the same for all blocks of a kind. From
the project's folder:

    PYTHONPATH=src python3 scripts/benches/gpu_train.py --engine torch:cuda

With --middle, streamed from a file against resident in turns, at a size for a CPU (--engine torch:cpu). Shares are of
the best matrix product measured in the same run. Writes results/bench-gpu-train.json after every part and adds lines to
docs/measurements/gpu-train.md. With --toy everything is tiny, for a trial on any machine.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from measuring import clocks, device, models, record
from measuring.models import Model
from measuring.random_weights import ELEMENTS, HostTensors, RandomWeights
from measuring.record import say

from framewake import engine as engines
from framewake.config import DiTConfig
from framewake.engine.contract import Engine
from framewake.media.framing import FRAMES
from framewake.pipeline.forecast import cost, parse_memory
from framewake.pipeline.forecast.setup import is_composed
from framewake.shapes import LatentShape, token_count
from framewake.train.adapted import AdaptedLayers, Dressing
from framewake.train.batch import Batch
from framewake.train.factors import chosen, start
from framewake.train.forecast import ATTENTION, BACKWARD, Clips, Planner, Way, Work
from framewake.train.loss import FlowLoss
from framewake.train.optimiser import OptimiserState, norm_of, updated
from framewake.train.walk import Walk
from framewake.weights.reading.files import TensorFile
from framewake.weights.reading.mapped import MappedTensors
from framewake.weights.reading.names import same
from framewake.weights.stores.store import Resident
from framewake.weights.stores.streamed import Streamed
from framewake.weights.writing.files import write_safetensors

NAME = "gpu-train"
SLOWER = 1.15  # streamed over resident at the middle size, at most
# Of the 13B: a third of its width, and few blocks; the other model has double ones alone.
MIDDLE = {"hidden_size": 1024, "heads": 8}
MIDDLE_BLOCKS = {True: {"double_blocks": 4, "single_blocks": 8}, False: {"double_blocks": 8}}


class Case(NamedTuple):
    """What is measured."""

    model: Model
    latent: LatentShape
    rank: int

    @property
    def config(self) -> DiTConfig:
        """The transformer's shape."""
        return self.model.config


def main() -> int:
    """Measure part by part; what is measured is kept even when a later part fails."""
    options = record.parser(__doc__, rounds=1)
    options.add_argument("--engine", default="torch:cuda")
    options.add_argument("--memory", default="12GB")
    options.add_argument("--rank", type=int, default=16)
    options.add_argument("--frames", type=int)
    models.add_option(options)
    options.add_argument("--middle", action="store_true", help="streamed against resident, in turns, on a CPU")
    options.add_argument("--parts", nargs="+", default=["bounded", "free"], choices=["bounded", "free"])
    arguments = options.parse_args()
    engine = engines.get(arguments.engine)
    engine.make_deterministic()
    model = models.model_of(arguments)
    latent = model.latent(arguments.frames or model.frames, model.small)
    case = Case(model, latent, 4 if arguments.toy else arguments.rank)
    if arguments.middle:
        blocks = MIDDLE_BLOCKS[model.config.single_blocks > 0]
        model = model._replace(config=dataclasses.replace(model.config, **MIDDLE, **blocks))
        case = Case(model, latent._replace(frames=5, height=32, width=32), arguments.rank)
    found: dict[str, Any] = device.facts(engine, is_toy=arguments.toy) | {
        "model": arguments.model,
        "latent": list(case.latent),
        "rank": case.rank,
    }
    bench = Bench(engine, case, elements=1 << 18 if arguments.toy else ELEMENTS)
    if arguments.middle:
        found["middle"] = device.attempted(engine, "middle", lambda: in_turns(bench, arguments.rounds))
    else:
        for part in arguments.parts:
            limit = None if part == "free" or arguments.toy else parse_memory(arguments.memory)
            found[part] = device.attempted(engine, part, lambda limit=limit: alone(bench, limit, arguments.rounds))
            record.write(NAME, found, [], has_notes=False)
    done = [part for part in ("bounded", "free", "middle") if "failed" not in found.get(part, {"failed": ""})]
    for part in done:
        say(part, json.dumps(found[part]))
    rows = [row(part, found) for part in done]
    record.write(NAME, found | {"rows": rows}, rows, has_notes=not (arguments.no_notes or arguments.toy))
    return int(any("failed" in found[part] for part in found if part in ("bounded", "free", "middle")))


class Bench:
    """A model, its weights on the host, factors and a batch."""

    def __init__(self, engine: Engine, case: Case, *, elements: int) -> None:
        self.engine, self.case, self.elements = engine, case, elements
        self.dtype = "bfloat16" if "bfloat16" in engine.traits.products else "float32"
        self.shapes = case.model.transformer(None).shapes()
        self.streams = ("double_blocks", "single_blocks")
        self.modules = chosen(self.shapes, case.model.family.trained.modules)
        trained = sum(case.rank * (rows + columns) for rows, columns in self.modules.values())
        tokens = token_count(case.latent, case.config.patch_size)
        scene = cost.Scene(1, tokens, case.model.text, self.dtype, is_composed(engine, self.dtype))
        self.work = Work(case.config, self.shapes, scene, trained, engine.traits.is_host)

    @property
    def operations(self) -> float:
        """Of an update."""
        products = cost.step_operations(self.case.config, self.work.scene) - self._attention
        return BACKWARD * products + ATTENTION * self._attention

    @property
    def _attention(self) -> float:
        config, joined = self.case.config, self.work.scene.joined
        return 4.0 * (config.double_blocks + config.single_blocks) * joined**2 * config.hidden_size

    def way(self, limit: int | None) -> Way:
        """The way of an update within a limit, or in all that is free."""
        memory, latent = self.engine.memory(), self.case.latent
        room = memory["free"] - self.engine.traits.margin_bytes if limit is None else limit - memory["used"]
        scale, bucket = self.case.model.vae.spatial_compression, FRAMES[self.case.config.framing].bucket
        size = (latent.height * scale, latent.width * scale)
        clips = Clips(latent, 4 * latent.frames - 3, size, "360p", {"360p": 480}, bucket)
        return Planner(self.engine, self.work, clips, rank=self.case.rank).way(room)

    def update(self, store: Resident | Streamed, way: Way) -> Callable[[], float]:
        """One update, as something to run again and again; it gives the loss."""
        engine, case = self.engine, self.case
        loss = FlowLoss(engine, case.config, guidance=6.0, dtype=self.dtype)
        model: Any = AdaptedLayers(engine)
        dressing = Dressing(engine, self.modules, case.rank, case.rank)
        walk = Walk(case.model.transformer(model), loss, dressing, manner=way.manner, keeps_on_host=way.keeps_on_host)
        values = start(self.modules, case.rank, 1)
        held = SimpleNamespace(
            state=OptimiserState(0, values, *({name: np.zeros_like(x) for name, x in values.items()} for _ in "12"))
        )

        def run() -> float:
            value, gradients = walk(held.state.factors, store, self.batch())
            norm = norm_of(engine, gradients)
            held.state = updated(engine, held.state, gradients, norm=norm, rate=1e-4, weight_decay=0.0)
            return value

        return run

    def batch(self) -> Batch:
        """A clip of random latents."""
        engine, latent = self.engine, self.case.latent
        draw = np.random.default_rng(1)

        def drawn(*shape: int) -> Any:
            return engine.asarray(draw.standard_normal(shape, np.float32))

        text = self.case.model.text_states(engine, draw)
        clean, noise = drawn(1, *latent), drawn(1, *latent)
        return Batch(clean, drawn(1, latent[0], 1, *latent[2:]), text, noise, np.asarray([0.7], np.float32))


def alone(bench: Bench, limit: int | None, rounds: int) -> dict[str, Any]:
    """Updates in the way of a limit, behind a first one that does not count."""
    engine, way = bench.engine, bench.way(limit)
    host = HostTensors(bench.shapes, elements=bench.elements)
    store: Resident | Streamed
    if way.is_streamed:
        store = Streamed(engine, host, bench.dtype, names=bench.shapes, streams=bench.streams)
    else:
        store = Resident(host.placed(engine, bench.dtype))
    try:
        update = bench.update(store, way)
        update()
        device.forget_peak(engine)
        runs = []
        for _ in range(rounds):
            begin = time.perf_counter()
            loss = update()
            engine.synchronize()
            runs.append(time.perf_counter() - begin)
        peak = device.peak_bytes(engine)
    finally:
        store.close()
    told = {"seconds": min(runs), "runs": runs, "peak": peak, "expected": way.device, "way": way.words()}
    return told | {"operations": bench.operations, "loss": loss, "tokens": bench.work.scene.joined}


def in_turns(bench: Bench, rounds: int) -> dict[str, Any]:
    """Streamed from a file and resident, in turns."""
    engine = bench.engine
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dit.safetensors"
        write_safetensors(path, RandomWeights(elements=bench.elements).targets(bench.shapes))
        tensors = MappedTensors(TensorFile(path), same(bench.shapes))
        streamed = Streamed(engine, tensors, bench.dtype, names=bench.shapes, streams=bench.streams)
        values = {name: engine.asarray(tensors.values(name, bench.dtype), bench.dtype) for name in bench.shapes}
        works = {
            "streamed": bench.update(streamed, Way(True, False, False)),
            "resident": bench.update(Resident(values), Way(False, False, False)),
        }
        with clocks.Watch() as others:
            runs, first = clocks.interleaved(works, rounds)
        streamed.close()
    ratio = clocks.ratio(runs["streamed"], runs["resident"])
    seconds = {name: clocks.median(found) for name, found in runs.items()}
    is_same = first["streamed"] == first["resident"]
    return {
        "seconds": seconds["streamed"],
        "resident_seconds": seconds["resident"],
        "ratio": ratio.wall,
        "is_met": ratio.wall <= SLOWER and is_same,
        "peak": 0,
        "expected": 0,
        "way": f"streamed over resident {ratio.wall:.2f} ({ratio.least:.2f} to {ratio.most:.2f})",
        "operations": bench.operations,
        "tokens": bench.work.scene.joined,
        "machine_was": others.words(),
    }


def row(part: str, found: dict[str, Any]) -> str:
    """A row of the benchmark's table."""
    here = found[part]
    share = here["operations"] / here["seconds"] / found["ceiling"]
    cells = [
        f"{found['engine']} {found['device']}",
        part,
        models.titled(found, f"{here['tokens']}, rank {found['rank']}"),
        f"{here['seconds']:.2f}",
        f"{here['peak'] / 1e9:.2f}",
        f"{here['expected'] / 1e9:.2f}",
        f"{share:.0%} of {found['ceiling'] / 1e12:.3g} Tflop/s",
        here["way"],
    ]
    return record.line(cells)


if __name__ == "__main__":
    sys.exit(main())
