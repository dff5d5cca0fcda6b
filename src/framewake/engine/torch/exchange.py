"""Pieces of any size from every rank to every rank over torch.distributed."""

from __future__ import annotations

import contextlib
import functools
import math

import torch
import torch.distributed as dist

from framewake.console.escape import one_line
from framewake.errors import PeerError


class TorchExchange:
    """One exchange on its way; what is sent is held until it has arrived."""

    def __init__(self, pieces, shapes, rank):
        self._own, self._rank, self._shapes = pieces[rank], rank, shapes
        others = [0 if i == rank else 1 for i in range(len(pieces))]
        leaving = [other * piece.numel() for other, piece in zip(others, pieces, strict=True)]
        self._coming = [other * math.prod(shape) for other, shape in zip(others, shapes, strict=True)]
        self._sent = self._own.new_empty(sum(leaving))
        for place, piece in zip(self._sent.split(leaving), pieces, strict=True):
            if place.numel():
                place.view(piece.shape).copy_(piece)
        self._arrived = self._own.new_empty(sum(self._coming))
        with _told():
            self._work = dist.all_to_all_single(self._arrived, self._sent, self._coming, leaving, async_op=True)

    def __call__(self):
        with _told():
            self._work.wait()
        del self._sent
        parts = self._arrived.split(self._coming)
        return [
            self._own if i == self._rank else part.view(tuple(shape))
            for i, (part, shape) in enumerate(zip(parts, self._shapes, strict=True))
        ]


@functools.cache
def left_out() -> type[TorchExchange]:
    """The same for functions that are compiled, which leave it out; asking imports torch's compiler, for a second."""

    class LeftOut(TorchExchange):
        __init__ = torch.compiler.disable(TorchExchange.__init__)
        __call__ = torch.compiler.disable(TorchExchange.__call__)

    return LeftOut


@contextlib.contextmanager
def _told():
    """Whatever the transport says means that another rank is gone or silent; the cause is what that one says."""
    try:
        yield
    except RuntimeError as error:
        count, said = dist.get_world_size(), one_line(str(error))[:200]
        raise PeerError(f"another of the {count} processes has ended or does not answer ({said}).") from error
