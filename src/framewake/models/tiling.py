"""Encoding and decoding in overlapping tiles, so that the device holds one tile at a time.

Normalisation sees a whole tile, so where the cuts lie, and the order of blending, are part of the result.
Tiles are blended on the host, in numpy: a frame-sized buffer there is cheap, on the device it is not.
Source: specification, section 7.6.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Generator, Iterator
from typing import NamedTuple, Protocol

import numpy as np

from framewake.config import TilingConfig, VAEConfig
from framewake.engine.contract import Engine, Tensor, Weights
from framewake.errors import InputError
from framewake.models.manner import PLAIN, Manner
from framewake.models.tiles_shared import Arrived, in_order, shared_out, turns
from framewake.models.vae import LOGVAR_RANGE

OnTile = Callable[[int, int], None]


class Autoencoder(Protocol):
    """What tiles ask of an autoencoder."""

    engine: Engine
    config: VAEConfig

    def moments(self, w: Weights, pixels: Tensor) -> Tensor:
        """Mean and unclamped log variance of pixels, joined along the channels."""

    def decode(self, w: Weights, latents: Tensor) -> Tensor:
        """Pixels of unscaled latents."""

    def decode_slabs(self, w: Weights, latents: Tensor, numbers: int) -> Tensor:
        """The same a few frames at a time, of at most so many numbers."""


class Cut(NamedTuple):
    """One tile along one axis: what goes in, and which of the cells that come out are kept."""

    start: int  # input cells [start, stop)
    stop: int
    dropped: int  # output cells thrown away at the front, before blending
    kept: int  # output cells written to the result, after blending


class AxisPlan(NamedTuple):
    """The cuts of one axis in order, and over how many output cells a cut is blended with the one before."""

    cuts: tuple[Cut, ...]
    blend: int

    @property
    def size(self) -> int:
        """Output cells of the whole axis."""
        return sum(cut.kept for cut in self.cuts)


class TilePlan(NamedTuple):
    """The cuts of time, height and width; spatial tiles lie inside temporal ones."""

    frames: AxisPlan
    rows: AxisPlan
    columns: AxisPlan

    @property
    def tiles(self) -> int:
        """How many tiles are computed."""
        return len(self.frames.cuts) * len(self.rows.cuts) * len(self.columns.cuts)

    def windows(self) -> tuple[tuple[Cut, Cut, Cut], ...]:
        """The tiles in the order in which they are put together."""
        return tuple(itertools.product(self.frames.cuts, self.rows.cuts, self.columns.cuts))


def tile_plan(size: tuple[int, int, int], tiling: TilingConfig, config: VAEConfig, *, is_decode: bool) -> TilePlan:
    """The tiles of a clip of ``size`` (frames, height, width), given in latent cells or pixels.

    An axis is cut only above its threshold, never at it; height and width are cut together. A last
    temporal tile of one frame would lose that frame, so it is left out.
    Raises: InputError when the tile sizes do not fit the compression, so that tiles would not join.
    """
    frames, height, width = size
    tile_in, tile_out = tiling.sample_size, tiling.latent_size
    time_in, time_out = tiling.sample_frames, tiling.latent_frames
    if is_decode:
        tile_in, tile_out, time_in, time_out = tile_out, tile_in, time_out, time_in
    is_spatial = tiling.is_spatial and (height > tile_in or width > tile_in)
    is_temporal = tiling.is_temporal and frames > time_in
    step = _Step(config.spatial_compression, is_decode)
    time_step = _Step(config.temporal_compression, is_decode)
    if is_temporal:
        in_time = _time_axis(frames, time_in, time_out, tiling.overlap, time_step)
    else:
        in_time = _whole(frames, time_step.frames(frames))
    if is_spatial:
        rows = _space_axis(height, tile_in, tile_out, tiling.overlap, step)
        columns = _space_axis(width, tile_in, tile_out, tiling.overlap, step)
    else:
        rows, columns = _whole(height, step.cells(height)), _whole(width, step.cells(width))
    plan = TilePlan(in_time, rows, columns)
    got = (in_time.size, rows.size, columns.size)
    expected = (time_step.frames(frames), step.cells(height), step.cells(width))
    if got != expected:
        raise InputError(
            f"tiles of {tiling.sample_size} px and {tiling.sample_frames} frames with overlap {tiling.overlap} do not"
            f" join: they would give {got} instead of {expected} (frames, height, width). Choose tile sizes that the"
            f" overlap divides in whole latent cells ({config.spatial_compression} px,"
            f" {config.temporal_compression} frames), or switch tiling off."
        )
    return plan


def tiled_decode(
    vae: Autoencoder,
    w: Weights,
    latents: Tensor,
    tiling: TilingConfig,
    *,
    on_tile: OnTile | None = None,
    manner: Manner = PLAIN,
) -> np.ndarray:
    """Pixels of unscaled latents as a host array, in tiles where the sizes ask for it.

    ``on_tile(done, total)`` is called after each tile; what it raises stops the work.
    Shapes: latents (B, C, F, H, W), a tensor or a numpy array -> numpy (B, 3, 1 + 4 (F - 1), 8 H, 8 W), not clamped.
    Precision: float16 when the weights are float16, otherwise float32; blending in that type.
    """
    return _drained(decoding(vae, w, latents, tiling, manner=manner), on_tile)


def decoding(
    vae: Autoencoder, w: Weights, latents: Tensor, tiling: TilingConfig, *, manner: Manner = PLAIN
) -> Generator[tuple[int, int], None, np.ndarray]:
    """``tiled_decode`` tile by tile: yields how many tiles are done and how many there are, returns the pixels."""
    plan = tile_plan(_size(latents), tiling, vae.config, is_decode=True)
    return (
        yield from _assemble(
            _computed(functools.partial(decode_tile, vae, w, manner=manner), latents, plan, vae.engine), plan
        )
    )


def decoding_turns(
    vae: Autoencoder, w: Weights, latents: Tensor, tiling: TilingConfig, *, manner: Manner = PLAIN
) -> Iterator[Arrived]:
    """One device's share of a decode by several, turn by turn; the first hands what arrives to ``put_together``."""
    engine, config = vae.engine, vae.config
    plan = tile_plan(_size(latents), tiling, config, is_decode=True)
    windows = plan.windows()
    step, time_step = _Step(config.spatial_compression, True), _Step(config.temporal_compression, True)
    counts = [[cut.stop - cut.start for cut in window] for window in windows]
    shapes = [
        (latents.shape[0], config.out_channels, time_step.frames(f), step.cells(h), step.cells(w)) for f, h, w in counts
    ]

    def compute(number: int) -> Tensor:
        return decode_tile(vae, w, engine.asarray(_window(latents, windows[number])), manner=manner)

    shares = shared_out([math.prod(count) for count in counts], engine.size())
    return turns(engine, shares, compute, shapes, engine.dtype(next(iter(w.values()))))


