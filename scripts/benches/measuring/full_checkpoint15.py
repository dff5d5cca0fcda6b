"""HunyuanVideo-1.5 at its published size, step-distilled at 480p, for a checkpoint folder with random weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from demonstration.tokenizers import word_forms
from framewake.config15 import (
    GLYPH_BYT5,
    HUNYUAN15_DIT,
    HUNYUAN15_TILING,
    HUNYUAN15_VAE,
    QWEN25_VL_7B,
    SIGLIP_SO400M,
    VARIANTS,
)
from framewake.pipeline.hunyuan15 import HUNYUAN15
from framewake.text.template import VIDEO_15
from framewake.weights.checkpoint.hunyuan15 import NAME
from framewake.weights.checkpoint.settings import Settings
from measuring.full_checkpoint import Published, Sizes, write_tokenizer

VARIANT = "480p_i2v_step_distilled"
CONTROL = {151643: "<|endoftext|>", 151644: "<|im_start|>", 151645: "<|im_end|>"}
FULL: Sizes = {
    "dit": dataclasses.replace(HUNYUAN15_DIT, is_step_distilled=True),
    "vae": HUNYUAN15_VAE,
    "qwen": QWEN25_VL_7B,
    "byt5": GLYPH_BYT5,
    "siglip": SIGLIP_SO400M,
}
SMALL: Sizes = FULL | {
    "dit": dataclasses.replace(FULL["dit"], double_blocks=3),
    "vae": dataclasses.replace(HUNYUAN15_VAE, block_out_channels=(32, 32, 64, 64, 64)),
    "qwen": dataclasses.replace(QWEN25_VL_7B, layers=3),
    "siglip": dataclasses.replace(SIGLIP_SO400M, layers=2),
}


def write_tokenizers(folder: Path, prompt: str) -> None:
    """A stand-in for Qwen's; quoted text is read as bytes."""
    names = {"eos_token": CONTROL[151645], "pad_token": CONTROL[151643]}
    words = word_forms([VIDEO_15.text, prompt])
    write_tokenizer(folder / "tokenizer", words, CONTROL, names, kind="Qwen2TokenizerFast")


SETTINGS = Settings(
    name=f"{NAME} {VARIANT}",
    resolutions={"480p": 640},
    frames=121,
    steps=VARIANTS[VARIANT].steps,
    flow_shift=VARIANTS[VARIANT].flow_shift,
    guidance_scale=VARIANTS[VARIANT].guidance,
    text_tokens=1000,
    negative_prompt="",
    tiling=HUNYUAN15_TILING,
)
SECOND = Published(HUNYUAN15, FULL, SMALL, SETTINGS, "480p", 640, write_tokenizers, "full-size-15")
