"""A whole checkpoint of HunyuanVideo-1.5 with random weights, small enough that a clip takes a second."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from framewake.config import ClipVisionConfig, VAEConfig
from framewake.config15 import (
    HUNYUAN15_DIT,
    HUNYUAN15_TILING,
    HUNYUAN15_VAE,
    QwenConfig,
    T5Config,
    TileRule,
    UpsamplerConfig,
)
from framewake.golden import rule
from framewake.pipeline.hunyuan15 import HUNYUAN15
from framewake.weights.checkpoint.load import ImageProcessor
from framewake.weights.checkpoint.settings import Enlargement, Settings
from framewake.weights.writing.export import write_checkpoint

HALF = (0.5, 0.5, 0.5)
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
SETTINGS = Settings(
    name="toy 1.5",
    resolutions={"480p": 96},
    frames=5,
    steps=2,
    fps=12,
    flow_shift=5.0,
    guidance_scale=6.0,
    text_tokens=1000,
    negative_prompt="",
    tiling=HUNYUAN15_TILING,
    enlargement=Enlargement(resolution="720p", side_px=144, steps=4, flow_shift=2.0),
)
DIT = replace(
    HUNYUAN15_DIT,
    in_channels=9,
    out_channels=4,
    hidden_size=32,
    heads=2,
    rope_dims=(4, 6, 6),
    double_blocks=2,
    text_width=16,
    glyph_widths=(16, 12, 14),
    vision_width=16,
)
VAE = replace(HUNYUAN15_VAE, latent_channels=4, block_out_channels=(8, 8, 16, 32, 32), layers_per_block=1)
SPARSE = TileRule(tile=(1, 2, 2), window=(1, 3, 3), kept=4, likeness=0.7)
# What enlarges clips: the same transformer with more channels, and a small network.
LARGER = replace(DIT, in_channels=14, is_step_distilled=True)
UPSAMPLER = UpsamplerConfig("plain", channels=4, widths=(6,), blocks=2, adds_input=False)
SIGLIP = ClipVisionConfig(16, 32, 2, 2, 28, 7, "gelu_pytorch_tanh", 1e-6)


def write_qwen_tokenizer(folder: Path) -> int:
    """A tokenizer of single bytes with Qwen's control tokens; how many tokens it has."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIALS])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "tokenizer_class": "Qwen2TokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    return tokenizer.get_vocab_size()


def toy15_parts(
    *,
    is_i2v: bool = True,
    is_step_distilled: bool = False,
    tiles: TileRule | None = None,
    enlarges: bool = False,
    glyph_widths: tuple[int, int, int] = DIT.glyph_widths,
    vae: VAEConfig = VAE,
) -> dict:
    """Configurations and tensors of every part, by its name."""
    dit = replace(DIT, glyph_widths=glyph_widths)
    condition = "latent_concat" if is_i2v else "none"
    configs = {
        "dit": replace(dit, condition=condition, is_step_distilled=is_step_distilled, tiles=tiles),
        "vae": vae,
        "qwen": QwenConfig(16, 32, 4, 2, 1, 8, len(SPECIALS) + 256, 1e-6, 1000000.0),
        "byt5": T5Config(16, 8, 24, 2, 2, 1510, 32, 128, 1e-6),
    }
    configs |= {"siglip": SIGLIP} if is_i2v else {}
    configs |= {"upsampler": UPSAMPLER, "larger_dit": replace(LARGER, condition=condition)} if enlarges else {}
    models15 = HUNYUAN15.models(configs, None)
    return {name: (configs[name], rule.weights(model.shapes(), seed=7)) for name, model in models15.items()}


def write_toy15(folder: Path, *, settings: Settings = SETTINGS, **changes: Any) -> Path:
    """A checkpoint folder with its tokenizer, in the diffusers layout; changes as of its parts."""
    assert write_qwen_tokenizer(folder / "tokenizer") == len(SPECIALS) + 256
    if changes.get("is_step_distilled"):
        settings = replace(settings, flow_shift=7.0, guidance_scale=1.0)
    parts = toy15_parts(**changes)
    processor = ImageProcessor(SIGLIP.image_size, HALF, HALF)
    components = HUNYUAN15.components
    write_checkpoint(
        folder, parts, settings=settings, image_processor=processor, dtype="float32", components=components
    )
    return folder
