"""Linear layers in eight bits."""

from __future__ import annotations

from typing import Any

import torch

from framewake.console.escape import one_line
from framewake.errors import EngineError

E4M3_MOST = 448.0
SMALLEST_SIDE = 1024  # of a matrix in eight bits: smaller ones cost nothing, and the first and last layers are delicate
NUMBERS = 1 << 25  # rounded at a time: all at once would be a copy in float32
TRIAL_ERROR = 0.1  # of the largest value; e4m3 has 3 bits behind its first


def check_eight_bits(device: torch.device) -> None:
    """One product, because which devices have one depends on torch's version and build.

    Raises: EngineError where this torch has none for this device, or a wrong one.
    """
    generator = torch.Generator(device).manual_seed(0)
    shape = (SMALLEST_SIDE, SMALLEST_SIDE)
    x, weight = (torch.randn(shape, generator=generator, device=device).to(torch.bfloat16) for _ in range(2))
    expected = x.float() @ weight.float().t()
    try:
        found = linear_in_eight_bits(x, weight, weight[0]).float() - weight[0].float()
        error = float((found - expected).abs().max() / expected.abs().max())
        said = "" if error < TRIAL_ERROR else f"it is wrong by {error:.2g}"
    except (RuntimeError, TypeError, AttributeError) as problem:  # torch's words for what it has not
        said = one_line(str(problem))[:200]
    if said:
        raise EngineError(
            f"torch {torch.__version__} has no product in eight bits for {device} ({said}): leave out +fp8, or take "
            "another torch. Hopper needs 2.5 or newer, Ada 2.7."
        )


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
    if x.device.type == "cpu":  # the same numbers, slowly
        out = ((rows.float() * row_scales) @ (columns.float() * column_scales).t()).to(x.dtype)
    else:
        scales: dict[str, Any] = {"scale_a": row_scales, "scale_b": column_scales.t()}
        out = torch._scaled_mm(rows, columns.t(), **scales, out_dtype=x.dtype, use_fast_accum=True)
    out = out if bias is None else out.add_(bias)
    return out.reshape(*x.shape[:-1], weight.shape[0])


def in_eight_bits(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows in e4m3 and their scales. Shapes: (R, I) -> (R, I), float32 (R, 1)."""
    step = max(1, NUMBERS // x.shape[1])
    if len(x) <= step or torch.compiler.is_compiling():  # a compiled program keeps no copies
        return _rounded(x)
    bits = torch.empty(x.shape, dtype=torch.float8_e4m3fn, device=x.device)
    scales = torch.empty((len(x), 1), dtype=torch.float32, device=x.device)
    for start in range(0, len(x), step):
        bits[start : start + step], scales[start : start + step] = _rounded(x[start : start + step])
    return bits, scales


def _rounded(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    scales = x.abs().amax(-1, keepdim=True).float().clamp(min=1e-12) / E4M3_MOST
    # Of two types the wider one is computed in: no copy of x in float32 is needed.
    return (x / scales).clamp_(-E4M3_MOST, E4M3_MOST).to(torch.float8_e4m3fn), scales
