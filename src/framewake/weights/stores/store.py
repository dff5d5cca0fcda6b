"""Where a model's weights come from: a store yields dicts of tensors, part by part (``models/source.py``)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from framewake import pulse
from framewake.engine.contract import Tensor, Weights
from framewake.errors import CheckpointError


class Resident:
    """All tensors in one dict, already on the device.

    The dicts handed out are made once and kept: a compiled block sees the same dict at every step.
    """

    def __init__(self, tensors: Weights) -> None:
        self._tensors = tensors
        self._parts: dict[str, Weights] = {"": tensors}
        self._blocks: dict[str, list[Weights]] = {}

    def part(self, prefix: str) -> Weights:
        """The tensors below ``prefix``."""
        if prefix not in self._parts:
            start = prefix + "."
            self._parts[prefix] = {n[len(start) :]: x for n, x in self._tensors.items() if n.startswith(start)}
        return self._parts[prefix]

    def blocks(self, name: str, count: int | None = None) -> Iterator[Weights]:
        """The blocks below ``name`` in order.

        Raises: CheckpointError when fewer than ``count`` are there.
        """
        if name not in self._blocks:
            self._blocks[name] = numbered(self.part(name))
        found = self._blocks[name]
        if count is not None and len(found) < count:
            raise CheckpointError(f"{count} blocks {name!r} are asked for, the weights hold {len(found)}.")
        return beating(found if count is None else found[:count])

    def walk(self, order: Sequence[tuple[str, int]]) -> Iterator[Weights]:
        """The blocks of an order: names of lists and numbers."""
        blocks = {name: list(self.blocks(name)) for name in dict.fromkeys(name for name, _ in order)}
        return beating(blocks[name][number] for name, number in order)

    def close(self) -> None:
        """Nothing to stop: a streamed store has something."""


def beating(blocks: Iterable[Weights]) -> Iterator[Weights]:
    """Blocks one after another; whoever asks for the next one has worked through the one before."""
    for block in blocks:
        pulse.beat()
        yield block


def numbered(tensors: dict[str, Tensor]) -> list[Weights]:
    """Tensors named "0.x", "1.y", ... as one dict per number, in order."""
    groups: dict[int, Weights] = {}
    for name, tensor in tensors.items():
        number, _, rest = name.partition(".")
        if number.isdecimal():
            groups.setdefault(int(number), {})[rest] = tensor
    return [groups[number] for number in sorted(groups)]
