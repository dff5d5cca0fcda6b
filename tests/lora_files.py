"""LoRA files for the toy transformer: one update, written by hand in each published format."""

from __future__ import annotations

import json

import numpy as np
from toy_checkpoint import DIT

from framewake.golden import rule
from framewake.models.dit import DiT
from framewake.weights.lora.targets import Targets, is_adaptable
from framewake.weights.reading.names import diffusers_dit
from framewake.weights.writing.files import write_tensors

SHAPES = DiT(None, DIT).shapes()
TARGETS = Targets.of(DIT, SHAPES)
BASE = rule.weights(SHAPES, 7)
ALPHA = 3.0
RANK = 4
PREFIXES = {"official": "Hunyuan_video_I2V_lora_", "kohya": "lora_unet_", "comfyui": "diffusion_model."}
ENDINGS = {"lora_A": (".lora_A.weight", ".lora_B.weight"), "lora_down": (".lora_down.weight", ".lora_up.weight")}


def rank_of(name):
    """Another rank for each stream, as real files may have."""
    return RANK + ("txt" in name)


def factors(name, dtype=np.float32):
    """The update of one of our weights; convolutions have kernels in the down factor."""
    rows, *columns = SHAPES[name]
    rank = rank_of(name)
    up = rule.weight(f"{name}.up", (rows, rank, *(1 for _ in columns[1:])), 5)
    return up.astype(dtype), rule.weight(f"{name}.down", (rank, *columns), 5).astype(dtype)


def adapted():
    """Every weight that can be adapted."""
    return [name for name, shape in SHAPES.items() if is_adaptable(name, shape)]


def expected(name, scale=1.0, alpha=ALPHA, dtype=np.float32):
    """A merged weight in float64, from the definition."""
    up, down = (x.astype(np.float64).reshape(len(x), -1) for x in factors(name, dtype))
    ratio = 1.0 if alpha is None else alpha / rank_of(name)
    return BASE[name] + (scale * ratio * (up @ down)).reshape(SHAPES[name])


def keys_of(style, endings="lora_down", alpha=ALPHA, dtype=np.float32, names=None):
    """The tensors of a file."""
    tensors = {}
    for name in names or adapted():
        module = name.removesuffix(".weight")
        up, down = factors(name, dtype)
        key = PREFIXES[style] + (module if style == "comfyui" else module.replace(".", "_"))
        tensors[key + ENDINGS[endings][0]], tensors[key + ENDINGS[endings][1]] = down, up
        if alpha is not None:
            tensors[f"{key}.alpha"] = np.asarray(alpha, dtype)
    return tensors


def diffusers_keys(alpha=ALPHA, dtype=np.float32, names=None, prefix="transformer."):
    """The same as diffusers writes it: query, key, value and MLP apart, final modulation swapped."""
    tensors = {}
    for entry in diffusers_dit(DIT):
        if entry.ours not in (names or adapted()):
            continue
        up, down = factors(entry.ours, dtype)
        for their, rows in entry.cut(up).items():
            module = prefix + their.removesuffix(".weight")
            tensors |= {f"{module}.lora_A.weight": down, f"{module}.lora_B.weight": np.ascontiguousarray(rows)}
            if alpha is not None:
                tensors[f"{module}.alpha"] = np.asarray(alpha, dtype)
    return tensors


def diffusers_metadata(alpha=ALPHA):
    """Where diffusers keeps alpha."""
    return {"lora_adapter_metadata": json.dumps({"transformer.r": RANK, "transformer.lora_alpha": alpha})}


def write(path, tensors, metadata=None):
    """A file; bfloat16 is written as bits of float32 arrays whose lower half is zero."""
    write_tensors(path, tensors, metadata=metadata)
    return path


def as_bfloat16(tensors):
    """Arrays cut to bfloat16, their bits, and the types for the writer."""
    bits = {name: (np.asarray(x, np.float32).view(np.uint32) >> 16).astype(np.uint16) for name, x in tensors.items()}
    return bits, dict.fromkeys(bits, "BF16")
