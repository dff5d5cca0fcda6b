"""A LoRA file opened against a transformer: every key has a place in it, or the file is refused."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from framewake.errors import CheckpointError, nearest
from framewake.weights.lora import foreign
from framewake.weights.lora.alpha import read_alphas
from framewake.weights.lora.keys import Format, Module, modules
from framewake.weights.lora.opening import LoraFile, lora_file
from framewake.weights.lora.refusal import Found, refusal
from framewake.weights.lora.targets import Targets
from framewake.weights.lora.updates import LoraTensors, Misfit, WeightUpdate, updates_of, whole_numbers

# Parts of decompositions that are not applied; what they belong to is left out as a whole.
_NOT_APPLIED = ("middle", "singular values", "hada_t1", "hada_t2", "lokr_t2")
_METHODS = {"product": "LoRA", "hadamard": "LoHa", "kronecker": "LoKr", "difference": "differences", "value": "values"}


class Lora(NamedTuple):
    """An opened LoRA; its tensors are read from its file when they are asked for.

    ``modules`` counts the modules in the file, ``unmatched`` are keys that were left out on request.
    """

    path: Path
    tensors: LoraTensors
    format: str
    updates: tuple[WeightUpdate, ...]
    modules: int
    unmatched: tuple[str, ...]
    ignores_alpha: bool = False

    def factor(self, update: WeightUpdate) -> float:
        """What an update's change is multiplied with at weight 1."""
        return 1.0 if self.ignores_alpha else update.factor()

    def part(self, update: WeightUpdate, name: str) -> np.ndarray:
        """One of an update's parts as a float32 matrix, rows as in the file; magnitudes by row or by column."""
        values = self.tensors.read(update.keys[name])
        flat = values.reshape(len(values), -1)
        if name == "magnitude":  # a kernel's have five axes, with PEFT the rows in the second one
            is_by_row = values.ndim > 4 or values.shape[0] == update.place.stop - update.place.start
            flat = values.reshape((-1, 1) if is_by_row else (1, -1))
        return np.ascontiguousarray(flat, dtype=np.float32)

    def by_weight(self) -> dict[str, list[WeightUpdate]]:
        """The updates of each weight, in the order of its rows."""
        found: dict[str, list[WeightUpdate]] = {}
        for update in sorted(self.updates, key=lambda update: update.place.start):
            found.setdefault(update.place.weight, []).append(update)
        return found

    def methods(self) -> list[str]:
        """What the file's updates are called."""
        found = {_METHODS[update.method]: None for update in self.updates}
        return list(found | ({"DoRA": None} if any("magnitude" in update.keys for update in self.updates) else {}))


def open_lora(
    path: str | os.PathLike[str],
    targets: Targets,
    *,
    allows_partial: bool = False,
    ignores_alpha: bool = False,
    adapter: str | None = None,
) -> Lora:
    """A file of any published format; only its header and its alphas are read.

    ``allows_partial`` leaves out keys that have no place instead of refusing the file; ``adapter`` chooses one of
    several in one file.
    Raises: CheckpointError when it cannot be read or does not fit the transformer.
    """
    file = lora_file(path)
    lora = fit(file.path, file, targets, allows_partial=allows_partial, adapter=adapter)
    return lora._replace(ignores_alpha=ignores_alpha)


def count_fitting(tensors: LoraFile, targets: Targets, adapter: str | None) -> int:
    """How many changes of a file have a place in a transformer; 0 for one that is refused whatever else it holds."""
    try:
        return len(fit(tensors.path, tensors, targets, allows_partial=True, adapter=adapter).updates)
    except CheckpointError:
        return 0


def fit(
    path: Path, tensors: LoraTensors, targets: Targets, *, allows_partial: bool = False, adapter: str | None = None
) -> Lora:
    """A LoRA's keys with their places.

    Raises: CheckpointError for keys without a place (unless allowed), wrong shapes, or nothing that fits.
    """
    listed, strange, adapters = modules(tensors.names(), adapter)
    _check_adapters(path, adapters, adapter)
    _check_whole(path, listed)
    found = _placed(path, tensors, targets, listed)._replace(strange=tuple(strange))
    if found.updates and not allows_partial and _is_for_flux(tensors, targets):
        raise CheckpointError(
            f"{path} is most likely a LoRA for Flux, whose layers have the names and sizes of this model's: it says "
            "so, or it adapts exactly the 19 and 38 blocks that Flux has. --lora-partial applies it all the same."
        )
    if not found.updates or (not allows_partial and found.left_out()):
        raise CheckpointError(refusal(path, tensors, targets, found))
    _check_overlaps(path, found.updates)
    if (key := whole_numbers(tensors, list(found.updates))) is not None:
        raise CheckpointError(
            f"{path} stores {key!r} as {tensors.dtype(key)}, whole numbers without the scales that say what they are "
            "worth. Take the file in float16, bfloat16 or float32 that it was made from."
        )
    alphas = read_alphas(path, tensors)
    updates = tuple(alphas.given(update) for update in found.updates)
    return Lora(path, tensors, " and ".join(formats(updates)), updates, len(listed), found.left_out())


