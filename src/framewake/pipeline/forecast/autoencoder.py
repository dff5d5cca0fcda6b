"""Operations of the autoencoder from its shapes: of one tile, and of a whole clip in its tiles."""

from __future__ import annotations

import math
from typing import NamedTuple

from framewake.config import TilingConfig, VAEConfig
from framewake.models.tiling import AxisPlan, tile_plan
from framewake.models.vae import level_factors
from framewake.models.vae_slabs import LARGE

Size = tuple[int, int, int]  # frames, height, width
FIRST = 2 / 3  # of a frame: two of the three taps in time


class _Opened(NamedTuple):
    """Frames that a convolution over slabs need not compute; ``least`` of them whatever their size."""

    least: float

    def spared(self, numbers: int) -> float:
        """Of a clip whose frames have so many numbers."""
        return 1.0 if numbers >= LARGE else self.least


def decode_operations(config: VAEConfig, size: Size, *, is_in_slabs: bool = False) -> float:
    """Multiplications and additions of decoding latents of a size in one piece.

    ``is_in_slabs``: as ``models/vae_slabs.py`` does it, with fewer of them for the first frames.
    """
    if config.norms_cells:
        return _cell_operations(config, size, is_decode=True)
    widths = config.block_out_channels[::-1]
    opened = _Opened(0.0) if is_in_slabs and size[0] > 1 else None
    total = _convolution(size, config.latent_channels, widths[0]) + _middle(config, size, opened=opened)
    inputs = widths[0]
    for width, factors in zip(widths, level_factors(config), strict=True):
        total += _resnets(size, inputs, width, config.layers_per_block + 1, opened=opened)
        inputs = width
        if factors != (1, 1, 1):
            before = size
            size = (1 + (size[0] - 1) * factors[0], size[1] * factors[1], size[2] * factors[2])
            opened = opened and _Opened(FIRST)
            total += _convolution(size, width, width) if opened is None else _enlargement(before, size, width)
    return total + _convolution(size, inputs, config.out_channels, opened=opened)


def encode_operations(config: VAEConfig, size: Size) -> float:
    """Multiplications and additions of encoding pixels of a size in one piece."""
    if config.norms_cells:
        return _cell_operations(config, size, is_decode=False)
    widths = config.block_out_channels
    total = _convolution(size, config.in_channels, widths[0])
    inputs = widths[0]
    for width, factors in zip(widths, level_factors(config), strict=True):
        total += _resnets(size, inputs, width, config.layers_per_block)
        inputs = width
        if factors != (1, 1, 1):
            size = (-(-size[0] // factors[0]), -(-size[1] // factors[1]), -(-size[2] // factors[2]))
            total += _convolution(size, width, width)
    return total + _middle(config, size) + _convolution(size, inputs, 2 * config.latent_channels)


def _cell_operations(config: VAEConfig, size: Size, *, is_decode: bool) -> float:
    """Where cells become channels and back: the convolution before is as wide as all of them, at the smaller side."""
    widths, factors = config.block_out_channels, level_factors(config)
    order = list(zip(widths, factors, strict=True))
    if is_decode:  # what the encoder does last is undone first
        order = list(zip(widths[::-1], [*factors[-2::-1], (1, 1, 1)], strict=True))
    ends = (
        (config.latent_channels, config.out_channels) if is_decode else (config.in_channels, 2 * config.latent_channels)
    )
    total = _convolution(size, ends[0], order[0][0]) + (_middle(config, size) if is_decode else 0.0)
    for level, (width, factor) in enumerate(order):
        total += _resnets(size, width, width, config.layers_per_block + is_decode)
        if factor == (1, 1, 1):
            continue
        following, cells = order[level + 1][0], math.prod(factor)
        total += _convolution(size, width, following * cells if is_decode else following // cells)
        if is_decode:
            size = (1 + (size[0] - 1) * factor[0], size[1] * factor[1], size[2] * factor[2])
        else:
            size = (-(-size[0] // factor[0]), -(-size[1] // factor[1]), -(-size[2] // factor[2]))
    total += 0.0 if is_decode else _middle(config, size)
    return total + _convolution(size, order[-1][0], ends[1])


def decode_tiles(config: VAEConfig, tiling: TilingConfig | None, size: Size) -> list[Size]:
    """The sizes of latents that are decoded one after another for a clip's latents."""
    if tiling is None:
        return [size]
    plan = tile_plan(size, tiling, config, is_decode=True)
    return [
        (frames, height, width)
        for frames in _lengths(plan.frames)
        for height in _lengths(plan.rows)
        for width in _lengths(plan.columns)
    ]


def _lengths(axis: AxisPlan) -> list[int]:
    return [cut.stop - cut.start for cut in axis.cuts]


def _convolution(size: Size, inputs: int, outputs: int, *, opened: _Opened | None = None) -> float:
    taps = 9 if size[0] == 1 else 27  # a single frame is convolved in two dimensions
    cells = size[1] * size[2]
    frames = size[0] if opened is None else size[0] - opened.spared(inputs * cells)
    return 2.0 * taps * frames * cells * inputs * outputs


def _enlargement(before: Size, after: Size, width: int) -> float:
    """Of each doubled axis two taps are left, and one in time for the first frame."""
    cells = after[1] * after[2]
    sides = math.prod(2 if large > small else 3 for small, large in zip(before[1:], after[1:], strict=True))
    taps = sides * (1 + (after[0] - 1) * (2 if after[0] > before[0] else 3))
    return 2.0 * taps * cells * width**2


def _resnets(size: Size, inputs: int, outputs: int, count: int, *, opened: _Opened | None = None) -> float:
    total = 0.0
    for number in range(count):
        first = inputs if number == 0 else outputs
        total += _convolution(size, first, outputs, opened=opened) + _convolution(size, outputs, outputs, opened=opened)
        total += 2.0 * size[0] * size[1] * size[2] * first * outputs if first != outputs else 0.0
    return total


def _middle(config: VAEConfig, size: Size, *, opened: _Opened | None = None) -> float:
    """Two resnets and the attention of each frame over itself and those before."""
    width, frames, cells = config.block_out_channels[-1], size[0], size[1] * size[2]
    total = _resnets(size, width, width, 2, opened=opened)
    if config.mid_block_attention:
        total += 8.0 * frames * cells * width**2 + 4.0 * width * cells**2 * frames * (frames + 1) / 2
    return total
