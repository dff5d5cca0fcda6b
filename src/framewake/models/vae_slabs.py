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
    norm, convolve = _Norm(decoder.norm_out, w, slabs), _Carried(decoder.conv_out, w)
    for index, x in enumerate(slabs):
        slabs[index] = convolve(norm(x))
    return engine.concat(slabs, 2)


def cut(x: Tensor, numbers: int) -> Slabs:
    """A clip as slabs of at most so many numbers, or of one frame."""
    frames = x.shape[2]
    each = max(1, numbers // max(1, _numbers(x) // frames))
    return [x[:, :, first : first + each] for first in range(0, frames, each)]


def _numbers(x: Tensor) -> int:
    batch, channels, frames, height, width = x.shape
    return batch * channels * frames * height * width


class _Norm:
    """A group norm, and the SiLU after it, of one slab with the statistics of all.

    Precision: float32 inside, x's type outside.
    """

    def __init__(self, norm: GroupNorm, w: Weights, slabs: Slabs) -> None:
        self.engine = norm.engine
        self.norm = norm
        engine, channels, groups = norm.engine, norm.channels, norm.groups
        mean, spread = _moments(engine, slabs)
        batch = mean.shape[0]
        inside = (batch, groups, channels // groups)
        mean, spread = engine.reshape(mean, inside), engine.reshape(spread, inside)
        middle = engine.mean(mean, (2,), keepdims=True)
        away = mean - middle
        inverse = engine.rsqrt(engine.mean(spread + away * away, (2,), keepdims=True) + NORM_EPS)
        gain = engine.broadcast_to(inverse, inside) * engine.reshape(_wide(engine, w[norm.weight]), (1, *inside[1:]))
        shift = engine.reshape(_wide(engine, w[norm.bias]), (1, *inside[1:])) - middle * gain
        self.gain = engine.reshape(gain, (batch, channels, 1, 1, 1))
        self.shift = engine.reshape(shift, (batch, channels, 1, 1, 1))

    def __call__(self, x: Tensor) -> Tensor:
        y = _wide(self.engine, x) * self.gain + self.shift
        if self.norm.has_silu:
            y = self.engine.silu(y)
        return self.engine.cast(y, self.engine.dtype(x))


def _moments(engine: Engine, slabs: Slabs) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel over all slabs. Shapes: two (B, C, 1, 1, 1) in float32."""
    cells = (2, 3, 4)
    found = []
    for x in slabs:
        wide = _wide(engine, x)
        mean = engine.mean(wide, cells, keepdims=True)
        away = wide - mean
        found.append((mean, engine.mean(away * away, cells, keepdims=True), x.shape[2]))
    frames = sum(count for _, _, count in found)
    middle = sum(mean * (count / frames) for mean, _, count in found)
    spread = sum((variance + (mean - middle) * (mean - middle)) * (count / frames) for mean, variance, count in found)
    return middle, spread


def _wide(engine: Engine, x: Tensor) -> Tensor:
    return engine.cast(x, "float32")


class _Carried:
    """A causal convolution of one slab after another."""

    def __init__(self, conv: CausalConv3d, w: Weights) -> None:
        self.conv = conv
        self.weight, self.bias = w[conv.weight], w[conv.bias]
        self.before: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        x = _with_frames_before(self.conv.engine, x, self.before, self.conv.kernel)
        self.before = x[:, :, 1 - self.conv.kernel :]
        return self.conv.engine.conv3d(x, self.weight, self.bias)


def _with_frames_before(engine: Engine, x: Tensor, before: Tensor | None, taps: int) -> Tensor:
    """A slab with its edges repeated, behind the last frames of the slab before, or of its first one repeated."""
    x = engine.pad(x, [(taps - 1 if before is None else 0, 0), (1, 1), (1, 1)], mode="replicate")
    return x if before is None else engine.concat([before, x], 2)


def _resnet(w: Weights, block: Resnet, slabs: Slabs) -> Slabs:
    """A resnet; its slabs are used up."""
    norm, convolve = _Norm(block.norm1, w, slabs), _Carried(block.conv1, w)
    hidden: Slabs = []
    for index, x in enumerate(slabs):
        hidden.append(convolve(norm(x)))
        if block.has_shortcut:
            slabs[index] = block.shortcut(w, x)
    norm, convolve = _Norm(block.norm2, w, hidden), _Carried(block.conv2, w)
    for index, x in enumerate(slabs):
        slabs[index] = x + convolve(norm(hidden[index]))
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
            x = _with_frames_before(engine, piece, before, taps)
            y = block.interleaved(engine.conv3d(x, weight, bias), factors)
            grown.append(y[:, :, 1:] if before is None and factors[0] == 2 else y)
            before = x[:, :, 1 - taps :]
    return grown
