"""Operations of the autoencoder from its shapes: of one tile, and of a whole clip in its tiles."""

from __future__ import annotations

from framewake.config import TilingConfig, VAEConfig
from framewake.models.tiling import AxisPlan, tile_plan
from framewake.models.vae import level_factors

Size = tuple[int, int, int]  # frames, height, width


def decode_operations(config: VAEConfig, size: Size) -> float:
    """Multiplications and additions of decoding latents of a size in one piece."""
    widths = config.block_out_channels[::-1]
    total = _convolution(size, config.latent_channels, widths[0]) + _middle(config, size)
    inputs = widths[0]
    for width, factors in zip(widths, level_factors(config), strict=True):
        total += _resnets(size, inputs, width, config.layers_per_block + 1)
        inputs = width
        if factors != (1, 1, 1):
            size = (1 + (size[0] - 1) * factors[0], size[1] * factors[1], size[2] * factors[2])
            total += _convolution(size, width, width)
    return total + _convolution(size, inputs, config.out_channels)


def encode_operations(config: VAEConfig, size: Size) -> float:
    """Multiplications and additions of encoding pixels of a size in one piece."""
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


def _convolution(size: Size, inputs: int, outputs: int) -> float:
    taps = 9 if size[0] == 1 else 27  # a single frame is convolved in two dimensions
    return 2.0 * taps * size[0] * size[1] * size[2] * inputs * outputs


def _resnets(size: Size, inputs: int, outputs: int, count: int) -> float:
    total = 0.0
    for number in range(count):
        first = inputs if number == 0 else outputs
        total += _convolution(size, first, outputs) + _convolution(size, outputs, outputs)
        total += 2.0 * size[0] * size[1] * size[2] * first * outputs if first != outputs else 0.0
    return total


def _middle(config: VAEConfig, size: Size) -> float:
    """Two resnets and the attention of each frame over itself and those before."""
    width, frames, cells = config.block_out_channels[-1], size[0], size[1] * size[2]
    total = _resnets(size, width, width, 2)
    if config.mid_block_attention:
        total += 8.0 * frames * cells * width**2 + 4.0 * width * cells**2 * frames * (frames + 1) / 2
    return total
