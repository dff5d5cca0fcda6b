"""A step of a transformer (--model) by several GPUs, beside one of them in the same run, and what it goes into.

For one host with several GPUs, from the project's folder, with 1, 2, 4 and 8:

    PYTHONPATH=src torchrun --standalone --nproc-per-node 4 scripts/benches/gpu_devices.py

Weights are random. Three things are timed alone: the exchanges of a step, the attention of one device's heads, and a
step on one device's tokens without attention. The bytes sent must be the formula's. The difference to one device is
that of the whole step in bfloat16, and of two blocks in float32. Writes results/bench-gpu-devices-N.json and adds a
line to docs/measurements/gpu-devices.md. With --toy everything is tiny, for a trial with --engine torch:cpu. A whole
clip by stage: framewake animate ... --devices 4 --json, with a checkpoint.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gpu_step import Bench, difference
from measuring import device, models, record
from measuring.models import Model
from measuring.shared_step import Counted, Turns

from framewake import engine as engines
from framewake.engine.contract import Engine, Tensor
from framewake.models.arrangement import ALONE, Arrangement, Division, arrange
from framewake.pipeline.forecast.cost import Scene, sent_bytes
from framewake.shapes import token_count
from framewake.weights.stores.store import Resident

NAME = "gpu-devices"
EXACT = (288, 512)  # pixels of the clip on which float32 is compared
TOY_EXACT = (32, 64)


class Inattentive:
    """An engine whose attention costs nothing, to time the rest."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def attention(self, q: Tensor, k: Tensor, v: Tensor, *, scale: float, lengths: Any = None) -> Tensor:
        """The queries."""
        return q


