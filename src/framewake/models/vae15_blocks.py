"""Building blocks of HunyuanVideo-1.5's autoencoder: every norm looks at one cell alone, so all of it is causal.

Each block takes a ``past``: what earlier frames leave for the frames that come next. A clip may so be worked through a
few frames at a time, with the same numbers.
Source: specification of 1.5, section 9.1.
"""

from __future__ import annotations

import math

from framewake.engine.contract import Engine, Tensor, Weights
from framewake.models.vae_blocks import FrameCausalAttention, Resnet
from framewake.nn.convolution import CausalConv3d, Past

LEAST = 1e-24  # of the squares' sum: the original's least length, squared


class CellNorm:
    """Every cell's channels divided by their root mean square, times a weight; then SiLU where it is wanted.

    Precision: float32 inside, x's type outside.
    """

    def __init__(self, engine: Engine, name: str, *, channels: int, has_silu: bool) -> None:
        self.engine = engine
        self.gamma = f"{name}.gamma"
        self.channels = channels
        self.has_silu = has_silu

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of the weight."""
        return {self.gamma: (self.channels, 1, 1, 1)}

    def __call__(self, w: Weights, x: Tensor) -> Tensor:
        """Shapes: x (B, C, F, H, W), same out."""
        engine = self.engine
        y = self._divided(x) * (engine.cast(w[self.gamma], "float32") * math.sqrt(self.channels))
        return engine.cast(engine.silu(y) if self.has_silu else y, engine.dtype(x))

    def _divided(self, x: Tensor) -> Tensor:
        """The cells by their lengths, in float32."""
        wide = self.engine.cast(x, "float32")
        return wide * self.engine.rsqrt(self.engine.sum(wide * wide, (1,), keepdims=True) + LEAST)


class CellResnet(Resnet):
    """The resnet with these norms. Shapes: x (B, I, F, H, W) -> (B, O, F, H, W)."""

    def __init__(self, engine: Engine, name: str, *, inputs: int, outputs: int) -> None:
        self.norm1 = CellNorm(engine, f"{name}.norm1", channels=inputs, has_silu=True)
        self.conv1 = CausalConv3d(engine, f"{name}.conv1.conv", inputs=inputs, outputs=outputs)
        self.norm2 = CellNorm(engine, f"{name}.norm2", channels=outputs, has_silu=True)
        self.conv2 = CausalConv3d(engine, f"{name}.conv2.conv", inputs=outputs, outputs=outputs)
        self.has_shortcut = inputs != outputs
        self.shortcut = CausalConv3d(engine, f"{name}.nin_shortcut", inputs=inputs, outputs=outputs, kernel=1)


class CellAttention(FrameCausalAttention):
    """The attention with this norm; its layers are stored as convolutions of one cell."""

    parts = ("q", "k", "v", "proj_out")

    def __init__(self, engine: Engine, name: str, *, channels: int) -> None:
        super().__init__(engine, name, channels=channels, groups=1)
        self.norm = CellNorm(engine, f"{name}.norm", channels=channels, has_silu=False)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of each weight."""
        square = (self.channels, self.channels)
        return {name: (*shape, 1, 1, 1) if shape == square else shape for name, shape in super().shapes().items()}

    def _linear(self, w: Weights, part: str, x: Tensor) -> Tensor:
        weight = self.engine.reshape(w[f"{self.name}.{part}.weight"], (self.channels, self.channels))
        return self.engine.linear(x, weight, w[f"{self.name}.{part}.bias"])


class Packing:
    """A clip whose cells become channels or channels cells, through a convolution and beside it without weights.

    ``factors`` are those of time, height and width. The first frame has no pair in time: packed, its channels stand
    twice; unpacked, the second half of them goes.
    """

    def __init__(
        self, engine: Engine, name: str, *, inputs: int, outputs: int, factors: tuple[int, int, int], grows: bool
    ) -> None:
        self.engine = engine
        self.name = name
        self.outputs = outputs
        self.factors = factors
        cells = math.prod(factors)
        made = outputs * cells if grows else outputs // cells
        self.conv = CausalConv3d(engine, f"{name}.conv.conv", inputs=inputs, outputs=made)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of each weight."""
        return self.conv.shapes()

    def parted(self, x: Tensor, past: Past | None) -> tuple[Tensor | None, Tensor | None]:
        """The clip's first frame, where it is among these and time is packed, and the others."""
        is_first = self.factors[0] > 1 and (past is None or self.name not in past)
        if not is_first:
            return None, x
        return x[:, :, :1], x[:, :, 1:] if x.shape[2] > 1 else None

    def begun(self, past: Past | None) -> None:
        """The frames that come next are not the first."""
        if past is not None:
            past[self.name] = self.engine.zeros((1,))


