"""The same LoRA in another format: keys renamed, fused layers split or joined, numbers as they are."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from framewake.errors import CheckpointError, InputError
from framewake.weights.lora.alpha import ALPHA_KEYS, METADATA_KEY
from framewake.weights.lora.file import Lora
from framewake.weights.lora.holding import layered, unheld
from framewake.weights.lora.keys import FORMATS, OFFICIAL, Format
from framewake.weights.lora.pieces import FactorPiece, joined, pieces_of, split
from framewake.weights.lora.targets import Place, Targets, diffusers_modules
from framewake.weights.reading.names import NameRule
from framewake.weights.writing.files import write_tensors

# How a format writes a module and the two factors.
_WRITTEN: dict[str, tuple[str, str, str]] = {
    "official": (OFFICIAL, ".lora_down.weight", ".lora_up.weight"),
    "kohya": ("lora_unet_", ".lora_down.weight", ".lora_up.weight"),
    "comfyui": ("diffusion_model.", ".lora_A.weight", ".lora_B.weight"),
    "diffusers": ("transformer.", ".lora_A.weight", ".lora_B.weight"),
}
# What the new file says anew, or what no longer holds in it.
_NOT_KEPT = (METADATA_KEY, *ALPHA_KEYS, "format")


def convert(
    lora: Lora,
    path: str | Path,
    style: Format,
    rules: Iterable[NameRule],
    targets: Targets,
    *,
    allows_partial: bool = False,
    about: Mapping[str, str] | None = None,
) -> int:
    """Write a LoRA in a format; the number of modules written.

    ``rules`` and ``targets`` are the transformer's, ``about`` is put over the file's metadata. Joined pieces that have
    nothing in common become blocks of one larger pair, and such a pair becomes its pieces again; the product stays
    the same.
    Precision: stored bits of pairs are kept; pieces of different types or scales, and all else, become float32.
    Raises: InputError for another kind of file or a folder that is not there, CheckpointError when the file cannot be
    written or already exists, or when the format cannot hold all of the LoRA (``allows_partial`` leaves that out).
    """
    path = Path(path)
    _check_target(path)
    shapes = targets.tensors
    lost = unheld(lora, style, shapes)
    if lost and (not allows_partial or len(lost) == len(lora.by_weight())):
        raise CheckpointError(_unheld(lora, style, lost, shapes))
    modules: dict[str, FactorPiece] = {}
    others: dict[str, np.ndarray] = {}
    fields = diffusers_modules(rules) if style == "diffusers" else {}
    for weight, updates in lora.by_weight().items():
        if weight in lost:
            continue
        module = weight.removesuffix(".weight").removesuffix(".bias")
        if updates[0].method != "product":
            key = _key(module, style)
            others |= {key + ending: values for ending, values in layered(lora, updates, shapes[weight]).items()}
            continue
        pieces = pieces_of(lora, updates)
        if style != "diffusers":
            modules[module] = joined(pieces, shapes[weight][0])
            continue
        rows = shapes[weight][0]
        places = [
            (name, Place(weight, 0, rows, place.is_swapped, "diffusers") if len(fields[weight]) == 1 else place)
            for name, place in fields[weight]
        ]
        for piece in pieces:
            modules |= split(piece, places)
    tensors, kinds = _tensors(modules, style)
    metadata = {name: str(text) for name, text in lora.tensors.metadata.items() if name not in _NOT_KEPT}
    metadata |= about or {}
    has_magnitudes = any(piece.magnitude is not None for piece in modules.values())
    if style == "diffusers" and (has_magnitudes or any(piece.factor() != 1.0 for piece in modules.values())):
        metadata[METADATA_KEY] = json.dumps(_configuration(modules, has_magnitudes), sort_keys=True)
    write_tensors(path, _aligned(tensors | others), metadata=metadata, kinds=kinds | dict.fromkeys(others, "F32"))
    return len({key.rpartition(".")[0] for key in others} | set(modules))


def _check_target(path: Path) -> None:
    if path.suffix != ".safetensors":
        raise InputError(f"{path}: the LoRA's file has to end in .safetensors.")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent} is no folder: make it first, or name another file.")
    if path.exists():
        raise CheckpointError(f"{path} already exists: name another file.")


def _unheld(lora: Lora, style: Format, lost: Mapping[str, str], shapes: Mapping[str, Any]) -> str:
    weight, why = next(iter(lost.items()))
    key = next(iter(lora.by_weight()[weight][0].keys.values()))
    others = [name for name in FORMATS if name != style and not unheld(lora, name, shapes)]
    way = f" --format {others[0]} holds all of it." if others else ""
    part = "" if len(lost) == len(lora.by_weight()) else " --lora-partial writes the rest without it."
    return (
        f"{lora.path}: the {style} format cannot hold {key!r}, one of {len(lost)} changes of the "
        f"{len(lora.by_weight())} that it makes: {why}.{way}{part}"
    )


def _key(module: str, style: str) -> str:
    return _WRITTEN[style][0] + (module.replace(".", "_") if style in ("official", "kohya") else module)


def _aligned(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Wider types first: other readers map tensors where they lie, so that every start has to be aligned."""
    return dict(sorted(tensors.items(), key=lambda item: -item[1].itemsize))


def _tensors(modules: Mapping[str, FactorPiece], style: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    _, down, up = _WRITTEN[style]
    tensors: dict[str, np.ndarray] = {}
    kinds: dict[str, str] = {}
    for module, piece in modules.items():
        key = _key(module, style)
        for name, values in ((key + down, piece.down), (key + up, piece.up)):
            tensors[name], kinds[name] = values, piece.kind
        alpha = piece.alpha
        if alpha is None and style in ("official", "kohya"):  # their readers take a missing alpha for a damaged file
            alpha = float(piece.rank)
        if alpha is not None and style != "diffusers":
            tensors[key + ".alpha"] = np.asarray(alpha, dtype=np.float32)
        if piece.magnitude is not None:
            is_pefts, axes = style == "diffusers", (1,) * (piece.down.ndim - 2)
            name = key + (".lora_magnitude_vector" if is_pefts else ".dora_scale")
            shape = (*piece.magnitude.shape, *axes) if not is_pefts else (1, -1, *axes) if axes else (-1,)
            tensors[name], kinds[name] = piece.magnitude.reshape(shape), "F32"
    return tensors, kinds


def _configuration(modules: Mapping[str, FactorPiece], has_magnitudes: bool) -> dict[str, Any]:
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
        "use_dora": has_magnitudes,
        "lora_bias": False,
    }
    return {f"transformer.{name}": value for name, value in values.items()}


def _whole(value: float) -> float | int:
    return int(value) if float(value).is_integer() else value
