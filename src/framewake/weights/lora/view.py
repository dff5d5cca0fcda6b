"""A store seen through LoRAs: it yields base plus products, and the base stays as it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from framewake.engine.contract import Engine, Tensor, Weights
from framewake.errors import InputError
from framewake.weights.lora.change import change
from framewake.weights.lora.updates import WeightUpdate


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


class Merger:
    """Base weights plus the changes of LoRAs, tensor by tensor."""

    def __init__(self, engine: Engine, loras: Sequence[Adapter]) -> None:
        self.engine = engine
        self.loras = tuple(loras)
        self._updates = [lora.by_weight() for lora in loras]

    def touches(self, name: str, scales: Sequence[float]) -> bool:
        """Whether a tensor is another one at these scales, one for each LoRA."""
        return any(scale != 0 and name in found for scale, found in zip(scales, self._updates, strict=True))

    def merged(self, name: str, base: Tensor, scales: Sequence[float]) -> Tensor:
        """A tensor with every LoRA added; the same object where none has a part in it.

        Precision: changes and sums in float32, rounded once to the base's type.
        Source: specification, section 9.
        """
        if not self.touches(name, scales):
            return base
        engine = self.engine
        rows = engine.reshape(engine.cast(base, "float32"), (base.shape[0], -1))
        total = rows
        for lora, updates, scale in zip(self.loras, self._updates, scales, strict=True):
            if scale != 0 and name in updates:
                total = total + self._change(lora, updates[name], rows, scale)
        return engine.cast(engine.reshape(total, base.shape), engine.dtype(base))

    def _change(self, lora: Adapter, updates: Sequence[WeightUpdate], base: Tensor, scale: float) -> Tensor:
        """One LoRA's change of one weight: its pieces one below the other, zeros where it has none."""
        engine, pieces, row = self.engine, [], 0
        count, columns = base.shape
        for update in updates:

            def read(name: str, update: WeightUpdate = update) -> Tensor:
                return engine.asarray(lora.part(update, name), "float32")

            start, stop = update.place.start, update.place.stop
            if start > row:
                pieces.append(engine.zeros((start - row, columns)))
            own = base if stop - start == count else base[start:stop]
            pieces.append(change(engine, update, read, own, factor=lora.factor(update), scale=scale))
            row = stop
        if row < count:
            pieces.append(engine.zeros((count - row, columns)))
        return pieces[0] if len(pieces) == 1 else engine.concat(pieces, 0)


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
