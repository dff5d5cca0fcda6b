"""The causal 3D autoencoder: pixels (B, 3, F, H, W) in [-1, 1] to latents and back."""

from __future__ import annotations

import itertools

from framewake.config import VAEConfig
from framewake.engine.contract import BY_TENSOR, Engine, Tensor, Weights
from framewake.errors import CheckpointError
from framewake.models import vae_slabs
from framewake.models.vae_blocks import GroupNorm, MidBlock, Observe, Resnet, Upsample
from framewake.nn.convolution import CausalConv3d

LOGVAR_RANGE = (-30.0, 20.0)


class CausalVAE:
    """Encoder and decoder over one flat dict of weights with the published names.

    Latents are unscaled: the scaling factor belongs to the caller. Nothing here cuts tiles; see ``tiling.py``.
    Precision: the type of the weights; normalisation in float32.
    Source: specification, section 7.
    """

    def __init__(self, engine: Engine, config: VAEConfig) -> None:
        self.engine = engine
        self.config = config
        self.encoder = Encoder(engine, config)
        self.decoder = Decoder(engine, config)
        latent = config.latent_channels
        self.quant = CausalConv3d(engine, "quant_conv", inputs=2 * latent, outputs=2 * latent, kernel=1)
        self.post_quant = CausalConv3d(engine, "post_quant_conv", inputs=latent, outputs=latent, kernel=1)

    def streams(self) -> tuple[str, ...]:
        """No list of blocks, for the deepest levels hold nearly all of it: tensor by tensor."""
        return BY_TENSOR

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor of the checkpoint."""
        return self.encoder.shapes() | self.decoder.shapes() | self.quant.shapes() | self.post_quant.shapes()

    def encode(self, w: Weights, pixels: Tensor, *, observe: Observe | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the posterior; the mean is what conditions a video.

        Shapes: pixels (B, 3, 1 + 4 n, H, W) -> two of (B, latent channels, 1 + n, ceil(H / 8), ceil(W / 8)).
        """
        moments = self.moments(w, pixels, observe=observe)
        latent = self.config.latent_channels
        return moments[:, :latent], self.engine.clip(moments[:, latent:], LOGVAR_RANGE[0], LOGVAR_RANGE[1])

    def moments(self, w: Weights, pixels: Tensor, *, observe: Observe | None = None) -> Tensor:
        """Mean and unclamped log variance, joined along the channels: what tiles are blended in."""
        pixels = self.engine.cast(pixels, self.engine.dtype(w["quant_conv.weight"]))
        return self.quant(w, self.encoder(w, pixels, observe=observe))

    def moments_slabs(self, w: Weights, pixels: Tensor, numbers: int) -> Tensor:
        """The same a few frames at a time, of at most so many numbers."""
        return vae_slabs.moments(self, w, pixels, numbers=numbers)

    def decode(self, w: Weights, latents: Tensor, *, observe: Observe | None = None) -> Tensor:
        """Pixels, not clamped, of latents already divided by the scaling factor.

        Shapes: latents (B, latent channels, 1 + n, H, W) -> (B, 3, 1 + 4 n, 8 H, 8 W).
        """
        latents = self.engine.cast(latents, self.engine.dtype(w["post_quant_conv.weight"]))
        x = self.post_quant(w, latents)
        if observe is not None:
            observe("dec_post_quant", x)
        return self.decoder(w, x, observe=observe)

    def decode_slabs(self, w: Weights, latents: Tensor, numbers: int) -> Tensor:
        """The same a few frames at a time, of at most so many numbers."""
        return vae_slabs.decode(self, w, latents, numbers=numbers)


