"""The contract's layers in plain numpy, float64: what every engine is compared with."""

from __future__ import annotations

import math

import numpy as np

_erf = np.vectorize(math.erf, otypes=[np.float64])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gelu(x):
    return 0.5 * x * (1 + _erf(x / math.sqrt(2)))


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def softmax(x):
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def layer_norm(x, weight=1.0, bias=0.0, eps=1e-6):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps) * weight + bias


def rms_norm(x, weight, eps=1e-6):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * weight


def group_norm(x, groups, weight, bias, eps=1e-6):
    batch, channels = x.shape[:2]
    flat = x.reshape(batch, groups, -1)
    normed = (flat - flat.mean(-1, keepdims=True)) / np.sqrt(flat.var(-1, keepdims=True) + eps)
    each = (1, channels) + (1,) * (x.ndim - 2)
    return normed.reshape(x.shape) * weight.reshape(each) + bias.reshape(each)


def window(x, gain, shift, before=None, *, has_silu=False):
    """What a causal convolution of three taps reads; ``before`` has its edges already."""
    y = x * gain[:, :, None, None, None] + shift[:, :, None, None, None]
    y = y * sigmoid(y) if has_silu else y
    y = np.pad(y, [(0, 0), (0, 0), (2 if before is None else 0, 0), (1, 1), (1, 1)], "edge")
    return y if before is None else np.concatenate([before, y], 2)


def convolution(x, weight, bias, stride):
    """Any number of spatial axes. Shapes: x (B, C, ...), weight (O, C, ...)."""
    axes = tuple(range(2, x.ndim))
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], axis=axes)
    windows = windows[(slice(None), slice(None), *(slice(None, None, step) for step in stride))]
    # windows (B, C, *out, *kernel) with weight (O, C, *kernel): sum over C and the kernel
    count = len(axes)
    kernel_axes = tuple(range(2 + count, 2 + 2 * count))
    out = np.tensordot(windows, weight, axes=((1, *kernel_axes), (1, *range(2, 2 + count))))
    out = np.moveaxis(out, -1, 1)
    return out + bias.reshape((1, -1) + (1,) * count)


def attention(q, k, v, *, scale, mask=None, lengths=None):
    """Shapes: q (B, N, A, E), k and v (B, M, A, E) -> (B, N, A, E)."""
    scores = np.einsum("bnae,bmae->banm", q, k) * scale
    if lengths is not None:
        mask = (np.arange(k.shape[1])[None] < np.array(lengths)[:, None])[:, None, None]
    if mask is not None:
        scores = np.where(mask, scores, -np.inf)
    return np.einsum("banm,bmae->bnae", softmax(scores), v)


def rotated(x, cos, sin):
    """Neighbouring channels as complex numbers. Shapes: x (B, N, A, E), cos and sin (N, E / 2)."""
    turned = (x[..., ::2] + 1j * x[..., 1::2]) * (cos + 1j * sin)[:, None]
    return np.stack([turned.real, turned.imag], -1).reshape(x.shape)


def silu(x):
    """x times its sigmoid."""
    return x * sigmoid(x)


def interleave(x, factors):
    """Cell by cell, as the contract says it."""
    batch, channels, frames, height, width = x.shape
    channels //= factors[0] * factors[1] * factors[2]
    height, width = height - factors[1] + 1, width - factors[2] + 1
    out = np.empty((batch, channels, frames * factors[0], height * factors[1], width * factors[2]), x.dtype)
    for a, b, c in np.ndindex(*factors):
        place = (a * factors[1] + b) * factors[2] + c
        cells = x[:, place * channels : (place + 1) * channels, :, b : b + height, c : c + width]
        out[:, :, a :: factors[0], b :: factors[1], c :: factors[2]] = cells
    return out
