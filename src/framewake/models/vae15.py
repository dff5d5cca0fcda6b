"""HunyuanVideo-1.5's autoencoder: pixels (B, 3, F, H, W) in [-1, 1] to latents of a sixteenth of their sides and back.

Nothing in it looks ahead in time, so the frames of a clip may be decoded a few at a time: the same clip, and memory
that does not grow with it.
"""

from __future__ import annotations

import math
from typing import Any

from framewake.config import VAEConfig
from framewake.engine.contract import BY_TENSOR, Engine, Tensor, Weights
from framewake.models.vae import LOGVAR_RANGE, level_factors, shapes_of
from framewake.models.vae15_blocks import CellAttention, CellNorm, CellResnet, Growing, Shrinking, means, with_repeated
from framewake.models.vae_blocks import Observe
from framewake.nn.convolution import CausalConv3d, Past

BLOCKS = ("block_1", "attn_1", "block_2")


class CellVAE:
    """Encoder and decoder over one flat dict of weights with the published names.

    Latents are unscaled: the scaling factor belongs to the caller. Nothing here cuts tiles; see ``tiling.py``.
    Precision: the type of the weights; norms in float32.
    Source: specification of 1.5, section 9.
    """

    def __init__(self, engine: Engine, config: VAEConfig) -> None:
        self.engine = engine
        self.config = config
        self.encoder = CellEncoder(engine, config)
        self.decoder = CellDecoder(engine, config)

    def streams(self) -> tuple[str, ...]:
        """No list of blocks, for the deepest levels hold nearly all of it: tensor by tensor."""
        return BY_TENSOR

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor of the checkpoint."""
        return self.encoder.shapes() | self.decoder.shapes()

    def encode(self, w: Weights, pixels: Tensor, *, observe: Observe | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the posterior; the mean is what conditions a video.

        Shapes: pixels (B, 3, 1 + 4 n, 16 H, 16 W) -> two of (B, latent channels, 1 + n, H, W).
        """
        moments = self.moments(w, pixels, observe=observe)
        latent = self.config.latent_channels
        return moments[:, :latent], self.engine.clip(moments[:, latent:], LOGVAR_RANGE[0], LOGVAR_RANGE[1])

    def moments(self, w: Weights, pixels: Tensor, *, observe: Observe | None = None) -> Tensor:
        """Mean and unclamped log variance, joined along the channels: what tiles are blended in."""
        return self.encoder(w, self._cast(w, pixels), None, observe)

    def moments_slabs(self, w: Weights, pixels: Tensor, numbers: int) -> Tensor:
        """The same a few frames at a time: the widest layer holds at most ``numbers``, those of 4 frames at least.

        The first frame makes a latent frame alone.
        """
        pixels, config, past = self._cast(w, pixels), self.config, Past()
        cells = config.temporal_compression * config.block_out_channels[0] * math.prod(pixels.shape[3:])
        each = max(1, numbers // cells) * config.temporal_compression
        pieces = [self.encoder(w, pixels[:, :, :1], past, None)]
        for start in range(1, pixels.shape[2], each):
            pieces.append(self.encoder(w, pixels[:, :, start : start + each], past, None))
        return pieces[0] if len(pieces) == 1 else self.engine.concat(pieces, 2)

    def decode(self, w: Weights, latents: Tensor, *, observe: Observe | None = None) -> Tensor:
        """Pixels, not clamped, of latents already divided by the scaling factor.

        Shapes: latents (B, latent channels, 1 + n, H, W) -> (B, 3, 1 + 4 n, 16 H, 16 W).
        """
        return self.decoder(w, self._cast(w, latents), None, observe)

    def decode_slabs(self, w: Weights, latents: Tensor, numbers: int) -> Tensor:
        """The same a few frames at a time: the widest layer holds at most ``numbers`` of them, one frame's at least."""
        latents, config = self._cast(w, latents), self.config
        cells = config.temporal_compression * config.spatial_compression**2
        each = max(1, numbers // (cells * config.block_out_channels[0] * math.prod(latents.shape[3:])))
        past: Past = {}
        pieces = []
        for start in range(0, latents.shape[2], each):
            pieces.append(self.decoder(w, latents[:, :, start : start + each], past, None))
        return pieces[0] if len(pieces) == 1 else self.engine.concat(pieces, 2)

    def _cast(self, w: Weights, x: Tensor) -> Tensor:
        return self.engine.cast(x, self.engine.dtype(next(iter(w.values()))))


class _Levels:
    """What encoder and decoder share: levels of blocks, and the middle."""

    half: str
    start: str

    def __init__(self, engine: Engine, *, channels: int, inputs: int, outputs: int, ends: tuple[int, int]) -> None:
        self.engine = engine
        self.levels: list[list[Any]] = []
        name = f"{self.half}.mid."
        self.middle: list[Any] = [
            CellResnet(engine, name + BLOCKS[0], inputs=channels, outputs=channels),
            CellAttention(engine, name + BLOCKS[1], channels=channels),
            CellResnet(engine, name + BLOCKS[2], inputs=channels, outputs=channels),
        ]
        self.conv_in = CausalConv3d(engine, f"{self.half}.conv_in.conv", inputs=inputs, outputs=ends[0])
        self.norm_out = CellNorm(engine, f"{self.half}.norm_out", channels=ends[1], has_silu=False)
        self.conv_out = CausalConv3d(engine, f"{self.half}.conv_out.conv", inputs=ends[1], outputs=outputs)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of each weight."""
        levels = [block for level in self.levels for block in level]
        return shapes_of([self.conv_in, *levels, *self.middle, self.norm_out, self.conv_out])

    def through_levels(self, w: Weights, x: Tensor, past: Past | None, see: Observe) -> Tensor:
        """Every level."""
        for index, level in enumerate(self.levels):
            for block in level:
                x = block(w, x, past=past)
            see(f"{self.start}{index}", x)
        return x

    def through_middle(self, w: Weights, x: Tensor, past: Past | None, see: Observe) -> Tensor:
        """Resnet, attention, resnet."""
        for name, block in zip(("mid_block_1", "mid_attention", "mid"), self.middle, strict=True):
            x = block(w, x, past=past)
            see(f"{self.start.split('_')[0]}_{name}", x)
        return x

    def last(self, w: Weights, x: Tensor, past: Past | None, see: Observe) -> Tensor:
        """Norm, SiLU and the last convolution."""
        x = self.norm_out(w, x)
        see(f"{self.start.split('_')[0]}_norm_out", x)
        return self.conv_out(w, self.engine.silu(x), past=past)


class CellEncoder(_Levels):
    """Pixels to moments."""

    half, start = "encoder", "enc_down_"

    def __init__(self, engine: Engine, config: VAEConfig) -> None:
        widths, moments = config.block_out_channels, 2 * config.latent_channels
        ends = (widths[0], widths[-1])
        super().__init__(engine, channels=widths[-1], inputs=config.in_channels, outputs=moments, ends=ends)
        for level, factors in enumerate(level_factors(config)):
            name, width = f"encoder.down.{level}", widths[level]
            blocks: list[Any] = [
                CellResnet(engine, f"{name}.block.{i}", inputs=width, outputs=width)
                for i in range(config.layers_per_block)
            ]
            if factors != (1, 1, 1):
                grown = widths[level + 1]
                blocks.append(Shrinking(engine, f"{name}.downsample", inputs=width, outputs=grown, factors=factors))
            self.levels.append(blocks)

    def __call__(self, w: Weights, x: Tensor, past: Past | None, observe: Observe | None) -> Tensor:
        see = observe or _unseen
        x = self.conv_in(w, x, past=past)
        see("enc_conv_in", x)
        x = self.through_middle(w, self.through_levels(w, x, past, see), past, see)
        moments = self.last(w, x, past, see)
        moments = moments + means(self.engine, x, moments.shape[1])
        see("moments", moments)
        return moments


class CellDecoder(_Levels):
    """Latents to pixels: the encoder's widths backwards, one resnet more per level, and time grows first."""

    half, start = "decoder", "dec_up_"

    def __init__(self, engine: Engine, config: VAEConfig) -> None:
        widths = config.block_out_channels[::-1]
        ends, latent = (widths[0], widths[-1]), config.latent_channels
        super().__init__(engine, channels=widths[0], inputs=latent, outputs=config.out_channels, ends=ends)
        factors = level_factors(config)
        for level, width in enumerate(widths):
            name = f"decoder.up.{level}"
            blocks: list[Any] = [
                CellResnet(engine, f"{name}.block.{i}", inputs=width, outputs=width)
                for i in range(config.layers_per_block + 1)
            ]
            if level + 1 < len(widths):  # the encoder's last shrinking is the first that is undone
                turned = factors[len(widths) - 2 - level]
                grown = widths[level + 1]
                blocks.append(Growing(engine, f"{name}.upsample", inputs=width, outputs=grown, factors=turned))
            self.levels.append(blocks)

    def __call__(self, w: Weights, x: Tensor, past: Past | None, observe: Observe | None) -> Tensor:
        see = observe or _unseen
        first = self.conv_in(w, x, past=past)
        see("dec_conv_in", first)
        x = with_repeated(self.engine, first, x)
        x = self.through_levels(w, self.through_middle(w, x, past, see), past, see)
        return self.last(w, x, past, see)


def _unseen(_name: str, _tensor: Tensor) -> None:
    pass
