"""Numbers and pictures into vectors: sinusoid, two-layer embedder, patches."""

from __future__ import annotations

from importlib import resources

import numpy as np

from framewake.engine.contract import Engine, Tensor, Weights
from framewake.nn.mlp import mlp

SINUSOID_WIDTH = 256

# 10000 ** (-i / 128), as one particular float32 exp rounds it.  Shipped, because a frequency that is off
# by its last bit moves the sinusoid by 1e-3 once the timestep multiplies it (specification, section 16).
with resources.files("framewake.nn").joinpath("frequencies.npy").open("rb") as _file:
    FREQUENCIES: np.ndarray = np.load(_file)


def sinusoid(engine: Engine, values: Tensor) -> Tensor:
    """Cosines, then sines, of the values times the shipped frequencies.

    Shapes: values (B,) -> (B, 256). Units: values in [0, 1000] for timesteps. Precision: float32.
    Source: specification, section 4.3.
    """
    angles = engine.cast(values, "float32")[:, None] * engine.asarray(FREQUENCIES)[None, :]
    return engine.concat([engine.cos(angles), engine.sin(angles)], 1)


def scalar_embedding(engine: Engine, w: Weights, names: tuple[str, str], values: Tensor) -> Tensor:
    """Numbers as vectors: sinusoid, linear, SiLU, linear; ``names`` are the two layers' names.

    Shapes: values (B,) -> (B, D), in the type of the weights.
    Source: specification, section 4.3.
    """
    kind = engine.dtype(w[names[0] + ".weight"])
    waves = engine.cast(sinusoid(engine, values), kind)
    return mlp(engine, w, names, waves, "silu")


def patch_embedding(
    engine: Engine, weight: Tensor, bias: Tensor, x: Tensor, *, run: tuple[int, int] | None = None
) -> Tensor:
    """Non-overlapping patches as tokens, all or those of a ``run`` [start, stop).

    A convolution whose stride is its kernel is one matrix product over the cut patches.
    Shapes: x (B, C, F, H, W), weight (D, C, f, h, w) -> (B, F/f * H/h * W/w, D).
    Source: specification, section 4.3.
    """
    batch, channels, *sizes = x.shape
    width, _, *patch = weight.shape
    cuts = [number for size, step in zip(sizes, patch, strict=True) for number in (size // step, step)]
    x = engine.reshape(x, (batch, channels, *cuts))
    x = engine.permute(x, (0, 2, 4, 6, 1, 3, 5, 7))
    inputs = channels * patch[0] * patch[1] * patch[2]
    x = engine.reshape(x, (batch, -1, inputs))
    if run is not None and run[1] - run[0] < x.shape[1]:
        x = x[:, run[0] : run[1]]
    return engine.linear(x, engine.reshape(weight, (width, inputs)), bias)


def patches_to_grid(engine: Engine, x: Tensor, grid: tuple[int, int, int], patch: tuple[int, int, int]) -> Tensor:
    """Tokens back into a grid.

    Shapes: x (B, F*H*W, C*f*h*w) with grid (F, H, W) and patch (f, h, w) -> (B, C, F*f, H*h, W*w).
    """
    batch, _, width = x.shape
    channels = width // (patch[0] * patch[1] * patch[2])
    x = engine.permute(engine.reshape(x, (batch, *grid, channels, *patch)), (0, 4, 1, 5, 2, 6, 3, 7))
    frames, height, width = (count * step for count, step in zip(grid, patch, strict=True))
    return engine.reshape(x, (batch, channels, frames, height, width))