def formats(updates: Iterable[WeightUpdate]) -> list[str]:
    """The formats of a file's modules, most often one.

    Where Tencent's keys have dots, those of layers that are no part of one of ours are ComfyUI's too.
    """
    updates = tuple(updates)
    dotted = {update.place.dialect for update in updates if not update.module.is_underscored}
    ours = "official" if "official" in dotted else "comfyui"
    found: dict[Format | str, None] = {}
    for update in updates:
        if update.module.is_underscored:
            found["official" if update.module.is_official else "kohya"] = None
        else:
            found[ours if update.place.dialect == "ours" else update.place.dialect] = None
    return list(found)


def _placed(path: Path, tensors: LoraTensors, targets: Targets, listed: Sequence[Module]) -> Found:
    updates: list[WeightUpdate] = []
    lost: list[Module] = []
    halves: list[Module] = []
    misfits: dict[str, str] = {}
    for module in listed:
        place = targets.find(module.name, is_underscored=module.is_underscored)
        if place is None or any(part in module.keys for part in _NOT_APPLIED):
            lost.append(module)
            continue
        try:
            made = list(updates_of(module, place, tensors, targets))
        except Misfit as error:
            misfits[module.name] = str(error)
            lost.append(module)
            continue
        used = {key for update in made for key in update.keys.values()}
        rest = {part: key for part, key in module.keys.items() if key not in used and part != "alpha"}
        if rest or not made:
            halves.append(module._replace(keys=rest or module.keys))
        updates += made
    return Found(tuple(updates), tuple(lost), tuple(halves), misfits)


def _check_adapters(path: Path, adapters: Sequence[str], chosen: str | None) -> None:
    names = [name or "(without a name)" for name in adapters]
    if chosen is not None and chosen not in adapters:
        raise CheckpointError(
            f"{path} has no adapter {chosen!r}; it has {', '.join(names) or 'none'}.{nearest(chosen, adapters)}"
        )
    if chosen is None and len(adapters) > 1:
        raise CheckpointError(
            f"{path} holds {len(adapters)} adapters: {', '.join(names)}. Take one out of it: `framewake lora convert "
            f"{path} OUT --format comfyui --adapter {next(filter(None, adapters))}`."
        )


def _check_whole(path: Path, listed: Sequence[Module]) -> None:
    """Whole weights and nothing else are a model: as a LoRA, they would replace the checkpoint's."""
    keys = [key for module in listed for key in module.keys.values()]
    if keys and all(key.endswith((".weight", ".bias")) and "lora" not in key.lower() for key in keys):
        raise CheckpointError(
            f"{path} holds whole weights and no LoRA: it is a model, or a part of one. A transformer is named with "
            f"--part dit={path}."
        )


def _is_for_flux(tensors: LoraTensors, targets: Targets) -> bool:
    """Evidence for Flux in a file with keys that have a place here, and none for this model."""
    counts = [len({n.split(".")[1] for n in targets.shapes if n.startswith(kind)}) for kind in ("double_", "single_")]
    said = " ".join(map(str, tensors.metadata.values())).lower()
    names = tensors.names()
    if tuple(counts) != foreign.OUR_BLOCKS or "hunyuan" in said or any("token_refiner" in name for name in names):
        return False
    return foreign.said_to_be(tensors.metadata) == foreign.FLUX or foreign.is_as_long_as_flux(names)


def _check_overlaps(path: Path, updates: Iterable[WeightUpdate]) -> None:
    """The same rows twice would be applied twice: one of the two is a mistake."""
    ends: dict[str, WeightUpdate] = {}
    for update in sorted(updates, key=lambda update: update.place.start):
        before = ends.get(update.place.weight)
        if before is not None and update.place.start < before.place.stop:
            one, other = (next(iter(x.keys.values())) for x in (before, update))
            raise CheckpointError(f"{path} adapts {update.place.weight} twice: {one}, {other}.")
        ends[update.place.weight] = update
