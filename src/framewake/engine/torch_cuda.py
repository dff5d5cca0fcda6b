"""What torch is told about a CUDA device: which attention kernel is fastest there, and linear layers in eight bits."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from framewake.console.escape import one_line
from framewake.errors import EngineError

Sizes = tuple[int, int, int, int]
BUILDS = "https://download.pytorch.org/whl/"  # torch for each version of CUDA

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
E4M3_MOST = 448.0
SMALLEST_SIDE = 1024  # of a matrix in eight bits: smaller ones cost nothing, and the first and last layers are delicate


_HELD = contextlib.ExitStack()


class Attention(NamedTuple):
    """Kernels, fastest first, and why."""

    order: tuple[str, ...]
    reason: str


def why_absent(device: str) -> str:
    """Why torch has not got a CUDA device, and what to do about it."""
    if device == "cpu":
        return ""
    if torch.version.cuda is None and torch.version.hip is None:
        plain = torch.__version__.partition("+")[0]
        index = "" if sys.platform == "linux" else f" --index-url {BUILDS}cu128"
        line = f"pip install --force-reinstall torch=={plain}{index}"
        return f"This torch ({torch.__version__}) is a build for CPUs. Run: {line}"
    if torch.cuda.device_count():
        return ""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return "CUDA_VISIBLE_DEVICES hides every card: unset it."
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        said = one_line(str(error)).partition(". ")[0].rstrip(".")
        return f"Torch says: {said[:200]}. See whether `nvidia-smi` lists the card; a new driver may be needed."
    return ""


def check_kernels(device: str) -> None:
    """Whether this build of torch has code for a card.

    Raises: EngineError that says which build has.
    """
    if torch.version.hip is not None:
        return
    capability, found = torch.cuda.get_device_capability(device), torch.cuda.get_arch_list()
    if not found or has_kernels(capability, found):
        return
    known = [parsed for parsed in map(parse_arch, found) if parsed]
    is_old = capability < min(version for _, version in known)
    build = f"pip install --force-reinstall torch --index-url {BUILDS}cu126" if is_old else "pip install -U torch"
    card = f"{device}, a {torch.cuda.get_device_name(device)}"
    raise EngineError(
        f"{card}, has compute capability {capability[0]}.{capability[1]}, and torch {torch.__version__} has code "
        f"for {', '.join(found)} only: take --engine torch:cpu, or a build that has. Run: {build}"
    )


def has_kernels(capability: tuple[int, int], found: Sequence[str]) -> bool:
    """Whether code for these architectures runs on a card: machine code within a generation, PTX on any later one."""
    parsed = [each for each in map(parse_arch, found) if each]
    return any(version <= capability and (kind == "compute" or version[0] == capability[0]) for kind, version in parsed)


def parse_arch(text: str) -> tuple[str, tuple[int, int]] | None:
    """("sm", (9, 0)) of "sm_90a"; None of what is nothing of NVIDIA's."""
    matched = re.fullmatch(r"(sm|compute)_(\d+)(\d)[af]?", text)
    return None if matched is None else (matched[1], (int(matched[2]), int(matched[3])))


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


def takes_eight_bits(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether a linear layer is one of those that eight bits are for: bfloat16, many rows, a large matrix."""
    rows = x.numel() // x.shape[-1]
    is_large = min(rows, *weight.shape) >= SMALLEST_SIDE
    return x.dtype == torch.bfloat16 and is_large and not any(side % 16 for side in weight.shape)


def linear_in_eight_bits(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """x @ weight.T + bias with both factors rounded to e4m3, each row of either with a scale of its own.

    The weight is rounded in every call: beside a product over many rows that is under one percent of the time, and
    it may come from anywhere (streamed, with LoRAs).
    """
    rows, row_scales = in_eight_bits(x.reshape(-1, x.shape[-1]))
    columns, column_scales = in_eight_bits(weight)
    if x.device.type == "cuda":
        scales: dict[str, Any] = {"scale_a": row_scales, "scale_b": column_scales.t()}
        out = torch._scaled_mm(rows, columns.t(), **scales, out_dtype=x.dtype, use_fast_accum=True)
    else:  # the same numbers, slowly
        out = ((rows.float() * row_scales) @ (columns.float() * column_scales).t()).to(x.dtype)
    out = out if bias is None else out + bias
    return out.reshape(*x.shape[:-1], weight.shape[0])


def in_eight_bits(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows in e4m3 and their scales. Shapes: (R, I) -> (R, I), float32 (R, 1)."""
    scales = x.abs().amax(-1, keepdim=True).float().clamp(min=1e-12) / E4M3_MOST
    return (x.float() / scales).clamp(-E4M3_MOST, E4M3_MOST).to(torch.float8_e4m3fn), scales
