"""Keys of LoRA files: which module a key is for, and which of its tensors it names.

Prefixes and endings are the whole difference between formats; module names are looked up in ``targets.py``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

Format = Literal["official", "kohya", "diffusers", "comfyui"]
FORMATS: tuple[Format, ...] = ("official", "kohya", "diffusers", "comfyui")

# Each ending names the pair's part: down is the (rank, inputs) matrix, up the (outputs, rank) one.
_ENDINGS = {
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora_A.default.weight": "down",
    ".lora_B.default.weight": "up",
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    ".alpha": "alpha",
}
OFFICIAL = "Hunyuan_video_I2V_lora_"
_UNDERSCORED = (OFFICIAL, "lora_unet_", "lora_transformer_", "lycoris_")
_DOTTED = ("base_model.model.", "model.diffusion_model.", "diffusion_model.", "transformer.")

# Endings of methods that are no plain LoRA, for a message that says so.
_OTHER_METHODS = {
    "hada_w": "LoHa",
    "lokr_w": "LoKr",
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    "lora_mid": "LoCon with a middle layer",
    "oft_": "OFT",
    "diff_b": "a full difference of a bias",
    "diff": "a full difference of weights",
    "lora_B.bias": "a LoRA with biases",
}


class Key(NamedTuple):
    """A key taken apart; ``module`` is as the file spells it, underscored or dotted, without its prefix."""

    text: str
    module: str
    part: str
    is_underscored: bool
    is_official: bool


class Pair(NamedTuple):
    """The keys of one adapted module."""

    module: str
    is_underscored: bool
    is_official: bool
    down: str | None
    up: str | None
    alpha: str | None

    def held(self) -> list[str]:
        """The keys that are there."""
        return [key for key in (self.down, self.up, self.alpha) if key is not None]


def take_apart(text: str) -> Key | None:
    """A key's module and part, None when it is no LoRA key."""
    ending = next((ending for ending in _ENDINGS if text.endswith(ending)), None)
    if ending is None:
        return None
    body = text.removesuffix(ending)
    for prefix in _UNDERSCORED:
        if body.startswith(prefix):
            return Key(text, body.removeprefix(prefix), _ENDINGS[ending], True, prefix == OFFICIAL)
    for prefix in _DOTTED:  # in this order: PEFT puts its own prefix in front of the pipeline's
        body = body.removeprefix(prefix)
    return Key(text, body, _ENDINGS[ending], False, False)


def pairs(keys: Iterable[str]) -> tuple[list[Pair], list[str]]:
    """The file's pairs in its order, and the keys that belong to none."""
    found: dict[tuple[str, bool], dict[str, str]] = {}
    official: set[tuple[str, bool]] = set()
    strange = []
    for text in keys:
        key = take_apart(text)
        if key is None:
            strange.append(text)
            continue
        place = (key.module, key.is_underscored)
        parts = found.setdefault(place, {})
        if key.part in parts:
            strange.append(text)
        parts.setdefault(key.part, text)
        if key.is_official:
            official.add(place)
    made = [
        Pair(
            module,
            is_underscored,
            (module, is_underscored) in official,
            *(parts.get(n) for n in ("down", "up", "alpha")),
        )
        for (module, is_underscored), parts in found.items()
    ]
    return made, strange


def other_method(key: str) -> str | None:
    """The name of the method that a key without LoRA ending belongs to."""
    tail = key.rpartition(".")[2] if not key.endswith(".bias") else ".".join(key.split(".")[-2:])
    tails = (tail, key.split(".")[-2] if "." in key else "")
    return next((name for start, name in _OTHER_METHODS.items() if any(t.startswith(start) for t in tails)), None)
