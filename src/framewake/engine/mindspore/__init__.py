"""MindSpore on Ascend and on the CPU. Only this package imports mindspore.

``ascend.py`` calls what Ascend has (``mint``, flash attention); ``cpu.py`` replaces what the CPU lacks or does
slowly. Which branch is used does not depend on the hardware, so that the Ascend branch of a model can be type-
and shape-checked on any machine.
"""

from __future__ import annotations

import contextlib
import os

import numpy as np

from framewake.console.escape import one_line
from framewake.engine.forks import check_process
from framewake.engine.group import Group, asked_threads
from framewake.errors import EngineError

if int(np.__version__.split(".")[0]) >= 2:
    raise EngineError(
        f"MindSpore 2.10 needs numpy below 2 (found {np.__version__}): with it, plain arithmetic fails. "
        'Run: pip install "numpy<2"'
    )

os.environ.setdefault("GLOG_v", "3")  # errors only; read once, at import

import mindspore as ms

from framewake.engine.mindspore.ascend import MindsporeEngine
from framewake.engine.mindspore.collectives import join, leave
from framewake.engine.mindspore.cpu import MindsporeCpu

__all__ = ["devices", "leave", "make", "why_absent"]

_ISA = "ONEDNN_MAX_CPU_ISA"  # read once, at oneDNN's first operation


def devices() -> list[str]:
    """The devices of this machine that MindSpore can use."""
    found = ["cpu"]
    with contextlib.suppress(RuntimeError):  # how it says that there is no Ascend software
        found += [f"ascend:{i}" for i in range(ms.device_context.ascend.device_count())]
    return found


def why_absent(device: str) -> str:
    """Why MindSpore has not got an Ascend device, and what to do about it."""
    if device == "cpu":
        return ""
    try:
        if ms.device_context.ascend.device_count():
            return ""
        said = "no device is visible"
    except RuntimeError as error:
        said = one_line(str(error).strip().splitlines()[0])[:200].rstrip(".")
    return (
        f"MindSpore says: {said}. An Ascend device needs its driver (`npu-smi info` lists it) and CANN, whose "
        "set_env.sh has to be sourced."
    )


def make(device: str, reason: str, group: Group | None = None, branch: str = "") -> MindsporeEngine:
    """A MindSpore engine; ``device`` is "cpu" or "ascend:n" (existence is checked by the caller).

    With a ``group``, as one of its processes; its scheduler stays in this call for as long as the others live.
    ``branch`` "ascend" on the device "cpu" gives an engine that can compile but not run: for graph checks.
    """
    check_process()  # its threads start here
    target, _, number = device.partition(":")
    try:
        if target == "cpu":
            ms.set_device("CPU")
            # Without it errors surface at a later call, and waiting threads take the cores away from the work.
            ms.runtime.launch_blocking()
            _limit_threads()
            join(group, "mccl")
            _start_onednn()
            _double(ms.Tensor([1.0]))
        else:
            ms.set_device("Ascend", int(number))
            join(group, "hccl")
            # By default convolutions in float32 round to ten bits; it may be said once, before the first operation.
            ms.device_context.ascend.op_precision.conv_allow_hf32(False)
            ms.mint.zeros((1,)).asnumpy()  # a device tells its memory only after the first operation
    except RuntimeError as error:  # one device a process, and none after the first tensor
        raise EngineError(
            f"MindSpore refuses the device {device!r} in this process: {str(error).splitlines()[0]} "
            "Use one MindSpore device per process, chosen before anything is computed with it."
        ) from error
    kind = MindsporeCpu if (branch or target) == "cpu" else MindsporeEngine
    return kind(device, reason)


def _limit_threads() -> None:
    """As many threads for an operation as OMP_NUM_THREADS says: MindSpore itself takes one for every core."""
    threads = asked_threads()
    if threads is not None:
        with contextlib.suppress(RuntimeError):  # it may be told once: by an engine before, or the program around us
            ms.device_context.cpu.op_tuning.threads_num(threads)


@ms.jit
def _double(x):
    """A compiled function, behind which MindSpore's threads sleep while they have nothing to do.

    Before the first one they turn for 50 ms after every operation, on cores that others need: half of the time of all.
    """
    return x + x


def _start_onednn() -> None:
    """Let MindSpore's oneDNN read its setting, which is then taken away again.

    On AVX512 machines it would take reference kernels for convolutions, which are 50 times slower.  torch has a oneDNN
    of its own: were the setting left behind, torch would compute otherwise, and slower, wherever it starts later, in
    this process or in one that this process starts.
    """
    if _ISA in os.environ:  # the user's
        return
    os.environ[_ISA] = "AVX2"
    try:
        ones = ms.Tensor(np.ones((64, 64), np.float32))
        ms.ops.matmul(ones, ones).asnumpy()
    finally:
        del os.environ[_ISA]
