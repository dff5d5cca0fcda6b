"""How long the models' own parts take on a device: a block, and a small tile of the autoencoder.

Rates of single operations say too little: small blocks are mostly overhead, convolutions are slower than matrix
products, and the first call of everything is slow. So one block of each kind, of the checkpoint's own width, is run
at two sizes, and a line is laid through both.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from framewake.config import DiTConfig, VAEConfig
from framewake.engine.contract import Dtype, Engine, Tensor, Weights
from framewake.models.dit import DiT, TextStates
from framewake.models.tiling import decode_tile
from framewake.models.vae import CausalVAE
from framewake.pipeline.forecast.autoencoder import decode_operations, encode_operations
from framewake.pipeline.velocity import clip_rope
from framewake.weights.stores.store import Resident

Clock = Callable[[], float]
Make = Callable[[Any, Any], Any]  # a model's class: engine and configuration -> model
Makes = tuple[Make, Make]

SECONDS = 0.08  # of measuring, for each figure
DEAREST = 4.0  # seconds that the larger tile may take, as far as the smaller one tells
TEXT = 16
RANDOM = (1 << 20) + 7  # numbers that are drawn: no width divides it, so that rows differ
GRIDS = {"cpu": ((2, 8, 8), (2, 32, 32)), "device": ((2, 16, 16), (8, 64, 64))}  # latents: 32, 512; 128, 8192 tokens
BLOCKS = {(0, 0): "outside", (1, 0): "double", (0, 1): "single"}  # how many of each: what is measured then
TILES = ((2, 8, 8), (2, 16, 16))  # latents: one of them alone would call the fixed part of its time work


class Line(NamedTuple):
    """Seconds = fixed + each * amount, and ``first`` once: what first calls took longer than later ones."""

    fixed: float
    each: float
    first: float = 0.0

    def at(self, amount: float) -> float:
        """Seconds for an amount."""
        return self.fixed + self.each * amount


class Pace(NamedTuple):
    """Seconds of parts: of blocks by tokens without their attention, of the autoencoder by operations.

    ``outside`` is a step without its blocks.
    """

    outside: Line
    double: Line
    single: Line
    encode: Line
    decode: Line


class Measure(NamedTuple):
    """How parts are measured: with which clock, and what is known by then.

    Units: ``pairs`` operations of attention a second, ``fresh`` bytes a second of memory used for the first time.
    """

    clock: Clock
    pairs: float
    fresh: float


def measured_pace(
    engine: Engine,
    configs: tuple[DiTConfig, VAEConfig],
    dtypes: tuple[Dtype, Dtype],
    *,
    measure: Measure,
    makes: Makes = (DiT, CausalVAE),
) -> Pace:
    """The pace of a device; ``makes`` are the classes of transformer and autoencoder."""
    watch = _Watch(engine, measure)
    blocks = _blocks(watch, configs[0], dtypes[0], pairs=measure.pairs, make=makes[0])
    return Pace(*blocks, *_autoencoder(watch, configs[1], dtypes[1], make=makes[1]))


class _Watch:
    """Runs work a few times; adds up by name how much longer each first time took."""

    def __init__(self, engine: Engine, measure: Measure) -> None:
        self.engine, self.clock, self.fresh = engine, measure.clock, measure.fresh
        self.firsts: dict[str, float] = {}

    def usual(self, name: str, work: Callable[[], object]) -> float:
        """Seconds of a run, the median of some behind a first one."""
        before = fresh_bytes()
        first = self._once(work)
        # Memory that is used for the first time is a cost of its own: how much of it a run uses is known.
        handed_out = (fresh_bytes() - before) / self.fresh if self.fresh else 0.0
        found, end = [self._once(work)], self.clock() + SECONDS
        while self.clock() < end:
            found.append(self._once(work))
        usual = statistics.median(found)
        self.firsts[name] = self.firsts.get(name, 0.0) + max(first - usual - handed_out, 0.0)
        return usual

    def _once(self, work: Callable[[], object]) -> float:
        begin = self.clock()
        work()
        self.engine.synchronize()
        return self.clock() - begin


def fresh_bytes() -> int:
    """Bytes that the system has handed out to this process so far, page by page; 0 where it does not tell."""
    try:
        import resource  # not on Windows
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt * resource.getpagesize()


def random_tensor(engine: Engine, shape: tuple[int, ...], dtype: Dtype) -> Tensor:
    """Normal random numbers, one row of them again and again: a device computes faster with constants."""
    return engine.asarray(np.resize(_numbers()[: math.prod(shape)], tuple(shape)), dtype)


def _weights(engine: Engine, shapes: Mapping[str, tuple[int, ...]], dtype: Dtype) -> Weights:
    """Small random weights in little memory: those of a shape are one tensor, over the same numbers where that goes."""
    numbers = np.resize(_numbers() * np.float32(0.01), max(map(math.prod, shapes.values())))
    made = {shape: engine.asarray(numbers[: math.prod(shape)].reshape(shape), dtype) for shape in set(shapes.values())}
    return {name: made[shape] for name, shape in shapes.items()}


@functools.cache
def _numbers() -> np.ndarray:
    return np.random.default_rng(1).standard_normal(RANDOM, np.float32)


def _blocks(watch: _Watch, config: DiTConfig, dtype: Dtype, *, pairs: float, make: Make) -> tuple[Line, Line, Line]:
    """A step without blocks, a double and a single block, each over tokens."""
    engine = watch.engine
    one = dataclasses.replace(config, double_blocks=1, single_blocks=1)
    shapes = make(engine, one).shapes()
    weights = Resident(_weights(engine, shapes, dtype))
    found: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for grid in GRIDS["cpu" if engine.traits.is_host else "device"]:
        tokens = grid[0] * grid[1] * grid[2] // int(np.prod(config.patch_size)) + TEXT
        attention = 4.0 * tokens**2 * config.hidden_size / pairs
        given = _inputs(engine, config, grid)
        for counts, name in BLOCKS.items():
            model = make(engine, dataclasses.replace(config, double_blocks=counts[0], single_blocks=counts[1]))
            seconds = watch.usual(name, functools.partial(model, weights, **given))
            found.setdefault(counts, []).append((float(tokens), seconds - sum(counts) * attention))
    outside = found[0, 0]
    blocks = [
        [(tokens, seconds - outside[place][1]) for place, (tokens, seconds) in enumerate(found[counts])]
        for counts in ((1, 0), (0, 1))
    ]
    lines = (_line(outside), _line(blocks[0]), _line(blocks[1]))
    outside_line, double, single = (
        line._replace(first=watch.firsts[name]) for line, name in zip(lines, BLOCKS.values(), strict=True)
    )
    return outside_line, double, single


def _inputs(engine: Engine, config: DiTConfig, grid: tuple[int, int, int]) -> dict[str, Any]:
    states = random_tensor(engine, (1, TEXT, config.text_width), "float32")
    pooled = random_tensor(engine, (1, config.pooled_width), "float32") if config.pooled_width else None
    return {
        "latents": random_tensor(engine, (1, config.in_channels, *grid), "float32"),
        "timestep": engine.full((1,), 500.0),
        "text": TextStates(states, (TEXT,), pooled),
        "rope": clip_rope(engine, config, (config.in_channels, *grid), frames=1),
        "guidance": engine.full((1,), 6000.0) if config.has_guidance else None,
        "until": engine.full((1,), 400.0) if config.has_next_timestep else None,
    }


def _autoencoder(watch: _Watch, config: VAEConfig, dtype: Dtype, *, make: Make) -> tuple[Line, Line]:
    """Encoding one picture and decoding a tile, each over operations."""
    engine = watch.engine
    model = make(engine, config)
    weights = _weights(engine, model.shapes(), dtype)
    encode, decode = [], []
    for tile in TILES:
        pixels = (1, tile[1] * config.spatial_compression, tile[2] * config.spatial_compression)
        picture: Tensor = random_tensor(engine, (1, config.in_channels, *pixels), "float32")
        latents = random_tensor(engine, (1, config.latent_channels, *tile), "float32")
        seconds = watch.usual("encode", functools.partial(model.encode, weights, picture))
        encode.append((encode_operations(config, pixels), seconds))
        seconds = watch.usual("decode", functools.partial(decode_tile, model, weights, latents))
        is_in_slabs = engine.traits.slab_numbers is not None
        decode.append((decode_operations(config, tile, is_in_slabs=is_in_slabs), seconds))
        if 4 * seconds > DEAREST:
            break
    firsts = watch.firsts
    return _line(encode[-2:])._replace(first=firsts["encode"]), _line(decode[-2:])._replace(first=firsts["decode"])


def _line(points: list[tuple[float, float]]) -> Line:
    """Through the first and the last point; through the origin where that would begin below it."""
    (small, first), (large, last) = points[0], points[-1]
    last = max(last, 0.0)
    if len(points) == 1 or large == small:
        return Line(0.0, last / large)
    each = max((last - first) / (large - small), 0.0)
    fixed = first - each * small
    return Line(fixed, each) if fixed >= 0 else Line(0.0, last / large)
