"""The models that the benchmarks for GPUs know, at their published sizes and as toys: ``--model``."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any, NamedTuple

import numpy as np

from framewake.config import CLIP_L, HUNYUAN_DIT, HUNYUAN_TILING, HUNYUAN_VAE, LLAVA_LLAMA3_8B, TilingConfig, VAEConfig
from framewake.config15 import (
    GLYPH_BYT5,
    HUNYUAN15_DIT,
    HUNYUAN15_TILING,
    HUNYUAN15_VAE,
    QWEN25_VL_7B,
    SIGLIP_SO400M,
)
from framewake.engine.contract import Engine
from framewake.models.dit import DiT, TextPart, TextStates
from framewake.models.dit15 import VISION
from framewake.pipeline.family import Family
from framewake.pipeline.hunyuan import HUNYUAN
from framewake.pipeline.hunyuan15 import HUNYUAN15
from framewake.shapes import LatentShape, PixelShape, latent_shape

FIRST = "hunyuanvideo-i2v"
TOY = {"hidden_size": 128, "heads": 1, "double_blocks": 2, "text_width": 64}


class Model(NamedTuple):
    """One model. ``text`` tokens reach its blocks, ``seen`` of them from a picture's own encoder.

    ``read`` are the tokens that its language model reads of the longest prompt. Units: ``sizes`` by name in pixels,
    the largest first, ``small`` the one that LoRAs are trained at.
    """

    family: Family
    config: Any
    vae: VAEConfig
    tiling: TilingConfig
    encoders: dict[str, Any]
    text: int
    seen: int
    read: int
    frames: int
    sizes: dict[str, tuple[int, int]]
    small: tuple[int, int]

    def transformer(self, engine: Any, config: Any = None) -> DiT:
        """The transformer's class, of another configuration where there is one."""
        found: DiT = self.family.transformer(engine, config or self.config)
        return found

    def latent(self, frames: int, size: tuple[int, int]) -> LatentShape:
        """Latents of a clip as the autoencoder has them."""
        shape, channels = PixelShape(frames, *size), self.config.out_channels
        return latent_shape(shape, channels=channels, spatial=self.vae.spatial_compression)

    def text_states(self, engine: Engine, draw: np.random.Generator) -> TextStates:
        """Random states of the text, and of the picture."""

        def drawn(*shape: int) -> Any:
            return engine.asarray(draw.standard_normal(shape, np.float32))

        config, words = self.config, self.text - self.seen
        pooled = drawn(1, config.pooled_width) if config.pooled_width else None
        further = {VISION: TextPart(drawn(1, self.seen, config.vision_width), (self.seen,))} if self.seen else {}
        return TextStates(drawn(1, words, config.text_width), (words,), pooled, further)

    def guidance(self, engine: Engine) -> Any:
        """The embedded scale, where it is told one."""
        return engine.full((1,), 6016.0) if self.config.has_guidance else None


_SIZES = {"720x1280": (720, 1280), "704x1248": (704, 1248), "544x960": (544, 960), "352x640": (352, 640)}
_SIZES_15 = {"720x1280": (720, 1280), "544x720": (544, 720), "480x848": (480, 848)}
MODELS = {
    FIRST: Model(
        HUNYUAN,
        HUNYUAN_DIT,
        HUNYUAN_VAE,
        HUNYUAN_TILING,
        {"llava": LLAVA_LLAMA3_8B, "clip_text": CLIP_L},
        text=400,  # 144 of the picture and a prompt of 256
        seen=0,
        read=934,  # template, 576 of the picture and 256 of text
        frames=129,
        sizes=_SIZES,
        small=(352, 640),
    ),
    "hunyuanvideo-1.5": Model(
        HUNYUAN15,
        HUNYUAN15_DIT,
        HUNYUAN15_VAE,
        HUNYUAN15_TILING,
        {"qwen": QWEN25_VL_7B, "byt5": GLYPH_BYT5, "siglip": SIGLIP_SO400M},
        text=985,  # 729 of the picture and a prompt of 256
        seen=729,
        read=1108,
        frames=121,
        sizes=_SIZES_15,
        small=(480, 848),
    ),
}
_TINY = {"sizes": {"64x96": (64, 96), "32x64": (32, 64)}, "small": (64, 96), "frames": 9}
TOYS = {
    FIRST: MODELS[FIRST]._replace(
        config=dataclasses.replace(HUNYUAN_DIT, single_blocks=3, pooled_width=32, **TOY),
        vae=dataclasses.replace(HUNYUAN_VAE, block_out_channels=(8, 8, 16, 16), layers_per_block=1, norm_groups=4),
        text=24,
        **_TINY,
    ),
    "hunyuanvideo-1.5": MODELS["hunyuanvideo-1.5"]._replace(
        config=dataclasses.replace(HUNYUAN15_DIT, glyph_widths=(32, 24, 24), vision_width=32, **TOY),
        vae=dataclasses.replace(HUNYUAN15_VAE, block_out_channels=(8, 8, 16, 32, 32), layers_per_block=1),
        text=24,
        seen=12,
        **_TINY,
    ),
}


def add_option(options: argparse.ArgumentParser) -> None:
    """``--model``, and ``--toy`` for something tiny instead."""
    options.add_argument("--model", choices=MODELS, default=FIRST)
    options.add_argument("--toy", action="store_true", help="a tiny model and a tiny clip")


def model_of(given: argparse.Namespace) -> Model:
    """What was asked for."""
    return (TOYS if given.toy else MODELS)[given.model]


def titled(found: dict[str, Any], text: str) -> str:
    """A row's title, with the model's name where it is not the first."""
    return text if found["model"] == FIRST else f"{found['model']} {text}"