class Encoder:
    """Pixels to moments: levels of resnets, each but the last ending in a strided convolution."""

    def __init__(self, engine: Engine, config: VAEConfig) -> None:
        widths = config.block_out_channels
        groups = config.norm_groups
        self.conv_in = CausalConv3d(engine, "encoder.conv_in.conv", inputs=config.in_channels, outputs=widths[0])
        self.levels = []
        inputs = widths[0]
        for level, factors in enumerate(level_factors(config)):
            name = f"encoder.down_blocks.{level}"
            blocks: list = resnets(
                engine, name, inputs=inputs, outputs=widths[level], groups=groups, count=config.layers_per_block
            )
            inputs = widths[level]
            if factors != (1, 1, 1):
                sampler = f"{name}.downsamplers.0.conv.conv"
                blocks.append(CausalConv3d(engine, sampler, inputs=inputs, outputs=inputs, stride=factors))
            self.levels.append(blocks)
        self.mid = MidBlock(
            engine, "encoder.mid_block", channels=inputs, groups=groups, has_attention=config.mid_block_attention
        )
        self.norm_out = GroupNorm(engine, "encoder.conv_norm_out", channels=inputs, groups=groups, has_silu=True)
        moments = 2 * config.latent_channels
        self.conv_out = CausalConv3d(engine, "encoder.conv_out.conv", inputs=inputs, outputs=moments)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of each weight."""
        return shapes_of([self.conv_in, *itertools.chain(*self.levels), self.mid, self.norm_out, self.conv_out])

    def __call__(self, w: Weights, x: Tensor, *, observe: Observe | None = None) -> Tensor:
        x = self.conv_in(w, x)
        if observe is not None:
            observe("enc_conv_in", x)
        for index, blocks in enumerate(self.levels):
            for block in blocks:
                x = block(w, x)
            if observe is not None:
                observe(f"enc_down_{index}", x)
        x = self.mid(w, x)
        if observe is not None:
            observe("enc_mid", x)
        x = self.conv_out(w, self.norm_out(w, x))
        if observe is not None:
            observe("enc_conv_out", x)
        return x


class Decoder:
    """Latents to pixels: the encoder's widths backwards, one resnet more per level."""

    def __init__(self, engine: Engine, config: VAEConfig) -> None:
        widths = config.block_out_channels[::-1]
        groups = config.norm_groups
        self.conv_in = CausalConv3d(engine, "decoder.conv_in.conv", inputs=config.latent_channels, outputs=widths[0])
        self.mid = MidBlock(
            engine, "decoder.mid_block", channels=widths[0], groups=groups, has_attention=config.mid_block_attention
        )
        self.levels = []
        inputs = widths[0]
        for level, factors in enumerate(level_factors(config)):
            name = f"decoder.up_blocks.{level}"
            blocks: list = resnets(
                engine, name, inputs=inputs, outputs=widths[level], groups=groups, count=config.layers_per_block + 1
            )
            inputs = widths[level]
            if factors != (1, 1, 1):
                blocks.append(Upsample(engine, f"{name}.upsamplers.0", channels=inputs, factors=factors))
            self.levels.append(blocks)
        self.norm_out = GroupNorm(engine, "decoder.conv_norm_out", channels=inputs, groups=groups, has_silu=True)
        self.conv_out = CausalConv3d(engine, "decoder.conv_out.conv", inputs=inputs, outputs=config.out_channels)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of each weight."""
        return shapes_of([self.conv_in, self.mid, *itertools.chain(*self.levels), self.norm_out, self.conv_out])

    def __call__(self, w: Weights, x: Tensor, *, observe: Observe | None = None) -> Tensor:
        x = self.conv_in(w, x)
        if observe is not None:
            observe("dec_conv_in", x)
            x = self.mid(w, x, observe=lambda part, value: observe(f"dec_{part}", value))
            observe("dec_mid", x)
        else:
            x = self.mid(w, x)
        for index, blocks in enumerate(self.levels):
            for block in blocks:
                x = block(w, x)
            if observe is not None:
                observe(f"dec_up_{index}", x)
        return self.conv_out(w, self.norm_out(w, x))


def resnets(engine: Engine, name: str, *, inputs: int, outputs: int, groups: int, count: int) -> list[Resnet]:
    """The resnets of one level; the first changes the width."""
    return [
        Resnet(engine, f"{name}.resnets.{i}", inputs=inputs if i == 0 else outputs, outputs=outputs, groups=groups)
        for i in range(count)
    ]


def shapes_of(parts: list) -> dict[str, tuple[int, ...]]:
    """Names and shapes of several parts together."""
    return {name: shape for part in parts for name, shape in part.shapes().items()}


def level_factors(config: VAEConfig) -> list[tuple[int, int, int]]:
    """How much each encoder level shrinks (time, height, width) after its resnets; the last never does.

    The decoder's levels grow by the same list in the same order.
    Source: specification, section 7.4.
    """
    levels = len(config.block_out_channels)
    spatial = _halvings("spatial_compression", config.spatial_compression, levels - 1)
    temporal = _halvings("temporal_compression", config.temporal_compression, levels - 1)
    factors = []
    for level in range(levels):
        side = 2 if level < spatial else 1
        time = 2 if levels - 1 - temporal <= level < levels - 1 else 1
        factors.append((time, side, side))
    return factors


def _halvings(name: str, ratio: int, limit: int) -> int:
    count = ratio.bit_length() - 1
    if ratio < 1 or ratio != 1 << count or count > limit:
        raise CheckpointError(
            f"the VAE configuration has {name} {ratio}; with {limit + 1} levels it must be a power of two"
            f" up to {1 << limit}. Check the VAE's config.json."
        )
    return count
