"""The factors that are trained, as an adapter that the LoRA view of the weights takes like any other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

import numpy as np

from framewake.engine.contract import Tensor, Weights
from framewake.errors import InputError
from framewake.train.draws import START, generator
from framewake.weights.lora.keys import Module
from framewake.weights.lora.targets import Place
from framewake.weights.lora.updates import WeightUpdate

DOWN, UP = ".lora_down.weight", ".lora_up.weight"

Shapes = Mapping[str, tuple[int, ...]]


class Factors:
    """A LoRA whose factors are tensors or arrays.

    ``weights/lora/view.py`` adds it to base weights. So training computes with the very weights that inference with
    the finished file has.
    """

    def __init__(self, modules: Shapes, rank: int, alpha: float, values: Weights) -> None:
        self._updates = {name: [_update(name, shape, rank, alpha)] for name, shape in modules.items()}
        self._values = values

    def by_weight(self) -> dict[str, list[WeightUpdate]]:
        """The one update of each weight."""
        return self._updates

    def factor(self, update: WeightUpdate) -> float:
        """What an update's product is multiplied with at weight 1."""
        return update.factor()

    def part(self, update: WeightUpdate, name: str) -> Tensor:
        """The up or the down matrix. Shapes: (rows, rank), (rank, columns)."""
        return self._values[update.keys[name]]


def chosen(shapes: Shapes, modules: Sequence[str], *, patterns: Iterable[str] = ()) -> dict[str, tuple[int, ...]]:
    """The matrices to adapt, of a transformer's tensors: a family's ``modules``, those of them that fit a pattern.

    Raises: InputError for a pattern that fits none.
    Source: specification, section 9.
    """
    matrices = {name: shape for name, shape in shapes.items() if name.endswith(".weight") and len(shape) == 2}
    found: dict[str, tuple[int, ...]] = {
        n: s for n, s in matrices.items() if any(fnmatchcase(module_of(n), each) for each in modules)
    }
    patterns = tuple(patterns)
    for pattern in patterns:
        if not any(fnmatchcase(module_of(name), pattern) for name in found):
            example = module_of(next(iter(found)))
            raise InputError(f"--target {pattern!r} fits no module; they are named like {example!r} (* fits anything).")
    if not patterns:
        return found
    return {n: s for n, s in found.items() if any(fnmatchcase(module_of(n), pattern) for pattern in patterns)}


def start(modules: Shapes, rank: int, seed: int) -> dict[str, np.ndarray]:
    """First factors: down N(0, (1 / rank)^2), up zero, so that training begins at the base itself.

    Source: specification, section 10.4.
    """
    values = {}
    for number, (name, (rows, columns)) in enumerate(modules.items()):
        drawn = generator(seed, START, number).standard_normal((rank, columns), dtype=np.float32)
        values[module_of(name) + DOWN] = drawn / np.float32(rank)
        values[module_of(name) + UP] = np.zeros((rows, rank), np.float32)
    return values


def module_of(name: str) -> str:
    """The module of a weight."""
    return name.removesuffix(".weight")


def _update(name: str, shape: tuple[int, ...], rank: int, alpha: float) -> WeightUpdate:
    module = module_of(name)
    keys = {"down": module + DOWN, "up": module + UP}
    return WeightUpdate(Module(module, False, True, keys), Place(name, 0, shape[0]), "product", keys, rank, alpha)
