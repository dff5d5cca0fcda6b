"""Latents of a larger clip from those of a smaller one: bilinear, then a small network, a frame at a time.

Source: specification of 1.5, section 13.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from framewake.config15 import UpsamplerConfig
from framewake.engine.contract import Engine, Tensor, Weights
from framewake.models.vae import shapes_of
from framewake.models.vae15_blocks import CellNorm, CellResnet, with_repeated
from framewake.nn.convolution import CausalConv3d, Past


class PlainUpsampler:
    """Blocks of two and a half convolutions around themselves, for 480p to 720p."""

    def __init__(self, engine: Engine, config: UpsamplerConfig) -> None:
        self.engine = engine
        self.config = config
        channels, hidden, blocks = config.channels, config.widths[0], config.blocks
        self.conv_in = CausalConv3d(engine, "in_conv.conv", inputs=channels, outputs=hidden)
        self.blocks = [
            [
                CausalConv3d(engine, f"blocks.{block}.block.{place}.conv", inputs=hidden, outputs=hidden)
                for place in (0, 2, 4)
            ]
            for block in range(blocks)
        ]
        self.conv_out = CausalConv3d(engine, "out_conv.conv", inputs=hidden, outputs=channels)

    def streams(self) -> tuple[str, ...]:
        """No list of blocks: it is small."""
        return ()

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of each weight."""
        return shapes_of([self.conv_in, *(conv for block in self.blocks for conv in block), self.conv_out])

    def __call__(self, w: Weights, latents: Tensor, *, past: Past | None = None) -> Tensor:
        """Shapes: (B, C, F, H, W), already of the target's size, same out."""
        engine, x = self.engine, self.conv_in(w, latents, past=past)
        for first, second, third in self.blocks:
            y = second(w, engine.silu(first(w, x, past=past)), past=past)
            x = x + third(w, engine.silu(y), past=past)
        x = self.conv_out(w, x, past=past)
        return x + latents if self.config.adds_input else x


class LevelledUpsampler:
    """Levels of resnets, as the autoencoder's decoder without growing, for 720p to 1080p."""

    def __init__(self, engine: Engine, config: UpsamplerConfig) -> None:
        self.engine = engine
        self.config = config
        channels, widths = config.channels, config.widths
        self.conv_in = CausalConv3d(engine, "conv_in.conv", inputs=channels, outputs=widths[0])
        self.blocks: list[Any] = []
        inputs = widths[0]
        for level, width in enumerate(widths):
            for number in range(config.blocks):
                name = f"up.{level}.block.{number}"
                self.blocks.append(CellResnet(engine, name, inputs=inputs, outputs=width))
                inputs = width
        self.norm_out = CellNorm(engine, "norm_out", channels=inputs, has_silu=True)
        self.conv_out = CausalConv3d(engine, "conv_out.conv", inputs=inputs, outputs=channels)

    def streams(self) -> tuple[str, ...]:
        """No list of blocks: it is small."""
        return ()

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of each weight."""
        return shapes_of([self.conv_in, *self.blocks, self.norm_out, self.conv_out])

    def __call__(self, w: Weights, latents: Tensor, *, past: Past | None = None) -> Tensor:
        """Shapes: (B, C, F, H, W), already of the target's size, same out."""
        x = self.conv_in(w, latents, past=past)
        x = with_repeated(self.engine, x, latents)
        for block in self.blocks:
            x = block(w, x, past=past)
        return self.conv_out(w, self.norm_out(w, x), past=past)


Upsampler = PlainUpsampler | LevelledUpsampler


def upsampler_of(engine: Engine, config: UpsamplerConfig) -> Upsampler:
    """The upsampler of a configuration."""
    return PlainUpsampler(engine, config) if config.kind == "plain" else LevelledUpsampler(engine, config)


def upsampled(model: Upsampler, w: Weights, latents: Tensor) -> Tensor:
    """A clip frame by frame: its widest layers never hold more than three of them. Shapes: as of the model's call."""
    past: Past = {}
    frames = [model(w, latents[:, :, index : index + 1], past=past) for index in range(latents.shape[2])]
    return frames[0] if len(frames) == 1 else model.engine.concat(frames, 2)


def enlarged(engine: Engine, latents: Tensor, height: int, width: int) -> Tensor:
    """Every frame bilinear to another size, edges of cells on edges. Shapes: (B, C, F, h, w) -> (B, C, F, H, W)."""
    for axis, size in ((3, height), (4, width)):
        held = int(latents.shape[axis])
        places = np.maximum((np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(held / size) - 0.5, 0)
        low = np.minimum(np.floor(places).astype(np.int64), held - 1)
        share = engine.asarray((places - low).astype(np.float32).reshape([size if a == axis else 1 for a in range(5)]))
        first = engine.take(latents, engine.asarray(low), axis)
        second = engine.take(latents, engine.asarray(np.minimum(low + 1, held - 1)), axis)
        latents = first * (1.0 - share) + second * share
    return latents
