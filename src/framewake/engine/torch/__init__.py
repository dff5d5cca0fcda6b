"""PyTorch on CUDA and on the CPU. Only this package imports torch.

``engine.py`` is what both devices share, ``cpu.py`` and ``cuda.py`` are what each does its own way.
"""

from __future__ import annotations

import os
import sys

# libgomp's waiting threads spin for milliseconds by default. Where anything else wants the same cores, that made
# everything here 15 times slower (measured); a few microseconds keep the speed of an idle machine. It is read
# once, when torch loads the library.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
# Large tensors of many sizes leave holes in device memory that fit no other; segments that grow do not. Read once too.
if sys.platform == "linux" and "PYTORCH_ALLOC_CONF" not in os.environ:
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")

import torch

from framewake.engine.group import Group
from framewake.engine.host import keep_freed_memory
from framewake.engine.torch import cuda
from framewake.engine.torch.cpu import TorchCpu
from framewake.engine.torch.driver import why_absent
from framewake.engine.torch.engine import TorchEngine
from framewake.engine.torch.joining import join, leave

__all__ = ["devices", "leave", "make", "why_absent"]


def devices() -> list[str]:
    """The devices of this machine that torch can use."""
    return ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]


def make(device: str, reason: str, group: Group | None = None) -> TorchEngine:
    """A torch engine; ``device`` is "cpu", "cuda:n" or "cuda:n+fp8" (existence is checked by the caller).

    With a ``group``, as one of its processes.
    Raises: EngineError where the device cannot do what is asked, or the group does not come together.
    """
    if group is not None:
        join(group, device.partition("+")[0])
    if device == "cpu":
        keep_freed_memory()
        return TorchCpu(torch.device(device), reason)
    device, _, bits = device.partition("+")
    return cuda.make(device, reason, is_eight_bit=bool(bits))
