"""Pieces of any size from every rank to every rank over MindSpore."""

from __future__ import annotations

import contextlib
import math
import os

import numpy as np
from mindspore import communication, mint

from framewake.console.escape import one_line
from framewake.errors import EngineError, PeerError


def join(group, backend):
    """Become one of a group's processes, before the first tensor; nothing without a group.

    Raises: EngineError when the others are not found.
    """
    if group is None or mint.distributed.is_initialized():
        return
    try:
        if "MS_WORKER_NUM" in os.environ:
            communication.init(backend)
        else:
            address = f"tcp://{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
            mint.distributed.init_process_group(backend, address, world_size=group.size, rank=group.rank)
    except (RuntimeError, ValueError, KeyError) as error:
        raise EngineError(
            f"process {group.rank} of {group.size} finds no other ({one_line(str(error))[:300]}): start all of them "
            "with msrun."
        ) from error


def leave():
    """End the group's connections, after the last exchange."""
    if mint.distributed.is_initialized():
        communication.release()


class Collectives:
    """Processes that work together; alone, everything stays as it is."""

    def rank(self):
        return mint.distributed.get_rank() if mint.distributed.is_initialized() else 0

    def size(self):
        return mint.distributed.get_world_size() if mint.distributed.is_initialized() else 1

    def exchange(self, pieces, shapes):
        return MindsporeExchange(self, pieces, shapes) if self.size() > 1 else lambda: list(pieces)


class MindsporeExchange:
    """One exchange between Ascend devices on its way; what is sent is held until it has arrived."""

    def __init__(self, engine, pieces, shapes):
        rank, kind = engine.rank(), pieces[0].dtype
        self._own, self._rank, self._shapes = pieces[rank], rank, shapes
        flat = [mint.reshape(piece, (-1,)) for i, piece in enumerate(pieces) if i != rank and math.prod(piece.shape)]
        leaving = [0 if i == rank else math.prod(piece.shape) for i, piece in enumerate(pieces)]
        self._coming = [0 if i == rank else math.prod(shape) for i, shape in enumerate(shapes)]
        self._sent = mint.cat(flat, dim=0) if flat else mint.zeros((0,), dtype=kind)
        self._arrived = mint.zeros((sum(self._coming),), dtype=kind)
        send = mint.distributed.all_to_all_single
        with _told():
            self._work = send(self._arrived, self._sent, self._coming, leaving, async_op=True)

    def __call__(self):
        with _told():
            self._work.wait()
        del self._sent
        parts = mint.split(self._arrived, self._coming)
        return [
            self._own if i == self._rank else mint.reshape(part, tuple(shape))
            for i, (part, shape) in enumerate(zip(parts, self._shapes, strict=True))
        ]


def exchange_by_gathering(engine, pieces, shapes):
    """The same between CPUs, which can only gather: everybody gets everything, in rows of the longest piece's size."""
    if engine.size() == 1:
        return lambda: list(pieces)
    rank, kind = engine.rank(), engine.dtype(pieces[0])
    others = [i for i in range(len(pieces)) if i != rank]
    own = max(math.prod(pieces[i].shape) for i in others)
    longest = max(int(x[0]) for x in _gathered(engine, np.array([own])))
    # The other types lack kernels to be gathered; on a CPU a tensor's numbers are there without a copy.
    rows = np.zeros((len(others), longest), np.int64 if kind in ("int64", "bool") else np.float32)
    for row, i in zip(rows, others, strict=True):
        row[: math.prod(pieces[i].shape)] = engine.numpy(pieces[i]).reshape(-1)
    everything = _gathered(engine, rows) if longest else [rows] * len(pieces)
    found = list(pieces)
    for i in others:  # of rank i's rows, its own is left out
        numbers = everything[i][rank - (rank > i), : math.prod(shapes[i])]
        found[i] = engine.asarray(numbers.reshape(shapes[i]), kind)
    return lambda: found


def _gathered(engine, array):
    x = engine.asarray(array)
    # Into tensors of their own: views stay zero, without a word.
    pieces = [engine.zeros(array.shape, engine.dtype(x)) for _ in range(engine.size())]
    with _told():
        mint.distributed.all_gather(pieces, x)
    return [engine.numpy(piece) for piece in pieces]


@contextlib.contextmanager
def _told():
    """Whatever an operation between ranks says means that another one is gone or silent."""
    try:
        yield
    except RuntimeError as error:
        said = one_line(str(error))[:200]
        raise PeerError(f"another of the processes has ended or does not answer ({said}).") from error
