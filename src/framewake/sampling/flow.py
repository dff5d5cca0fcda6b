"""The flow-matching schedule, and the rounding of the embedded guidance."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from framewake.engine.contract import Dtype
from framewake.errors import InputError


class Schedule(NamedTuple):
    """Noise levels of a run: ``sigmas`` (n + 1 values) and ``timesteps`` (n values), both float32.

    Units: sigma in [0, 1], timestep in [0, 1000].
    """

    sigmas: np.ndarray
    timesteps: np.ndarray


def schedule(steps: int, shift: float, *, is_reverse: bool = True) -> Schedule:
    """Sigmas from 1 (noise) to 0 (data), spent more on the noisy end the larger the shift.

    ``is_reverse=False`` runs from 0 to 1, as the original does without its ``--flow-reverse``; the
    published weights need True.
    Precision: float32, bit for bit the original's.
    Raises: InputError for fewer than one step or a shift that is not positive.
    Source: specification, section 5.2.
    """
    if steps < 1 or not shift > 0:
        raise InputError(f"got {steps} steps and shift {shift}; there must be a step and the shift is above 0.")
    evenly = _from_one_to_zero(steps)
    sigmas = np.float32(shift) * evenly / (np.float32(1) + np.float32(shift - 1) * evenly)
    if not is_reverse:
        sigmas = np.float32(1) - sigmas
    return Schedule(sigmas, sigmas[:-1] * np.float32(1000))


def _from_one_to_zero(steps: int) -> np.ndarray:
    # The original's linspace walks from both ends with a float32 stride, and its first half is a fused
    # multiply-add: one rounding, which float64 gives here.
    index = np.arange(steps + 1, dtype=np.float64)
    stride = np.float64(np.float32(-1) / np.float32(steps))
    return np.where(index < (steps + 1) // 2, 1 + stride * index, stride * (index - steps)).astype(np.float32)


def rounded_guidance(scale: float, precision: Dtype) -> float:
    """The embedded guidance number: scale times 1000, both in the transformer's type.

    6.0 becomes 6016 in bfloat16, whose neighbours are 32 apart there; the published weights were
    distilled with such numbers.
    Raises: InputError for a scale that is not a finite number.
    Source: specification, sections 3.6 and 16.
    """
    if not np.isfinite(scale):
        raise InputError(f"embedded guidance {scale} is not a finite number; 6.0 is usual.")
    if precision == "bfloat16":
        return float(_bfloat16(_bfloat16(np.float32(scale)) * np.float32(1000)))
    kind = np.dtype(precision).type
    return float(kind(scale) * kind(1000))


def _bfloat16(value: np.float32) -> np.float32:
    """The nearest bfloat16, ties to even, as a float32."""
    bits = int(np.float32(value).view(np.uint32))
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return np.uint32(bits).view(np.float32)
