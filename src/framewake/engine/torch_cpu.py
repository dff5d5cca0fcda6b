"""What torch does not choose by itself on a CPU: oneDNN's products and convolutions, and layouts that suit them.

Measured on an AMD processor (docs/decisions.md). Where a gradient is wanted or a graph is being compiled, torch's own
operations are left in place: these have neither.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

LEAST_ROWS = 128  # fewer are not worth oneDNN's preparation of the weight
_LAST = torch.channels_last_3d

_PLAIN = {None: lambda x: x, "silu": F.silu, "gelu_tanh": lambda x: F.gelu(x, approximate="tanh")}
_FUSED = {None: ("none", ""), "silu": ("swish", ""), "gelu_tanh": ("gelu", "tanh")}


def activated(x: torch.Tensor, name: str | None) -> torch.Tensor:
    """x through an activation."""
    return _PLAIN[name](x)


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, activation: str | None) -> torch.Tensor:
    """x @ weight.T + bias through an activation: one call of oneDNN where it takes these tensors."""
    rows = x.numel() // max(x.shape[-1], 1)
    if rows >= LEAST_ROWS and x.dtype == weight.dtype and _is_direct(x, weight, bias):
        name, kind = _FUSED[activation]
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, name, [], kind)
    return activated(F.linear(x, weight, bias), activation)


def conv3d(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, stride: tuple) -> torch.Tensor:
    """Convolution with channels innermost, as every operation of the autoencoder keeps them."""
    x = x.contiguous(memory_format=_LAST)
    if max(weight.shape[2:]) == 1 and max(stride) == 1:  # ten times as fast as a convolution
        return F.linear(x.permute(0, 2, 3, 4, 1), weight.flatten(1), bias).permute(0, 4, 1, 2, 3)
    weight = weight.contiguous(memory_format=_LAST)
    if x.dtype == torch.float32 and torch.backends.mkldnn.is_available() and not torch.compiler.is_compiling():
        # By itself torch takes a kernel of half the speed and many times the memory for small sizes.
        return torch.mkldnn_convolution(x, weight, bias, (0, 0, 0), stride, (1, 1, 1), 1)
    return F.conv3d(x, weight, bias, stride)


def group_norm(x: torch.Tensor, groups: int, weight: torch.Tensor, bias: torch.Tensor, eps: float) -> torch.Tensor:
    """Group norm over a clip with channels innermost.

    Precision: torch's own kernel for this layout adds up all squares in one float32 and loses four digits at half a
    million cells. Here it sees one row of cells at a time, and the rows are joined in float64.
    """
    rows = x.permute(0, 2, 3, 4, 1) if x.ndim == 5 else x
    if x.is_contiguous() or x.ndim != 5 or _is_traced(x, weight, bias):
        return F.group_norm(x, groups, weight, bias, eps)
    batch, frames, height, width, channels = rows.shape
    if x.dtype != torch.float32 or width % 2 or width < 4 or not rows.is_contiguous():
        return F.group_norm(x.contiguous(), groups, weight, bias, eps)
    strips = rows.view(batch * frames * height, 2, width // 2, channels).permute(0, 3, 1, 2)
    _, mean, inverse = torch.native_group_norm(strips, None, None, len(strips), channels, width, groups, eps)
    mean, variance = (t.view(batch, -1, groups) for t in (mean.double(), inverse.double() ** -2 - eps))
    middle = mean.mean(1)
    spread = (variance + (mean - middle[:, None]) ** 2).mean(1)
    gain = torch.rsqrt(spread + eps).repeat_interleave(channels // groups, 1) * weight
    shift = bias - middle.repeat_interleave(channels // groups, 1) * gain
    gain, shift = (t.float()[:, None, None, None] for t in (gain, shift))
    return torch.addcmul(shift, rows, gain).permute(0, 4, 1, 2, 3)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Pairs of channels as complex numbers: one pass over memory instead of five."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    turn = torch.complex(cos[:, None, ::2], sin[:, None, ::2])
    return torch.view_as_real(pairs * turn).flatten(-2).to(x.dtype)


def by_heads(x: torch.Tensor) -> torch.Tensor:
    """Keys or values (B, A, M, E) as attention reads them fastest: in half precision, each head in one piece."""
    return x if x.dtype == torch.float32 else x.contiguous()


def _is_traced(*tensors: torch.Tensor | None) -> bool:
    """Whether a graph is being made of what happens, for compiling or for gradients."""
    has_gradient = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    return has_gradient or torch.compiler.is_compiling()


def _is_direct(x: torch.Tensor, *others: torch.Tensor | None) -> bool:
    if not torch.backends.mkldnn.is_available() or _is_traced(x, *others):
        return False
    return x.dtype == torch.float32 or (x.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())
