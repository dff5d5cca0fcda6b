"""A whole checkpoint of random weights, small enough that a clip takes a second."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from PIL import Image

from demonstration.models import RESOLUTION_BASES
from demonstration.tokenizers import write_tokenizers
from framewake.config import (
    CLIP_MEAN,
    CLIP_STD,
    ClipTextConfig,
    ClipVisionConfig,
    DiTConfig,
    LlamaConfig,
    LlavaConfig,
    VAEConfig,
)
from framewake.golden import rule
from framewake.pipeline.hunyuan import HUNYUAN
from framewake.text.tokenize import Tokenizer
from framewake.weights.checkpoint.load import ImageProcessor
from framewake.weights.checkpoint.settings import Settings
from framewake.weights.writing.export import write_checkpoint

CORPUS = ["the red circle moves left", "a blue square moves right and up", "spins slowly"]
SETTINGS = Settings(name="toy", is_demo=False, resolutions=RESOLUTION_BASES, frames=5, steps=2, fps=12)

VAE = VAEConfig(
    in_channels=3,
    out_channels=3,
    latent_channels=4,
    block_out_channels=(8, 8, 8, 8),
    layers_per_block=1,
    norm_groups=4,
    scaling_factor=0.476986,
    spatial_compression=8,
    temporal_compression=4,
    mid_block_attention=True,
)
DIT = DiTConfig(
    patch_size=(1, 2, 2),
    in_channels=4,
    out_channels=4,
    hidden_size=32,
    heads=2,
    rope_dims=(4, 6, 6),
    rope_theta=256.0,
    mlp_ratio=4.0,  # the only one that diffusers gives its refiner
    double_blocks=1,
    single_blocks=1,
    refiner_blocks=1,
    text_width=16,
    pooled_width=16,
    condition="token_replace",
    has_guidance=True,
)


def write_toy(
    folder: Path,
    condition: str = "token_replace",
    settings: Settings = SETTINGS,
    *,
    dit: DiTConfig = DIT,
    vae: VAEConfig = VAE,
) -> Path:
    """A checkpoint folder with tokenizers; ``condition`` as in ``DiTConfig``."""
    write_tokenizers(folder, CORPUS)
    tokenizer, tokenizer_2 = (Tokenizer.from_folder(folder / name) for name in ("tokenizer", "tokenizer_2"))
    channels = 2 * dit.out_channels + 1 if condition == "latent_concat" else dit.out_channels
    dit = dataclasses.replace(dit, condition=condition, in_channels=channels)
    llava = LlavaConfig(
        text=LlamaConfig(16, 32, 3, 2, 1, 8, tokenizer.vocab_size, 1e-5, 500000.0),
        vision=ClipVisionConfig(16, 32, 2, 2, 28, 7, "quick_gelu", 1e-5),
        projector_activation="gelu",
        image_token_id=tokenizer.token_id("<image>"),
        pad_token_id=tokenizer.token_id("<pad>"),
        vision_feature_layer=-2,
        drops_class_token=True,
    )
    clip_text = ClipTextConfig(
        16, 32, 1, 2, tokenizer_2.vocab_size, 77, "quick_gelu", 1e-5, tokenizer_2.token_id("<|endoftext|>")
    )
    configs = {"dit": dit, "vae": vae, "llava": llava, "clip_text": clip_text}
    # A model states its tensors without touching its engine.
    models = HUNYUAN.models(configs, None)
    parts = {name: (configs[name], rule.weights(models[name].shapes(), seed=7)) for name in models}
    processor = ImageProcessor(28, CLIP_MEAN, CLIP_STD)
    write_checkpoint(folder, parts, settings=settings, image_processor=processor, dtype="float32")
    return folder


def write_picture(path: Path, height: int = 50, width: int = 70) -> Path:
    """A colourful picture."""
    Image.fromarray(np.ascontiguousarray(rule.image("photo", height, width, 3))).save(path)
    return path