def put_together(
    arriving: Iterator[Arrived], size: tuple[int, int, int], tiling: TilingConfig, config: VAEConfig
) -> Generator[tuple[int, int], None, np.ndarray]:
    """``decoding`` from the tiles of all devices; ``size`` is that of the latents (frames, height, width)."""
    plan = tile_plan(size, tiling, config, is_decode=True)
    windows = plan.windows()
    tiles = (_kept(array, windows[number][0]) for number, array in enumerate(in_order(arriving)))
    return (yield from _assemble(tiles, plan))


def decode_tile(vae: Autoencoder, w: Weights, latents: Tensor, *, manner: Manner = PLAIN) -> Tensor:
    """Pixels of one tile: a few frames at a time where that costs nothing, and where memory is short."""
    numbers = manner.slab_numbers or vae.engine.traits.slab_numbers
    return vae.decode(w, latents) if numbers is None else vae.decode_slabs(w, latents, numbers)


def tiled_encode(
    vae: Autoencoder,
    w: Weights,
    pixels: Tensor,
    tiling: TilingConfig,
    *,
    on_tile: OnTile | None = None,
    compute: Callable[[Tensor], Tensor] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and log variance of pixels as host arrays, in tiles where the sizes ask for it.

    The raw moments are blended; the log variance is clamped afterwards. ``compute`` is another way to those of a tile.
    Shapes: pixels (B, 3, F, H, W), a tensor or a numpy array -> two numpy (B, C, F / 4, H / 8, W / 8), rounded up.
    Precision: as in ``tiled_decode``.
    """
    plan = tile_plan(_size(pixels), tiling, vae.config, is_decode=False)
    tiles = _computed(compute or functools.partial(vae.moments, w), pixels, plan, vae.engine)
    moments = _drained(_assemble(tiles, plan), on_tile)
    mean, logvar = np.split(moments, 2, axis=1)
    return mean, np.clip(logvar, LOGVAR_RANGE[0], LOGVAR_RANGE[1])


# --- plan


class _Step(NamedTuple):
    """How many cells come out of a tile along an axis."""

    ratio: int
    is_decode: bool

    def cells(self, count: int) -> int:
        return count * self.ratio if self.is_decode else -(-count // self.ratio)

    def frames(self, count: int) -> int:
        return 1 + (count - 1) * self.ratio if self.is_decode else -(-count // self.ratio)


def _whole(size: int, outputs: int) -> AxisPlan:
    return AxisPlan((Cut(0, size, 0, outputs),), 0)


def _space_axis(size: int, tile_in: int, tile_out: int, overlap: float, step: _Step) -> AxisPlan:
    blend = int(tile_out * overlap)
    cuts = []
    for start in range(0, size, _stride(tile_in, overlap)):
        stop = min(start + tile_in, size)
        cuts.append(Cut(start, stop, 0, min(tile_out - blend, step.cells(stop - start))))
    return AxisPlan(tuple(cuts), blend)


def _time_axis(size: int, tile_in: int, tile_out: int, overlap: float, step: _Step) -> AxisPlan:
    blend = int(tile_out * overlap)
    limit = tile_out - blend
    cuts = []
    for start in range(0, size, _stride(tile_in, overlap)):
        stop = min(start + tile_in + 1, size)
        outputs = step.frames(stop - start)
        cut = (
            Cut(start, stop, 0, min(limit + 1, outputs)) if start == 0 else Cut(start, stop, 1, min(limit, outputs - 1))
        )
        if cut.kept > 0:
            cuts.append(cut)
    return AxisPlan(tuple(cuts), blend)


def _stride(tile: int, overlap: float) -> int:
    stride = int(tile * (1 - overlap))
    if overlap < 0 or stride < 1:
        raise InputError(
            f"tiles of {tile} cells with overlap {overlap} leave gaps or never advance."
            " Choose an overlap from 0 to below 1 that leaves at least one cell."
        )
    return stride


def _size(x: Tensor) -> tuple[int, int, int]:
    _, _, frames, height, width = x.shape
    return int(frames), int(height), int(width)


# --- stitching


def _drained(work: Generator[tuple[int, int], None, np.ndarray], on_tile: OnTile | None) -> np.ndarray:
    """The value of a generator, its progress told by calls."""
    while True:
        try:
            done, total = next(work)
        except StopIteration as end:
            return end.value
        if on_tile is not None:
            on_tile(done, total)


def _computed(compute: Callable[[Tensor], Tensor], x: Tensor, plan: TilePlan, engine: Engine) -> Iterator[np.ndarray]:
    """All tiles in order, each computed when it is asked for."""
    for window in plan.windows():
        yield _kept(engine.numpy(compute(engine.asarray(_window(x, window)))), window[0])


def _window(x: Tensor, window: tuple[Cut, Cut, Cut]) -> Tensor:
    """What goes into a tile."""
    in_time, row, column = window
    return x[:, :, in_time.start : in_time.stop, row.start : row.stop, column.start : column.stop]


def _kept(array: np.ndarray, in_time: Cut) -> np.ndarray:
    """What came out of a tile without the frames that are dropped, to be blended in place."""
    array = array[:, :, in_time.dropped :]
    return array if array.flags.writeable else array.copy()


def _assemble(tiles: Iterator[np.ndarray], plan: TilePlan) -> Generator[tuple[int, int], None, np.ndarray]:
    """All tiles put together; yields after each."""
    ready = 0

    def tile(row: Cut, column: Cut) -> Generator[tuple[int, int], None, np.ndarray]:
        nonlocal ready
        array = next(tiles)
        ready += 1
        yield ready, plan.tiles
        return array

    result = np.empty(0)
    done = 0
    before = None
    for cut in plan.frames.cuts:
        clip = yield from _frame(plan, tile)
        if len(plan.frames.cuts) == 1:
            return clip
        blend(before, clip, 2, plan.frames.blend)
        before = _tail(clip, 2, plan.frames.blend)
        if not result.size:
            result = np.empty((*clip.shape[:2], plan.frames.size, *clip.shape[3:]), clip.dtype)
        result[:, :, done : done + cut.kept] = clip[:, :, : cut.kept]
        done += cut.kept
    return result


def _frame(
    plan: TilePlan, tile: Callable[[Cut, Cut], Generator[tuple[int, int], None, np.ndarray]]
) -> Generator[tuple[int, int], None, np.ndarray]:
    """All spatial tiles of one temporal tile, row by row, each blended with its finished neighbours."""
    if len(plan.rows.cuts) == len(plan.columns.cuts) == 1:
        return (yield from tile(plan.rows.cuts[0], plan.columns.cuts[0]))
    result = np.empty(0)
    above: list[np.ndarray | None] = [None] * len(plan.columns.cuts)
    top = 0
    for row in plan.rows.cuts:
        left = 0
        beside = None
        for index, column in enumerate(plan.columns.cuts):
            piece = yield from tile(row, column)
            blend(above[index], piece, 3, plan.rows.blend)
            blend(beside, piece, 4, plan.columns.blend)
            above[index] = _tail(piece, 3, plan.rows.blend)
            beside = _tail(piece, 4, plan.columns.blend)
            if not result.size:
                result = np.empty((*piece.shape[:3], plan.rows.size, plan.columns.size), piece.dtype)
            kept = piece[:, :, :, : row.kept, : column.kept]
            result[:, :, :, top : top + row.kept, left : left + column.kept] = kept
            left += column.kept
        top += row.kept
    return result


def blend(before: np.ndarray | None, after: np.ndarray, axis: int, extent: int) -> None:
    """Fade from the end of ``before`` into the start of ``after``, in place.

    Where a tile is shorter than the extent, the ramp is as short as the tile and still uses the very
    end of ``before``.
    Precision: each product is rounded to the arrays' type, as a tensor library does it.
    """
    if before is None:
        return
    extent = min(before.shape[axis], after.shape[axis], extent)
    if extent == 0:
        return
    old = np.moveaxis(_tail(before, axis, extent), axis, -1)
    new = np.moveaxis(after, axis, -1)[..., :extent]
    ramp = np.arange(extent) / extent
    fading = (old.astype(np.float32) * (1 - ramp).astype(np.float32)).astype(after.dtype)
    rising = (new.astype(np.float32) * ramp.astype(np.float32)).astype(after.dtype)
    new[...] = fading + rising


def _tail(x: np.ndarray, axis: int, extent: int) -> np.ndarray:
    """A copy of the last cells of an axis: the rest of a finished tile need not stay in memory."""
    return np.moveaxis(np.moveaxis(x, axis, -1)[..., max(x.shape[axis] - extent, 0) :].copy(), -1, axis)
