"""A LoRA file opened against a transformer: every key has a place in it, or the file is refused."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from framewake.errors import CheckpointError, nearest
from framewake.weights.files import TensorFile
from framewake.weights.lora import foreign
from framewake.weights.lora.alpha import Alphas, read_alphas
from framewake.weights.lora.keys import Format, Pair, other_method, pairs
from framewake.weights.lora.targets import Place, Targets

LISTED = 4
SHIPPED = Path(__file__).parents[2] / "demo" / "lora"  # LoRAs for the embedded checkpoint
_PICKLES = (".pt", ".pth", ".bin", ".ckpt")


class Tensors(Protocol):
    """What a LoRA is read from; ``TensorFile`` is the usual one."""

    metadata: dict[str, str]

    def names(self) -> tuple[str, ...]:
        """Every key."""

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape."""

    def read(self, name: str) -> np.ndarray:
        """A tensor's values."""


class Update(NamedTuple):
    """One pair at its place. ``alpha`` is None when neither file nor configuration has one.

    ``has_root_rank``: the configuration says that alpha is divided by the root of the rank.
    """

    pair: Pair
    place: Place
    rank: int
    alpha: float | None
    has_root_rank: bool

    def factor(self) -> float:
        """What the product is multiplied with at weight 1: alpha over rank, 1 without alpha."""
        if self.alpha is None:
            return 1.0
        return self.alpha / (math.sqrt(self.rank) if self.has_root_rank else self.rank)


class Lora(NamedTuple):
    """An opened LoRA; factors are read from its file when they are asked for.

    ``modules`` counts the pairs in the file, ``unmatched`` are keys that were left out on request.
    """

    path: Path
    tensors: Tensors
    format: str
    updates: tuple[Update, ...]
    modules: int
    unmatched: tuple[str, ...]
    ignores_alpha: bool = False

    def factor(self, update: Update) -> float:
        """What an update's product is multiplied with at weight 1."""
        return 1.0 if self.ignores_alpha else update.factor()

    def factors(self, update: Update) -> tuple[np.ndarray, np.ndarray]:
        """The up and down matrices in float32, rows in our order.

        Shapes: (rows, rank), (rank, columns).
        """
        up, down = (_matrix(self.tensors.read(key)) for key in (update.pair.up, update.pair.down))
        if update.place.is_swapped:
            up = np.concatenate(np.split(up, 2)[::-1])
        return up, down

    def by_weight(self) -> dict[str, list[Update]]:
        """The updates of each weight, in the order of its rows."""
        found: dict[str, list[Update]] = {}
        for update in sorted(self.updates, key=lambda update: update.place.start):
            found.setdefault(update.place.weight, []).append(update)
        return found


def open_lora(
    path: str | os.PathLike[str], targets: Targets, *, allows_partial: bool = False, ignores_alpha: bool = False
) -> Lora:
    """A safetensors file of any published format; only its header and its alphas are read.

    ``allows_partial`` leaves out keys that have no place instead of refusing the file.
    Raises: CheckpointError when it cannot be read or does not fit the transformer.
    """
    file = lora_file(path)
    lora = fit(file.path, file, targets, allows_partial=allows_partial)
    return lora._replace(ignores_alpha=ignores_alpha)


def lora_file(path: str | os.PathLike[str]) -> TensorFile:
    """The file, or the one file of a folder such as PEFT writes; "demo/trails" is the one that ships.

    Raises: CheckpointError for anything but one safetensors file.
    """
    path = Path(path).expanduser()
    if path.suffix.lower() in _PICKLES:
        raise CheckpointError(f"{path}: a {path.suffix} file can run code when it is read; only .safetensors are read.")
    if path.is_dir():
        found = sorted(path.glob("*.safetensors"))
        if len(found) != 1:
            raise CheckpointError(f"{path} holds {len(found)} .safetensors files; name the LoRA itself.")
        path = found[0]
    if not path.exists() and path.parent == Path("demo"):
        path = SHIPPED / f"{path.name}.safetensors"
    if not path.exists():
        shipped = [f"demo/{file.stem}" for file in SHIPPED.glob("*.safetensors")]
        raise CheckpointError(
            f"{path}: there is no such LoRA file. Check the path, and a weight, which is a number as in FILE:0.8."
            f"{nearest(f'demo/{path.stem}', shipped) if path.parent == SHIPPED else ''}"
        )
    return TensorFile(path)


