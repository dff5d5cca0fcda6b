"""Rotary positions on a grid of time, height and width."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from framewake.engine.contract import Engine, Tensor
from framewake.errors import InputError

LONG_VIDEO_FRAMES = 192  # above this, the temporal frequencies are changed


def rope_table(
    grid: tuple[int, int, int], dims: Sequence[int], theta: float, frames: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines for every token of a grid, time slowest and width fastest.

    ``frames`` is the number of video frames; above 192 one temporal frequency is lowered so that its
    period spans the whole clip (RIFLEx).
    Shapes: (F * H * W, sum(dims)) twice, float32; channels 2k and 2k + 1 share an angle.
    Raises: InputError for an empty axis or odd dims.
    Source: specification, section 4.6.
    """
    if min(grid) < 1 or any(d % 2 for d in dims):
        raise InputError(f"rope_table got grid {tuple(grid)} and dims {tuple(dims)}; sizes start at 1, dims are even.")
    cos, sin = np.empty((2, *grid, sum(dims)), dtype=np.float32)
    start = 0
    for axis, dim in enumerate(dims):
        frequencies = _frequencies(dim, theta)
        if axis == 0 and frames > LONG_VIDEO_FRAMES:
            # A tiny head has fewer temporal frequencies than the published one's eight.
            intrinsic = min(max(2 + (frames + 3) // 100, 4), 8, dim // 2)
            frequencies[intrinsic - 1] = 0.9 * 2 * math.pi / grid[0]
        angles = np.outer(np.arange(grid[axis], dtype=np.float32), frequencies)  # float32: as the original rounds
        angles = np.repeat(angles, 2, axis=1).astype(np.float64)
        shape = [dim if place == 3 else grid[axis] if place == axis else 1 for place in range(4)]
        cos[..., start : start + dim] = np.cos(angles).reshape(shape)
        sin[..., start : start + dim] = np.sin(angles).reshape(shape)
        start += dim
    return cos.reshape(-1, start), sin.reshape(-1, start)


def _frequencies(dim: int, theta: float) -> np.ndarray:
    return (1.0 / theta ** (np.arange(0, dim, 2, dtype=np.float64) / dim)).astype(np.float32)


def with_plain_tokens(engine: Engine, cos: Tensor, sin: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The table with ``count`` more tokens that are not turned at all (cosine 1, sine 0)."""
    width = cos.shape[1]
    return (
        engine.concat([cos, engine.full((count, width), 1.0)], 0),
        engine.concat([sin, engine.zeros((count, width))], 0),
    )
