"""The contract over MindSpore on a CPU, in float32: ``ops`` where ``mint`` has no kernel there."""

from __future__ import annotations

import contextlib
import math

import mindspore as ms
from mindspore import mint, ops

from framewake.engine.host import host_memory
from framewake.engine.mindspore import rows
from framewake.engine.mindspore.ascend import DTYPES, MindsporeEngine, flat_widths
from framewake.engine.mindspore.collectives import exchange_by_gathering
from framewake.engine.traits import Traits

F = mint.nn.functional

_NORM_EPS = 1e-5  # of a batch norm that shall only multiply and add

# Operations with a setting: a new object for each call would cost twice what launching it does.
_TIMES = ops.MatMul()
_TIMES_TURNED = ops.MatMul(transpose_b=True)
_PLUS = ops.BiasAdd()
_USUAL_EPS = 1e-6
_LAYER_NORM = ops.LayerNorm(-1, -1, _USUAL_EPS)
_PER_CHANNEL = ops.BatchNorm(is_training=False, epsilon=_NORM_EPS)

_GELU_LINEAR = 2 * math.sqrt(2 / math.pi)
_GELU_CUBIC = 0.044715 * _GELU_LINEAR


class MindsporeCpu(MindsporeEngine):
    """The same on a CPU, in float32: ``ops`` where ``mint`` has no kernel there."""

    traits = Traits(
        is_host=True,
        precision="float32",
        products=("float32", "float16"),
        fused_attention=(),
        draws_as_torch=False,
        holds_arrays=False,
        compiles_blocks=False,
        product_share=0.5,
        start_bytes=40 << 20,
        convolution_start=60 << 20,
        convolution_tensors=3,
        convolution_most=96 << 20,  # until 24 million numbers at a time are enough
    )

    def zeros(self, shape, dtype="float32"):
        return ops.zeros(tuple(shape), DTYPES[dtype])

    def full(self, shape, value, dtype="float32"):
        if dtype == "bfloat16":  # no kernel fills it, but casting to it works
            return self.cast(ops.full(tuple(shape), value, dtype=ms.float32), dtype)
        return ops.full(tuple(shape), value, dtype=DTYPES[dtype])

    def arange(self, count, dtype="int64"):
        return ops.arange(count).astype(DTYPES[dtype])

    def _moved(self, x):
        return x

    def to_device(self, x):
        return x

    def to_host(self, x):
        return x

    def stack(self, xs, axis):
        kind = self.dtype(xs[0])
        if kind == "bfloat16":  # no kernel stacks it
            return self.cast(ops.stack([self.cast(x, "float32") for x in xs], axis), kind)
        return ops.stack(list(xs), axis)

    def split(self, x, sizes, axis):
        rows_each = math.prod(x.shape[:axis])
        if x.dtype == ms.bfloat16 or rows_each < rows.FEW or len(set(sizes)) > 1:
            return super().split(x, sizes, axis)
        return rows.split(x, len(sizes), axis)

    def pad(self, x, widths, mode="constant"):
        return self._repeat_edges(x, widths) if mode == "replicate" else ops.pad(x, flat_widths(widths))

    def _repeat_edges(self, x, widths):
        if x.dtype == ms.bfloat16:
            return super()._repeat_edges(x, widths)
        return rows.repeat_edges(x, list(widths))

    def take(self, x, index, axis):
        return ops.gather(x, index, axis)

    def linear(self, x, weight, bias=None, activation=None):
        out = _TIMES_TURNED(mint.reshape(x, (-1, x.shape[-1])), weight)
        if bias is not None:
            out = _PLUS(out, bias)  # half the time of a broadcast sum
        return mint.reshape(self._activated(out, activation), (*x.shape[:-1], weight.shape[0]))

    def conv2d(self, x, weight, bias=None, stride=(1, 1)):
        return ops.conv2d(x, weight, bias, tuple(stride), "valid")

    def conv3d(self, x, weight, bias=None, stride=(1, 1, 1)):
        return rows.conv3d(x, weight, bias, tuple(stride))

    def interleave(self, x, factors, start=0):
        if x.dtype == ms.bfloat16:  # no kernel takes its rows
            return super().interleave(x, factors, start)
        return rows.interleave(x, tuple(factors), start)

    def embedding(self, table, ids):
        return ops.gather(table, ids, 0)

    def layer_norm(self, x, weight=None, bias=None, eps=1e-6):
        width = x.shape[-1]
        scale = ops.ones((width,), ms.float32) if weight is None else self.cast(weight, "float32")
        shift = ops.zeros((width,), ms.float32) if bias is None else self.cast(bias, "float32")
        norm = _LAYER_NORM if eps == _USUAL_EPS else ops.LayerNorm(-1, -1, eps)
        out = norm(self.cast(x, "float32"), scale, shift)[0]
        return self.cast(out, self.dtype(x))

    def rms_norm(self, x, weight, eps=1e-6):
        if x.dtype != ms.float32 or weight.dtype != ms.float32:
            return self._normed(x, weight, eps)
        # Two broadcast products take six times as long as this one of a column and a row.
        flat = mint.reshape(x, (-1, x.shape[-1]))
        inverse = mint.rsqrt(mint.mean(mint.square(flat), dim=-1, keepdim=True) + eps)
        gain = _TIMES(inverse, mint.reshape(weight, (1, -1)))
        return mint.reshape(flat * gain, tuple(x.shape))

    def group_norm(self, x, groups, weight, bias, eps=1e-6):
        # A sum or product for each channel is slow when it is broadcast, and fast as the norm that is made for it;
        # a mean over one axis takes a fifth of that over two.
        batch, channels = x.shape[0], x.shape[1]
        rows, inside = batch * channels, (batch, groups, channels // groups)
        flat = mint.reshape(self.cast(x, "float32"), (rows, -1))
        mean = mint.mean(mint.reshape(mint.mean(flat, dim=1), inside), dim=2, keepdim=True)
        mean = mint.reshape(mint.broadcast_to(mean, inside), (rows,))
        away = _PLUS(mint.reshape(flat, (1, rows, -1, 1)), 0.0 - mean)
        squares = mint.reshape(mint.square(away), (rows, -1))
        spread = mint.mean(mint.reshape(mint.mean(squares, dim=1), inside), dim=2, keepdim=True)
        gain = mint.broadcast_to(mint.rsqrt(spread + eps), inside)
        gain = mint.reshape(gain * mint.reshape(self.cast(weight, "float32"), (1, *inside[1:])), (rows,))
        shift = mint.reshape(mint.broadcast_to(self.cast(bias, "float32"), (batch, channels)), (rows,))
        none, one = ops.zeros((rows,), ms.float32), ops.full((rows,), 1.0 - _NORM_EPS, dtype=ms.float32)
        out = _PER_CHANNEL(away, gain, shift, none, one)[0]
        return self.cast(mint.reshape(out, tuple(x.shape)), self.dtype(x))

    def gelu(self, x, approximate="none"):
        if approximate == "none":
            return ops.gelu(x, approximate="none")
        # (1 + tanh(u)) / 2 is sigmoid(2 u): the same to the last places, and eight times as fast as the fused one.
        wide = self.cast(x, "float32")
        return self.cast(wide * mint.sigmoid((wide * wide * _GELU_CUBIC + _GELU_LINEAR) * wide), self.dtype(x))

    def _attend(self, q, k, v, scale, mask):
        return self._composed(q, k, v, scale, mask)

    def _swapped(self, x):
        return rows.swapped(x)

    def rotate(self, x, cos, sin):
        if math.prod(x.shape) > rows.COPIED:  # the tables of all heads would be as large
            return super().rotate(x, cos, sin)
        return self.cast(rows.rotate(self.cast(x, "float32"), cos, sin), self.dtype(x))

    def make_deterministic(self):
        return None  # it is

    def synchronize(self):
        return None  # launch_blocking: every call has finished when it returns

    def memory(self):
        return host_memory()

    def mark(self):
        return self.synchronize

    def copy_stream(self):
        return contextlib.nullcontext()

    def exchange(self, pieces, shapes):
        return exchange_by_gathering(self, pieces, shapes)
