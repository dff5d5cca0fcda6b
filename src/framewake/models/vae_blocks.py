"""Building blocks of the causal 3D VAE. Each knows the full names of its weights in the flat dict.

Precision: convolutions and linears in the type of the weights; GroupNorm, and the SiLU after it, in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from framewake.engine.contract import Engine, Tensor, Weights
from framewake.nn.convolution import CausalConv3d, Past

NORM_EPS = 1e-6
Observe = Callable[[str, Tensor], None]


class GroupNorm:
    """GroupNorm over channels of a group and everything after them, so not causal in time.

    Precision: float32 in the inside; the result has x's type.
    Source: specification, section 7.4.
    """

    def __init__(self, engine: Engine, name: str, *, channels: int, groups: int, has_silu: bool) -> None:
        self.engine = engine
        self.weight = f"{name}.weight"
        self.bias = f"{name}.bias"
        self.channels = channels
        self.groups = groups
        self.has_silu = has_silu

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of each weight."""
        return {self.weight: (self.channels,), self.bias: (self.channels,)}

    def __call__(self, w: Weights, x: Tensor) -> Tensor:
        engine = self.engine
        dtype = engine.dtype(x)
        weight = engine.cast(w[self.weight], "float32")
        bias = engine.cast(w[self.bias], "float32")
        y = engine.group_norm(engine.cast(x, "float32"), self.groups, weight, bias, eps=NORM_EPS)
        if self.has_silu:
            y = engine.silu(y)
        return engine.cast(y, dtype)


class Resnet:
    """Two normalised causal convolutions plus the input. Shapes: x (B, I, F, H, W) -> (B, O, F, H, W)."""

    def __init__(self, engine: Engine, name: str, *, inputs: int, outputs: int, groups: int) -> None:
        self.norm1: Any = GroupNorm(engine, f"{name}.norm1", channels=inputs, groups=groups, has_silu=True)
        self.conv1 = CausalConv3d(engine, f"{name}.conv1.conv", inputs=inputs, outputs=outputs)
        self.norm2: Any = GroupNorm(engine, f"{name}.norm2", channels=outputs, groups=groups, has_silu=True)
        self.conv2 = CausalConv3d(engine, f"{name}.conv2.conv", inputs=outputs, outputs=outputs)
        self.has_shortcut = inputs != outputs
        self.shortcut = CausalConv3d(engine, f"{name}.conv_shortcut.conv", inputs=inputs, outputs=outputs, kernel=1)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of each weight."""
        parts = self.norm1.shapes() | self.conv1.shapes() | self.norm2.shapes() | self.conv2.shapes()
        return parts | self.shortcut.shapes() if self.has_shortcut else parts

    def __call__(self, w: Weights, x: Tensor, *, past: Past | None = None) -> Tensor:
        y = self.conv1(w, self.norm1(w, x), past=past)
        y = self.conv2(w, self.norm2(w, y), past=past)
        if self.has_shortcut:
            x = self.shortcut(w, x)
        return x + y


class FrameCausalAttention:
    """One attention head over all cells of all frames; a cell sees its own and earlier frames.

    Frame by frame, with the keys of the frames so far: the same numbers as one masked attention,
    without a mask of (F H W) squared.
    ``parts`` are the names of the layers of queries, keys, values and of the last one.
    Shapes: x (B, C, F, H, W), same out.
    Source: specification, section 7.4.
    """

    parts = ("to_q", "to_k", "to_v", "to_out.0")

    def __init__(self, engine: Engine, name: str, *, channels: int, groups: int) -> None:
        self.engine = engine
        self.name = name
        self.channels = channels
        self.norm: Any = GroupNorm(engine, f"{name}.group_norm", channels=channels, groups=groups, has_silu=False)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of each weight."""
        table = self.norm.shapes()
        for part in self.parts:
            table[f"{self.name}.{part}.weight"] = (self.channels, self.channels)
            table[f"{self.name}.{part}.bias"] = (self.channels,)
        return table

    def __call__(self, w: Weights, x: Tensor, *, past: Past | None = None) -> Tensor:
        """With a ``past``, x are some frames of a clip behind those of the call before."""
        engine = self.engine
        batch, channels, frames, height, width = x.shape
        cells = height * width
        tokens = self.tokens(self.norm(w, x))
        q, k, v = (self._project(w, part, tokens) for part in self.parts[:3])
        if past is not None:
            k, v = self._remembered(past, "k", k), self._remembered(past, "v", v)
        before = int(k.shape[1]) - frames * cells
        scale = channels**-0.5
        outs = []
        for frame in range(frames):
            end = (frame + 1) * cells
            seen = before + end
            outs.append(engine.attention(q[:, end - cells : end], k[:, :seen], v[:, :seen], scale=scale))
        y = engine.concat(outs, 1) if frames > 1 else outs[0]
        y = self._linear(w, self.parts[3], engine.reshape(y, (batch, frames * cells, channels)))
        y = engine.permute(engine.reshape(y, (batch, frames, height, width, channels)), (0, 4, 1, 2, 3))
        return x + y

    def _remembered(self, past: Past, letter: str, new: Tensor) -> Tensor:
        """Keys or values of all frames so far."""
        name = f"{self.name}.{letter}"
        past[name] = self.engine.concat([past[name], new], 1) if name in past else new
        return past[name]

    def tokens(self, x: Tensor) -> Tensor:
        """(B, C, F, H, W) as (B, F H W, C)."""
        batch, channels, frames, height, width = x.shape
        # Permuted first: where channels are the innermost axis in memory, nothing is copied.
        last = self.engine.permute(x, (0, 2, 3, 4, 1))
        return self.engine.reshape(last, (batch, frames * height * width, channels))

    def _linear(self, w: Weights, part: str, x: Tensor) -> Tensor:
        return self.engine.linear(x, w[f"{self.name}.{part}.weight"], w[f"{self.name}.{part}.bias"])

    def _project(self, w: Weights, part: str, tokens: Tensor) -> Tensor:
        y = self._linear(w, part, tokens)
        batch, count, channels = y.shape
        return self.engine.reshape(y, (batch, count, 1, channels))