class Shrinking(Packing):
    """Half the height and width, and half the frames behind the first where time is packed.

    Shapes: x (B, I, F, H, W) -> (B, O, F or (F + 1) / 2, H / 2, W / 2).
    """

    def __init__(self, engine: Engine, name: str, *, inputs: int, outputs: int, factors: tuple[int, int, int]) -> None:
        super().__init__(engine, name, inputs=inputs, outputs=outputs, factors=factors, grows=False)

    def __call__(self, w: Weights, x: Tensor, *, past: Past | None = None) -> Tensor:
        engine, made, flat = self.engine, self.conv(w, x, past=past), (1, *self.factors[1:])
        pieces = []
        for is_rest, (new, old) in enumerate(zip(self.parted(made, past), self.parted(x, past), strict=True)):
            if new is None or old is None:
                continue
            factors = self.factors if is_rest else flat
            packed = pack(engine, new, factors)
            if packed.shape[1] < self.outputs:
                packed = engine.concat([packed, packed], 1)
            pieces.append(packed + means(engine, pack(engine, old, factors), self.outputs))
        self.begun(past)
        return pieces[0] if len(pieces) == 1 else engine.concat(pieces, 2)


class Growing(Packing):
    """Twice the height and width, and two frames for each behind the first where time is packed.

    Shapes: x (B, I, F, H, W) -> (B, O, F or 2 F - 1, 2 H, 2 W).
    """

    def __init__(self, engine: Engine, name: str, *, inputs: int, outputs: int, factors: tuple[int, int, int]) -> None:
        super().__init__(engine, name, inputs=inputs, outputs=outputs, factors=factors, grows=True)

    def __call__(self, w: Weights, x: Tensor, *, past: Past | None = None) -> Tensor:
        engine, made, flat = self.engine, self.conv(w, x, past=past), (1, *self.factors[1:])
        pieces = []
        for is_rest, (new, old) in enumerate(zip(self.parted(made, past), self.parted(x, past), strict=True)):
            if new is None or old is None:
                continue
            factors = self.factors if is_rest else flat
            grown = unpack(engine, new, factors)[:, : self.outputs]
            pieces.append(with_repeated(engine, grown, unpack(engine, old, factors)))
        self.begun(past)
        return pieces[0] if len(pieces) == 1 else engine.concat(pieces, 2)


def pack(engine: Engine, x: Tensor, factors: tuple[int, int, int]) -> Tensor:
    """Cells into channels, the offset outermost. Shapes: (B, C, t F, s H, r W) -> (B, t s r C, F, H, W)."""
    batch, channels, *sizes = x.shape
    cuts = [number for size, factor in zip(sizes, factors, strict=True) for number in (size // factor, factor)]
    x = engine.permute(engine.reshape(x, (batch, channels, *cuts)), (0, 3, 5, 7, 1, 2, 4, 6))
    return engine.reshape(x, (batch, math.prod(factors) * channels, *cuts[::2]))


def unpack(engine: Engine, x: Tensor, factors: tuple[int, int, int]) -> Tensor:
    """Channels into cells, the offset outermost. Shapes: (B, t s r C, F, H, W) -> (B, C, t F, s H, r W)."""
    batch, channels, *sizes = x.shape
    channels //= math.prod(factors)
    x = engine.permute(engine.reshape(x, (batch, *factors, channels, *sizes)), (0, 4, 5, 1, 6, 2, 7, 3))
    return engine.reshape(x, (batch, channels, *(size * n for size, n in zip(sizes, factors, strict=True))))


def means(engine: Engine, x: Tensor, channels: int) -> Tensor:
    """Means of consecutive channels. Shapes: (B, g C, F, H, W) -> (B, C, F, H, W)."""
    batch, held, *sizes = x.shape
    if held == channels:
        return x
    return engine.mean(engine.reshape(x, (batch, channels, held // channels, *sizes)), (2,))


def with_repeated(engine: Engine, x: Tensor, y: Tensor) -> Tensor:
    """A sum in which each channel of y is added to several in a row. Shapes: (B, r C, F, H, W), (B, C, F, H, W)."""
    batch, channels, *sizes = x.shape
    held = y.shape[1]
    if held == channels:
        return x + y
    total = engine.reshape(x, (batch, held, channels // held, *sizes)) + y[:, :, None]
    return engine.reshape(total, (batch, channels, *sizes))
