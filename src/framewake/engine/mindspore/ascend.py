"""The contract over MindSpore for Ascend; the CPU branch replaces parts of it."""

from __future__ import annotations

import contextlib

import mindspore as ms
import numpy as np
from mindspore import mint, ops
from mindspore.common.np_dtype import bfloat16 as numpy_bfloat16

from framewake.engine.mindspore.collectives import Collectives
from framewake.engine.mindspore.gradients import MindsporeGradients
from framewake.engine.mindspore.graph import graph, take_apart
from framewake.engine.traits import Traits
from framewake.errors import EngineError

F = mint.nn.functional

DTYPES = {
    "float32": ms.float32,
    "float16": ms.float16,
    "bfloat16": ms.bfloat16,
    "int64": ms.int64,
    "bool": ms.bool_,
}
_NAMES = {str(value): key for key, value in DTYPES.items()}

# Operations with a setting: a new object for each call would cost twice what launching it does.
_TIMES = ops.BatchMatMul()
_TIMES_TURNED = ops.BatchMatMul(transpose_b=True)

# Scores of one attention call that may exist at a time where no fused kernel is used: 2^26 float32 = 256 MiB.
SCORES = 1 << 26


class MindsporeEngine(Collectives, MindsporeGradients):
    """The contract over MindSpore for Ascend. Documentation of every method: ``engine/contract.py``."""

    kind = "mindspore"
    traits = Traits(
        is_host=False,
        precision="bfloat16",
        products=("float32", "float16", "bfloat16"),
        fused_attention=("float16", "bfloat16"),
        draws_as_torch=False,
        holds_arrays=False,  # it computes behind the caller's back, and this is not documented
        compiles_blocks=False,
        product_share=0.5,
        start_bytes=40 << 20,
    )
    attention_reason = ""
    plain_reason = ""

    def __init__(self, device: str, reason: str) -> None:
        self.device = device
        self.name = f"mindspore:{device}"
        self.reason = reason
        self._place = "Ascend" if device.startswith("ascend") else "CPU"  # where a graph check has its tensors

    # --- make and move

    def asarray(self, values, dtype=None):
        if not isinstance(values, ms.Tensor):
            array = np.asarray(values)
            if array.dtype == np.uint16 and dtype == "bfloat16":
                array = array.view(numpy_bfloat16)
            elif array.dtype == np.float64:
                array = array.astype(np.float32)
            elif array.dtype == np.int32:
                array = array.astype(np.int64)
            values = ms.Tensor.from_numpy(np.array(array, order="C", copy=not array.flags.writeable))
        values = self._moved(values)
        return values if dtype is None else self.cast(values, dtype)

    def _moved(self, x):
        # By itself MindSpore copies at the first use, between the operations that wait for it.
        return x.to(device=self._place)

    def numpy(self, x):
        return self.cast(x, "float32").asnumpy() if x.dtype == ms.bfloat16 else x.asnumpy()

    def zeros(self, shape, dtype="float32"):
        return mint.zeros(tuple(shape), dtype=DTYPES[dtype])

    def full(self, shape, value, dtype="float32"):
        return mint.full(tuple(shape), value, dtype=DTYPES[dtype])

    def arange(self, count, dtype="int64"):
        return mint.arange(count, dtype=DTYPES[dtype])

    def cast(self, x, dtype):
        return x if x.dtype == DTYPES[dtype] else x.astype(DTYPES[dtype])

    def dtype(self, x):
        return _NAMES[str(x.dtype)]

    def to_device(self, x):
        return x.to(device=self._place, non_blocking=True)

    def to_host(self, x):
        return x.to(device="CPU")

    def draw_normal(self, shape, seed, dtype):
        raise EngineError(f"{self.name} has no random numbers of torch: take a torch engine.")

    # --- shape

    def reshape(self, x, shape):
        return mint.reshape(x, tuple(shape))

    def permute(self, x, axes):
        return mint.permute(x, tuple(axes))

    def concat(self, xs, axis):
        return mint.cat(list(xs), dim=axis)

    def stack(self, xs, axis):
        return mint.stack(list(xs), dim=axis)

    def split(self, x, sizes, axis):
        return tuple(mint.split(x, list(sizes), dim=axis))

    def pad(self, x, widths, mode="constant"):
        if mode == "replicate":  # the fused one has no bfloat16 on Ascend
            return self._repeat_edges(x, widths)
        return F.pad(x, flat_widths(widths))

    def _repeat_edges(self, x, widths):
        first = len(x.shape) - len(widths)
        for i in range(len(widths)):
            before, after = widths[i]
            axis, size = first + i, x.shape[first + i]
            pieces = [x]
            if before > 0:
                pieces = [mint.narrow(x, axis, 0, 1)] * before + pieces
            if after > 0:
                pieces = pieces + [mint.narrow(x, axis, size - 1, 1)] * after
            if len(pieces) > 1:
                x = mint.cat(pieces, dim=axis)
        return x

    def broadcast_to(self, x, shape):
        return mint.broadcast_to(x, tuple(shape))

    def take(self, x, index, axis):
        return mint.index_select(x, axis, index)

    # --- arithmetic

    def exp(self, x):
        return mint.exp(x)

    def cos(self, x):
        return mint.cos(x)

    def sin(self, x):
        return mint.sin(x)

    def sqrt(self, x):
        return mint.sqrt(x)

    def rsqrt(self, x):
        return mint.rsqrt(x)

    def tanh(self, x):
        return mint.tanh(x)

    def sigmoid(self, x):
        return mint.sigmoid(x)

    def clip(self, x, low, high):
        return mint.clamp(x, low, high)

    def where(self, condition, x, y):
        return mint.where(condition, x, y)

    def sum(self, x, axes, keepdims=False):
        return mint.sum(x, dim=tuple(axes), keepdim=keepdims)

    def mean(self, x, axes, keepdims=False):
        return mint.mean(x, dim=tuple(axes), keepdim=keepdims)

    def max(self, x, axes, keepdims=False):
        return ops.amax(x, tuple(axes), keepdims)

    # --- layers

    def matmul(self, x, y):
        return mint.matmul(x, y)

    def linear(self, x, weight, bias=None, activation=None):
        return self._activated(F.linear(x, weight, bias), activation)

    def _activated(self, x, name):
        if name is None:
            return x
        return self.silu(x) if name == "silu" else self.gelu(x, "tanh")

    def conv2d(self, x, weight, bias=None, stride=(1, 1)):
        return F.conv2d(x, weight, bias, tuple(stride))

    def conv3d(self, x, weight, bias=None, stride=(1, 1, 1)):
        return F.conv3d(x, weight, bias, tuple(stride))

    def embedding(self, table, ids):
        return F.embedding(ids, table)

    def layer_norm(self, x, weight=None, bias=None, eps=1e-6):
        return F.layer_norm(x, (x.shape[-1],), weight, bias, eps)

    def rms_norm(self, x, weight, eps=1e-6):
        if x.dtype == weight.dtype:
            # One launch in place of seven. It multiplies by the weight before it rounds, not after: a quarter of the
            # half numbers differ in their last place, and are nearer to the exact ones.
            return ops.rms_norm(x, weight, eps)[0]
        return self._normed(x, weight, eps)

    def _normed(self, x, weight, eps):
        wide = self.cast(x, "float32")
        scaled = wide * mint.rsqrt(mint.mean(mint.square(wide), dim=-1, keepdim=True) + eps)
        return self.cast(scaled, self.dtype(x)) * weight

    def group_norm(self, x, groups, weight, bias, eps=1e-6):
        return F.group_norm(x, groups, weight, bias, eps)

    def moments(self, x):
        flat = self.cast(mint.reshape(x, (x.shape[0], x.shape[1], -1)), "float32")
        mean = mint.mean(flat, dim=2, keepdim=True)
        return mean[:, :, 0], mint.mean(mint.square(flat - mean), dim=2)

    def window(self, x, gain, shift, before=None, activation=None):
        each = (x.shape[0], x.shape[1], 1, 1, 1)
        y = self.cast(x, "float32") * mint.reshape(gain, each) + mint.reshape(shift, each)
        y = self.cast(self._activated(y, activation), self.dtype(x))
        y = self._repeat_edges(y, [(2 if before is None else 0, 0), (1, 1), (1, 1)])
        return y if before is None else mint.cat([before, y], dim=2)

    def silu(self, x):
        return F.silu(x)

    def gelu(self, x, approximate="none"):
        return F.gelu(x, approximate=approximate)

    def softmax(self, x):
        return mint.softmax(x, dim=-1)

    def attention(self, q, k, v, *, scale, mask=None, lengths=None):
        if lengths is None:
            return self._attend(q, k, v, scale, mask)
        parts = []
        for i in range(len(lengths)):
            keys, values = k[i : i + 1, : lengths[i]], v[i : i + 1, : lengths[i]]
            parts = [*parts, self._attend(q[i : i + 1], keys, values, scale, None)]
        return parts[0] if len(parts) == 1 else mint.cat(parts, dim=0)

    def key_lengths(self, lengths):
        return tuple(lengths)

    def attention_kernels(self, order=()):
        return ()

    def _attend(self, q, k, v, scale, mask):
        width = q.shape[3]
        if q.dtype == ms.float32 or width % 16 != 0 or width > 512:
            return self._composed(q, k, v, scale, mask)
        if mask is not None:  # there, True means discard
            shape = (q.shape[0], q.shape[2], q.shape[1], k.shape[1])
            mask = mint.logical_not(mint.broadcast_to(mask, shape))
        return ops.flash_attention_score(q, k, v, q.shape[2], attn_mask=mask, scalar_value=scale, input_layout="BSND")

    def _composed(self, q, k, v, scale, mask):
        q, k, v = self._swapped(q) * scale, self._swapped(k), self._swapped(v)
        count = q.shape[2]
        step = max(1, SCORES // (q.shape[0] * q.shape[1] * k.shape[2]))
        parts = []
        for start in range(0, count, step):
            stop = min(start + step, count)
            scores = _TIMES_TURNED(q[:, :, start:stop], k)
            if mask is not None:
                part = mask if mask.shape[-2] == 1 else mask[..., start:stop, :]
                scores = mint.where(part, scores, -30000.0)
            parts = [*parts, _TIMES(mint.softmax(scores, dim=-1), v)]
        out = parts[0] if len(parts) == 1 else mint.cat(parts, dim=2)
        return self._swapped(out)

    def _swapped(self, x):
        return mint.permute(x, (0, 2, 1, 3))  # tokens and heads

    def rotate(self, x, cos, sin):
        batch, tokens, heads, width = x.shape
        wide = self.cast(x, "float32")
        pairs = mint.reshape(wide, (batch, tokens, heads, width // 2, 2))
        turned = self.stack([0.0 - pairs[..., 1], pairs[..., 0]], -1)
        turned = mint.reshape(turned, (batch, tokens, heads, width))
        return self.cast(wide * cos[None, :, None, :] + turned * sin[None, :, None, :], self.dtype(x))

    def interleave(self, x, factors, start=0):
        channels = x.shape[1] // (factors[0] * factors[1] * factors[2])
        height, width = x.shape[3] - factors[1] + 1, x.shape[4] - factors[2] + 1
        places = []
        for index in range(factors[0] * factors[1] * factors[2]):
            row, column = index // factors[2] % factors[1], index % factors[2]
            place = x[:, index * channels : (index + 1) * channels, :, row : row + height, column : column + width]
            places = [*places, place]
        axis = 5
        for i in range(3):  # the last axis first: its neighbours stand beside each other in the list
            axis, factor = axis - 1, factors[2 - i]
            if factor > 1:
                joined = []
                for first in range(0, len(places), factor):
                    shape = tuple(places[first].shape)
                    pair = self.stack(places[first : first + factor], axis + 1)
                    joined = [*joined, mint.reshape(pair, (*shape[:axis], shape[axis] * factor, *shape[axis + 1 :]))]
                places = joined
        return places[0][:, :, start:]

    # --- control

    def compile(self, function):
        graphs = {}

        def call(*arguments, **named):
            leaves = []
            key, build = take_apart((arguments, named), leaves)
            if key not in graphs:
                graphs[key] = graph(function, build)
            return graphs[key](*leaves)

        return call

    def synchronize(self):
        ms.runtime.synchronize()

    def memory(self):
        properties = ms.hal.get_device_properties(int(self.device.partition(":")[2]))
        used = int(ms.runtime.memory_allocated())
        cached = int(ms.runtime.memory_reserved()) - used  # held by MindSpore's pool, free for the next tensor
        return {
            "free": int(properties.free_memory) + cached,
            "total": int(properties.total_memory),
            "used": used,
            "peak": int(ms.runtime.max_memory_allocated()),
        }

    def mark(self):
        event = ms.runtime.Event()
        event.record()
        return event.synchronize

    def copy_stream(self):
        # The current stream belongs to the whole process in MindSpore's source, not to a thread: what the model
        # launches meanwhile would run in a stream of copies, before its inputs are there.
        return contextlib.nullcontext()


def flat_widths(widths):
    """Last axis first, before and after, in one tuple."""
    flat = []
    for i in range(len(widths)):
        flat = [widths[i][0], widths[i][1], *flat]
    return tuple(flat)
