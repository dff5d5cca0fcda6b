"""Seconds of one denoising step of a transformer (--model, the 13B by default) at several sizes, and what they go into.

For a machine with a GPU and little else: Python, torch, triton, numpy, safetensors, Pillow, tokenizers (no PyAV, no web
framework). Weights are random and drawn on the device itself. From the project's folder:

    PYTHONPATH=src python3 scripts/benches/gpu_step.py

Blocks are compiled once a size on the weights of one block of each kind; then whole steps are timed. Shares are of the
best matrix product measured in the same run. The ten heaviest kernels are those of a few blocks at the first size.
Behind the sizes, as far as the time goes: the same without compiling, and with linear layers in e4m3, with the error
that this makes. Writes results/bench-gpu-step.json after every part and adds lines to docs/measurements/gpu-step.md.
With --toy everything is tiny, for a trial on any machine.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from measuring import device, models, record
from measuring.models import Model
from measuring.record import say

from framewake import engine as engines
from framewake.engine.contract import Engine, Weights
from framewake.errors import EngineError, InputError
from framewake.models.dit import DiT
from framewake.models.manner import Manner
from framewake.pipeline.forecast.cost import Scene, step_operations
from framewake.pipeline.velocity import clip_rope
from framewake.shapes import LatentShape, token_count
from framewake.weights.stores.store import Resident

NAME = "gpu-step"
EXTRA = "544x960"  # where compiling and eight bits are compared with doing without
TARGET = 18.0  # seconds a step at the first size on an H100
COMPILED = "Torch-Compiled Region"  # what torch's profiler calls a compiled program that runs
PROFILED = {"double_blocks": 2, "single_blocks": 4}


class Few(Resident):
    """The same weights with fewer blocks, so that a trial takes a second instead of a step."""

    def __init__(self, tensors: dict[str, Any], counts: dict[str, int]) -> None:
        super().__init__(tensors)
        self.counts = counts

    def blocks(self, name: str, count: int | None = None) -> Iterator[Weights]:
        """As many blocks as were asked for when this was made."""
        return itertools.islice(super().blocks(name, count), self.counts.get(name, count))


class Timing(NamedTuple):
    """Units: seconds; ``first`` is the first call on one block of each kind, compiling included.

    ``programs`` counts the compiled programs that these two blocks ran as: 2 when each is one, 0 without compiling.
    """

    seconds: list[float]
    first: float
    peak: int
    programs: int
    velocity: np.ndarray


class Bench:
    """Weights on the device, and steps at any size."""

    def __init__(self, engine: Engine, published: Model, frames: int, *, compiles: bool) -> None:
        self.engine, self.published, self.frames, self.compiles = engine, published, frames, compiles
        self.config = published.config
        self.tensors = draw_weights(engine, published.transformer(engine).shapes())
        self.full = Resident(self.tensors)
        self._models: dict[str, DiT] = {}

    def model(self, engine: Engine) -> DiT:
        """The transformer; always the same one, so that nothing is compiled twice."""
        return self._models.setdefault(engine.name, self.published.transformer(engine))

    def latent(self, size: tuple[int, int]) -> LatentShape:
        """Latents of a clip as the transformer gets them."""
        return self.published.latent(self.frames, size)._replace(channels=self.config.in_channels)

    def operations(self, size: tuple[int, int]) -> float:
        """Multiplications and additions of one step."""
        tokens = token_count(self.latent(size), self.config.patch_size)
        return step_operations(self.config, Scene(1, tokens, self.published.text, "bfloat16", is_composed=False))

    def inputs(self, size: tuple[int, int], *, compiles: bool) -> dict[str, Any]:
        """Everything a step needs; the same numbers each time."""
        engine, config, latent = self.engine, self.config, self.latent(size)
        draw = np.random.default_rng(1)
        text = self.published.text_states(engine, draw)
        return {
            "latents": engine.asarray(draw.standard_normal((1, *latent), np.float32)),
            "timestep": engine.full((1,), 900.0),
            "text": text,
            "rope": clip_rope(engine, config, latent, self.frames),
            "guidance": self.published.guidance(engine),
            "manner": Manner(is_compiled=compiles),
        }

    def run(self, dit: DiT, store: Resident, given: dict[str, Any]) -> tuple[float, Any]:
        """One call to its end. Units: seconds."""
        self.engine.synchronize()
        begin = time.perf_counter()
        out = dit(store, **given)
        self.engine.synchronize()
        return time.perf_counter() - begin, out

    def timed(self, size: tuple[int, int], *, runs: int, compiles: bool, engine: Engine | None = None) -> Timing:
        """Whole steps at a size, behind a first call that compiles; an engine that cannot goes on without."""
        given = self.inputs(size, compiles=compiles)
        one = Few(self.tensors, {"double_blocks": 1, "single_blocks": 1})
        dit = self.model(engine or self.engine)
        first, _ = self.run(dit, one, given)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            self.run(dit, one, given)
        programs = sum(event.name.startswith(COMPILED) for event in profile.events())
        device.forget_peak(self.engine)
        found, out = [], None
        for _ in range(runs):
            out = None  # the last one's memory, before the next is made
            seconds, out = self.run(dit, self.full, given)
            found.append(seconds)
        velocity = self.engine.numpy(self.engine.cast(out, "float32"))
        return Timing(found, first, device.peak_bytes(self.engine), programs, velocity)

    def heaviest(self, size: tuple[int, int]) -> list[dict[str, Any]]:
        """The ten kernels that take longest in a few blocks, with their share of the time."""
        given = self.inputs(size, compiles=self.compiles)
        few = Few(self.tensors, PROFILED)
        dit = self.model(self.engine)
        self.run(dit, few, given)
        is_gpu = self.engine.device != "cpu"
        activity = torch.profiler.ProfilerActivity
        with torch.profiler.profile(activities=[activity.CPU, activity.CUDA] if is_gpu else [activity.CPU]) as profile:
            self.run(dit, few, given)
        key = "self_device_time_total" if is_gpu else "self_cpu_time_total"
        # Operators carry the time of the kernels that they start: count it once.
        events = [e for e in profile.key_averages() if not is_gpu or e.device_type != torch.autograd.DeviceType.CPU]
        events.sort(key=lambda event: getattr(event, key), reverse=True)
        total = sum(getattr(event, key) for event in events) or 1.0
        return [
            {"kernel": e.key[:90], "calls": e.count, "ms": getattr(e, key) / 1e3, "share": getattr(e, key) / total}
            for e in events[:10]
        ]


def draw_weights(engine: Engine, shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Random matrices of standard deviation 1 / sqrt(inputs) in bfloat16, made on the device."""
    made = {}
    for seed, (name, shape) in enumerate(shapes.items()):
        if len(shape) == 1:
            made[name] = engine.full(shape, 1.0 if name.endswith("weight") else 0.0, "bfloat16")
        else:
            deviation = math.prod(shape[1:]) ** -0.5
            made[name] = device.drawn(engine, shape, "bfloat16", seed=seed, deviation=deviation)
    return made


