"""Weights, inputs and pictures of the golden cases, drawn again rather than stored.

Each tensor has its own counter-based stream, chosen by (seed, name), so it does not matter in
which order tensors are made.
Source: specification, section 15, and the golden folder's recipe.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence

import numpy as np


def _normal(label: str, shape: Sequence[int], seed: int) -> np.ndarray:
    """Standard normal float32 values of the stream that belongs to (seed, label)."""
    key = np.asarray([seed, zlib.crc32(label.encode())], dtype=np.uint64)
    generator = np.random.Generator(np.random.Philox(key=key))
    return generator.standard_normal([int(size) for size in shape], dtype=np.float32)


def weight(name: str, shape: Sequence[int], seed: int) -> np.ndarray:
    """The checkpoint tensor ``name``: scaled by its inputs, a small bias, or a norm weight near one."""
    values = _normal(name, shape, seed)
    if values.ndim > 1:
        inputs = math.prod(values.shape[1:])
        return values * np.float32(1 / math.sqrt(inputs))
    if name.endswith("bias"):
        return values * np.float32(0.05)
    return values * np.float32(0.1) + np.float32(1)


def weights(shapes: Mapping[str, Sequence[int]], seed: int) -> dict[str, np.ndarray]:
    """Every tensor of a table name -> shape."""
    return {name: weight(name, shape, seed) for name, shape in shapes.items()}


def input(name: str, shape: Sequence[int], seed: int) -> np.ndarray:
    """The input tensor ``name``: unscaled normal values."""
    return _normal(f"input.{name}", shape, seed)


def image(name: str, height: int, width: int, seed: int, *, block: int = 16) -> np.ndarray:
    """A test picture: flat coloured blocks under a diagonal ramp.

    Shapes: (height, width, 3) uint8.
    Units: ``height``, ``width`` and ``block`` in pixels.
    """
    cells = (math.ceil(height / block), math.ceil(width / block), 3)
    flat = np.rint(_normal(f"image.{name}", cells, seed) * np.float32(64) + np.float32(128)).astype(np.int64)
    rows, columns = np.arange(height), np.arange(width)
    picture = flat[rows // block][:, columns // block]
    ramp = (columns[None, :] + 2 * rows[:, None]) % 32 - 16
    return np.clip(picture + ramp[:, :, None], 0, 255).astype(np.uint8)
