"""From finished latents to frames and to a file."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from framewake.config import DiTConfig
from framewake.errors import FramewakeError, NumericsError
from framewake.media.video import NAN_IN_FRAMES, to_uint8, writing_video
from framewake.models.tiling import decode_tile, decoding, decoding_turns, put_together, tile_plan
from framewake.pipeline.events import Event, Tile, Written
from framewake.pipeline.group import LATENTS, call_to_decode, led
from framewake.pipeline.jobs import Output
from framewake.pipeline.latents import Keeper
from framewake.pipeline.messages import Message
from framewake.pipeline.parts import Part, Parts
from framewake.pipeline.precision import Precision, choose_precision
from framewake.request import Settled

SIGN, INFINITY = np.uint16(0x8000), 0x7C00  # of half numbers, in bits; what is above infinity is NaN


def decode(
    parts: Parts, latents: np.ndarray, request: Settled, precision: Precision
) -> Generator[Event, None, np.ndarray]:
    """Frames of finished latents.

    Shapes: latents float32 (1, C, F, H, W) -> uint8 (frames, H, W, 3).
    Precision: divided by the scaling factor in float32, decoded and mapped to [0, 1] in the autoencoder's type.
    Source: specification, sections 1.3 and 6.4.
    """
    engine, checkpoint = parts.engine, parts.checkpoint
    vae = parts.get("vae", precision.vae)
    scaled = latents / np.float32(checkpoint.vae.scaling_factor)
    engine.memory()  # on a CPU, asking returns what is free to the system: the decode's peak comes on top of the rest
    if request.vae_tiling:
        pixels = yield from _told(_tiles(parts, vae, scaled, precision))
    else:
        pixels = engine.numpy(decode_tile(vae.model, vae.weights.part(""), engine.asarray(scaled), manner=vae.manner))
    frames = to_frames(pixels)[checkpoint.dit.dropped_frames :]
    engine.memory()
    return frames


def _tiles(
    parts: Parts, vae: Part, scaled: np.ndarray, precision: Precision
) -> Generator[tuple[int, int], None, np.ndarray]:
    """A tiled decode, by all devices where there are several tiles."""
    tiling, config, (_, _, *size) = parts.checkpoint.settings.tiling, vae.model.config, scaled.shape
    frames, height, width = size
    count = tile_plan((frames, height, width), tiling, config, is_decode=True).tiles
    if parts.lead.is_alone or count == 1:
        return decoding(vae.model, vae.weights.part(""), scaled, tiling, manner=vae.manner)
    call_to_decode(parts, scaled, precision)
    turns = decoding_turns(vae.model, vae.weights.part(""), scaled, tiling, manner=vae.manner)
    return put_together(led(parts.lead, turns), (frames, height, width), tiling, config)


def followed_tiles(parts: Parts, message: Message) -> tuple[Iterator[object], Callable[[], object]]:
    """The turns of a decode in a process that follows; there is nothing to keep."""
    precision = choose_precision(message.values["precision"], parts.engine)
    vae, latents = parts.get("vae", precision.vae), message.arrays[LATENTS]
    tiling = parts.checkpoint.settings.tiling
    return decoding_turns(vae.model, vae.weights.part(""), latents, tiling, manner=vae.manner), tuple


def _told(tiles: Generator[tuple[int, int], None, np.ndarray]) -> Generator[Event, None, np.ndarray]:
    """The pixels of a tiled decode, told tile by tile."""
    begin = time.perf_counter()
    while True:
        try:
            done, total = next(tiles)
        except StopIteration as end:
            return end.value
        yield Tile(done, total, (time.perf_counter() - begin) / done * (total - done))


def clip_frames(frames: int, config: DiTConfig) -> int:
    """How many frames the clip has that was asked for with so many."""
    return frames - config.dropped_frames


def known_frames(config: DiTConfig) -> int:
    """How many frames at a clip's start are its picture: none where they were among the dropped ones."""
    return 0 if config.dropped_frames else 1


def to_frames(pixels: np.ndarray) -> np.ndarray:
    """Pixels in [-1, 1] as uint8, frame by frame: a second long clip in float32 might not fit into memory.

    Shapes: pixels (1, 3, F, H, W) -> uint8 (F, H, W, 3).
    Precision: halved and moved to [0, 1] in the type of the pixels.
    Raises: NumericsError for NaN.
    """
    clip = np.moveaxis(pixels[0], 0, -1)
    if clip.dtype != np.float16:
        return np.stack([to_uint8(_units(frame)) for frame in clip])
    # Looked up: numpy's arithmetic of half numbers takes several times as long.
    table = to_uint8(_units(np.nan_to_num(np.arange(1 << 16, dtype=np.uint16).view(np.float16))))
    if any((frame & ~SIGN).max() > INFINITY for frame in clip.view(np.uint16)):
        raise NumericsError(NAN_IN_FRAMES)
    return np.stack([table[frame] for frame in clip.view(np.uint16)])


def _units(pixels: np.ndarray) -> np.ndarray:
    return np.clip(pixels / 2 + 0.5, 0, 1)


def write(
    output: Output, frames: np.ndarray, request: Settled, metadata: Mapping[str, Any]
) -> Generator[Event, None, Path]:
    """Write a clip; it appears under its name only when it is complete."""
    kept = dict(metadata) if output.has_metadata else None
    work = writing_video(output.path, frames, fps=request.fps, metadata=kept, crf=output.crf)
    begin = time.perf_counter()
    with contextlib.closing(work):
        while True:
            try:
                share = next(work)
            except StopIteration as end:
                return end.value
            yield Written(share, (time.perf_counter() - begin) * (1 - share) / share)


@contextlib.contextmanager
def told_where(keeper: Keeper | None, output: Output | None) -> Iterator[None]:
    """Add to any error inside which latents are safe and how to go on from them, with the output's options."""
    try:
        yield
    except (FramewakeError, OSError, MemoryError, RuntimeError, ValueError) as error:
        if keeper is None or output is None or not keeper.path.exists():
            raise
        reason = str(error).rstrip(".") or type(error).__name__
        text = f"{reason}. {advice(keeper, output.options)}"
        if not isinstance(error, FramewakeError):
            raise FramewakeError(text) from error
        error.args = (text,)
        raise


def advice(keeper: Keeper, options: Sequence[str]) -> str:
    """How to go on from saved latents, which are not the last ones where the disk had no room for those."""
    command = shlex.join(["framewake", "animate", "--from-latents", str(keeper.path), *options])
    is_whole = keeper.step >= keeper.metadata["request"]["steps"]
    what = "finished latents" if is_whole else f"latents of step {keeper.step}"
    return f"The {what} are in {keeper.path}: go on with `{command}`"