def main() -> int:
    """Measure part by part; what is measured is kept even when a later part fails."""
    options = record.parser(__doc__, rounds=2)
    options.add_argument("--engine", default="torch:cuda")
    options.add_argument("--sizes", nargs="+", help="of those that the model has, such as 720x1280")
    options.add_argument("--frames", type=int)
    options.add_argument("--seconds", type=float, default=390, help="no part begins later than this")
    options.add_argument("--no-compile", action="store_true")
    models.add_option(options)
    given = options.parse_args()
    begin = time.perf_counter()
    engine = engines.get(given.engine)
    published = models.model_of(given)
    sizes = {name: published.sizes[name] for name in given.sizes or published.sizes}
    found: dict[str, Any] = device.facts(engine, is_toy=given.toy) | {"model": given.model, "sizes": {}}
    bench = Bench(engine, published, given.frames or published.frames, compiles=not given.no_compile)
    engine.synchronize()
    say("weights", f"{sum(t.nbytes for t in bench.tensors.values()) / 1e9:.2f} GB, {time.perf_counter() - begin:.1f} s")
    parts = Parts(bench, sizes, found, begin + given.seconds)
    names = list(sizes)
    parts.measure(names[0], names[0], compiles=bench.compiles, runs=given.rounds)
    found["attention"] = engine.attention_reason
    say("attention", found["attention"])
    profile = device.attempted(engine, "heaviest", lambda: {"kernels": bench.heaviest(sizes[names[0]])})
    found["heaviest"] = profile.get("kernels", profile)
    for each in profile.get("kernels", ()):
        say("kernel", f"{each['share']:6.1%} {each['ms']:10.2f} ms {each['calls']:5d} x {each['kernel']}")
    for name in names[1:]:
        parts.measure(name, name, compiles=bench.compiles, runs=given.rounds)
    extra = EXTRA if EXTRA in sizes else names[-1]
    if bench.compiles:
        parts.measure(f"{extra}, not compiled", extra, compiles=False, runs=given.rounds)
    eight = eight_bits(engine)
    if eight is not None:
        for name, runs in {extra: given.rounds, names[0]: 1}.items():
            parts.measure(f"{name}, e4m3", name, compiles=bench.compiles, runs=runs, other=eight)
    found["seconds"] = time.perf_counter() - begin
    first = found["sizes"].get(names[0])
    found["is_met"] = not given.toy and first is not None and "seconds" in first and min(first["seconds"]) <= TARGET
    record.write(NAME, found | {"rows": parts.rows}, parts.rows, has_notes=not (given.no_notes or given.toy))
    return int(any("failed" in part for part in (*found["sizes"].values(), profile)))


