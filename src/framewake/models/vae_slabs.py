"""The autoencoder a few frames at a time: the same clip, or the same latents, with a fraction of the memory.

A tile is kept as slabs, short runs of frames that fit into a processor's cache. Convolutions are causal, so each hands
the frames that the next slab sees on to it. Only normalisation looks at all frames: it goes over the slabs twice, once
for its statistics. Blocks use their slabs up, so that what has been read is free for what is being made.

Where they are large enough for it, the first two frames are slabs of their own. Their convolutions see the first frame
three times and twice: with those taps summed beforehand they take a third and two thirds of the products.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from framewake.engine.contract import Engine, Tensor, Weights
from framewake.models.vae_blocks import NORM_EPS, GroupNorm, MidBlock, Resnet, Upsample
from framewake.nn.convolution import CausalConv3d

NUMBERS = 1 << 20  # of a slab: 4 MiB in float32
LARGE = 1 << 17  # numbers of a frame for which a third of a convolution is more than what a slab costs
OPENING = 2  # frames whose convolutions reach before the clip

Slabs = list[Tensor]
Moments = list[tuple[Tensor, Tensor, int]]


def decode(vae: Any, w: Weights, latents: Tensor, *, numbers: int = NUMBERS) -> Tensor:
    """What ``models.vae.CausalVAE`` decodes, slab by slab; ``numbers`` is how many a slab may have, one frame at least.

    Precision: statistics are joined in another order, which changes the last places.
    """
    if latents.shape[2] == 1:  # one frame has a way of its own, and is one slab in any case
        return vae.decode(w, latents)
    engine, decoder = vae.engine, vae.decoder
    x = vae.post_quant(w, engine.cast(latents, engine.dtype(w["post_quant_conv.weight"])))
    slabs = _middle(w, decoder.mid, decoder.conv_in(w, x), numbers)
    for block in (block for level in decoder.levels for block in level):
        slabs = _resnet(w, block, slabs) if isinstance(block, Resnet) else _upsample(w, block, slabs, numbers)
    convolve = _Carried(w, decoder.norm_out, decoder.conv_out, [moments_of(engine, x) for x in slabs])
    for index, x in enumerate(slabs):
        slabs[index] = convolve(x)
    return engine.concat(slabs, 2)


def moments(vae: Any, w: Weights, pixels: Tensor, *, numbers: int = NUMBERS) -> Tensor:
    """``CausalVAE.moments`` slab by slab; ``numbers`` is how many a slab may have, one frame at least.

    The first level, whose clip is by far the largest, is never there as a whole: it is computed again up to each of
    its norms, for the statistics of that one.
    Precision: statistics are joined in another order, which changes the last places.
    """
    if pixels.shape[2] == 1:  # one frame has a way of its own
        return vae.moments(w, pixels)
    engine, encoder = vae.engine, vae.encoder
    x = engine.cast(pixels, engine.dtype(w["quant_conv.weight"]))
    each = max(1, numbers // (_of_frame(x) // x.shape[1] * vae.config.block_out_channels[0]))
    pieces = _cut(x, each, OPENING)
    known: list[Moments] = []
    for _ in range(2 * sum(isinstance(block, Resnet) for block in encoder.levels[0])):
        known.append([moments_of(engine, x) for x in _first_level(w, encoder, pieces, known)])
    slabs = list(_convolved(w, encoder.levels[0][-1], _first_level(w, encoder, pieces, known)))
    for block in itertools.chain(*encoder.levels[1:]):
        if isinstance(block, Resnet):
            slabs = _resnet(w, block, slabs)
        else:
            slabs = cut(engine.concat(list(_convolved(w, block, _used_up(slabs))), 2), numbers)
    slabs = _middle(w, encoder.mid, engine.concat(slabs, 2), numbers)
    convolve = _Carried(w, encoder.norm_out, encoder.conv_out, [moments_of(engine, x) for x in slabs])
    return vae.quant(w, engine.concat([convolve(x) for x in slabs], 2))


def _first_level(w: Weights, encoder: Any, pieces: Slabs, known: list[Moments]) -> Iterator[Tensor]:
    """What the first level's next norm sees, behind those whose moments are known."""
    resnets = [block for block in encoder.levels[0] if isinstance(block, Resnet)]
    layers = [layer for block in resnets for layer in ((block.norm1, block.conv1), (block.norm2, block.conv2))]
    steps = [_Carried(w, norm, conv, found) for (norm, conv), found in zip(layers, known, strict=False)]
    for x in _convolved(w, encoder.conv_in, pieces):
        y = before = x
        for number, step in enumerate(steps):
            y = step(y)
            block = resnets[number // 2]
            if number % 2:
                y = (block.shortcut(w, before) if block.has_shortcut else before) + y
                before = y
        yield y


def _convolved(w: Weights, conv: CausalConv3d, slabs: Iterable[Tensor]) -> Iterator[Tensor]:
    """A causal convolution of one slab after another; where it strides in time, not all of them give frames."""
    engine, before, done = conv.engine, None, 0
    for slab in slabs:
        x = engine.pad(slab, [(0, 0), (1, 1), (1, 1)], mode="replicate")
        x = engine.concat([*([x[:, :, :1]] * 2 if before is None else [before]), x], 2)
        before, skipped = x[:, :, -2:], done % conv.stride[0]
        done += x.shape[2] - 2
        if x.shape[2] - skipped > 2:
            yield engine.conv3d(x[:, :, skipped:], w[conv.weight], w[conv.bias], stride=conv.stride)


def _used_up(slabs: Slabs) -> Iterator[Tensor]:
    """Slabs, each let go when the next one is asked for."""
    slabs.reverse()
    while slabs:
        yield slabs.pop()


def cut(x: Tensor, numbers: int) -> Slabs:
    """A clip as slabs of at most so many numbers, or of one frame."""
    return _cut(x, max(1, numbers // max(1, _of_frame(x))), 0)


def opened(x: Tensor, numbers: int) -> Slabs:
    """The same for a clip with its first frame, and with large frames that have openings alone."""
    return _cut(x, max(1, numbers // max(1, _of_frame(x))), OPENING if _of_frame(x) >= LARGE else 0)


def _cut(x: Tensor, each: int, alone: int) -> Slabs:
    frames = x.shape[2]
    starts = [*range(min(alone, frames)), *range(alone, frames, each), frames]
    return [x[:, :, start:stop] for start, stop in itertools.pairwise(starts)]


def _of_frame(x: Tensor) -> int:
    batch, channels, _, height, width = x.shape
    return batch * channels * height * width


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
        self.done = 0

    def __call__(self, x: Tensor) -> Tensor:
        is_opening = self.done < OPENING and x.shape[2] == 1
        weight = opening(self.engine, self.weight, self.done) if is_opening else self.weight
        self.done += x.shape[2]
        x = self.engine.window(x, self.gain, self.shift, self.before, "silu")
        self.before = x[:, :, -2:]
        return self.engine.conv3d(x[:, :, 3 - weight.shape[2] :], weight, self.bias)


def opening(engine: Engine, weight: Tensor, frame: int) -> Tensor:
    """The taps for a clip's first frame (0) or second (1): those that see the first frame are one.

    Shapes: weight (O, I, 3, h, w) -> (O, I, 1 + frame, h, w). Precision: summed in float32.
    """
    first, middle, last = engine.split(engine.cast(weight, "float32"), (1, 1, 1), 2)
    taps = first + middle + last if frame == 0 else engine.concat([first + middle, last], 2)
    return engine.cast(taps, engine.dtype(weight))


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


def _middle(w: Weights, block: MidBlock, x: Tensor, numbers: int) -> Slabs:
    """The resnets and the attention between them, of a clip in one piece."""
    slabs = _resnet(w, block.resnets[0], opened(x, numbers))
    if block.has_attention:
        slabs = opened(block.attention(w, block.attention.engine.concat(slabs, 2)), numbers)
    return _resnet(w, block.resnets[1], slabs)


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
    sides = (1, factors[1], factors[2])  # the first frame stays one in time
    slabs[:1] = _cut(slabs[0], max(1, slabs[0].shape[2] - 1), 1)
    weight, bias = block.places(w, sides, is_clip=False)
    x = engine.pad(slabs[0], [(0, 0), (1, 1), (1, 1)], mode="replicate")
    grown = [engine.interleave(engine.conv3d(x, weight, bias), sides)]
    weight, bias = block.places(w, factors, is_clip=True)
    taps = weight.shape[2]
    before = engine.concat([x] * (taps - 1), 2) if taps > 2 else x
    slabs.reverse()
    slabs.pop()
    while slabs:
        for piece in cut(slabs.pop(), numbers // (factors[0] * factors[1] * factors[2])):
            x = engine.concat([before, engine.pad(piece, [(0, 0), (1, 1), (1, 1)], mode="replicate")], 2)
            y = engine.interleave(engine.conv3d(x, weight, bias), factors)
            is_second = len(grown) == 1 and _of_frame(y) >= LARGE
            grown += _cut(y, y.shape[2], OPENING - 1 if is_second else 0)
            before = x[:, :, 1 - taps :]
    return grown