class Works:
    """What the processes do in turns, each with the numbers that it gives; every one runs once before it counts."""

    def __init__(self, bench: Bench, size: tuple[int, int]) -> None:
        self.bench, self.size, self.engine = bench, size, bench.engine
        self.arrangement = arrange(self.engine.size(), bench.config.heads)
        self.velocity: np.ndarray | None = None
        self.tokens = token_count(bench.latent(size), bench.config.patch_size)
        self.counted = Counted(self.engine)

    def step(self, arrangement: Arrangement) -> Callable[[], tuple[float, ...]]:
        """A whole step; gives the bytes of its peak. Units: bytes."""
        given = self.bench.inputs(self.size, compiles=self.bench.compiles)
        given["manner"] = dataclasses.replace(given["manner"], arrangement=arrangement)
        dit = self.bench.model(self.engine)

        def work() -> tuple[float, ...]:
            device.forget_peak(self.engine)
            _, out = self.bench.run(dit, self.bench.full, given)
            peak = device.peak_bytes(self.engine)
            self.velocity = self.engine.numpy(self.engine.cast(out, "float32"))
            return (peak,)

        return work

    def exchanges(self) -> Callable[[], tuple[float, ...]]:
        """Those of one block of each kind and of the end, as often as there are pairs of blocks."""
        config = few(self.bench.config)
        given = self.bench.inputs(self.size, compiles=False)
        given["manner"] = dataclasses.replace(given["manner"], arrangement=self.arrangement)
        self.bench.published.transformer(self.counted, config)(Resident(self.bench.tensors), **given)
        again = self.counted.again()
        times = blocks_of(self.bench.config) // blocks_of(config)

        def work() -> tuple[float, ...]:
            for _ in range(times):
                again()
            return (self.counted.sent(),)

        return work

    def formula(self) -> int:
        """What the forecast's formula says that leaves for one block of each kind and the end. Units: bytes."""
        scene = Scene(
            1, self.tokens, self.bench.published.text, "bfloat16", is_composed=False, devices=self.arrangement.size
        )
        return round(sent_bytes(few(self.bench.config), scene, self.arrangement))

    def attention(self) -> Callable[[], tuple[float, ...]]:
        """All queries of this device's group with its heads, in every block."""
        config = self.bench.config
        division = Division(self.arrangement, self.engine.rank(), self.tokens, config.heads)
        low, high = division.heads_of(division.rank)
        own = sum(stop - start for start, stop in map(division.run_of, division.near))
        q, k = (
            device.drawn(self.engine, (1, count + self.bench.published.text, high - low, config.head_dim), "bfloat16")
            for count in (own, self.tokens)
        )

        def work() -> tuple[float, ...]:
            for _ in range(blocks_of(config)):
                self.engine.attention(q, k, k, scale=config.head_dim**-0.5)
            self.engine.synchronize()
            return (0.0,)

        return work

    def rest(self) -> Callable[[], tuple[float, ...]]:
        """A step without attention on a clip that is narrower by the number of devices."""
        height, width = self.size
        given = self.bench.inputs((height, width // self.arrangement.size), compiles=self.bench.compiles)
        dit = self.bench.published.transformer(Inattentive(self.engine))

        def work() -> tuple[float, ...]:
            self.bench.run(dit, self.bench.full, given)
            return (0.0,)

        return work


def few(config: Any) -> Any:
    """The same model with one block of each kind that it has."""
    return dataclasses.replace(config, double_blocks=1, single_blocks=min(config.single_blocks, 1))


def blocks_of(config: Any) -> int:
    """Blocks of both kinds."""
    return int(config.double_blocks + config.single_blocks)


def main() -> int:
    """Measure; the first process writes down what was found."""
    options = record.parser(__doc__, rounds=2)
    options.add_argument("--engine", default="torch:cuda")
    options.add_argument("--size", default="720x1280")
    options.add_argument("--frames", type=int)
    options.add_argument("--no-compile", action="store_true")
    models.add_option(options)
    given = options.parse_args()
    engine = engines.join(given.engine)
    published = models.model_of(given)
    if given.toy:
        config = dataclasses.replace(published.config, hidden_size=256, heads=2)
        published = published._replace(config=config)
    size = published.sizes["64x96" if given.toy else given.size]
    bench = Bench(engine, published, given.frames or published.frames, compiles=not given.no_compile)
    gap = exact_gap(engine, published, TOY_EXACT if given.toy else EXACT)
    works = Works(bench, size)
    alone = works.step(ALONE)
    turns = Turns(
        engine,
        {
            "alone": alone if engine.rank() == 0 else lambda: (0.0,),
            "together": works.step(works.arrangement),
            "exchanges": works.exchanges(),
            "attention": works.attention(),
            "rest": works.rest(),
        },
    )
    if not turns.follow():
        found = device.facts(engine, is_toy=given.toy) | {
            "model": given.model,
            "processes": engine.size(),
            "float32": gap,
        }
        found |= measured(turns, works, rounds=given.rounds)
        found["floor"] = bench.operations(size) / found["ceiling"] / engine.size()
        text = row(found, models.titled(found, f"{size[0]}x{size[1]} x {bench.frames}"))
        record.write(
            NAME if engine.size() == 1 else f"{NAME}-{engine.size()}", found | {"rows": [text]}, [text], has_notes=False
        )
        if not (given.no_notes or given.toy):
            record.note([text], NAME)
        turns.close()
        engines.leave()
        return int(found["sent"] != found["formula"])
    engines.leave()
    return 0


def measured(turns: Turns, works: Works, *, rounds: int) -> dict[str, Any]:
    """Seconds of the slowest process in each work, the best of the rounds. Units: seconds and bytes."""
    found: dict[str, Any] = {}
    velocities = {}
    for name in turns.works:
        turns.run(name)
        runs = [turns.run(name) for _ in range(rounds)]
        found[name] = min(float(run[:, 0].max()) for run in runs)
        velocities[name], last = works.velocity, runs[-1][:, 2]
        record.say(name, f"{found[name]:.3f} s")
        if name == "together":
            found["peak"] = float(last.max())
            found["bfloat16"] = difference(velocities[name], velocities["alone"])
        elif name == "exchanges":
            found["sent"], found["formula"] = round(float(last.max())), works.formula()
    return found


def exact_gap(engine: Engine, published: Model, size: tuple[int, int]) -> dict[str, float]:
    """How far two blocks in float32 by all devices are from one device."""
    bench = Bench(engine, published._replace(config=few(published.config)), 9, compiles=False)
    store = Resident({name: engine.cast(tensor, "float32") for name, tensor in bench.tensors.items()})
    given, found = bench.inputs(size, compiles=False), []
    for arrangement in (arrange(engine.size(), published.config.heads), ALONE):
        given["manner"] = dataclasses.replace(given["manner"], arrangement=arrangement)
        found.append(engine.numpy(bench.run(bench.model(engine), store, given)[1]))
    return difference(*found)


def row(found: dict[str, Any], clip: str) -> str:
    """A row of the benchmark's table."""
    times = found["alone"] / found["together"]
    sent = f"{found['sent'] / 1e9:.3f}, " + (
        "as the formula" if found["sent"] == found["formula"] else "NOT AS THE FORMULA"
    )
    return record.line(
        [
            f"{found['processes']} x {found['engine']} {found['device']}, torch {torch.__version__}",
            clip,
            f"{found['alone']:.2f}",
            f"{found['together']:.2f}",
            f"{times:.2f}, {times / found['processes']:.0%}",
            f"{found['floor']:.2f}",
            f"{found['exchanges']:.2f}, {found['attention']:.2f}, {found['rest']:.2f}",
            sent,
            f"{found['peak'] / 1e9:.1f}",
            f"{found['float32']['largest']:.0e}, {found['bfloat16']['largest']:.0e}",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