class Parts:
    """What is measured, one part after another until the time is over; each is kept at once."""

    def __init__(self, bench: Bench, sizes: dict[str, tuple[int, int]], found: dict[str, Any], end: float) -> None:
        self.bench, self.sizes, self.found, self.end = bench, sizes, found, end
        self.rows: list[str] = []
        self.velocities: dict[str, np.ndarray] = {}

    def measure(self, name: str, size: str, *, compiles: bool, runs: int, other: Engine | None = None) -> None:
        """One row: a size, on the bench's engine or on another that has the same device."""
        if time.perf_counter() > self.end:
            say(name, "left out: no time")
            return

        def work() -> dict[str, Any]:
            timing = self.bench.timed(self.sizes[size], runs=runs, compiles=compiles, engine=other)
            self.velocities[name] = timing.velocity
            entry = told(self.bench, self.sizes[size], timing, self.found["ceiling"])
            if name != size and size in self.velocities:
                entry["error"] = difference(timing.velocity, self.velocities[size])
            return entry

        entry = self.found["sizes"][name] = device.attempted(self.bench.engine, name, work)
        if "failed" not in entry:
            say(name, json.dumps(entry))
            self.rows.append(row(name, self.found, entry, self.bench.frames))
        record.write(NAME, self.found | {"rows": self.rows}, [], has_notes=False)


def eight_bits(engine: Engine) -> Engine | None:
    """The same device with linear layers in eight bits, None where it has no such products."""
    try:
        return engines.get(f"{engine.name}+fp8")
    except (EngineError, InputError) as error:  # a CPU has no such name
        say("eight bits", f"left out: {error}")
        return None


def told(bench: Bench, size: tuple[int, int], timing: Timing, ceiling: float) -> dict[str, Any]:
    """A timing as plain values."""
    best = min(timing.seconds)
    operations = bench.operations(size)
    return {
        "tokens": token_count(bench.latent(size), bench.config.patch_size) + bench.published.text,
        "seconds": timing.seconds,
        "floor": operations / ceiling,
        "share": operations / best / ceiling,
        "first": timing.first,
        "peak": timing.peak,
        "programs": timing.programs,
        "is_finite": bool(np.isfinite(timing.velocity).all()),
    }


def difference(found: np.ndarray, expected: np.ndarray) -> dict[str, float]:
    """Largest difference over the largest value, and the norm of all differences over that of all values."""
    gap = found - expected
    return {
        "largest": float(np.abs(gap).max() / np.abs(expected).max()),
        "norm": float(np.linalg.norm(gap) / np.linalg.norm(expected)),
    }


def row(name: str, found: dict[str, Any], entry: dict[str, Any], frames: int) -> str:
    """A row of the benchmark's table."""
    error = f"{entry['error']['norm']:.2%}, {entry['error']['largest']:.2%}" if "error" in entry else ""
    cells = [
        f"{found['engine']} {found['device']}, torch {torch.__version__}",
        models.titled(found, f"{name} x {frames}"),
        f"{entry['tokens']}",
        f"{min(entry['seconds']):.2f}",
        f"{entry['floor']:.2f}",
        f"{entry['share']:.0%} of {found['ceiling'] / 1e12:.0f} Tflop/s",
        f"{entry['peak'] / 1e9:.1f}",
        f"{entry['programs']}, {entry['first']:.0f} s",
        error,
    ]
    return record.line(cells)


if __name__ == "__main__":
    sys.exit(main())
