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
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

from demonstration.tokenizers import LLAMA_PATTERN, learn_merges, word_forms, write_clip, write_folder
from framewake.config import (
    CLIP_L,
    HUNYUAN_DIT,
    HUNYUAN_VAE,
    LLAVA_LLAMA3_8B,
)
from framewake.pipeline.family import Family
from framewake.pipeline.hunyuan import HUNYUAN
from framewake.text.template import VIDEO_I2V
from framewake.weights.checkpoint.load import ImageProcessor
from framewake.weights.checkpoint.settings import Settings
from framewake.weights.reading.pieces import Target
from framewake.weights.writing.export import write_descriptions
from framewake.weights.writing.files import bytes_of, write_safetensors
from measuring.random_weights import RandomWeights

Sizes = dict[str, Any]  # shapes of the models
# Llama 3's control tokens stand behind its 128,000 others; LLaVA's two behind those.
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


class Published(NamedTuple):
    """A model at its published size, the same with few parts for a trial, and how a clip of it is asked for.

    ``page`` is where its results go. Units: ``side_px`` of the square bucket of its ``resolution``.
    """

    family: Family
    full: Sizes
    small: Sizes
    settings: Settings
    resolution: str
    side_px: int
    write_tokenizers: Callable[[Path, str], None]
    page: str


def targets(model: Published, name: str, config: Any, seed: int = 1) -> list[Target]:
    """Everything that belongs into one part's file."""
    made = model.family.models({name: config}, None)[name]
    shapes = made.shapes() | (made.unused_shapes() if hasattr(made, "unused_shapes") else {})
    return pool(seed).targets(shapes, "BF16" if name == "dit" else "F16")


@functools.lru_cache(maxsize=1)
def pool(seed: int) -> RandomWeights:
    """The block of random numbers that every part is cut from."""
    return RandomWeights(seed)


def size_of(model: Published, sizes: Sizes) -> int:
    """Bytes of all weights."""
    return sum(bytes_of(targets(model, name, config)) for name, config in sizes.items())


def write_full(folder: Path, model: Published, sizes: Sizes, *, prompt: str) -> None:
    """Write the whole checkpoint; the prompt's words are single tokens, as common words are in the real tokenizer."""
    for name, config in sizes.items():
        write_part(folder, model, name, config)
    components = model.family.components
    side = sizes["llava"].vision.image_size if "llava" in sizes else sizes["siglip"].image_size
    processor = ImageProcessor(side, *components.facts.colours)
    write_descriptions(folder, model.settings, processor, components=components, is_published=True)
    model.write_tokenizers(folder, prompt)


def write_part(folder: Path, model: Published, name: str, config: Any) -> Path:
    """Write one part with its config file, in place of what was there."""
    row = model.family.components[name]
    place = folder / row.folder
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    (place / "config.json").write_text(json.dumps(row.write(config), indent=2) + "\n", encoding="utf-8")
    path = place / row.file
    write_safetensors(path, targets(model, name, config))
    return path


def write_tokenizers(folder: Path, prompt: str) -> None:
    """Stand-ins for both."""
    words, begin = word_forms([VIDEO_I2V.text, prompt]), CONTROL[128000]
    names = {"bos_token": begin, "eos_token": CONTROL[128009], "pad_token": CONTROL[128258]}
    write_tokenizer(folder / "tokenizer", words, CONTROL, names, kind="PreTrainedTokenizerFast")
    write_clip(folder / "tokenizer_2", words)


def write_tokenizer(
    folder: Path, words: list[str], control: dict[int, str], names: dict[str, str], *, kind: str
) -> None:
    """A stand-in for a language model's tokenizer: control tokens have their own ids, words are one token each."""
    cut = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    ordinary, begin = min(control), names.get("bos_token")
    merges = learn_merges(piece for text in ("\n\n", *words) for piece, _ in cut.pre_tokenize_str(text))
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *dict.fromkeys(a + b for a, b in merges)]
    tokens += [f"<unused {number}>" for number in range(len(tokens), ordinary)]
    tokenizer = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = cut
    tokenizer.decoder = decoders.ByteLevel()
    added = [control.get(number, f"<|reserved {number}|>") for number in range(ordinary, max(control) + 1)]
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in added])
    if begin is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A", special_tokens=[(begin, tokenizer.token_to_id(begin))]
        )
    write_folder(folder, tokenizer, kind, names, {"padding_side": "right"})


FIRST = Published(HUNYUAN, FULL, SMALL, Settings(), "360p", 480, write_tokenizers, "full-size")
