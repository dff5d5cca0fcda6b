"""Colours held where a clip is made from its own last frame again and again: each time they wander a little."""

from __future__ import annotations

import numpy as np

STILL = 32  # levels that what stands still may differ by, wandered colours included
LEAST_SHARE = 0.1  # of a picture that must stand still to tell anything


def colour_offset(first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """What must be added to a frame so that what stands still in it has the colours of the first one again.

    The median over pixels that differ little: what moves has no say. Zero where next to nothing stands still.
    Shapes: both uint8 (H, W, 3) -> float64 (3,), in levels.
    """
    difference = first.astype(np.float64) - last
    is_still = np.abs(difference).max(axis=-1) < STILL
    if is_still.mean() < LEAST_SHARE:
        return np.zeros(3)
    return np.median(difference[is_still], axis=0)


def shifted(frame: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """A frame with something added to its colours. Shapes: uint8 (H, W, 3), (3,) in levels."""
    return np.clip(np.rint(frame + offset), 0, 255).astype(np.uint8)


def led_back(frames: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Frames whose colours are led back more and more, from nothing at the first to all of it at the last.

    Shapes: uint8 (F, H, W, 3), (3,) in levels.
    """
    if not offset.any():
        return frames
    shares = np.linspace(0, 1, len(frames))
    return np.stack([shifted(frame, share * offset) for frame, share in zip(frames, shares, strict=True)])
