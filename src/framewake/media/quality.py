"""How far a clip is from a reference clip of the same size: PSNR, SSIM, and a perceptual difference.

The perceptual difference is FLIP (Andersson et al. 2020), a model of what a person sees when two pictures alternate;
its library needs no trained weights, unlike LPIPS and DISTS, which download theirs.
"""

from __future__ import annotations

import importlib.util
import math
from typing import NamedTuple

import numpy as np

from framewake.errors import InputError

SIGMA, REACH = 1.5, 5  # of the Gaussian window of SSIM, and how far it reaches to each side
STABLE = ((0.01 * 255) ** 2, (0.03 * 255) ** 2)
SAME = 100.0  # dB that are given for equal frames, so that means stay finite


class Quality(NamedTuple):
    """A clip against its reference.

    Units: ``psnr`` in dB over all frames, ``lowest_psnr`` that of the worst frame, both at most 100; ``ssim`` 1 when
    equal; ``flip`` 0 when equal and at most 1, None where the library is not installed.
    """

    psnr: float
    lowest_psnr: float
    ssim: float
    flip: float | None


def compare(frames: np.ndarray, reference: np.ndarray, *, every: int = 1) -> Quality:
    """Means over frames; SSIM and FLIP look at every so many frames only.

    Shapes: both uint8 (F, H, W, 3).
    Raises: InputError when the clips differ in size or length, or are too small.
    """
    if frames.shape != reference.shape:
        raise InputError(
            f"the clips are {_said(frames)} and {_said(reference)}: only clips of one size can be compared."
        )
    if min(frames.shape[1:3]) < 2 * REACH + 1:
        raise InputError(f"the clips are {_said(frames)}: SSIM needs at least {2 * REACH + 1} px each way.")
    errors = [float(np.mean((a.astype(np.float32) - b) ** 2)) for a, b in zip(frames, reference, strict=True)]
    some, others = frames[::every], reference[::every]
    return Quality(
        decibels(float(np.mean(errors))),
        decibels(max(errors)),
        float(np.mean([ssim(a, b) for a, b in zip(some, others, strict=True)])),
        float(np.mean([flip(a, b) for a, b in zip(some, others, strict=True)])) if has_flip() else None,
    )


def decibels(error: float) -> float:
    """PSNR of a mean squared error in levels of 255."""
    return SAME if error <= 0 else min(10 * math.log10(255**2 / error), SAME)


def ssim(frame: np.ndarray, reference: np.ndarray) -> float:
    """Structural similarity with a Gaussian window, mean over places and colours.

    Shapes: both uint8 (H, W, 3).
    Source: Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", 2004.
    """
    x, y = frame.astype(np.float64), reference.astype(np.float64)
    mean_x, mean_y, xx, yy, xy = (_blurred(values) for values in (x, y, x * x, y * y, x * y))
    spread_x, spread_y, common = xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y
    likeness = (2 * mean_x * mean_y + STABLE[0]) / (mean_x**2 + mean_y**2 + STABLE[0])
    return float(np.mean(likeness * (2 * common + STABLE[1]) / (spread_x + spread_y + STABLE[1])))


def _blurred(values: np.ndarray) -> np.ndarray:
    """A Gaussian window at every place where it fits."""
    window = np.exp(-0.5 * (np.arange(-REACH, REACH + 1) / SIGMA) ** 2)
    window /= window.sum()
    for axis in (0, 1):
        size = values.shape[axis] - 2 * REACH
        pieces = (np.take(values, range(start, start + size), axis) for start in range(len(window)))
        values = sum(weight * piece for weight, piece in zip(window, pieces, strict=True))
    return values


def has_flip() -> bool:
    """Whether FLIP's library is installed."""
    return importlib.util.find_spec("flip_evaluator") is not None


def flip(frame: np.ndarray, reference: np.ndarray) -> float:
    """FLIP's mean difference at its usual viewing distance. Shapes: both uint8 (H, W, 3)."""
    import flip_evaluator

    pair = [np.ascontiguousarray(each, np.float32) / np.float32(255) for each in (reference, frame)]
    return float(flip_evaluator.evaluate(*pair, "LDR", applyMagma=False)[1])


def _said(frames: np.ndarray) -> str:
    count, height, width, _ = frames.shape
    return f"{count} frames of {width}x{height}"
