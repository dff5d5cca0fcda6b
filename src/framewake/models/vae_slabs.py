"""The autoencoder's decoder a few frames at a time: the same clip with a fraction of the memory.

A tile is kept as slabs, short runs of frames that fit into a processor's cache. Convolutions are causal, so each hands
the frames that the next slab sees on to it. Only normalisation looks at all frames: it goes over the slabs twice, once
for its statistics. Blocks use their slabs up, so that what has been read is free for what is being made.
"""

from __future__ import annotations

from framewake.engine.contract import Engine, Tensor, Weights
from framewake.models.vae import CausalVAE
from framewake.models.vae_blocks import NORM_EPS, GroupNorm, Resnet, Upsample
from framewake.nn.convolution import CausalConv3d

NUMBERS = 1 << 20  # of a slab: 4 MiB in float32

Slabs = list[Tensor]
Moments = list[tuple[Tensor, Tensor, int]]


def usual_numbers(engine: Engine) -> int | None:
    """Numbers of a slab where nothing else is asked; None: whole tiles, which take less time than slabs do there."""
    return NUMBERS if engine.kind == "torch" and engine.device == "cpu" else None


def decode(vae: CausalVAE, w: Weights, latents: Tensor, *, numbers: int = NUMBERS) -> Tensor:
    """``CausalVAE.decode``, slab by slab; ``numbers`` is how many a slab may have, one frame at least.

    Precision: statistics are joined in another order, which changes the last places.
    """
    if latents.shape[2] == 1:  # one frame has a way of its own, and is one slab in any case
        return vae.decode(w, latents)
    engine, decoder = vae.engine, vae.decoder
    x = vae.post_quant(w, engine.cast(latents, engine.dtype(w["post_quant_conv.weight"])))
    slabs = cut(decoder.mid(w, decoder.conv_in(w, x)), numbers)
    for block in (block for level in decoder.levels for block in level):
        slabs = _resnet(w, block, slabs) if isinstance(block, Resnet) else _upsample(w, block, slabs, numbers)
    convolve = _Carried(w, decoder.norm_out, decoder.conv_out, [moments_of(engine, x) for x in slabs])
    for index, x in enumerate(slabs):
        slabs[index] = convolve(x)
    return engine.concat(slabs, 2)


def cut(x: Tensor, numbers: int) -> Slabs:
    """A clip as slabs of at most so many numbers, or of one frame."""
    frames = x.shape[2]
    each = max(1, numbers // max(1, _numbers(x) // frames))
    return [x[:, :, first : first + each] for first in range(0, frames, each)]


def _numbers(x: Tensor) -> int:
    batch, channels, frames, height, width = x.shape
    return batch * channels * frames * height * width


class _Carried:
    """A group norm, with the SiLU after it, and a causal convolution of one slab after another.

    The norm has the statistics of all slabs, ``moments`` those of each.
    Precision: the norm in float32.
    """

    def __init__(self, w: Weights, norm: GroupNorm, conv: CausalConv3d, moments: Moments) -> None:
        self.engine = norm.engine
        self.gain, self.shift = _affine(w, norm, moments)
        self.weight, self.bias = w[conv.weight], w[conv.bias]
        self.before: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        x = self.engine.window(x, self.gain, self.shift, self.before, "silu")
        self.before = x[:, :, -2:]
        return self.engine.conv3d(x, self.weight, self.bias)


def _affine(w: Weights, norm: GroupNorm, moments: Moments) -> tuple[Tensor, Tensor]:
    """What each channel is multiplied with, and what is added. Shapes: two (B, C) in float32."""
    engine, channels, groups = norm.engine, norm.channels, norm.groups
    mean, spread = joined(moments)
    batch = mean.shape[0]
    inside = (batch, groups, channels // groups)
    mean, spread = engine.reshape(mean, inside), engine.reshape(spread, inside)
    middle = engine.mean(mean, (2,), keepdims=True)
    away = mean - middle
    inverse = engine.rsqrt(engine.mean(spread + away * away, (2,), keepdims=True) + NORM_EPS)
    weight, bias = (
        engine.reshape(engine.cast(w[name], "float32"), (1, *inside[1:])) for name in (norm.weight, norm.bias)
    )
    gain = engine.broadcast_to(inverse, inside) * weight
    shift = bias - middle * gain
    return engine.reshape(gain, (batch, channels)), engine.reshape(shift, (batch, channels))


def joined(moments: Moments) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel over all slabs. Shapes: two (B, C) in float32."""
    frames = sum(count for _, _, count in moments)
    middle = sum(mean * (count / frames) for mean, _, count in moments)
    spread = sum((variance + (mean - middle) * (mean - middle)) * (count / frames) for mean, variance, count in moments)
    return middle, spread


def moments_of(engine: Engine, x: Tensor) -> tuple[Tensor, Tensor, int]:
    """Mean, variance and frames of one slab."""
    return (*engine.moments(x), x.shape[2])


def _resnet(w: Weights, block: Resnet, slabs: Slabs) -> Slabs:
    """A resnet; its slabs are used up."""
    engine = block.norm1.engine
    convolve = _Carried(w, block.norm1, block.conv1, [moments_of(engine, x) for x in slabs])
    hidden: Slabs = []
    moments = []
    for index, x in enumerate(slabs):
        hidden.append(convolve(x))
        moments.append(moments_of(engine, hidden[-1]))  # while it still is in the processor's cache
        if block.has_shortcut:
            slabs[index] = block.shortcut(w, x)
    convolve = _Carried(w, block.norm2, block.conv2, moments)
    for index, x in enumerate(slabs):
        slabs[index] = x + convolve(hidden[index])
        hidden[index] = None
    return slabs


def _upsample(w: Weights, block: Upsample, slabs: Slabs, numbers: int) -> Slabs:
    """An enlargement, in pieces that are slabs afterwards; the slabs before are used up."""
    engine, factors = block.engine, block.factors
    weight, bias = block.places(w, factors, is_clip=True)
    taps, before = weight.shape[2], None
    grown: Slabs = []
    slabs.reverse()
    while slabs:
        for piece in cut(slabs.pop(), numbers // (factors[0] * factors[1] * factors[2])):
            x = engine.pad(piece, [(taps - 1 if before is None else 0, 0), (1, 1), (1, 1)], mode="replicate")
            x = x if before is None else engine.concat([before, x], 2)
            start = factors[0] - 1 if before is None else 0
            grown.append(engine.interleave(engine.conv3d(x, weight, bias), factors, start))
            before = x[:, :, 1 - taps :]
    return grown
