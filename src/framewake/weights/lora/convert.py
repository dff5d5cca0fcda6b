"""The same LoRA in another format: keys renamed, fused layers split or joined, numbers as they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from framewake.errors import CheckpointError, InputError
from framewake.weights.lora.alpha import ALPHA_KEYS, METADATA_KEY
from framewake.weights.lora.file import Lora
from framewake.weights.lora.holding import layered, unheld
from framewake.weights.lora.keys import FORMATS, Format
from framewake.weights.lora.pieces import FactorPiece, joined, pieces_of, split
from framewake.weights.lora.targets import Place, Targets, modules_of
from framewake.weights.lora.written import WrittenFormat
from framewake.weights.writing.files import write_tensors

# What the new file says anew, or what no longer holds in it.
_NOT_KEPT = (METADATA_KEY, *ALPHA_KEYS, "format")


def convert(
    lora: Lora,
    path: str | Path,
    style: Format,
    targets: Targets,
    *,
    allows_partial: bool = False,
) -> int:
    """Write a LoRA in a format; the number of modules written.

    ``targets`` are the transformer's. Joined pieces that have nothing in common become blocks of one larger pair, and
    such a pair becomes its pieces again; the product stays the same.
    Precision: stored bits of pairs are kept; pieces of different types or scales, and all else, become float32.
    Raises: InputError for another kind of file or a folder that is not there, CheckpointError when the file cannot be
    written or already exists, or when the format cannot hold all of the LoRA (``allows_partial`` leaves that out).
    """
    path = Path(path)
    _check_target(path)
    lost = unheld(lora, style, targets)
    if lost and (not allows_partial or len(lost) == len(lora.by_weight())):
        raise CheckpointError(_unheld(lora, style, lost, targets))
    pairs: dict[str, list[FactorPiece]] = {}
    others: dict[str, np.ndarray] = {}
    for weight, updates in lora.by_weight().items():
        if weight in lost:
            continue
        if updates[0].method == "product":
            pairs[weight] = pieces_of(lora, updates)
            continue
        key = targets.written[style].key(_module(weight))
        others |= {key + ending: x for ending, x in layered(lora, updates, targets.tensors[weight]).items()}
    metadata = {name: str(text) for name, text in lora.tensors.metadata.items() if name not in _NOT_KEPT}
    count = write_pairs(path, pairs, style, targets, metadata=metadata, others=others)
    return count + len({key.rpartition(".")[0] for key in others})


def write_pairs(
    path: Path,
    pairs: Mapping[str, list[FactorPiece]],
    style: Format,
    targets: Targets,
    *,
    metadata: Mapping[str, str],
    others: Mapping[str, np.ndarray],
) -> int:
    """Write pairs of factors of our weights in a format, and other tensors as they are; the number of modules.

    ``metadata`` is the file's, but for what a format needs itself. The file changes at once or not at all.
    Raises: UnwritableError, DiskFullError.
    """
    written, shapes = targets.written[style], targets.tensors
    fields, modules = modules_of(written), {}
    for weight, pieces in pairs.items():
        rows = shapes[weight][0]
        if weight not in fields:
            modules[_module(weight)] = joined(pieces, rows)
            continue
        places = fields[weight]
        if len(places) == 1:
            places = [(name, Place(weight, 0, rows, place.is_swapped)) for name, place in places]
        for piece in pieces:
            modules |= split(piece, places)
    tensors, kinds = _tensors(modules, written)
    said = dict(metadata)
    has_magnitudes = any(piece.magnitude is not None for piece in modules.values())
    if not written.has_tensors_of_alpha and (has_magnitudes or any(x.factor() != 1.0 for x in modules.values())):
        content = _configuration(modules, has_magnitudes)
        content = {f"{written.configuration}{name}": value for name, value in content.items()}
        said[METADATA_KEY] = json.dumps(content, sort_keys=True)
    kinds |= dict.fromkeys(others, "F32")
    write_tensors(path, _aligned(tensors | dict(others)), metadata=said, kinds=kinds)
    return len(modules)


def _module(weight: str) -> str:
    return weight.removesuffix(".weight").removesuffix(".bias")


def _check_target(path: Path) -> None:
    if path.suffix != ".safetensors":
        raise InputError(f"{path}: the LoRA's file has to end in .safetensors.")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent} is no folder: make it first, or name another file.")
    if path.exists():
        raise CheckpointError(f"{path} already exists: name another file.")


def _unheld(lora: Lora, style: Format, lost: Mapping[str, str], targets: Targets) -> str:
    weight, why = next(iter(lost.items()))
    key = next(iter(lora.by_weight()[weight][0].keys.values()))
    others = [name for name in FORMATS if name != style and not unheld(lora, name, targets)]
    way = f" --format {others[0]} holds all of it." if others else ""
    part = "" if len(lost) == len(lora.by_weight()) else " --lora-partial writes the rest without it."
    return (
        f"{lora.path}: the {style} format cannot hold {key!r}, one of {len(lost)} changes of the "
        f"{len(lora.by_weight())} that it makes: {why}.{way}{part}"
    )


def _aligned(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Wider types first: other readers map tensors where they lie, so that every start has to be aligned."""
    return dict(sorted(tensors.items(), key=lambda item: -item[1].itemsize))


def _tensors(
    modules: Mapping[str, FactorPiece], written: WrittenFormat
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    tensors: dict[str, np.ndarray] = {}
    kinds: dict[str, str] = {}
    for module, piece in modules.items():
        key = written.key(module)
        for name, values in ((key + written.down, piece.down), (key + written.up, piece.up)):
            tensors[name], kinds[name] = values, piece.kind
        alpha = piece.alpha
        if alpha is None and written.is_underscored:  # their readers take a missing alpha for a damaged file
            alpha = float(piece.rank)
        if alpha is not None and written.has_tensors_of_alpha:
            tensors[key + ".alpha"] = np.asarray(alpha, dtype=np.float32)
        if piece.magnitude is not None:
            is_pefts, axes = written.holds == "peft", (1,) * (piece.down.ndim - 2)
            name = key + (".lora_magnitude_vector" if is_pefts else ".dora_scale")
            shape = (*piece.magnitude.shape, *axes) if not is_pefts else (1, -1, *axes) if axes else (-1,)
            tensors[name], kinds[name] = piece.magnitude.reshape(shape), "F32"
    return tensors, kinds


def _configuration(modules: Mapping[str, FactorPiece], has_magnitudes: bool) -> dict[str, Any]:
    """What readers hand to PEFT: without it, alpha would be lost there."""
    first = next(iter(modules.values()))
    alphas = {module: piece.factor() * piece.rank for module, piece in modules.items()}
    base = first.factor() * first.rank
    return {
        "r": first.rank,
        "lora_alpha": _whole(base),
        "rank_pattern": {module: piece.rank for module, piece in modules.items() if piece.rank != first.rank},
        "alpha_pattern": {module: _whole(alpha) for module, alpha in alphas.items() if alpha != base},
        "target_modules": sorted(modules),
        "use_rslora": False,
        "use_dora": has_magnitudes,
        "lora_bias": False,
    }


def _whole(value: float) -> float | int:
    return int(value) if float(value).is_integer() else value
