"""The same LoRA in another format: keys renamed, fused layers split or joined, numbers as they are."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from framewake.errors import CheckpointError, InputError
from framewake.weights.lora.alpha import METADATA_KEY
from framewake.weights.lora.file import Lora
from framewake.weights.lora.keys import OFFICIAL, Format
from framewake.weights.lora.pieces import Piece, joined, pieces_of, split
from framewake.weights.lora.targets import Place, diffusers_modules
from framewake.weights.names import Rule
from framewake.weights.writing import write_tensors

# How a format writes a module and the two factors.
_WRITTEN: dict[str, tuple[str, str, str]] = {
    "official": (OFFICIAL, ".lora_down.weight", ".lora_up.weight"),
    "kohya": ("lora_unet_", ".lora_down.weight", ".lora_up.weight"),
    "comfyui": ("diffusion_model.", ".lora_A.weight", ".lora_B.weight"),
    "diffusers": ("transformer.", ".lora_A.weight", ".lora_B.weight"),
}


def convert(lora: Lora, path: str | Path, style: Format, rules: Iterable[Rule], shapes: Mapping[str, Any]) -> int:
    """Write a LoRA in a format; the number of modules written.

    ``rules`` and ``shapes`` are the transformer's. Joined pieces that have nothing in common become blocks of
    one larger pair, and such a pair becomes its pieces again; the product stays the same.
    Precision: stored bits are kept; pieces of different types or scales become float32.
    Raises: InputError for another kind of file or a folder that is not there, CheckpointError when the file cannot be
    written or already exists.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise InputError(f"{path}: the LoRA's file has to end in .safetensors.")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent} is no folder: make it first, or name another file.")
    if path.exists():
        raise CheckpointError(f"{path} already exists: name another file.")
    modules: dict[str, Piece] = {}
    fields = diffusers_modules(rules) if style == "diffusers" else {}
    for weight, updates in lora.by_weight().items():
        pieces = pieces_of(lora, updates)
        if style != "diffusers":
            modules[weight.removesuffix(".weight")] = joined(pieces, shapes[weight][0])
            continue
        rows = shapes[weight][0]
        places = [
            (name, Place(weight, 0, rows, place.is_swapped, True) if len(fields[weight]) == 1 else place)
            for name, place in fields[weight]
        ]
        for piece in pieces:
            modules |= split(piece, places)
    tensors, kinds = _tensors(modules, style)
    kept = [name for name in lora.tensors.metadata if name not in (METADATA_KEY, "lora_alpha", "format")]
    metadata = {name: str(lora.tensors.metadata[name]) for name in kept}
    if style == "diffusers" and any(piece.factor() != 1.0 for piece in modules.values()):
        metadata[METADATA_KEY] = json.dumps(_configuration(modules), sort_keys=True)
    write_tensors(path, tensors, metadata=metadata, kinds=kinds)
    return len(modules)


def _tensors(modules: Mapping[str, Piece], style: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    prefix, down, up = _WRITTEN[style]
    tensors: dict[str, np.ndarray] = {}
    kinds: dict[str, str] = {}
    for module, piece in modules.items():
        key = prefix + (module.replace(".", "_") if style in ("official", "kohya") else module)
        for name, values in ((key + down, piece.down), (key + up, piece.up)):
            tensors[name], kinds[name] = values, piece.kind
        alpha = piece.alpha
        if alpha is None and style in ("official", "kohya"):  # their readers take a missing alpha for a damaged file
            alpha = float(piece.rank)
        if alpha is not None and style != "diffusers":
            tensors[key + ".alpha"] = np.asarray(alpha, dtype=np.float32)
    # Other readers map tensors where they lie, so wider types come first and every start is aligned.
    return dict(sorted(tensors.items(), key=lambda item: -item[1].itemsize)), kinds


def _configuration(modules: Mapping[str, Piece]) -> dict[str, Any]:
    """What diffusers hands to PEFT: without it, alpha would be lost there."""
    first = next(iter(modules.values()))
    alphas = {module: piece.factor() * piece.rank for module, piece in modules.items()}
    base = first.factor() * first.rank
    values = {
        "r": first.rank,
        "lora_alpha": _whole(base),
        "rank_pattern": {module: piece.rank for module, piece in modules.items() if piece.rank != first.rank},
        "alpha_pattern": {module: _whole(alpha) for module, alpha in alphas.items() if alpha != base},
        "target_modules": sorted(modules),
        "use_rslora": False,
        "use_dora": False,
        "lora_bias": False,
    }
    return {f"transformer.{name}": value for name, value in values.items()}


def _whole(value: float) -> float | int:
    return int(value) if float(value).is_integer() else value
