"""The contract's collectives over MindSpore."""

from __future__ import annotations

from mindspore import mint


class Collectives:
    """Processes that work together; alone, everything stays as it is."""

    def rank(self):
        return mint.distributed.get_rank() if mint.distributed.is_initialized() else 0

    def size(self):
        return mint.distributed.get_world_size() if mint.distributed.is_initialized() else 1

    def all_gather(self, x, axis):
        if self.size() == 1:
            return x
        pieces = [self.zeros(x.shape, self.dtype(x)) for _ in range(self.size())]
        mint.distributed.all_gather(pieces, x.contiguous())
        return mint.cat(pieces, dim=axis)

    def all_to_all(self, x, split_axis, concat_axis):
        if self.size() == 1:
            return x
        sent = [piece.contiguous() for piece in mint.chunk(x, self.size(), dim=split_axis)]
        received = [self.zeros(piece.shape, self.dtype(piece)) for piece in sent]
        mint.distributed.all_to_all(received, sent)
        return mint.cat(received, dim=concat_axis)

    def all_reduce(self, x):
        if self.size() > 1:
            x = x.copy()
            mint.distributed.all_reduce(x)
        return x

    def broadcast(self, x, source=0):
        if self.size() > 1:
            x = x.copy()
            mint.distributed.broadcast(x, source)
        return x
