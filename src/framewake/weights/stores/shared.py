"""Weights shared out: each device keeps a part of every block, and gets the rest from the others while it computes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from framewake.engine.contract import Dtype, Engine, Tensor, Weights
from framewake.errors import CheckpointError
from framewake.weights.reading.direct import is_kept
from framewake.weights.reading.mapped import Empty, Stretch
from framewake.weights.reading.narrow import BYTES
from framewake.weights.stores.store import Resident, beating
from framewake.weights.stores.streamed import Key, Readable, Streamed, check_no_block, keys_of, split_names

Shapes = Mapping[str, tuple[int, ...]]


class Divisible(Readable, Protocol):
    """Tensors of which a part can be read."""

    def joined(self, stretches: Sequence[Stretch], dtype: Dtype, *, empty: Empty | None = None) -> np.ndarray:
        """Stretches of tensors one behind the other."""


class Shared:
    """The interface of ``Resident`` over several devices: all of them ask for the same blocks in the same order.

    A block's tensors stand one behind the other as one row of numbers, of which each device has an even run; no more
    than that is read. While a block computes, the next one of ``streams`` is exchanged. The values, and so the
    results, are those of ``Resident``.

    Each device keeps its runs, or streams them: then that of the block after the next is read meanwhile.
    """

    def __init__(
        self,
        engine: Engine,
        tensors: Divisible,
        dtype: Dtype,
        *,
        shapes: Shapes,
        streams: Sequence[str],
        is_streamed: bool = False,
    ) -> None:
        self._engine = engine
        resident, blocks = split_names(shapes, streams)
        self._resident = Resident({name: engine.asarray(tensors.values(name, dtype), dtype) for name in resident})
        self._order = [(name, number) for name in streams for number in sorted(n for s, n in blocks if s == name)]
        self._shapes = {key: {name: shapes[full] for name, full in blocks[key].items()} for key in self._order}
        own = _Own(tensors, {_name(key): self._own_runs(key, blocks[key]) for key in self._order})
        self._own: Resident | Streamed
        if is_streamed:
            is_cached = is_kept(sum(map(math.prod, shapes.values())) * BYTES[dtype])  # by one disk, for all devices
            self._own = Streamed(engine, own, dtype, names=own.runs, streams=streams, is_cached=is_cached)
        else:
            self._own = Resident({name: engine.asarray(own.values(name, dtype), dtype) for name in own.runs})
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
        behind = self._order[self._order.index(keys[-1]) + 1 :] if count in (None, len(keys)) else []
        return self._along([*keys[:count], *behind], len(keys[:count]))

    def walk(self, order: Sequence[Key]) -> Iterator[Weights]:
        """The blocks of an order, exchanged ahead along it; all devices ask for them alike."""
        return self._along(order, len(order))

    def close(self) -> None:
        """Let go of this device's part, and of what is still on its way: nobody may wait for a device that is gone."""
        self._ahead = None
        self._own.close()
        self._own, self._shapes = Resident({}), {}

    def _along(self, order: Sequence[Key], count: int) -> Iterator[Weights]:
        """The first so many blocks of an order, with what follows in it and, to be read only, the next step's first."""
        around = [*order, self._order[0], self._order[0]]
        return beating(
            self._take(*around[place : place + 3], is_last=place + 1 == len(order)) for place in range(count)
        )

    def _take(self, key: Key, following: Key, behind: Key, *, is_last: bool) -> Weights:
        if key not in self._shapes:
            raise CheckpointError(f"{key[0]}.{key[1]} is asked for, but these weights were closed.")
        if self._ahead is None or self._ahead[0] != key:
            self._drop_ahead()
            self._ahead = (key, self._begin(key, following))
        row = self._engine.concat(self._ahead[1](), 0)
        self._ahead = None  # and what has arrived, before memory is taken for more
        if not is_last:
            self._ahead = (following, self._begin(following, behind))
        shapes = self._shapes[key]
        pieces = self._engine.split(row, [math.prod(shape) for shape in shapes.values()], 0)
        return {n: self._engine.reshape(x, shape) for (n, shape), x in zip(shapes.items(), pieces, strict=True)}

    def _begin(self, key: Key, following: Key) -> Callable[[], list[Tensor]]:
        own = next(iter(self._own.walk([key, following])))[SHARE]
        runs = _runs(self._shapes[key], self._engine.size())
        return self._engine.exchange([own] * len(runs), [(stop - start,) for start, stop in runs])

    def _drop_ahead(self) -> None:
        if self._ahead is not None:
            self._ahead[1]()  # what was begun has to end, on all devices
            self._ahead = None

    def _own_runs(self, key: Key, names: Mapping[str, str]) -> list[Stretch]:
        """This device's run of a block, as those of the tensors that reach into it."""
        shapes = self._shapes[key]
        start, stop = _runs(shapes, self._engine.size())[self._engine.rank()]
        found, at = [], 0
        for name, full in names.items():
            size = math.prod(shapes[name])
            low, high = max(start - at, 0), min(stop - at, size)
            if low < high:
                found.append(Stretch(full, low, high - low))
            at += size
        return found


SHARE = "share"


def _name(key: Key) -> str:
    return f"{key[0]}.{key[1]}.{SHARE}"


class _Own(NamedTuple):
    """A device's run of each block as a tensor, by its name."""

    tensors: Divisible
    runs: Mapping[str, Sequence[Stretch]]

    def values(self, name: str, dtype: Dtype, *, empty: Empty | None = None) -> np.ndarray:
        return self.tensors.joined(self.runs[name], dtype, empty=empty)


def _runs(shapes: Shapes, ranks: int) -> list[tuple[int, int]]:
    """Consecutive runs [start, stop) of a block's numbers."""
    count = sum(map(math.prod, shapes.values()))
    return [(rank * count // ranks, (rank + 1) * count // ranks) for rank in range(ranks)]
