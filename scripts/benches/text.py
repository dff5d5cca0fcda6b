"""Text and picture into what the transformer reads, against diffusers and transformers, in turns, in one process.

The demonstration: prompt and picture through both encoders, tokenizers and picture processing included. The middle
size: a random LLaVA alone (hidden 768, 8 layers, 577 picture tokens), up to the state that the transformer reads.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import diffusers
import numpy as np
import torch
import transformers
from measuring import clocks, record
from measuring.diffusers_clip import template_for
from measuring.floors import ceilings, fewest_operations
from measuring.pairs import largest_difference
from PIL import Image

from framewake import Pipeline
from framewake import engine as engines
from framewake.demo import PICTURES
from framewake.media.image import clip_pixels
from framewake.models.llava import Llava
from framewake.text.encode import derive_layout
from framewake.text.template import VIDEO_I2V
from framewake.text.tokenize import Tokenizer
from framewake.weights.checkpoint import configs
from framewake.weights.stores.store import Resident

NAME = "text"
PROMPT = "the red circle moves right"
PICTURE = PICTURES / "red-circle.png"
LLAMA = {
    "hidden_size": 768,
    "intermediate_size": 2688,
    "num_hidden_layers": 8,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 4096,
    "rms_norm_eps": 1e-5,
}
VISION = {
    "hidden_size": 384,
    "intermediate_size": 1536,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "image_size": 336,
    "patch_size": 14,
}
IMAGE_ID, WORDS, PADDED = 4000, 130, 351  # ids of a short prompt in its template, and of the longest one
PUBLISHED = {
    "model.language_model.": "language_model.model.",
    "lm_head.": "language_model.lm_head.",
    "model.vision_tower.vision_model.": "vision_tower.vision_model.",
    "model.vision_tower.": "vision_tower.vision_model.",
    "model.multi_modal_projector.": "multi_modal_projector.",
}
Works = tuple[Callable[[], object], Callable[[], torch.Tensor]]


def main() -> int:
    """Time the encoders, write down what was found."""
    arguments = record.parser(__doc__, rounds=7).parse_args()
    found, rows = {}, []
    for size, works in (("demo", demonstration), ("middle", middle_size)):
        with torch.no_grad():
            case = measured(*works(), arguments.rounds)
        found[size] = case
        ours, theirs = (clocks.median(case["samples"][name]) for name in ("ours", "theirs"))
        ratio = clocks.Ratio(**case["ratio"])
        rows.append(
            f"| {record.today()} | {size}, float32 | {ours:.3f} | {theirs:.3f} | "
            f"{ratio.wall:.2f} ({ratio.least:.2f} to {ratio.most:.2f}) | {ratio.processor:.2f} | "
            f"{case['floor_seconds']:.3f} | {case['floor_seconds'] / ours:.0%} | {case['difference']:.0e} | "
            f"{case['machine_was']} | {record.machine()} |"
        )
    record.write(NAME, {"cases": found}, rows, has_notes=not arguments.no_notes)
    return 0


def measured(ours: Callable, theirs: Callable, rounds: int) -> dict:
    """Both in turns; the floor counts the operations of the one that makes fewer."""
    operations = fewest_operations(ours, theirs)
    with clocks.Watch() as watch:
        times, results = clocks.interleaved({"ours": ours, "theirs": theirs}, rounds)
        limits = ceilings(torch.float32)
    valid = results["ours"].shape[1]
    return {
        "samples": times,
        "ratio": clocks.ratio(times["ours"], times["theirs"])._asdict(),
        "difference": largest_difference(results["ours"], results["theirs"][:, :valid]),
        "operations": operations,
        "floor_seconds": limits.floor(operations),
        "ceilings": limits._asdict(),
        "machine_was": watch.words(),
    }


def demonstration() -> Works:
    """The demonstration's own encoders."""
    pipeline = Pipeline.load("demo", engine="torch:cpu")
    processor = pipeline.checkpoint.image_processor
    image = Image.open(PICTURE).convert("RGB")
    theirs = diffusers.HunyuanVideoImageToVideoPipeline.from_pretrained(
        pipeline.checkpoint.folder, dtype=torch.float32, transformer=None, vae=None
    )
    template = template_for(derive_layout, Tokenizer, VIDEO_I2V, pipeline.checkpoint)

    def here() -> object:
        semantic = clip_pixels(image, processor.size_px, mean=processor.mean, std=processor.std)[None]
        return pipeline.reader.states(pipeline.parts, [pipeline.reader.tokens(PROMPT)], semantic, "float32").states

    def there() -> torch.Tensor:
        return theirs.encode_prompt(
            image=image,
            prompt=PROMPT,
            prompt_template=template,
            max_sequence_length=pipeline.checkpoint.settings.text_tokens,
            image_embed_interleave=pipeline.checkpoint.dit.image_interleave,
            device=torch.device("cpu"),
        )[0]

    return here, there


def middle_size() -> Works:
    """A random LLaVA; padding behind the prompt as both pipelines make it."""
    config = transformers.LlavaConfig(
        text_config=transformers.LlamaConfig(**LLAMA),
        vision_config=transformers.CLIPVisionConfig(**VISION),
        image_token_index=IMAGE_ID,
    )
    torch.manual_seed(4)
    theirs = transformers.LlavaForConditionalGeneration(config).eval()
    ours = Llava(engines.get("torch:cpu"), configs.llava_config(config.to_dict()))
    state = {}
    for name, tensor in theirs.state_dict().items():
        old = next((start for start in PUBLISHED if name.startswith(start)), "")
        state[PUBLISHED.get(old, "") + name[len(old) :]] = tensor
    weights = Resident(state)
    words = [5, 6, 7, 8, 9, IMAGE_ID, *range(10, 10 + WORDS - 6)]
    ids = np.array([words + [0] * (PADDED - WORDS)])
    mask = (np.arange(PADDED) < WORDS).astype(np.int64)[None]
    at = words.index(IMAGE_ID)
    expanded = np.concatenate([ids[:, :at], np.full((1, ours.image_tokens), IMAGE_ID), ids[:, at + 1 :]], 1)
    seen = np.concatenate([mask[:, :at], np.ones((1, ours.image_tokens), np.int64), mask[:, at + 1 :]], 1)
    pixels = torch.randn((1, 3, VISION["image_size"], VISION["image_size"]))
    valid = WORDS - 1 + ours.image_tokens

    def here() -> object:
        return ours(weights, ids, mask, pixels)[:, :valid]

    def there() -> torch.Tensor:
        inputs = {"input_ids": torch.from_numpy(expanded), "attention_mask": torch.from_numpy(seen)}
        return theirs(**inputs, pixel_values=pixels, output_hidden_states=True).hidden_states[-3]

    return here, there


if __name__ == "__main__":
    sys.exit(main())
