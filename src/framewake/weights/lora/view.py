"""A store seen through LoRAs: it yields base plus products, and the base stays as it is."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from framewake.engine.contract import Engine, Tensor, Weights
from framewake.errors import InputError
from framewake.weights.lora.change import change
from framewake.weights.lora.updates import BY_ROW, WeightUpdate

PART = 2**21  # numbers of a weight that are merged at once: what float32 needs beside it is small, and used again
Parts = dict[tuple[int, str], Tensor]


class Store(Protocol):
    """What the view looks at; see ``models/source.py``."""

    def part(self, prefix: str) -> Weights:
        """The tensors below a prefix."""

    def blocks(self, name: str, count: int | None = None) -> Iterator[Weights]:
        """The blocks below a name, in order."""


class Adapter(Protocol):
    """What is added: a LoRA in a file (``file.py``), or one in training, whose factors are tensors."""

    def by_weight(self) -> Mapping[str, Sequence[WeightUpdate]]:
        """The updates of each weight, in the order of its rows."""

    def factor(self, update: WeightUpdate) -> float:
        """What an update's product is multiplied with at weight 1."""

    def part(self, update: WeightUpdate, name: str) -> Any:
        """One of an update's parts as a matrix, on the host or on the device."""


class _Used(NamedTuple):
    """A LoRA's part in one weight."""

    lora: Adapter
    updates: Sequence[WeightUpdate]
    scale: float


class Merger:
    """Base weights plus the changes of LoRAs, tensor by tensor."""

    def __init__(self, engine: Engine, loras: Sequence[Adapter]) -> None:
        self.engine = engine
        self.loras = tuple(loras)
        self._updates = [lora.by_weight() for lora in loras]

    def touches(self, name: str, scales: Sequence[float]) -> bool:
        """Whether a tensor is another one at these scales, one for each LoRA."""
        return bool(self._used(name, scales))

    def _used(self, name: str, scales: Sequence[float]) -> list[_Used]:
        every = zip(self.loras, self._updates, scales, strict=True)
        return [_Used(lora, found[name], scale) for lora, found, scale in every if scale != 0 and name in found]

    def merged(self, name: str, base: Tensor, scales: Sequence[float]) -> Tensor:
        """A tensor with every LoRA added; the same object where none has a part in it.

        Precision: changes and sums in float32, rounded once to the base's type.
        Source: specification, section 9.
        """
        used = self._used(name, scales)
        if not used:
            return base
        engine = self.engine
        matrix = engine.reshape(base, (base.shape[0], -1))
        count, columns = matrix.shape
        is_by_row = all(update.is_by_row() for each in used for update in each.updates)
        step = max(PART // columns, 1) if is_by_row else count
        pieces: list[Tensor] = []
        parts: Parts = {}
        for first in range(0, count, step):
            total = own = engine.cast(_rows(matrix, first, min(first + step, count)), "float32")
            for each in used:
                total = total + self._change(each, own, first, parts)
            pieces.append(engine.cast(total, engine.dtype(base)))
        return engine.reshape(self._joined(pieces), base.shape)

    def _change(self, used: _Used, base: Tensor, first: int, parts: Parts) -> Tensor:
        """One LoRA's change of a weight's rows from ``first`` on: its pieces one below the other, zeros between."""
        pieces: list[Tensor] = []
        row, (count, columns) = first, base.shape
        for update in used.updates:
            place = update.place
            start, stop = max(place.start, first), min(place.stop, first + count)
            if start >= stop:
                continue
            if start > row:
                pieces.append(self.engine.zeros((start - row, columns)))
            read = functools.partial(self._part, parts, used.lora, update, (start - place.start, stop - place.start))
            own, factor = _rows(base, start - first, stop - first), used.lora.factor(update)
            pieces.append(change(self.engine, update, read, own, factor=factor, scale=used.scale))
            row = stop
        if row < first + count:
            pieces.append(self.engine.zeros((first + count - row, columns)))
        return self._joined(pieces)

    def _part(self, parts: Parts, lora: Adapter, update: WeightUpdate, rows: tuple[int, int], name: str) -> Tensor:
        """A part of an update, read once; of one that has the weight's rows, some of them."""
        key = (id(update), name)
        if key not in parts:
            parts[key] = self.engine.asarray(lora.part(update, name), "float32")
        return _rows(parts[key], *rows) if name in BY_ROW else parts[key]

    def _joined(self, pieces: list[Tensor]) -> Tensor:
        return pieces[0] if len(pieces) == 1 else self.engine.concat(pieces, 0)


def _rows(x: Tensor, start: int, stop: int) -> Tensor:
    return x if stop - start == x.shape[0] else x[start:stop]


class LoraView:
    """A store whose weights have LoRAs added at changing scales.

    ``keeps``: merged tensors are kept until the scales change, and so are the dicts (a compiled block sees the
    same dict at every step); for a store that streams, they are made anew each time.
    """

    def __init__(self, engine: Engine, base: Store, loras: Sequence[Adapter], *, keeps: bool = True) -> None:
        self._base = base
        self._merger = Merger(engine, loras)
        self._keeps = keeps
        self._scales: tuple[float, ...] = (1.0,) * len(loras)
        self._forget()

    @property
    def scales(self) -> tuple[float, ...]:
        return self._scales

    def use(self, scales: Sequence[float]) -> None:
        """Set the scale of each LoRA; a change drops what was merged.

        Raises: InputError for another number of scales than LoRAs.
        """
        if len(scales) != len(self._merger.loras):
            raise InputError(f"{len(scales)} scales for {len(self._merger.loras)} LoRAs: give one for each.")
        if tuple(scales) != self._scales:
            self._scales = tuple(scales)
            self._forget()

    def part(self, prefix: str) -> Weights:
        """The merged tensors below a prefix."""
        if not self._keeps:
            return self._merged(prefix, self._base.part(prefix))
        if prefix not in self._parts:
            self._parts[prefix] = self._merged(prefix, self._base.part(prefix))
        return self._parts[prefix]

    def blocks(self, name: str, count: int | None = None) -> Iterator[Weights]:
        """The merged blocks below a name, in order, each merged when it is asked for."""
        for number, block in enumerate(self._base.blocks(name, count)):
            place = f"{name}.{number}"
            if not self._keeps:
                yield self._merged(place, block)
                continue
            if place not in self._parts:
                self._parts[place] = self._merged(place, block)
            yield self._parts[place]

    def _merged(self, prefix: str, tensors: Weights) -> Weights:
        start = f"{prefix}." if prefix else ""
        return {name: self._tensor(start + name, tensor) for name, tensor in tensors.items()}

    def _tensor(self, name: str, base: Tensor) -> Tensor:
        if name in self._tensors:
            return self._tensors[name]
        merged = self._merger.merged(name, base, self._scales)
        if self._keeps and merged is not base:
            self._tensors[name] = merged
        return merged

    def _forget(self) -> None:
        self._parts: dict[str, Weights] = {}
        self._tensors: dict[str, Tensor] = {}
