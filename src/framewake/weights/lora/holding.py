"""What each format of LoRA files can hold, and how what is no pair of factors is written."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from framewake.weights.lora.file import Lora
from framewake.weights.lora.keys import Format
from framewake.weights.lora.targets import Targets
from framewake.weights.lora.updates import WeightUpdate
from framewake.weights.lora.written import WrittenFormat

_PAIRS_ONLY = "its readers take pairs of factors and nothing else"
_APART = "its queries, keys and values are layers of their own, and this is for all three"
_NAMED = {"hadamard": "LoHa", "kronecker": "LoKr", "difference": "a difference", "value": "a whole value"}


def unheld(lora: Lora, style: Format, targets: Targets) -> dict[str, str]:
    """Weights with a change that a format cannot hold, each with the reason. ``targets`` are the transformer's."""
    written, shapes = targets.written[style], targets.tensors
    test = {"pairs": _pairs, "peft": _peft, "layers": _layered}[written.holds]
    found = {weight: test(lora, updates, shapes[weight]) for weight, updates in lora.by_weight().items()}
    found |= {weight: _APART for weight in _apart(lora, written) if found.get(weight) is None}
    return {weight: why for weight, why in found.items() if why is not None}


def _apart(lora: Lora, written: WrittenFormat) -> list[str]:
    """Weights that are several layers in a format, with a change that is no pair."""
    parted = {rule.ours for rule in written.rules if rule.rows}
    updates = lora.by_weight()
    return [weight for weight in updates if weight in parted and updates[weight][0].method != "product"]


def layered(lora: Lora, updates: Sequence[WeightUpdate], shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """What a whole layer of kohya's or ComfyUI's format holds that is no pair: tensors by their ending."""
    first = updates[0]
    is_bias = first.place.weight.endswith(".bias")
    if first.method in ("hadamard", "kronecker"):
        tensors = {f".{part}": lora.tensors.read(key).astype(np.float32) for part, key in first.keys.items()}
        if (magnitude := tensors.pop(".magnitude", None)) is not None:
            tensors[".dora_scale"] = magnitude
        if {".lokr_w1", ".lokr_w2"} <= set(tensors):  # readers of these divide nothing by a rank
            tensors[".lokr_w1"] *= np.float32(lora.factor(first))
        elif first.alpha is not None and first.rank:
            tensors[".alpha"] = np.asarray(lora.factor(first) * first.rank, np.float32)
        return tensors
    if first.method == "value":
        return {".set_weight": _filled(lora, updates, shape)}
    return {".diff_b" if is_bias else ".diff": _filled(lora, updates, shape)}


def _filled(lora: Lora, updates: Sequence[WeightUpdate], shape: tuple[int, ...]) -> np.ndarray:
    values = np.zeros((shape[0], int(np.prod(shape[1:]))), np.float32)
    for update in updates:
        rows = lora.part(update, update.method) * np.float32(lora.factor(update))
        rows = np.concatenate(np.split(rows, 2)[::-1]) if update.place.is_swapped else rows
        values[update.place.start : update.place.stop] = rows
    return values.reshape(shape)


def _pairs(lora: Lora, updates: Sequence[WeightUpdate], shape: tuple[int, ...]) -> str | None:
    return None if all(_is_plain(update) for update in updates) else _PAIRS_ONLY


def _peft(lora: Lora, updates: Sequence[WeightUpdate], shape: tuple[int, ...]) -> str | None:
    if any(update.method != "product" for update in updates):
        return _PAIRS_ONLY
    has = [update for update in lora.updates if update.method == "product" and "magnitude" in update.keys]
    if not has:
        return None
    if any(_is_by_column(lora, update) for update in updates):
        return "PEFT has magnitudes of DoRA by row, and these are by column"
    pairs = [update for update in lora.updates if update.method == "product"]
    return None if len(has) == len(pairs) else "PEFT has DoRA for all modules of a file or for none"


def _layered(lora: Lora, updates: Sequence[WeightUpdate], shape: tuple[int, ...]) -> str | None:
    place, method = updates[0].place, updates[0].method
    is_whole = len(updates) == 1 and place.stop - place.start == shape[0] and not place.is_swapped
    if method in ("hadamard", "kronecker") and not is_whole:
        return f"it has one {_NAMED[method]} for a fused layer, and this is for a part of it"
    if len({update.method for update in updates}) > 1:
        return "it has one kind of change for a layer"
    if method == "value" and place.weight.endswith(".bias"):
        return "it has no whole value of a bias"
    covered = sum(update.place.stop - update.place.start for update in updates) == shape[0]
    if method == "value" and not covered:
        return "it has whole values for whole layers only"
    magnitudes = ["magnitude" in update.keys for update in updates]
    joins = all(magnitudes) and covered and not any(_is_by_column(lora, update) for update in updates)
    if any(magnitudes) and not is_whole and not joins:
        return "it has one DoRA for a fused layer, and this is for a part of it"
    return None


def _is_plain(update: WeightUpdate) -> bool:
    return update.method == "product" and "magnitude" not in update.keys


def _is_by_column(lora: Lora, update: WeightUpdate) -> bool:
    return "magnitude" in update.keys and lora.part(update, "magnitude").shape[0] == 1
