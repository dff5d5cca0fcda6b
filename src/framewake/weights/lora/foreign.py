"""LoRA files of other models, recognised by their keys, their widths or what they say about themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

# Keys that only this model's LoRAs have; the first row that matches any key names the file.
_KEYS: tuple[tuple[str, str], ...] = (
    ("Stable Diffusion or SDXL", r"(lora_unet_|unet\.)(down|up|mid|input|output)_?blocks?"),
    ("Stable Diffusion 3", r"joint_blocks"),
    ("Wan", r"(^|[._])blocks[._]\d+[._]((self|cross)_attn[._](q|k|v|o|k_img)[._]|ffn[._]\d)"),
    ("Wan", r"(^|\.)blocks\.\d+\.attn[12]\.to_"),
    ("HunyuanVideo-1.5", r"(img|txt)_attn_[qkv]([._]|$)|byt5_in|context_embedder_2"),
    ("Flux", r"_mod[._]lin([._]|$)|modulation[._]lin([._]|$)|(img|txt)_mlp[._][02]([._]|$)|(img|txt)_attn\.(qkv|proj)"),
    ("Flux", r"distilled_guidance_layer|(^|\.)(context|x)_embedder\.lora"),
    ("Qwen-Image", r"transformer_blocks[._]\d+[._](img|txt)_(mod|mlp)[._]"),
    ("LTX-Video or CogVideoX", r"transformer_blocks[._]\d+[._]attn1[._]to_"),
    ("a text encoder", r"^(lora_te|text_encoder|te[._])"),
)
# What files say about themselves, in "modelspec.architecture" or "ss_base_model_version".
_SAID: tuple[tuple[str, str], ...] = (
    ("HunyuanVideo-1.5", r"hunyuan.?video.?(1\.5|15|v1-5)|hv_?1_?5"),
    ("Wan", r"^wan"),
    ("Flux", r"^flux"),
    ("SDXL", r"sdxl|stable-diffusion-xl"),
    ("Stable Diffusion", r"^sd_|stable-diffusion"),
    ("Qwen-Image", r"qwen"),
    ("LTX-Video", r"ltx"),
)
_FLUX_BLOCKS = (frozenset(range(19)), frozenset(range(38)))
OUR_BLOCKS = (20, 40)
_DOUBLE = re.compile(r"(?:^|[._])(?:double_blocks|(?<!single_)transformer_blocks)[._](\d+)[._]")
_SINGLE = re.compile(r"(?:^|[._])(?:single_blocks|single_transformer_blocks)[._](\d+)[._]")
_NARROW = 2048  # the width of HunyuanVideo-1.5


def recognised(keys: Iterable[str], metadata: Mapping[str, str], columns: Iterable[int]) -> str | None:
    """The name of the other model that a file is for, None when nothing tells.

    ``columns`` are the input widths of its layers.
    """
    keys = list(keys)
    said = " ".join(str(metadata.get(name, "")).lower() for name in ("modelspec.architecture", "ss_base_model_version"))
    for name, pattern in _SAID:
        if any(re.search(pattern, word) for word in said.split()):
            return name
    for name, pattern in _KEYS:
        search = re.compile(pattern).search
        if any(search(key) for key in keys):
            return name
    blocks = {int(match[1]) for key in keys if (match := _DOUBLE.search(key))}
    if _NARROW in set(columns) and blocks and max(blocks) >= OUR_BLOCKS[0]:
        return "HunyuanVideo-1.5"
    return None


def has_blocks_of_flux(keys: Iterable[str]) -> bool:
    """Whether a file adapts exactly the blocks of Flux, whose layers share names and sizes with HunyuanVideo's.

    A LoRA for HunyuanVideo has one more double block and two more single blocks.
    """
    keys = list(keys)
    found = [frozenset(int(m[1]) for key in keys if (m := pattern.search(key))) for pattern in (_DOUBLE, _SINGLE)]
    return any(found) and all(part in (frozenset(), whole) for part, whole in zip(found, _FLUX_BLOCKS, strict=True))
