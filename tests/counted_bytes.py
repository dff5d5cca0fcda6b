"""Bytes that tensors hold while something runs, counted as each storage appears and goes."""

from __future__ import annotations

import contextlib
import weakref


def counted(work, weights, *, has_gradients=False):
    """The most bytes that tensors held at once while ``work`` ran, without the weights."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    known = {tensor.untyped_storage()._cdata: 0 for tensor in weights}

    class Count(TorchDispatchMode):
        now = peak = 0

        def gone(self, key):
            self.now -= known.pop(key)

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for tensor in tree_leaves(out):
                if isinstance(tensor, torch.Tensor) and (key := tensor.untyped_storage()._cdata) not in known:
                    known[key] = tensor.untyped_storage().nbytes()
                    weakref.finalize(tensor.untyped_storage(), self.gone, key)
                    self.now += known[key]
                    self.peak = max(self.peak, self.now)
            return out

    with contextlib.nullcontext() if has_gradients else torch.no_grad(), Count() as count:
        work()
    return count.peak
