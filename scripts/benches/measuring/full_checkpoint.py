"""A checkpoint folder of the published size with random weights, written as fast as the disk takes it.

The layout is framewake's own (published names), the types are the published ones: the transformer in bfloat16, the
rest in float16. The tokenizers are stand-ins: they have the template's words and the ids of all control tokens, and
LLaVA's has as many tokens as the model's table; the rest of its tokens stand for nothing.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

from demonstration.tokenizers import LLAMA_PATTERN, learn_merges, word_forms, write_clip, write_folder
from framewake.config import (
    CLIP_L,
    CLIP_MEAN,
    CLIP_STD,
    HUNYUAN_DIT,
    HUNYUAN_VAE,
    LLAVA_LLAMA3_8B,
)
from framewake.pipeline.hunyuan import HUNYUAN
from framewake.text.template import VIDEO_I2V
from framewake.weights.checkpoint.hunyuan import COMPONENTS
from framewake.weights.checkpoint.load import ImageProcessor
from framewake.weights.checkpoint.settings import Settings
from framewake.weights.reading.pieces import Target
from framewake.weights.writing.export import write_descriptions
from framewake.weights.writing.files import bytes_of, write_safetensors
from measuring.random_weights import RandomWeights

Sizes = dict[str, Any]  # shapes of the models
# Llama 3's control tokens stand behind its 128,000 others; LLaVA's two behind those.
ORDINARY = 128000
CONTROL = {
    128000: "<|begin_of_text|>",
    128001: "<|end_of_text|>",
    128006: "<|start_header_id|>",
    128007: "<|end_header_id|>",
    128009: "<|eot_id|>",
    128257: "<image>",
    128258: "<pad>",
}


FULL: Sizes = {"dit": HUNYUAN_DIT, "vae": HUNYUAN_VAE, "llava": LLAVA_LLAMA3_8B, "clip_text": CLIP_L}
# Every block as wide as the published one, but few of them; a narrow autoencoder.
FEW_LAYERS = dataclasses.replace(LLAVA_LLAMA3_8B, text=dataclasses.replace(LLAVA_LLAMA3_8B.text, layers=4))
SMALL: Sizes = FULL | {
    "dit": dataclasses.replace(HUNYUAN_DIT, double_blocks=1, single_blocks=3),
    "vae": dataclasses.replace(HUNYUAN_VAE, block_out_channels=(32, 32, 64, 64), norm_groups=8),
    "llava": FEW_LAYERS,
}


def targets(name: str, config: Any, seed: int = 1) -> list[Target]:
    """Everything that belongs into one part's file."""
    made = HUNYUAN.models({name: config}, None)[name]
    shapes = made.shapes() | (made.unused_shapes() if name == "llava" else {})
    return pool(seed).targets(shapes, "BF16" if name == "dit" else "F16")


@functools.lru_cache(maxsize=1)
def pool(seed: int) -> RandomWeights:
    """The block of random numbers that every part is cut from."""
    return RandomWeights(seed)


def size_of(sizes: Sizes) -> int:
    """Bytes of all weights."""
    return sum(bytes_of(targets(name, config)) for name, config in sizes.items())


def write_full(folder: Path, sizes: Sizes, *, prompt: str) -> None:
    """Write the whole checkpoint; the prompt's words are single tokens, as common words are in the real tokenizer."""
    for name, config in sizes.items():
        write_part(folder, name, config)
    processor = ImageProcessor(sizes["llava"].vision.image_size, CLIP_MEAN, CLIP_STD)
    write_descriptions(folder, Settings(), processor, is_published=True)
    words = word_forms([VIDEO_I2V.text, prompt])
    write_tokenizer(folder / "tokenizer", words)
    write_clip(folder / "tokenizer_2", words)


def write_part(folder: Path, name: str, config: Any) -> Path:
    """Write one part with its config file, in place of what was there."""
    row = COMPONENTS[name]
    place = folder / row.folder
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    (place / "config.json").write_text(json.dumps(row.write(config), indent=2) + "\n", encoding="utf-8")
    path = place / row.file
    write_safetensors(path, targets(name, config))
    return path


def write_tokenizer(folder: Path, words: list[str]) -> None:
    """A stand-in for LLaVA's tokenizer: control tokens have their own ids, words are one token each."""
    cut = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    merges = learn_merges(piece for text in ("\n\n", *words) for piece, _ in cut.pre_tokenize_str(text))
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *dict.fromkeys(a + b for a, b in merges)]
    tokens += [f"<unused {number}>" for number in range(len(tokens), ORDINARY)]
    tokenizer = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = cut
    tokenizer.decoder = decoders.ByteLevel()
    added = [CONTROL.get(number, f"<|reserved {number}|>") for number in range(ORDINARY, max(CONTROL) + 1)]
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in added])
    begin = CONTROL[128000]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, tokenizer.token_to_id(begin))]
    )
    names = {"bos_token": begin, "eos_token": CONTROL[128009], "pad_token": CONTROL[128258]}
    write_folder(folder, tokenizer, "PreTrainedTokenizerFast", names, {"padding_side": "right"})
