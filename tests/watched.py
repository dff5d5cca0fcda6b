"""The branch for CUDA on torch's meta device, where tensors have shapes and no numbers, with every operation watched.

Faults that otherwise the first owner of a card would find: tensors of two devices in one operation, two floating types
meeting, work on the host, reads that wait for the device, and more bytes alive than were forecast.
What this cannot see: numbers, speed, and what libraries take beside the tensors.
"""

from __future__ import annotations

import threading
import weakref

import numpy as np
import torch
from cuda_here import GIB, CudaHere
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
# Made to go from one type or device to another.
CASTS = {aten._to_copy, aten.copy_, aten.lift_fresh, aten._scaled_mm}
HALF = (torch.float16, torch.bfloat16)
FEW = 1 << 16  # numbers that may be joined in float64


# The parts that work in a stage.
PARTS = {"encode text": ("llava", "clip_text"), "encode image": ("vae",), "denoise": ("dit",), "decode": ("vae",)}


class Watch(TorchDispatchMode):
    """Looks at every operation, and counts the bytes of the storages that are alive.

    ``reads`` are the shapes of what the host read, ``uploads`` the bytes of what it sent, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = self.operations = 0
        self.reads: list[tuple[int, ...]] = []
        self.uploads: list[int] = []
        self.types: set[torch.dtype] = set()
        self._known: dict[int, int] = {}
        self._arriving: list[torch.Tensor] = []
        self._lock = threading.RLock()  # a storage may end inside
        self._moving = threading.local()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        while self._arriving:
            self.note(self._arriving.pop())
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        if not getattr(self._moving, "now", False):
            self._check(func, given)
        self.operations += 1
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self.note(tensor)
        return out

    def _check(self, func, given):
        packet, places = func.overloadpacket, {x.device.type for x in given}
        kinds = {x.dtype for x in given if x.dtype.is_floating_point}
        self.types |= kinds
        fault = ""
        if packet is aten._local_scalar_dense:
            fault = "a number is read"
        elif len(places) > 1:
            fault = "two devices"
        elif "cpu" in places:
            fault = "work on the host"
        elif any(self._key(x) not in self._known for x in given):
            fault = "a tensor from elsewhere"
        elif len(kinds) > 1 and packet not in CASTS and not is_rounding(func, given):
            fault = "two types"
        elif torch.float64 in kinds and max(x.numel() for x in given) > FEW:
            fault = "float64"
        if fault:
            found = ", ".join(f"{x.dtype} {tuple(x.shape)} on {x.device}" for x in given)
            raise AssertionError(f"{fault} in {func}: {found}")

    def arrive(self, tensor: torch.Tensor) -> None:
        """Count what was sent. What another thread sends waits for the work before it: until the next operation."""
        if threading.current_thread() is threading.main_thread():
            self.note(tensor)
        else:
            self._arriving.append(tensor)

    def note(self, tensor: torch.Tensor) -> None:
        """Count a tensor's storage from now on, as long as it is alive."""
        storage = tensor.untyped_storage()
        if tensor.device.type == "cpu" or (key := storage._cdata) in self._known:
            return
        with self._lock:
            self._known[key] = size = storage.nbytes()
            self.now += size
            self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        with self._lock:
            self.now -= self._known.pop(key)

    def _key(self, tensor: torch.Tensor) -> int:
        return tensor.untyped_storage()._cdata

    def moving(self, function, *given):
        """What a function gives that goes between host and device."""
        before, self._moving.now = getattr(self._moving, "now", False), True
        try:
            return function(*given)
        finally:
            self._moving.now = before

    def since(self) -> int:
        """Bytes alive now; the peak starts anew."""
        self.peak = self.now
        return self.now


def is_rounding(func, given) -> bool:
    """Rows divided by their scales, on their way to eight bits: the one place where two types may meet."""
    is_pair = len(given) == 2 and given[0].dtype in HALF and given[1].dtype == torch.float32
    return func.overloadpacket is aten.div and is_pair and given[1].shape == (len(given[0]), 1)


class MetaCuda(CudaHere):
    """``TorchCuda`` on the meta device, under a watch. Reads give zeros; attention is what kernels say of their shape.

    ``total``: bytes of the device, of which as many are used as tensors have.
    """

    def __init__(self, *, total: int = 1000 * GIB, **named) -> None:
        super().__init__("meta", **named)
        self.watch = Watch()
        self.total = total

    def asarray(self, values, dtype=None):
        out = self.watch.moving(super().asarray, values, dtype)
        if not isinstance(values, torch.Tensor):
            self.watch.uploads.append(out.untyped_storage().nbytes())
        self.watch.arrive(out)  # a thread that reads ahead is not under the watch
        return out

    def to_device(self, x):
        return self.watch.moving(super().to_device, x)

    def numpy(self, x):
        assert x.device.type == "meta", "a tensor on the host is read as if it were on the device"
        self.watch.reads.append(tuple(x.shape))
        kind = self.dtype(x)
        return np.zeros(tuple(x.shape), "float32" if kind == "bfloat16" else kind)

    def key_lengths(self, lengths):
        return tuple(lengths)  # an operation that reads them from a tensor could not be looked into

    def draw_normal(self, shape, seed, dtype):
        return self.zeros(shape, dtype)  # torch has no generator of this device

    def conv3d(self, x, weight, bias=None, stride=(1, 1, 1)):
        out = super().conv3d(x, weight, bias, stride)
        return torch.empty_like(out, memory_format=self._layout)  # as cuDNN gives it

    def _attend(self, q, k, v, scale, mask):
        if q.dtype not in self._attention.types:
            return super()._attend(q, k, v, scale, mask)
        if mask is None:
            return aten._scaled_dot_product_flash_attention(q, k, v, 0.0, False, scale=scale)[0]
        mask = torch.where(mask, 0.0, -torch.inf).to(q.dtype).expand(*q.shape[:3], k.shape[2])
        return aten._scaled_dot_product_efficient_attention(q, k, v, mask, False, scale=scale)[0]

    def memory(self):
        used, peak = self.watch.now, self.watch.peak
        return {"free": self.total - used, "total": self.total, "used": used, "peak": peak}
