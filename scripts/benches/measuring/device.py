"""What a device can do at most, and what a piece of work took of it."""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from framewake.engine.contract import Dtype, Engine, Tensor
from measuring import record

# Rows, inputs, outputs. The ceiling is the best rate over them: no library is equally good at all shapes.
MATRICES = {
    "cpu": ((1024, 3072, 3072), (2048, 3072, 12288)),
    "device": ((8192, 8192, 8192), (16384, 3072, 12288), (16384, 12288, 3072), (16384, 4096, 16384)),
    "toy": ((256, 256, 256),),
}


def matrix_ceiling(engine: Engine, dtype: Dtype, *, seconds: float = 1.0, is_toy: bool = False) -> float:
    """Operations a second in the quickest of several matrix products, each repeated for some seconds."""
    kind = "toy" if is_toy else "cpu" if engine.device == "cpu" else "device"
    best = 0.0
    for rows, inputs, outputs in MATRICES[kind]:
        x, weight = drawn(engine, (rows, inputs), dtype), drawn(engine, (outputs, inputs), dtype)
        runs = timed(engine, lambda x=x, weight=weight: engine.linear(x, weight), seconds=seconds)
        best = max(best, 2.0 * rows * inputs * outputs / min(runs))
    return best


def drawn(engine: Engine, shape: Sequence[int], dtype: Dtype, *, seed: int = 1, deviation: float = 1.0) -> Tensor:
    """Normal random numbers, made on the device where torch can: a device computes faster with constants."""
    if engine.kind != "torch":
        values = np.random.default_rng(seed).standard_normal(tuple(shape), np.float32)
        return engine.asarray(values * np.float32(deviation), dtype)
    import torch

    place = torch.device(engine.device)
    made = torch.empty(tuple(shape), dtype=getattr(torch, dtype), device=place)
    return made.normal_(0.0, deviation, generator=torch.Generator(place).manual_seed(seed))


def attempted(engine: Engine, name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a part of a benchmark found, or ``{"failed": why}``: the next part runs, and has the memory."""
    try:
        return work()
    except Exception as problem:  # noqa: BLE001  # a compiler, a driver, a full device: whatever it is, it is the result
        lines = str(problem).strip().splitlines() or [""]
        found = {"failed": f"{type(problem).__name__}: {lines[0][:300]}"}
        record.say(name, f"failed: {found['failed']}")
        traceback.print_exc()
    with contextlib.suppress(RuntimeError):  # a device may be lost for good
        forget_peak(engine)  # behind the except: the traceback holds what the part had made
    return found


def facts(engine: Engine, *, is_toy: bool) -> dict[str, Any]:
    """Device and engine by name, and the ceiling in bfloat16, which is said."""
    ceiling = matrix_ceiling(engine, "bfloat16", is_toy=is_toy)
    record.say("ceiling", f"{ceiling / 1e12:.4g} Tflop/s in bfloat16")
    return {"device": device_name(engine), "engine": engine.name, "ceiling": ceiling}


def timed(engine: Engine, work: Callable[[], object], *, seconds: float = 1.0, least: int = 3) -> list[float]:
    """Seconds of each of several runs behind a first one that does not count.

    A run ends when the device has finished. At least ``least`` runs are made, and runs until ``seconds`` are over.
    """
    work()
    engine.synchronize()
    found: list[float] = []
    end = time.perf_counter() + seconds
    while len(found) < least or time.perf_counter() < end:
        begin = time.perf_counter()
        work()
        engine.synchronize()
        found.append(time.perf_counter() - begin)
    return found


def forget_peak(engine: Engine) -> None:
    """Begin to measure the peak of the device's memory anew; on a CPU that of the process."""
    if engine.kind == "torch" and engine.device != "cpu":
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(engine.device)
    elif engine.device == "cpu" and Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_bytes(engine: Engine) -> int:
    """The most bytes that were in use on the device since ``forget_peak``; on a CPU the largest resident set."""
    if engine.device == "cpu" and Path("/proc/self/status").exists():
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    return engine.memory()["peak"]


def device_name(engine: Engine) -> str:
    """The device as a person knows it."""
    if engine.kind == "torch" and engine.device != "cpu":
        import torch

        return torch.cuda.get_device_name(engine.device)
    return record.processor()