class Upsample:
    """Nearest-neighbour enlargement and a causal convolution; the first frame grows in space only.

    The enlarged clip is never made. Of three taps along a doubled axis two always fall on the same cell, so each of
    the places that a cell turns into has a kernel of two taps with those two summed: 8 products instead of 27.
    Shapes: x (B, C, F, H, W) -> (B, C, 1 + (F - 1) t, s H, s W) for factors (t, s, s), each 1 or 2.
    Precision: taps are summed in float32.
    Source: specification, section 7.4.
    """

    def __init__(self, engine: Engine, name: str, *, channels: int, factors: tuple[int, int, int]) -> None:
        self.engine = engine
        self.factors = factors
        self.channels = channels
        self.conv = CausalConv3d(engine, f"{name}.conv.conv", inputs=channels, outputs=channels)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of each weight."""
        return self.conv.shapes()

    def __call__(self, w: Weights, x: Tensor) -> Tensor:
        is_clip = x.shape[2] > 1
        factors = (self.factors[0] if is_clip else 1, self.factors[1], self.factors[2])
        weight, bias = self.places(w, factors, is_clip=is_clip)
        x = self.engine.pad(x, [(weight.shape[2] - 1, 0), (1, 1), (1, 1)], mode="replicate")
        return self.engine.interleave(self.engine.conv3d(x, weight, bias), factors, factors[0] - 1)

    def places(self, w: Weights, factors: tuple[int, int, int], *, is_clip: bool) -> tuple[Tensor, Tensor]:
        """Weight and bias of one convolution for all the places that a cell turns into."""
        taps = w[self.conv.weight]
        kernels = self.kernels(self.engine.cast(taps, "float32"), factors, is_clip)
        weight = self.engine.cast(self.engine.concat(kernels, 0), self.engine.dtype(taps))
        return weight, self.engine.concat([w[self.conv.bias]] * len(kernels), 0)

    def kernels(self, taps: Tensor, factors: tuple[int, int, int], is_clip: bool) -> list[Tensor]:
        """One kernel for each place, width fastest; along a doubled time the earlier place comes from a later cell."""
        kernels = [taps if is_clip else self.engine.sum(taps, (2,), keepdims=True)]
        for axis in range(3):
            if factors[axis] == 2:
                halves = []
                for kernel in kernels:
                    first, middle, last = self.engine.split(kernel, (1, 1, 1), axis + 2)
                    low = self.engine.concat([first, middle + last], axis + 2)
                    high = self.engine.concat([first + middle, last], axis + 2)
                    halves = [*halves, high, low] if axis == 0 else [*halves, low, high]
                kernels = halves
        return kernels


class MidBlock:
    """Resnet, attention, resnet at the narrowest point. Shapes: x (B, C, F, H, W), same out."""

    def __init__(self, engine: Engine, name: str, *, channels: int, groups: int, has_attention: bool) -> None:
        self.resnets = [
            Resnet(engine, f"{name}.resnets.{i}", inputs=channels, outputs=channels, groups=groups) for i in range(2)
        ]
        self.has_attention = has_attention
        self.attention = FrameCausalAttention(engine, f"{name}.attentions.0", channels=channels, groups=groups)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of each weight."""
        parts = self.resnets[0].shapes() | self.resnets[1].shapes()
        return parts | self.attention.shapes() if self.has_attention else parts

    def __call__(self, w: Weights, x: Tensor, *, observe: Observe | None = None) -> Tensor:
        x = self.resnets[0](w, x)
        if observe is not None:
            observe("mid_resnet0", x)
        if self.has_attention:
            x = self.attention(w, x)
            if observe is not None:
                observe("mid_attention", self.attention.tokens(x))
        return self.resnets[1](w, x)
