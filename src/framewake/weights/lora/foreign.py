"""LoRAs and keys that are for something else, recognised by keys, blocks, widths or what files say of themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

# Keys that only this model's LoRAs have; the first row that matches any key names the file.
_KEYS: tuple[tuple[str, str], ...] = (
    ("Stable Diffusion or SDXL", r"(^|[._])(down|up|mid|middle|input|output)_blocks?[._]"),
    ("Stable Diffusion 3", r"joint_blocks"),
    ("Wan", r"(^|[._])blocks[._]\d+[._]((self|cross)_attn[._](q|k|v|o|k_img|v_img)([._]|$)|ffn[._]\d)"),
    ("Wan", r"(^|\.)blocks\.\d+\.attn[12]\.to_"),
    ("HunyuanVideo-1.5", r"(img|txt)_attn_[qkv]([._]|$)|byt5_in|context_embedder_2"),
    ("Flux", r"distilled_guidance_layer|(^|\.)(context|x)_embedder\.lora|(^|[._])(img|txt)_in\.lora"),
    ("Qwen-Image", r"transformer_blocks[._]\d+[._](img|txt)_(mod|mlp)[._]"),
    ("LTX-Video or CogVideoX", r"transformer_blocks[._]\d+[._]attn1[._]to_"),
    ("Z-Image or Lumina", r"(^|[._])(noise|context)_refiner[._]\d|(^|\.)layers\.\d+\.(attention|adaLN_modulation)"),
)
# Keys that a pipeline keeps beside its transformer's.
_ELSEWHERE: tuple[tuple[str, str], ...] = (
    (
        "the text encoders",
        r"(base_model\.model\.|lora_)?(te\d?[._]|text_encoders?(_\d)?[._]|text_model[._]|lora_clip|clip([._]|_[lgh]\.)"
        r"|llama\.|llava|language_model\.|model\.layers\.|t5(xxl)?\.|cond_stage_model\.|conditioner\.)",
    ),
    ("a textual inversion", r"bundle_emb\.|emb_params|string_to_param"),
    ("the autoencoder", r"(lora_)?(vae|first_stage_model)[._]"),
)
# What files say about themselves, in "modelspec.architecture" or "ss_base_model_version".
_SAID: tuple[tuple[str, str], ...] = (
    ("HunyuanVideo-1.5", r"hunyuan.?video.?(1[._]5|15|v1-5)|hv_?1_?5"),
    ("Wan", r"^wan"),
    ("Flux", r"^flux|^chroma"),
    ("SDXL", r"sdxl|stable-diffusion-xl"),
    ("Stable Diffusion", r"^sd_|stable-diffusion"),
    ("Qwen-Image", r"qwen"),
    ("LTX-Video", r"ltx"),
    ("Z-Image", r"^z-?image"),
)
_SAYING = ("modelspec.architecture", "ss_base_model_version")
FLUX = "Flux"
_FLUX_BLOCKS = (frozenset(range(19)), frozenset(range(38)))
OUR_BLOCKS = (20, 40)
_DOUBLE = re.compile(r"(?:^|[._])(?:double_blocks|(?<!single_)transformer_blocks)[._](\d+)[._]")
_SINGLE = re.compile(r"(?:^|[._])(?:single_blocks|single_transformer_blocks)[._](\d+)[._]")
_NARROW = 2048  # the width of HunyuanVideo-1.5


def recognised(keys: Iterable[str], metadata: Mapping[str, str], columns: Iterable[int]) -> str | None:
    """The name of the other model that a file is for, None when nothing tells.

    Asked only about keys that have no place here; ``columns`` are the input widths of their layers. What the file
    says of itself counts first: names alone can be alike.
    """
    keys = list(keys)
    if (said := said_to_be(metadata)) is not None:
        return said
    for name, pattern in _KEYS:
        search = re.compile(pattern).search
        if any(search(key) for key in keys):
            return name
    doubles, singles = _blocks(keys)
    if doubles and max(doubles) >= OUR_BLOCKS[0]:
        return "HunyuanVideo-1.5" if _NARROW in set(columns) else "Qwen-Image" if not singles else None
    return FLUX if is_as_long_as_flux(keys) else None


def models() -> list[str]:
    """The other models that are known, by name."""
    return list(dict.fromkeys(name for name, _ in (*_KEYS, *_SAID)))


def parts() -> list[str]:
    """The parts of a pipeline beside its transformer."""
    return [name for name, _ in _ELSEWHERE]


def said_to_be(metadata: Mapping[str, str]) -> str | None:
    """The other model that a file says it is for."""
    said = " ".join(str(metadata.get(name, "")).lower() for name in _SAYING)
    return next((name for name, pattern in _SAID if any(re.search(pattern, word) for word in said.split())), None)


def elsewhere(key: str) -> str | None:
    """The part of a pipeline beside its transformer that a key is for."""
    return next((name for name, pattern in _ELSEWHERE if re.match(pattern, key)), None)


def is_as_long_as_flux(keys: Iterable[str]) -> bool:
    """Whether a file adapts exactly the blocks of Flux, whose layers share names and sizes with HunyuanVideo's.

    A LoRA for HunyuanVideo has one more double block and two more single blocks.
    """
    found = _blocks(keys)
    return any(found) and all(part in (frozenset(), whole) for part, whole in zip(found, _FLUX_BLOCKS, strict=True))


def _blocks(keys: Iterable[str]) -> list[frozenset[int]]:
    keys = list(keys)
    return [frozenset(int(m[1]) for key in keys if (m := pattern.search(key))) for pattern in (_DOUBLE, _SINGLE)]
