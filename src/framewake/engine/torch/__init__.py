"""PyTorch on CUDA and on the CPU. Only this package imports torch.

``engine.py`` is what both devices share, ``cpu.py`` and ``cuda.py`` are what each does its own way.
"""

from __future__ import annotations

import os

# libgomp's waiting threads spin for milliseconds by default. Where anything else wants the same cores, that made
# everything here 15 times slower (measured); a few microseconds keep the speed of an idle machine. It is read
# once, when torch loads the library.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

import torch

from framewake.engine.host import keep_freed_memory
from framewake.engine.torch.cpu import TorchCpu
from framewake.engine.torch.cuda import TorchCuda
from framewake.engine.torch.driver import check_kernels, why_absent
from framewake.engine.torch.engine import TorchEngine
from framewake.errors import EngineError

__all__ = ["devices", "make", "why_absent"]


def devices() -> list[str]:
    """The devices of this machine that torch can use."""
    return ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]


def make(device: str, reason: str) -> TorchEngine:
    """A torch engine; ``device`` is "cpu", "cuda:n" or "cuda:n+fp8" (existence is checked by the caller).

    Raises: EngineError where eight bits are asked of a device that has none.
    """
    if device == "cpu":
        keep_freed_memory()
        return TorchCpu(torch.device(device), reason)
    device, _, bits = device.partition("+")
    check_kernels(device)
    if bits and torch.cuda.get_device_capability(device) < (8, 9):
        raise EngineError(f"{device} has no products in eight bits (from Ada and Hopper on): leave out +fp8.")
    return TorchCuda(torch.device(device), reason, is_eight_bit=bool(bits))
