"""What the keys of a module do to which weight: each method with its shapes, checked from the header alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np

from framewake.errors import CheckpointError
from framewake.weights.lora.keys import Module
from framewake.weights.lora.targets import Place, Targets

Method = Literal["product", "hadamard", "kronecker", "difference", "value"]
# The factors of a method, in pairs.
_FACTORS: dict[Method, tuple[str, ...]] = {
    "product": ("up", "down"),
    "hadamard": ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
}
_WHOLE: tuple[Method, ...] = ("difference", "value")
# Parts with a row for each row of the weight.
BY_ROW = ("up", "hada_w1_a", "hada_w2_a", *_WHOLE)
Size = Sequence[int | str]
# Types that stand for something else when nothing in the file says what a step of one is worth.
_WHOLE_NUMBERS = ("I64", "I32", "I16", "I8", "U8", "BOOL")


class LoraTensors(Protocol):
    """What a LoRA is read from."""

    metadata: dict[str, str]

    def names(self) -> tuple[str, ...]:
        """Every key."""

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape."""

    def dtype(self, name: str) -> str:
        """A tensor's type."""

    def read(self, name: str) -> np.ndarray:
        """A tensor's values."""


class WeightUpdate(NamedTuple):
    """What one module of a file does to the rows of one weight.

    ``keys`` are the file's keys by part, as in ``keys.py``; ``rank`` is 0 where there are no factors and ``alpha``
    None when neither file nor configuration has one. ``has_root_rank``: the configuration says that alpha is divided
    by the root of the rank.
    """

    module: Module
    place: Place
    method: Method
    keys: Mapping[str, str]
    rank: int = 0
    alpha: float | None = None
    has_root_rank: bool = False

    def factor(self) -> float:
        """What the change is multiplied with at weight 1: alpha over rank, 1 without one of them."""
        if self.alpha is None or not self.rank:
            return 1.0
        return self.alpha / (math.sqrt(self.rank) if self.has_root_rank else self.rank)

    def is_by_row(self) -> bool:
        """Whether every row of the weight changes by itself, in the file's order of rows."""
        return self.method != "kronecker" and "magnitude" not in self.keys and not self.place.is_swapped


class Misfit(CheckpointError):
    """A module whose factors have not the shape of its weight."""


def updates_of(module: Module, place: Place, tensors: LoraTensors, targets: Targets) -> Iterator[WeightUpdate]:
    """What a module's keys do, without alpha; nothing where they are only a part of what is needed.

    Raises: Misfit when a shape is another one than the weight's.
    """
    keys = module.keys
    shape = targets.tensors[place.weight]
    rows, inner = place.stop - place.start, shape[1:]
    weight = _weight_update(module, place, tensors, (rows, *inner))
    aside = {part: keys[part] for part in ("magnitude",) if part in keys}
    if weight is not None:
        yield weight._replace(keys={**weight.keys, **aside})
    bias = targets.bias_of(place)
    for part, method in (("up bias", "difference"), ("bias difference", "difference"), ("bias value", "value")):
        if part not in keys or bias is None or (part == "up bias" and weight is None):
            continue
        size = tensors.shape(keys[part])
        _expect(module, [size], [(rows,)], size == (rows,))
        rank = weight.rank if part == "up bias" and weight is not None else 0
        yield WeightUpdate(module, bias, method, {method: keys[part]}, rank)  # type: ignore[arg-type]


def whole_numbers(tensors: LoraTensors, updates: list[WeightUpdate]) -> str | None:
    """The first factor that is stored in whole numbers, None where all are fractions."""
    keys = (key for update in updates for key in update.keys.values())
    return next((key for key in keys if tensors.dtype(key) in _WHOLE_NUMBERS), None)


