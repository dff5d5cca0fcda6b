"""Weights shared out: each device keeps a part of every block, and gets the rest from the others while it computes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from framewake.engine.contract import Dtype, Engine, Tensor, Weights
from framewake.errors import CheckpointError
from framewake.weights.stores.store import Resident, beating
from framewake.weights.stores.streamed import Key, Readable, check_no_block, keys_of, split_names

Shapes = Mapping[str, tuple[int, ...]]


class Shared:
    """The interface of ``Resident`` over several devices: all of them ask for the same blocks in the same order.

    A block's tensors stand one behind the other as one row of numbers, of which each device keeps an even run; only
    tensors that reach into it are read. While a block computes, the next one of ``streams`` is exchanged. The values,
    and so the results, are those of ``Resident``.
    """

    def __init__(
        self, engine: Engine, tensors: Readable, dtype: Dtype, *, shapes: Shapes, streams: Sequence[str]
    ) -> None:
        self._engine = engine
        resident, blocks = split_names(shapes, streams)
        self._resident = Resident({name: engine.asarray(tensors.values(name, dtype), dtype) for name in resident})
        self._order = [(name, number) for name in streams for number in sorted(n for s, n in blocks if s == name)]
        self._shapes = {key: {name: shapes[full] for name, full in blocks[key].items()} for key in self._order}
        self._own = {key: engine.asarray(self._read(tensors, dtype, blocks[key], shapes), dtype) for key in self._order}
        self._ahead: tuple[Key, Callable[[], list[Tensor]]] | None = None

    def part(self, prefix: str) -> Weights:
        """The tensors below ``prefix``, as far as every device has them.

        Raises: CheckpointError when ``prefix`` is a block: it would stay on the device.
        """
        check_no_block(prefix, self._order)
        return self._resident.part(prefix)

    def blocks(self, name: str, count: int | None = None) -> Iterator[Weights]:
        """The blocks below ``name`` in order; all devices ask for them alike.

        Raises: CheckpointError when fewer than ``count`` are there, PeerError when another device is gone.
        """
        keys = keys_of(self._order, name, count)
        if not keys:
            return self._resident.blocks(name, count)
        behind = self._order[self._order.index(keys[-1]) + 1 :][:1]
        return self._along([*keys[:count], *(behind if count in (None, len(keys)) else ())], len(keys[:count]))

    def walk(self, order: Sequence[Key]) -> Iterator[Weights]:
        """The blocks of an order, exchanged ahead along it; all devices ask for them alike."""
        return self._along(order, len(order))

    def close(self) -> None:
        """Let go of this device's part, and of what is still on its way: nobody may wait for a device that is gone."""
        self._ahead, self._own = None, {}

    def held(self) -> int:
        """Numbers that this device keeps of all blocks."""
        return sum(math.prod(x.shape) for x in self._own.values())

    def _along(self, order: Sequence[Key], count: int) -> Iterator[Weights]:
        """The first so many blocks of an order; what follows in it is begun."""
        following = [*order[1:], None]
        return beating(self._take(order[place], following[place]) for place in range(count))

    def _take(self, key: Key, following: Key | None) -> Weights:
        if key not in self._own:
            raise CheckpointError(f"{key[0]}.{key[1]} is asked for, but these weights were closed.")
        if self._ahead is None or self._ahead[0] != key:
            self._drop_ahead()
            self._ahead = (key, self._begin(key))
        row = self._engine.concat(self._ahead[1](), 0)
        self._ahead = None if following is None else (following, self._begin(following))
        shapes = self._shapes[key]
        pieces = self._engine.split(row, [math.prod(shape) for shape in shapes.values()], 0)
        return {n: self._engine.reshape(x, shape) for (n, shape), x in zip(shapes.items(), pieces, strict=True)}

    def _begin(self, key: Key) -> Callable[[], list[Tensor]]:
        runs = _runs(self._shapes[key], self._engine.size())
        return self._engine.exchange([self._own[key]] * len(runs), [(stop - start,) for start, stop in runs])

    def _drop_ahead(self) -> None:
        if self._ahead is not None:
            self._ahead[1]()  # what was begun has to end, on all devices
            self._ahead = None

    def _read(self, tensors: Readable, dtype: Dtype, names: Mapping[str, str], shapes: Shapes) -> np.ndarray:
        """This device's run of a block, read from the tensors that reach into it."""
        block = {name: shapes[full] for name, full in names.items()}
        start, stop = _runs(block, self._engine.size())[self._engine.rank()]
        pieces, first = [], 0
        for name, full in names.items():
            size = math.prod(block[name])
            low, high = max(start - first, 0), min(stop - first, size)
            if low < high:
                pieces.append(tensors.values(full, dtype).reshape(-1)[low:high])
            first += size
        return np.concatenate(pieces)


def _runs(shapes: Shapes, ranks: int) -> list[tuple[int, int]]:
    """Consecutive runs [start, stop) of a block's numbers."""
    count = sum(map(math.prod, shapes.values()))
    return [(rank * count // ranks, (rank + 1) * count // ranks) for rank in range(ranks)]
