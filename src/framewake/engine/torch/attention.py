"""Which of torch's attention kernels is the fastest right one on a device."""

from __future__ import annotations

import contextlib
import time
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

Sizes = tuple[int, int, int, int]

BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "memory-efficient": SDPBackend.EFFICIENT_ATTENTION,
    "plain": SDPBackend.MATH,
}
if hasattr(SDPBackend, "CUDNN_ATTENTION"):  # from torch 2.5 on
    BACKENDS = {"cuDNN": SDPBackend.CUDNN_ATTENTION, **BACKENDS}
# Samples, tokens, heads, head width. Long enough that the ranks are those of a video, a few milliseconds each;
# the odd count is one that a kernel working in tiles gets wrong first.
PROBE = (1, 8192, 8, 128)
CHECK = (1, 777, 2, 128)
MOST_ERROR = 0.02  # of the largest value, in bfloat16

_HELD = contextlib.ExitStack()


class Attention(NamedTuple):
    """Kernels, fastest first, and why."""

    order: tuple[str, ...]
    reason: str


def choose_attention(device: torch.device, *, probe: Sizes = PROBE) -> Attention:
    """The kernels that work on a device, timed; wrong ones are left out."""
    seconds: dict[str, float] = {}
    refused: dict[str, str] = {}
    for name in BACKENDS:
        if name == "plain":
            continue
        try:
            error = attention_error(name, device)
            if not error < MOST_ERROR:
                refused[name] = f"wrong by {error:.2g}"
                continue
            seconds[name] = attention_seconds(name, device, probe)
        except RuntimeError as problem:  # torch's word for a kernel that does not take these inputs
            refused[name] = str(problem).splitlines()[0][:60]
    order = sorted(seconds, key=seconds.__getitem__)
    samples, tokens, heads, width = probe
    work = 4.0 * samples * heads * tokens**2 * width
    said = [f"{name} {work / seconds[name] / 1e12:.0f} Tflop/s" for name in order]
    said += [f"{name} not ({why})" for name, why in refused.items()]
    return Attention((*order, "plain"), f"{order[0] if order else 'plain'}, the fastest here: {', '.join(said)}")


def use_attention(order: tuple[str, ...]) -> None:
    """Prefer the kernels in this order from now on, in this process; compiled programs keep theirs."""
    # Not around each call: the order has to count for programs too that torch.compile makes later. The stack holds
    # the context open; one that nobody holds is closed as soon as it is forgotten.
    backends = [BACKENDS[name] for name in order]
    try:
        context = sdpa_kernel(backends, set_priority=True)
    except TypeError:  # before torch 2.6 the order is torch's own
        context = sdpa_kernel(backends)
    _HELD.enter_context(context)


def attention_seconds(name: str, device: torch.device, shape: Sizes, *, runs: int = 3) -> float:
    """The best of some runs of one kernel in bfloat16. Shapes: (B, N, A, E)."""
    q, k, v = (torch.randn(shape, device=device, dtype=torch.bfloat16).transpose(1, 2) for _ in range(3))
    found = []
    with sdpa_kernel([BACKENDS[name]]), torch.no_grad():
        for _ in range(runs + 1):  # the first one loads and plans
            _wait(device)
            begin = time.perf_counter()
            F.scaled_dot_product_attention(q, k, v)
            _wait(device)
            found.append(time.perf_counter() - begin)
    return min(found[1:])


def attention_error(name: str, device: torch.device) -> float:
    """Largest difference of one kernel from float32 arithmetic, over the largest value."""
    generator = torch.Generator(device).manual_seed(0)
    shape, kind = CHECK, torch.bfloat16
    q, k, v = (torch.randn(shape, device=device, generator=generator).to(kind).transpose(1, 2) for _ in range(3))
    scores = q.float() @ k.float().transpose(2, 3) * CHECK[3] ** -0.5
    expected = torch.softmax(scores, -1) @ v.float()
    with sdpa_kernel([BACKENDS[name]]), torch.no_grad():
        found = F.scaled_dot_product_attention(q, k, v).float()
    return float((found - expected).abs().max() / expected.abs().max())


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
