"""Linear layers in eight bits."""

from __future__ import annotations

from typing import Any

import torch

E4M3_MOST = 448.0
SMALLEST_SIDE = 1024  # of a matrix in eight bits: smaller ones cost nothing, and the first and last layers are delicate


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
