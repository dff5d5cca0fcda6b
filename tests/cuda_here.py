"""The branch of the torch engine for CUDA, on a device that this machine has: its arithmetic without a driver."""

from __future__ import annotations

import contextlib
import functools

import torch

from framewake.engine.torch.attention import Attention
from framewake.engine.torch.cuda import TorchCuda

GIB = 1 << 30


class CudaHere(TorchCuda):
    """``TorchCuda`` on the CPU or on the meta device; what it would ask the driver is said here."""

    capability = (9, 0)
    kernels = ("flash", "memory-efficient", "plain")
    fused = (torch.bfloat16, torch.float16, torch.float32)

    def __init__(self, device: str = "cpu", **named) -> None:
        super().__init__(torch.device(device), "a test", **named)

    def _capability(self):
        return self.capability

    def _choose_attention(self):
        return Attention(self.kernels, "said by a test", self.fused)

    def _is_copying(self):
        return False

    def synchronize(self):
        return None

    def memory(self):
        return {"free": 20 * GIB, "total": 24 * GIB, "used": GIB, "peak": GIB}

    def mark(self):
        return self.synchronize

    def copy_stream(self):
        return contextlib.nullcontext()


def build_nothing(monkeypatch):
    """Programs are traced and counted as ever, and run by torch's own kernels: building each takes many seconds."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
