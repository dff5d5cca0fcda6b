"""Frames of tiny clips; a module of its own, because every folder of tests has a conftest."""

from __future__ import annotations

import numpy as np

from framewake.golden import rule

FRAMES = 5


def clip_frames(number, frames=FRAMES, height=64, width=64):
    """A picture that slides by two pixels a frame."""
    picture = rule.image(f"clip{number}", height, width + 2 * frames, number)
    return np.stack([picture[:, 2 * i : 2 * i + width] for i in range(frames)])
