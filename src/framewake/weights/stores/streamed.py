"""Weights that stay on disk: of the blocks, only the one in use and the next are on the device."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Protocol

import numpy as np

from framewake.engine.contract import Dtype, Engine, Weights
from framewake.errors import CheckpointError
from framewake.weights.reading.mapped import Empty
from framewake.weights.stores.room import Room
from framewake.weights.stores.store import Resident, beating

Wait = Callable[[], None]
Key = tuple[str, int]  # name of a block list, number of the block


class Readable(Protocol):
    """Where tensors come from; ``weights/reading/mapped.py`` has the class."""

    def values(self, name: str, dtype: Dtype, *, empty: Empty | None = None) -> np.ndarray:
        """A tensor's values in a type, as ``engine.asarray`` takes them; ``empty`` gives memory for them."""


class Streamed:
    """The interface of ``Resident`` over a file: blocks come one after another, everything else stays.

    One thread reads ahead: while a block computes, the next one of ``streams`` goes from the file into memory of
    the host and from there onto the device; behind the last comes the first again, for the next step. Blocks that
    are asked for in another order are right too, only not read ahead. At most two blocks are on the device.
    The values, and so the results, are those of ``Resident``.

    ``streams`` are the names of block lists in the order in which the model uses them. With ``is_cached`` the system
    may keep what was read for the next step; without, it is read around the file cache where that can be done.
    """

    def __init__(
        self,
        engine: Engine,
        tensors: Readable,
        dtype: Dtype,
        *,
        names: Iterable[str],
        streams: Sequence[str],
        is_cached: bool = True,
    ) -> None:
        self._engine = engine
        self._tensors = tensors
        self._dtype = dtype
        resident, blocks = split_names(names, streams)
        self._resident = Resident({name: engine.asarray(tensors.values(name, dtype), dtype) for name in resident})
        self._order = [(name, number) for name in streams for number in sorted(n for s, n in blocks if s == name)]
        self._names = blocks
        self._room = Room(lies_as_file=not is_cached) if engine.traits.holds_arrays else None
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="framewake-reader")
        self._ahead: dict[Key, Future[Weights]] = {}
        # The device may still compute with a block when the model has let it go: it is held until the next is there.
        self._held: tuple[Key, Weights] | None = None
        self._closing = weakref.finalize(self, _stop, self._reader, self._ahead, self._room)

    def part(self, prefix: str) -> Weights:
        """The tensors below ``prefix``, as far as they are not streamed.

        Raises: CheckpointError when ``prefix`` is a block: it would stay on the device.
        """
        check_no_block(prefix, self._order)
        return self._resident.part(prefix)

    def blocks(self, name: str, count: int | None = None) -> Iterator[Weights]:
        """The blocks below ``name`` in order.

        Raises: CheckpointError when fewer than ``count`` are there, or a file cannot be read.
        """
        keys = keys_of(self._order, name, count)
        if not keys:
            return self._resident.blocks(name, count)
        return beating(self._take(key, self._following(self._order, self._order.index(key))) for key in keys[:count])

    def walk(self, order: Sequence[Key]) -> Iterator[Weights]:
        """The blocks of an order, read ahead along it, and from its end on along its start.

        One that comes twice running stays where it is, also the last one where the next walk begins with it.
        Raises: CheckpointError when a file cannot be read.
        """
        return beating(self._take(key, self._following(order, place)) for place, key in enumerate(order))

    def close(self) -> None:
        """Stop reading ahead and let go of what was read; using the store afterwards is an error."""
        self._closing()
        self._held = None

    @staticmethod
    def _following(order: Sequence[Key], place: int) -> Key:
        """The next block of an order that is another one; behind its end comes its start."""
        around = (order[(place + step) % len(order)] for step in range(1, len(order)))
        return next((key for key in around if key != order[place]), order[place])

    def _take(self, key: Key, following: Key) -> Weights:
        if not self._closing.alive:
            raise CheckpointError(f"{key[0]}.{key[1]} is asked for, but these weights were closed.")
        if self._held is None or self._held[0] != key:
            future = self._ahead.pop(key, None)
            if future is None:
                self._drop_ahead()
                future = self._submit(key)
            self._held = (key, future.result())
        block = self._held[1]
        if following != key and following not in self._ahead:
            self._drop_ahead()
            self._ahead[following] = self._submit(following)
        return block

    def _submit(self, key: Key) -> Future[Weights]:
        # What was asked of the device so far is all that can still use the block before the present one, whose
        # place on the device the new one may take.
        wait = self._engine.mark()
        source = _Source(self._tensors, self._dtype, self._room)
        return self._reader.submit(_load, self._engine, source, self._names[key], wait)

    def _drop_ahead(self) -> None:
        for future in self._ahead.values():
            future.cancel()
        self._ahead.clear()


def check_no_block(prefix: str, keys: Iterable[Key]) -> None:
    """Raises: CheckpointError when a part holds a block of which a device has no more than it computes with."""
    for name, number in keys:
        if not prefix or f"{name}.{number}.".startswith(f"{prefix}."):
            raise CheckpointError(
                f"{prefix!r} holds {name}.{number}, which is streamed: take it from blocks({name!r})."
            )


def keys_of(order: Sequence[Key], name: str, count: int | None) -> list[Key]:
    """The blocks of a list, none where it is no list of blocks.

    Raises: CheckpointError when there are some, but fewer than ``count``.
    """
    keys = [key for key in order if key[0] == name]
    if keys and count is not None and len(keys) < count:
        raise CheckpointError(f"{count} blocks {name!r} are asked for, the weights hold {len(keys)}.")
    return keys


def split_names(names: Iterable[str], streams: Sequence[str]) -> tuple[list[str], dict[Key, dict[str, str]]]:
    """Names that stay, and names by block: (list, number) -> name inside the block -> full name."""
    resident: list[str] = []
    blocks: dict[Key, dict[str, str]] = {}
    for full in names:
        for name in streams:
            number, _, rest = full.removeprefix(name + ".").partition(".")
            if full.startswith(name + ".") and number.isdecimal():
                blocks.setdefault((name, int(number)), {})[rest] = full
                break
        else:
            resident.append(full)
    return resident, blocks


class _Source(NamedTuple):
    """Where blocks are read from, in which type, and into what."""

    tensors: Readable
    dtype: Dtype
    room: Room | None

    def read(self, names: dict[str, str]) -> dict[str, np.ndarray]:
        """Name inside a block -> values."""
        empty = None if self.room is None else self.room.empty
        values = {name: self.tensors.values(full, self.dtype, empty=empty) for name, full in names.items()}
        if self.room is not None:
            self.room.announce(array.nbytes for array in values.values())
        return values


def _load(engine: Engine, source: _Source, names: dict[str, str], wait: Wait) -> Weights:
    """One block onto the device. Runs in the reader's thread, and holds on to nothing."""
    try:
        values = source.read(names)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{next(iter(names.values()))} and its neighbours cannot be read: {error}.") from error
    wait()
    with engine.copy_stream():
        return {name: engine.asarray(array, source.dtype) for name, array in values.items()}


def _stop(reader: ThreadPoolExecutor, ahead: dict[Key, Future[Weights]], room: Room | None) -> None:
    ahead.clear()
    reader.shutdown(wait=True, cancel_futures=True)
    if room is not None:
        room.close()
