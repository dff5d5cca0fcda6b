"""A step of a transformer (--model) at 720x1280 with all weights on the device, and streamed in 8 GB; the decode.

For a machine with a GPU and little else: Python, torch, numpy, safetensors, Pillow, tokenizers (no PyAV, no web
framework). Weights are random, the same for all blocks of a kind. From the project's folder:

    PYTHONPATH=src python3 scripts/benches/gpu_memory.py --engine torch:cuda

Shares are of the best matrix product measured in the same run. Writes results/bench-gpu-memory.json after every part
and adds lines to docs/measurements/gpu-memory.md. With --toy everything is tiny, for a trial on any machine.
"""

from __future__ import annotations

import json
import sys
import time
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from measuring import device, models, record
from measuring.models import Model
from measuring.random_weights import ELEMENTS, HostTensors
from measuring.record import say

from framewake import engine as engines
from framewake.config import DiTConfig, VAEConfig
from framewake.engine.contract import Engine
from framewake.models.manner import Manner
from framewake.models.tiling import tiled_decode
from framewake.pipeline.forecast import Placement, Setup, parse_memory
from framewake.pipeline.forecast.choose import placements
from framewake.pipeline.forecast.cost import Scene, step_operations
from framewake.pipeline.forecast.setup import scene_of
from framewake.pipeline.jobs import Plan
from framewake.pipeline.precision import choose_precision
from framewake.pipeline.velocity import clip_rope
from framewake.request import Request, resolve
from framewake.shapes import PixelShape
from framewake.text.crop import TextLength
from framewake.weights.checkpoint.settings import Settings
from framewake.weights.stores.store import Resident
from framewake.weights.stores.streamed import Streamed

NAME = "gpu-memory"
SLOWER = 1.05  # streamed over resident, at most


class Case(NamedTuple):
    """What is measured: model, clip, and how much the device may hold."""

    model: Model
    shape: PixelShape
    memory: int

    @property
    def dit(self) -> DiTConfig:
        """The transformer's shape."""
        return self.model.config

    @property
    def vae(self) -> VAEConfig:
        """The autoencoder's shape."""
        return self.model.vae


def main() -> int:
    """Measure part by part; what is measured is kept even when a later part fails."""
    options = record.parser(__doc__, rounds=2)
    options.add_argument("--engine", default="torch:cuda")
    options.add_argument("--memory", default="8GB")
    options.add_argument("--frames", type=int)
    models.add_option(options)
    options.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    arguments = options.parse_args()
    engine = engines.get(arguments.engine)
    model = models.model_of(arguments)
    shape = PixelShape(arguments.frames or model.frames, *next(iter(model.sizes.values())))
    case = Case(model, shape, 0 if arguments.toy else parse_memory(arguments.memory) or 0)
    begin = time.perf_counter()
    found: dict[str, Any] = device.facts(engine, is_toy=arguments.toy) | {
        "model": arguments.model,
        "shape": list(case.shape),
    }
    rows = []
    bench = Bench(engine, case, found, elements=1 << 18 if arguments.toy else ELEMENTS, rounds=arguments.rounds)
    for part in arguments.parts:
        found[part] = device.attempted(engine, part, lambda part=part: PARTS[part](bench))
        if "failed" not in found[part]:
            say(part, json.dumps(found[part], default=str))
            rows.append(row(part, found))
        record.write(NAME, found | {"rows": rows}, [], has_notes=False)
    found["seconds"] = time.perf_counter() - begin
    if {"streamed", "resident"} <= set(bench.results):
        peak = max(found[part]["peak"] for part in ("streamed", "decode") if "peak" in found.get(part, ()))
        found["ratio"] = found["streamed"]["seconds"] / found["resident"]["like_streamed"]["seconds"]
        found["is_met"] = found["ratio"] <= SLOWER and peak <= case.memory
        found["difference"] = bench.difference()
        told = f"{found['ratio']:.3f}; largest difference {found['difference']:.3g} of the largest value"
        say("streamed over resident in the same runs of tokens", told)
    record.write(NAME, found | {"rows": rows}, rows, has_notes=not (arguments.no_notes or arguments.toy))
    return int(any("failed" in found[part] for part in arguments.parts))


