"""The modules of a transformer that a LoRA can mean, under each of their names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

import numpy as np

from framewake.config import DiTConfig
from framewake.errors import CheckpointError, nearest
from framewake.weights.lora.keys import Format
from framewake.weights.lora.written import WRITTEN, WrittenFormat
from framewake.weights.reading.names import NameRule

Shapes = Mapping[str, tuple[int, ...]]
Dialect = Format | Literal["ours", "omi"]

# Names that ComfyUI, and OneTrainer in its OMI form, give to modules, each with the published one.
_OTHER_NAMES: tuple[tuple[str, str], ...] = (
    (r"(_mod|\.modulation)\.linear$", r"\1.lin"),
    (r"_attn_(qkv|proj)$", r"_attn.\1"),
    (r"_attn_q_norm$", "_attn.norm.query_norm"),
    (r"_attn_k_norm$", "_attn.norm.key_norm"),
    (r"(blocks\.\d+)\.q_norm$", r"\1.norm.query_norm"),
    (r"(blocks\.\d+)\.k_norm$", r"\1.norm.key_norm"),
    (r"(blocks\.\d+\.(?:img_|txt_)?mlp)\.fc1$", r"\1.0"),
    (r"(blocks\.\d+\.(?:img_|txt_)?mlp)\.fc2$", r"\1.2"),
    (r"mlp\.fc1$", "mlp.fc0"),
    (r"(time_in|guidance_in|t_embedder)\.mlp\.0$", r"\1.in_layer"),
    (r"(time_in|guidance_in|t_embedder)\.mlp\.2$", r"\1.out_layer"),
    (r"t_embedder\.mlp\.0$", "t_embedder.linear_1"),
    (r"t_embedder\.mlp\.2$", "t_embedder.linear_2"),
    (r"c_embedder\.linear_1$", "c_embedder.in_layer"),
    (r"c_embedder\.linear_2$", "c_embedder.out_layer"),
)


class Place(NamedTuple):
    """Which rows of which of our weights a module is.

    ``is_swapped``: the two halves of the rows stand the other way round there (specification, section 13, 8).
    """

    weight: str
    start: int
    stop: int
    is_swapped: bool = False
    dialect: Dialect = "ours"


class Targets:
    """Every layer of a transformer, found by its name in any dialect.

    ``shapes`` are the matrices and kernels, ``tensors`` all tensors, biases and norms among them; ``written``: how each
    format writes them. Underscored names
    are compared with the underscored names of modules that exist, so nothing is guessed; a name that fits two modules
    is an error.
    Source: specification, section 9.
    """

    def __init__(self, tensors: Shapes, written: Mapping[Format, WrittenFormat] | None = None) -> None:
        self.tensors = dict(tensors)
        self.written = dict(written or {})
        self.shapes = {name: shape for name, shape in tensors.items() if is_adaptable(name, shape)}
        weights = {name: shape for name, shape in tensors.items() if name.endswith(".weight")}
        self._places = {_module(name): Place(name, 0, shape[0]) for name, shape in weights.items()}
        for name, place in list(self._places.items()):
            for other in _other_names(name):
                self._places.setdefault(other, place)
        for style, each in self.written.items():
            for rule in each.rules:
                if rule.ours in weights:
                    self._add(rule, style)
        self._underscored: dict[str, set[str]] = {}
        for module in self._places:
            self._underscored.setdefault(module.replace(".", "_"), set()).add(module)

    @classmethod
    def of(cls, config: DiTConfig, shapes: Shapes) -> Targets:
        """The targets of a transformer, under our names and those of others."""
        return cls(shapes, WRITTEN[type(config)](config))

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

    def bias_of(self, place: Place) -> Place | None:
        """The same rows of the layer's bias, None when it has none."""
        name = _module(place.weight) + ".bias"
        return place._replace(weight=name) if name in self.tensors else None

    def hint(self, module: str, *, is_underscored: bool) -> str:
        """The nearest name, as the end of a message."""
        return nearest(module, self._underscored if is_underscored else self._places)

    def _add(self, rule: NameRule, style: Format) -> None:
        rows = rule.rows or (self.tensors[rule.ours][0],)
        for number, (their, stop, count) in enumerate(zip(rule.theirs, np.cumsum(rows), rows, strict=True)):
            place = Place(rule.ours, int(stop) - count, int(stop), rule.is_swapped, style)
            self._places.setdefault(_module(their), place)
            if rule.rows:  # OneTrainer's OMI form counts the pieces of a fused layer
                piece = place._replace(dialect="omi")
                for name in (_module(rule.ours), *_other_names(_module(rule.ours))):
                    self._places.setdefault(f"{name}.{number}", piece)


def is_adaptable(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is a matrix or a convolution's kernel, which factors can change."""
    return name.endswith(".weight") and len(shape) > 1


def modules_of(written: WrittenFormat) -> dict[str, list[tuple[str, Place]]]:
    """Our weight -> a format's modules that hold it, in the order of their rows."""
    found: dict[str, list[tuple[str, Place]]] = {}
    for rule in written.rules:
        if not rule.ours.endswith(".weight"):
            continue
        start = 0
        for their, count in zip(rule.theirs, rule.rows or (0,), strict=True):
            place = Place(rule.ours, start, start + count, rule.is_swapped)
            found.setdefault(rule.ours, []).append((_module(their), place))
            start += count
    return found


def _module(name: str) -> str:
    return name.removesuffix(".weight")


def _other_names(module: str) -> Iterator[str]:
    for pattern, replacement in _OTHER_NAMES:
        name, count = re.subn(pattern, replacement, module)
        if count:
            yield name
