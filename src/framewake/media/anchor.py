"""Colours held where a clip is made from its own last frame again and again: each time they wander a little."""

from __future__ import annotations

import numpy as np
from PIL import Image

STILL = 32  # levels that what stands still may differ by, wandered colours included
LEAST_SHARE, MOST_SHARE = 0.1, 0.5  # of a picture, and of a place in it, that must stand still to tell anything
PLACES = 8  # each way


def colour_offset(first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """What must be added to a frame so that what stands still in it has the colours of the first one again.

    The median over pixels that differ little, place by place and smooth between them: what moves has no say, and where
    most of a place moves, the whole picture speaks for it. Zero where next to nothing stands still.
    Shapes: both uint8 (H, W, 3) -> float64 (H, W, 3), in levels.
    """
    difference = first.astype(np.float64) - last
    is_still = np.abs(difference).max(axis=-1) < STILL
    if is_still.mean() < LEAST_SHARE:
        return np.zeros_like(difference)
    height, width = is_still.shape
    found = np.tile(np.median(difference[is_still], axis=0), (PLACES, PLACES, 1))
    for row, column in np.ndindex(PLACES, PLACES):
        place = np.s_[
            row * height // PLACES : (row + 1) * height // PLACES,
            column * width // PLACES : (column + 1) * width // PLACES,
        ]
        if is_still[place].mean() >= MOST_SHARE:
            found[row, column] = np.median(difference[place][is_still[place]], axis=0)
    colours = [Image.fromarray(found[..., colour].astype(np.float32)) for colour in range(3)]
    smooth = [colour.resize((width, height), Image.Resampling.BICUBIC) for colour in colours]
    return np.stack([np.asarray(colour, np.float64) for colour in smooth], axis=-1)


def shifted(frame: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """A frame with something added to its colours. Shapes: uint8 (H, W, 3), (H, W, 3) or (3,) in levels."""
    return np.clip(np.rint(frame + offset), 0, 255).astype(np.uint8)


def led_back(frames: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Frames whose colours are led back more and more, from nothing at the first to all of it at the last.

    Shapes: uint8 (F, H, W, 3), (H, W, 3) or (3,) in levels.
    """
    if not offset.any():
        return frames
    shares = np.linspace(0, 1, len(frames))
    return np.stack([shifted(frame, share * offset) for frame, share in zip(frames, shares, strict=True)])