class Bench:
    """Models, weights on the host, and inputs, made when a part first needs them."""

    def __init__(self, engine: Engine, case: Case, found: dict[str, Any], *, elements: int, rounds: int) -> None:
        self.engine, self.case, self.found = engine, case, found
        self.elements, self.rounds = elements, rounds
        self.results: dict[str, np.ndarray] = {}
        self._host: HostTensors | None = None
        request = resolve(Request("a", frames=case.shape.frames, steps=50, guidance_scale=1.0, vae_tiling=True))
        latent = case.model.latent(case.shape.frames, (case.shape.height, case.shape.width))
        self.plan = Plan(request, None, case.shape, latent)
        # What the forecast asks of a checkpoint; there is none on this machine.
        configs = {"dit": case.dit, "vae": case.vae, **case.model.encoders}
        settings, family = Settings(tiling=case.model.tiling), case.model.family
        checkpoint: Any = SimpleNamespace(dit=case.dit, vae=case.vae, configs=configs, settings=settings)
        made = family.models(configs, engine)
        self.dit, self.vae = made["dit"], made["vae"]
        self.precision = choose_precision("bfloat16" if engine.name != "mindspore:cpu" else "float32", engine)
        length = TextLength(case.model.read, case.model.text)
        self.setup = Setup(engine, checkpoint, family, made, self.precision, length)

    @property
    def scene(self) -> Scene:
        """What a step works on."""
        return scene_of(self.setup, self.plan)

    def host(self) -> HostTensors:
        """The transformer's weights in the host's memory."""
        if self._host is None:
            begin = time.perf_counter()
            self._host = HostTensors(self.dit.shapes(), elements=self.elements)
            seconds = time.perf_counter() - begin
            say("weights", f"{self._host.bytes_held / 1e9:.2f} GB made on the host in {seconds:.1f} s")
        return self._host

    def placed(self, part: str, room: int) -> Placement:
        """Where the forecast puts a part that may take some bytes."""
        return placements(self.setup, self.plan, self.scene, room)[part]

    def inputs(self, shape) -> dict[str, Any]:
        """Everything a step needs for latents of a shape."""
        engine, dit, draw = self.engine, self.case.dit, np.random.default_rng(1)
        text = self.case.model.text_states(engine, draw)
        channels = (1, dit.in_channels, *shape[1:])
        return {
            "latents": engine.asarray(draw.standard_normal(channels, np.float32)),
            "timestep": engine.full((1,), 900.0),
            "text": text,
            "rope": clip_rope(engine, dit, shape, self.case.shape.frames),
            "guidance": self.case.model.guidance(engine),
        }

    def step(self, name: str, store: Resident | Streamed, chunk: int | None) -> dict[str, Any]:
        """The best of some steps at full size behind a tiny one, which loads the libraries.

        The first one at full size finds out how to compute at that size, which would count for one side only.
        """
        engine, latent = self.engine, self.plan.latent
        manner = Manner(chunk_tokens=chunk)
        self._run(store, self.inputs(latent._replace(frames=2, height=8, width=8)), manner)
        given = self.inputs(latent)
        device.forget_peak(engine)
        runs, out = [], None
        for _ in range(self.rounds):
            out = None  # the last one's memory, before the next is made
            begin = time.perf_counter()
            out = self._run(store, given, manner)
            runs.append(time.perf_counter() - begin)
        peak = device.peak_bytes(engine)
        self.results[name] = engine.numpy(engine.cast(out, "float32"))
        share = step_operations(self.case.dit, self.scene) / min(runs) / self.found["ceiling"]
        told = {"seconds": min(runs), "runs": runs, "peak": peak, "share": share}
        return told | {"chunk": chunk, "tokens": self.scene.joined}

    def _run(self, store: Resident | Streamed, given: dict[str, Any], manner: Manner) -> Any:
        out = self.dit(store, **given, manner=manner)
        self.engine.synchronize()
        return out

    def difference(self) -> float:
        """Largest difference of the two steps' results over their largest magnitude."""
        a, b = self.results["streamed"], self.results["resident"]
        return float(np.abs(a - b).max() / np.abs(b).max())


def streamed(bench: Bench) -> dict[str, Any]:
    """The step with the blocks coming from the host's memory, within the limit."""
    engine, host = bench.engine, bench.host()
    place = bench.placed("dit", max(bench.case.memory - engine.memory()["used"], 0))
    dtype = bench.precision.transformer
    store = Streamed(engine, host, dtype, names=bench.dit.shapes(), streams=bench.dit.streams())
    try:
        found = bench.step("streamed", store, place.chunk_tokens)
    finally:
        store.close()
    return found | {"expected": place.peak, "placement": place.reason, "is_streamed": place.is_streamed}


def resident(bench: Bench) -> dict[str, Any]:
    """The step with all weights on the device, and once more in the streamed one's runs of tokens."""
    engine, host = bench.engine, bench.host()
    place = bench.placed("dit", engine.memory()["free"])
    chunk = bench.found.get("streamed", {}).get("chunk", place.chunk_tokens)
    begin = time.perf_counter()
    store = Resident(host.placed(engine, bench.precision.transformer))
    engine.synchronize()
    loading = time.perf_counter() - begin
    found = bench.step("resident", store, place.chunk_tokens)
    like = found if chunk == place.chunk_tokens else bench.step("resident", store, chunk)
    return found | {"like_streamed": like, "expected": place.peak, "loading": loading}


def decode(bench: Bench) -> dict[str, Any]:
    """The clip's decode, tile by tile."""
    engine, dtype = bench.engine, bench.precision.vae
    made = HostTensors(bench.vae.shapes(), elements=bench.elements)
    weights = {name: engine.asarray(made.values(name, dtype), dtype) for name in bench.vae.shapes()}
    latents = np.random.default_rng(2).standard_normal((1, *bench.plan.latent), np.float32)
    place = bench.placed("vae", bench.case.memory or engine.memory()["free"])
    device.forget_peak(engine)
    tiles = []
    begin = time.perf_counter()
    pixels = tiled_decode(
        bench.vae,
        weights,
        latents,
        bench.case.model.tiling,
        on_tile=lambda done, total: tiles.append((done, total)),
        manner=Manner(slab_numbers=place.slab_numbers),
    )
    seconds = time.perf_counter() - begin
    is_finite = bool(np.isfinite(pixels).all())
    return {
        "seconds": seconds,
        "peak": device.peak_bytes(engine),
        "expected": place.peak,
        "slab_numbers": place.slab_numbers,
        "tiles": len(tiles),
        "is_finite": is_finite,
    }


PARTS = {"streamed": streamed, "resident": resident, "decode": decode}


def row(part: str, found: dict[str, Any]) -> str:
    """A row of the benchmark's table."""
    here, shape = found[part], found["shape"]
    share = f"{here['share']:.0%} of {found['ceiling'] / 1e12:.0f} Tflop/s" if "share" in here else ""
    cells = [
        f"{found['engine']} {found['device']}",
        part,
        models.titled(found, f"{shape[2]}x{shape[1]}x{shape[0]}"),
        f"{here['seconds']:.2f}",
        f"{here['peak'] / 1e9:.2f}",
        f"{here['expected'] / 1e9:.2f}",
        share,
    ]
    return record.line(cells)


if __name__ == "__main__":
    sys.exit(main())