def fit(path: Path, tensors: Tensors, targets: Targets, *, allows_partial: bool = False) -> Lora:
    """A LoRA's keys with their places.

    Raises: CheckpointError for keys without a place (unless allowed), wrong shapes, or nothing that fits.
    """
    listed, strange = pairs(tensors.names())
    alphas = read_alphas(path, tensors)
    updates: list[Update] = []
    lost: list[Pair] = []
    for pair in listed:
        place = targets.find(pair.module, is_underscored=pair.is_underscored)
        if place is None or pair.down is None or pair.up is None:
            lost.append(pair)
        else:
            updates.append(_update(path, tensors, pair, place, (targets.shapes, alphas)))
    if not updates or (not allows_partial and (lost or strange)):
        raise CheckpointError(_refusal(path, tensors, targets, lost=lost, strange=strange))
    if not allows_partial and _is_for_flux(tensors, targets):
        raise CheckpointError(
            f"{path} adapts exactly the 19 and 38 blocks of Flux, whose layers have the names and sizes of this "
            "model's: it is most likely a LoRA for Flux. --lora-partial applies it all the same."
        )
    _check_overlaps(path, updates)
    unmatched = tuple(strange + [key for pair in lost for key in pair.held()])
    return Lora(path, tensors, " and ".join(formats(updates)), tuple(updates), len(listed), unmatched)


def formats(updates: Iterable[Update]) -> list[Format]:
    """The formats of a file's pairs, most often one."""
    found: dict[Format, None] = {}
    for pair, place, *_ in updates:
        if pair.is_underscored:
            found["official" if pair.is_official else "kohya"] = None
        else:
            found["diffusers" if place.is_diffusers else "comfyui"] = None
    return list(found)


def _update(
    path: Path, tensors: Tensors, pair: Pair, place: Place, known: tuple[Mapping[str, tuple[int, ...]], Alphas]
) -> Update:
    """A pair at its place, after its shapes were compared with the weight's."""
    shapes, alphas = known
    down, up = tensors.shape(pair.down), tensors.shape(pair.up)
    rows, columns = place.stop - place.start, math.prod(shapes[place.weight][1:])
    rank = down[0] if down else 0
    is_right = len(up) > 1 and math.prod(up[2:]) == 1 and up[:2] == (rows, rank) and math.prod(down[1:]) == columns
    if not is_right or rank < 1:
        what = foreign.recognised(tensors.names(), tensors.metadata, [down[-1]] if down else [])
        raise CheckpointError(
            f"{path} does not fit this transformer: {pair.module} has the factors {list(up)} and {list(down)}, "
            f"needed are [{rows}, rank] and [rank, {columns}]"
            + (f". It looks like a LoRA for {what}." if what else "; it is for a model of another size.")
        )
    alpha, has_root_rank = alphas.of(pair)
    return Update(pair, place, rank, alpha, has_root_rank)


def _refusal(path: Path, tensors: Tensors, targets: Targets, *, lost: list[Pair], strange: list[str]) -> str:
    """Why a file cannot be used, with the model that it is for, where that shows."""
    names = tensors.names()
    widths = [tensors.shape(pair.down)[-1] for pair in lost if pair.down and tensors.shape(pair.down)]
    what = foreign.recognised(names, tensors.metadata, widths)
    if what:
        return f"{path} looks like a LoRA for {what}: its {names[0]!r} is nothing in this transformer."
    methods = {name for key in strange if (name := other_method(key))}
    if methods:
        what = " and ".join(sorted(methods))
        return f"{path} holds {what} ({strange[0]!r}); only plain LoRA (a pair of factors) is read."
    keys = strange + [key for pair in lost for key in pair.held()]
    if not keys:
        return f"{path} holds no tensors: it is no LoRA."
    halves = [pair for pair in lost if targets.find(pair.module, is_underscored=pair.is_underscored)]
    if halves:
        return f"{path} has only a part of {halves[0].module!r} ({', '.join(halves[0].held())}): it is incomplete."
    hints = [
        f"{pair.module!r}{targets.hint(pair.module, is_underscored=pair.is_underscored)}" for pair in lost[:LISTED]
    ] or [repr(key) for key in strange[:LISTED]]
    all_of = "none" if len(keys) == len(names) else f"{len(keys)}"
    where = f"of its {len(names)} keys" + (" fits" if all_of == "none" else " have no place in")
    advice = "" if all_of == "none" else " --lora-partial applies the rest."
    return f"{path}: {all_of} {where} this transformer: {'; '.join(hints)}.{advice}"


def _is_for_flux(tensors: Tensors, targets: Targets) -> bool:
    counts = [len({n.split(".")[1] for n in targets.shapes if n.startswith(kind)}) for kind in ("double_", "single_")]
    said = " ".join(map(str, tensors.metadata.values())).lower()
    return tuple(counts) == foreign.OUR_BLOCKS and "hunyuan" not in said and foreign.has_blocks_of_flux(tensors.names())


def _check_overlaps(path: Path, updates: Iterable[Update]) -> None:
    """The same rows twice would be applied twice: one of the two is a mistake."""
    ends: dict[str, Update] = {}
    for update in sorted(updates, key=lambda update: update.place.start):
        before = ends.get(update.place.weight)
        if before is not None and update.place.start < before.place.stop:
            raise CheckpointError(f"{path} adapts {update.place.weight} twice: {before.pair.down}, {update.pair.down}.")
        ends[update.place.weight] = update


def _matrix(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values.reshape(len(values), -1), dtype=np.float32)
