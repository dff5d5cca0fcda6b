"""The contract over torch, as far as it is the same on every device."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F

from framewake.console.escape import one_line
from framewake.engine.torch.exchange import TorchExchange, left_out
from framewake.engine.torch.gradients import TorchGradients
from framewake.errors import EngineError

DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int64": torch.int64,
    "bool": torch.bool,
}
NAMES = {value: key for key, value in DTYPES.items()}
ACTIVATIONS = {None: lambda x: x, "silu": F.silu, "gelu_tanh": lambda x: F.gelu(x, approximate="tanh")}


def writeable(array: np.ndarray) -> np.ndarray:
    """An array in C order that torch may share: itself, or a copy of one that must not change."""
    return np.asarray(array, order="C") if array.flags.writeable else np.array(array, order="C")


class TorchEngine(TorchGradients):
    """The contract over torch. Documentation of every method: ``engine/contract.py``."""

    kind = "torch"
    _layout = torch.contiguous_format  # of clips
    _exchange = TorchExchange

    def __init__(self, device: torch.device, reason: str) -> None:
        self.device = str(device)
        self.name = f"torch:{device}"
        self.reason = reason
        self._device = device

    # --- make and move

    def asarray(self, values, dtype=None):
        if not isinstance(values, torch.Tensor):
            array = np.asarray(values)
            if array.dtype == np.uint16 and dtype == "bfloat16":
                array = writeable(array)
                return self.asarray(torch.from_numpy(array.view(np.int16)).view(torch.bfloat16))
            if array.dtype == np.float64:
                array = array.astype(np.float32)
            elif array.dtype == np.int32:
                array = array.astype(np.int64)
            values = torch.from_numpy(writeable(array))
        return self._moved(values, None if dtype is None else DTYPES[dtype])

    def _moved(self, x, kind):
        return x.to(device=self._device, dtype=kind)

    def numpy(self, x):
        x = x.detach()
        return (x.float() if x.dtype == torch.bfloat16 else x).cpu().numpy()

    def zeros(self, shape, dtype="float32"):
        return torch.zeros(tuple(shape), dtype=DTYPES[dtype], device=self._device)

    def full(self, shape, value, dtype="float32"):
        return torch.full(tuple(shape), value, dtype=DTYPES[dtype], device=self._device)

    def arange(self, count, dtype="int64"):
        return torch.arange(count, dtype=DTYPES[dtype], device=self._device)

    def cast(self, x, dtype):
        return x.to(DTYPES[dtype])

    def dtype(self, x):
        return NAMES[x.dtype]

    def to_device(self, x):
        return x.to(self._device, non_blocking=True)

    def to_host(self, x):
        return x.cpu()

    def draw_normal(self, shape, seed, dtype):
        generator = torch.Generator(self._device).manual_seed(seed)
        return torch.randn(tuple(shape), generator=generator, device=self._device, dtype=DTYPES[dtype])

    # --- shape

    def reshape(self, x, shape):
        return x.reshape(tuple(shape))

    def permute(self, x, axes):
        return x.permute(tuple(axes))

    def concat(self, xs, axis):
        return torch.cat(list(xs), dim=axis)

    def stack(self, xs, axis):
        return torch.stack(list(xs), dim=axis)

    def split(self, x, sizes, axis):
        return torch.split(x, list(sizes), dim=axis)

    def pad(self, x, widths, mode="constant"):
        widths = list(widths)
        if mode == "replicate":  # torch wants every axis after the first two
            widths = [(0, 0)] * (x.ndim - 2 - len(widths)) + widths
        return F.pad(x, [side for pair in reversed(widths) for side in pair], mode=mode)

    def broadcast_to(self, x, shape):
        return x.expand(tuple(shape))

    def take(self, x, index, axis):
        return torch.index_select(x, axis, index)

    # --- arithmetic

    def exp(self, x):
        return torch.exp(x)

    def cos(self, x):
        return torch.cos(x)

    def sin(self, x):
        return torch.sin(x)

    def sqrt(self, x):
        return torch.sqrt(x)

    def rsqrt(self, x):
        return torch.rsqrt(x)

    def tanh(self, x):
        return torch.tanh(x)

    def sigmoid(self, x):
        return torch.sigmoid(x)

    def clip(self, x, low, high):
        return torch.clamp(x, low, high)

    def where(self, condition, x, y):
        return torch.where(condition, x, y)

    def sum(self, x, axes, keepdims=False):
        return torch.sum(x, dim=tuple(axes), keepdim=keepdims)

    def mean(self, x, axes, keepdims=False):
        return torch.mean(x, dim=tuple(axes), keepdim=keepdims)

    def max(self, x, axes, keepdims=False):
        return torch.amax(x, dim=tuple(axes), keepdim=keepdims)

    # --- layers

    def matmul(self, x, y):
        return torch.matmul(x, y)

    def linear(self, x, weight, bias=None, activation=None):
        return ACTIVATIONS[activation](F.linear(x, weight, bias))

    def conv2d(self, x, weight, bias=None, stride=(1, 1)):
        return F.conv2d(x, weight, bias, tuple(stride))

    def conv3d(self, x, weight, bias=None, stride=(1, 1, 1)):
        return F.conv3d(x, weight, bias, tuple(stride))

    def embedding(self, table, ids):
        return F.embedding(ids, table)

    def layer_norm(self, x, weight=None, bias=None, eps=1e-6):
        return F.layer_norm(x, x.shape[-1:], weight, bias, eps)

    def rms_norm(self, x, weight, eps=1e-6):
        if x.dtype == weight.dtype == torch.float32:
            return F.rms_norm(x, x.shape[-1:], weight, eps)
        return F.rms_norm(x.float(), x.shape[-1:], None, eps).to(x.dtype) * weight

    def group_norm(self, x, groups, weight, bias, eps=1e-6):
        return F.group_norm(x, groups, weight, bias, eps)

    def moments(self, x):
        variance, mean = torch.var_mean(x.float(), dim=tuple(range(2, x.ndim)), correction=0)
        return mean, variance

    def window(self, x, gain, shift, before=None, activation=None):
        gain, shift = gain[:, :, None, None, None], shift[:, :, None, None, None]
        y = ACTIVATIONS[activation](torch.addcmul(shift, x.float(), gain)).to(x.dtype)
        y = self.pad(y, [(2 if before is None else 0, 0), (1, 1), (1, 1)], "replicate")
        return y if before is None else torch.cat([before, y], 2)

    def silu(self, x):
        return F.silu(x)

    def gelu(self, x, approximate="none"):
        return F.gelu(x, approximate=approximate)

    def softmax(self, x):
        return torch.softmax(x, dim=-1)

    def attention(self, q, k, v, *, scale, mask=None, lengths=None):
        if lengths is not None and (len(lengths) == 1 or len(set(lengths)) == 1):
            k, v, lengths = k[:, : lengths[0]], v[:, : lengths[0]], None
        if lengths is not None:
            parts = [
                self.attention(q[i : i + 1], k[i : i + 1, :n], v[i : i + 1, :n], scale=scale)
                for i, n in enumerate(lengths)
            ]
            return torch.cat(parts)
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return self._attend(q, k, v, scale, mask).transpose(1, 2)

    def _attend(self, q, k, v, scale, mask):
        """Heads before tokens: (B, A, N, E)."""
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)

    def rotate(self, x, cos, sin):
        wide = x.float()
        pairs = wide.unflatten(-1, (-1, 2))
        turned = torch.stack([-pairs[..., 1], pairs[..., 0]], -1).flatten(-2)
        return (wide * cos[:, None] + turned * sin[:, None]).to(x.dtype)

    def interleave(self, x, factors, start=0):
        batch, channels, frames, height, width = x.shape
        channels //= math.prod(factors)
        height, width = height - factors[1] + 1, width - factors[2] + 1
        shape = (batch, channels, frames * factors[0], height * factors[1], width * factors[2])
        out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=self._layout)
        for index, (time, row, column) in enumerate(itertools.product(*map(range, factors))):
            place = x[:, index * channels :][:, :channels, :, row : row + height, column : column + width]
            out[:, :, time :: factors[0], row :: factors[1], column :: factors[2]] = place
        return out[:, :, start:]

    # --- collectives

    def rank(self):
        return dist.get_rank() if dist.is_initialized() else 0

    def size(self):
        return dist.get_world_size() if dist.is_initialized() else 1

    def exchange(self, pieces, shapes):
        return self._exchange(pieces, shapes, self.rank()) if self.size() > 1 else lambda: list(pieces)

    # --- control

    def _compiled(self, function, *, dynamic):
        self._exchange = left_out()
        return torch.compile(function, dynamic=dynamic)


def not_compiled(error, needs):
    """What a failure of torch.compile means."""
    said = one_line((str(error).strip() or type(error).__name__).splitlines()[0])
    return EngineError(
        f"torch.compile failed: {said} It needs {needs}. Install it, or run without compiling (FRAMEWAKE_COMPILE=0)."
    )
