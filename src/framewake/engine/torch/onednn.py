"""What torch does not choose by itself on a CPU: oneDNN's products and convolutions, and layouts that suit them.

Measured on an AMD processor (docs/experiments.md). Where a gradient is wanted or a graph is being compiled, torch's own
operations are left in place: these have neither.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

LEAST_ROWS = 128  # fewer are not worth oneDNN's preparation of the weight
NARROW = 4  # channels
ROW = 512  # numbers, of the rows in which clips are normalised
_LAST = torch.channels_last_3d

_FUSED = {None: ("none", ""), "silu": ("swish", ""), "gelu_tanh": ("gelu", "tanh")}


def takes_linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> bool:
    """Whether a linear layer is one call of oneDNN, and worth it."""
    rows = x.numel() // max(x.shape[-1], 1)
    return rows >= LEAST_ROWS and x.dtype == weight.dtype and _is_direct(x, weight, bias)


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, activation: str | None) -> torch.Tensor:
    """x @ weight.T + bias through an activation."""
    name, kind = _FUSED[activation]
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, name, [], kind)


def conv3d(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, stride: tuple) -> torch.Tensor:
    """Convolution with channels innermost, as every operation of the autoencoder keeps them."""
    x = x.contiguous(memory_format=_LAST)
    if max(weight.shape[2:]) == 1 and max(stride) == 1:  # ten times as fast as a convolution
        return F.linear(x.permute(0, 2, 3, 4, 1), weight.flatten(1), bias).permute(0, 4, 1, 2, 3)
    if _is_narrow(x, weight, stride):
        return _four_cells(x, weight, bias)
    weight = weight.contiguous(memory_format=_LAST)
    return _convolution(x, weight, bias, stride)


def _convolution(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, stride: tuple) -> torch.Tensor:
    if x.dtype == torch.float32 and torch.backends.mkldnn.is_available() and not torch.compiler.is_compiling():
        # By itself torch takes a kernel of half the speed and many times the memory for small sizes.
        return torch.mkldnn_convolution(x, weight, bias, (0, 0, 0), stride, (1, 1, 1), 1)
    return F.conv3d(x, weight, bias, stride)


def _is_narrow(x: torch.Tensor, weight: torch.Tensor, stride: tuple) -> bool:
    """Whether so few channels come out that most of a vector would be empty, and cells can be taken four at a time."""
    height, width = x.shape[3] - weight.shape[3] + 1, x.shape[4] - weight.shape[4] + 1
    is_plain = max(stride) == 1 and min(weight.shape[3:]) > 1 and not _is_traced(x, weight)
    return is_plain and weight.shape[0] <= NARROW and height > 0 and width > 0 and height % 2 == width % 2 == 0


def _four_cells(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Four neighbouring cells as four times the channels of one convolution of stride 2 with the taps of all of them.

    A vector has 16 places, of which 3 colours fill 3 and 12 fill 12: 16 taps instead of 4 times 9, half the time.
    """
    count = weight.shape[0]
    taps = [F.pad(weight, (column, 1 - column, row, 1 - row)) for row in range(2) for column in range(2)]
    taps = torch.cat(taps).contiguous(memory_format=_LAST)
    y = _convolution(x, taps, None if bias is None else torch.cat([bias] * 4), (1, 2, 2))
    batch, _, frames, height, width = y.shape
    cells = y.permute(0, 2, 3, 4, 1).reshape(batch, frames, height, width, 2, 2, count).transpose(3, 4)
    return cells.reshape(batch, frames, 2 * height, 2 * width, count).permute(0, 4, 1, 2, 3)


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


def moments(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance of each channel of one clip with channels innermost, in the pass that batch norm makes.

    Precision: several cells beside each other are summed on their own and joined in float64.
    """
    flat, places = _side_by_side(x)
    spare = torch.zeros(2, flat.shape[1])
    mean, variance = torch.batch_norm_update_stats(flat, spare[0], spare[1], 1.0)
    mean, variance = (t.view(places, x.shape[1]).double() for t in (mean, variance))
    middle = mean.mean(0)
    spread = (variance + (mean - middle) ** 2).mean(0)
    return middle.float()[None], spread.float()[None]


def window(
    x: torch.Tensor, gain: torch.Tensor, shift: torch.Tensor, before: torch.Tensor | None, activation: str | None
) -> torch.Tensor:
    """The engine's ``window`` of one clip with channels innermost, each value written once, where it is read."""
    _, channels, frames, height, width = x.shape
    flat, places = _side_by_side(x)
    # repeat() would take a tenth of this function's time for these few hundred numbers.
    gain, shift = (t[0].expand(places, channels).reshape(-1) for t in (gain, shift))
    wide = flat.float()
    wide = torch.addcmul(shift, wide, gain, out=None if wide is flat else wide).view(frames, height, width, channels)
    out = torch.empty((frames + 2, height + 2, width + 2, channels), dtype=x.dtype)
    new = out[2:]
    inner = new[:, 1:-1, 1:-1]
    if activation is not None and x.dtype == torch.float32:
        torch.ops.aten.silu.out(wide, out=inner)
    else:
        inner.copy_(wide if activation is None else F.silu(wide, inplace=True))
    new[:, 0, 1:-1], new[:, -1, 1:-1] = new[:, 1, 1:-1], new[:, -2, 1:-1]
    new[:, :, 0], new[:, :, -1] = new[:, :, 1], new[:, :, -2]
    out[:2] = out[2] if before is None else before[0].permute(1, 2, 3, 0)
    return out.permute(3, 0, 1, 2)[None]


def is_one_clip(x: torch.Tensor, *others: torch.Tensor | None) -> bool:
    """Whether x is a single clip with channels innermost and without gaps, and nothing is traced."""
    if x.ndim != 5 or len(x) != 1 or x.numel() == 0 or _is_traced(x, *others):
        return False
    return x.permute(0, 2, 3, 4, 1).is_contiguous()


def _side_by_side(x: torch.Tensor) -> tuple[torch.Tensor, int]:
    """One clip as rows of several cells each, and how many: a row of few channels is too short for a loop."""
    channels, places = x.shape[1], 1
    cells = x.numel() // channels
    while 2 * places * channels <= ROW and cells % (2 * places) == 0:
        places *= 2
    return x.permute(0, 2, 3, 4, 1).reshape(cells // places, places * channels), places


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
