"""The modules of a transformer that a LoRA can mean, under each of their names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from framewake.config import DiTConfig
from framewake.errors import CheckpointError, nearest
from framewake.weights.names import Rule, diffusers_dit

Shapes = Mapping[str, tuple[int, ...]]


class Place(NamedTuple):
    """Which rows of which of our weights a module is.

    ``is_swapped``: the two halves of the rows stand the other way round there (specification, section 13, 8).
    """

    weight: str
    start: int
    stop: int
    is_swapped: bool = False
    is_diffusers: bool = False


class Targets:
    """Every linear and convolution layer of a transformer, found by its name in any dialect.

    Underscored names are compared with the underscored names of modules that exist, so nothing is guessed;
    a name that fits two modules is an error.
    Source: specification, section 9.
    """

    def __init__(self, shapes: Shapes, rules: Iterable[Rule] = ()) -> None:
        self.shapes = {name: shape for name, shape in shapes.items() if is_adaptable(name, shape)}
        self._places = {name.removesuffix(".weight"): Place(name, 0, shape[0]) for name, shape in self.shapes.items()}
        for rule in rules:
            if rule.ours in self.shapes:
                self._add(rule)
        self._underscored: dict[str, set[str]] = {}
        for module in self._places:
            self._underscored.setdefault(module.replace(".", "_"), set()).add(module)

    @classmethod
    def of(cls, config: DiTConfig, shapes: Shapes) -> Targets:
        """The targets of a transformer, under our names and those of diffusers."""
        return cls(shapes, diffusers_dit(config))

    def find(self, module: str, *, is_underscored: bool) -> Place | None:
        """The place of a module, None when there is none of that name.

        Raises: CheckpointError when an underscored name fits more than one module.
        """
        if not is_underscored:
            return self._places.get(module)
        found = sorted(self._underscored.get(module, ()))
        if len({self._places[name] for name in found}) > 1:
            raise CheckpointError(f"the LoRA's {module!r} may mean {' or '.join(found)}: write it with dots.")
        return self._places[found[0]] if found else None

    def hint(self, module: str, *, is_underscored: bool) -> str:
        """The nearest name, as the end of a message."""
        return nearest(module, self._underscored if is_underscored else self._places)

    def _add(self, rule: Rule) -> None:
        rows = rule.rows or (self.shapes[rule.ours][0],)
        for their, stop, count in zip(rule.theirs, np.cumsum(rows), rows, strict=True):
            place = Place(rule.ours, int(stop) - count, int(stop), rule.is_swapped, True)
            self._places.setdefault(their.removesuffix(".weight"), place)


def is_adaptable(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is a matrix or a convolution's kernel; biases and norms are never adapted."""
    return name.endswith(".weight") and len(shape) > 1


def diffusers_modules(rules: Iterable[Rule]) -> dict[str, list[tuple[str, Place]]]:
    """Our weight -> the modules of diffusers that hold it, in the order of their rows."""
    found: dict[str, list[tuple[str, Place]]] = {}
    for rule in rules:
        if not rule.ours.endswith(".weight"):
            continue
        rows, start = rule.rows or (0,), 0
        for their, count in zip(rule.theirs, rows, strict=True):
            place = Place(rule.ours, start, start + count, rule.is_swapped, True)
            found.setdefault(rule.ours, []).append((their.removesuffix(".weight"), place))
            start += count
    return found