def _weight_update(module: Module, place: Place, tensors: LoraTensors, shape: tuple[int, ...]) -> WeightUpdate | None:
    keys = module.keys
    rows, columns = shape[0], math.prod(shape[1:])
    _check_magnitude(module, tensors, shape)

    def made(method: Method, *parts: str, rank: int = 0) -> WeightUpdate:
        return WeightUpdate(module, place, method, {part: keys[part] for part in parts}, rank)

    if len(shape) > 1:
        for method, parts in _FACTORS.items():
            if set(parts) <= set(keys):
                rank = _check_pairs(module, [tensors.shape(keys[part]) for part in parts], rows, columns)
                return made(method, *parts, rank=rank)
        if any(part.startswith("lokr_") for part in keys):
            return _kronecker(module, place, tensors, shape)
    for method in _WHOLE:
        if method in keys:
            size = tensors.shape(keys[method])
            is_right = size == shape or (len(size) > 1 and _flat(size) == (rows, columns))
            _expect(module, [size], [shape], is_right)
            return made(method, method)
    return None


def _check_magnitude(module: Module, tensors: LoraTensors, shape: tuple[int, ...]) -> None:
    """Magnitudes of DoRA are by row, or by column where no kernel hides what a column is; PEFT turns a kernel's."""
    if "magnitude" not in module.keys:
        return
    size, rows, columns = tensors.shape(module.keys["magnitude"]), shape[:1], math.prod(shape[1:])
    is_by_row = math.prod(size) == rows[0] and (size[:1] == rows or (len(shape) > 2 and size[:2] == (1, *rows)))
    is_by_column = shape[1:2] == (columns,) and size in ((columns,), (1, columns), (1, columns, 1, 1))
    _expect(module, [size], [rows, (1, columns)], is_by_row or is_by_column)


def _check_pairs(module: Module, sizes: list[tuple[int, ...]], rows: int, columns: int) -> int:
    """One pair of factors or two, (rows, rank) and (rank, columns); the rank."""
    rank = sizes[1][0] if sizes[1] else 0
    is_right = rank > 0
    for up, down in zip(sizes[::2], sizes[1::2], strict=True):
        is_right &= len(up) > 1 and up[:2] == (rows, down[0] if down else 0) and math.prod(up[2:]) == 1
        is_right &= math.prod(down[1:]) == columns
    _expect(module, sizes, [(rows, "rank"), ("rank", columns)], is_right)
    return rank


def _kronecker(module: Module, place: Place, tensors: LoraTensors, shape: tuple[int, ...]) -> WeightUpdate | None:
    """Each of the two matrices is whole or a product; a rank is named by the product, the last one as LyCORIS does."""
    used: dict[str, str] = {}
    sizes: list[tuple[int, int]] = []
    rank = 0
    for name in ("lokr_w1", "lokr_w2"):
        parts = [name] if name in module.keys else [f"{name}_a", f"{name}_b"]
        if not set(parts) <= set(module.keys):
            return None
        used |= {part: module.keys[part] for part in parts}
        found = [tensors.shape(used[part]) for part in parts]
        is_right = all(len(size) > 1 for size in found) and (len(found) == 1 or found[0][1] == found[1][0])
        _expect(module, found, [("rows", "columns")], is_right)
        sizes.append((found[0][0], math.prod(found[-1][1:])))
        rank = found[1][0] if len(found) == 2 else rank
    made = tuple(math.prod(size) for size in zip(*sizes, strict=True))
    needed = (shape[0], math.prod(shape[1:]))
    _expect(module, [made], [needed], made == needed)
    return WeightUpdate(module, place, "kronecker", used, rank)


def _flat(size: tuple[int, ...]) -> tuple[int, ...]:
    return (size[0], math.prod(size[1:])) if size else ()


def _expect(module: Module, found: Sequence[Size], needed: Sequence[Size], is_right: bool) -> None:
    if not is_right:
        raise Misfit(f"{module.name} has the factors {_listed(found)}, needed are {_listed(needed)}")


def _listed(sizes: Sequence[Size]) -> str:
    texts = [f"[{', '.join(map(str, size))}]" for size in sizes]
    return " and ".join(dict.fromkeys(texts))
