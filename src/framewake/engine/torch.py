"""PyTorch on CUDA and on the CPU. Only this file, ``torch_cpu.py`` and ``torch_cuda.py`` import torch."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import os

# libgomp's waiting threads spin for milliseconds by default. Where anything else wants the same cores, that made
# everything here 15 times slower (measured); a few microseconds keep the speed of an idle machine. It is read
# once, when torch loads the library.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F

from framewake.engine import torch_cpu, torch_cuda
from framewake.engine.host import host_memory, keep_freed_memory
from framewake.errors import EngineError

_DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int64": torch.int64,
    "bool": torch.bool,
}
_NAMES = {value: key for key, value in _DTYPES.items()}


def writeable(array: np.ndarray) -> np.ndarray:
    """An array in C order that torch may share: itself, or a copy of one that must not change."""
    return np.asarray(array, order="C") if array.flags.writeable else np.array(array, order="C")


class TorchEngine:
    """The contract over torch. Documentation of every method: ``engine/contract.py``."""

    kind = "torch"

    def __init__(self, device: str, reason: str, *, is_eight_bit: bool = False) -> None:
        self.device = device
        self.name = f"torch:{device}" + ("+fp8" if is_eight_bit else "")
        self.reason = reason
        self.attention_reason = "torch's kernel for this processor" if device == "cpu" else ""
        self._device = torch.device(device)
        self._copies = None
        self._is_eight_bit = is_eight_bit

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
        kind = None if dtype is None else _DTYPES[dtype]
        if self._copies is not None and torch.cuda.current_stream(self._device) == self._copies:
            # From pinned memory a copy runs by itself; the stream is waited for before the array can go.
            return values.to(dtype=kind).pin_memory().to(self._device, non_blocking=True)
        return values.to(device=self._device, dtype=kind)

    def numpy(self, x):
        x = x.detach()
        return (x.float() if x.dtype == torch.bfloat16 else x).cpu().numpy()

    def zeros(self, shape, dtype="float32"):
        return torch.zeros(tuple(shape), dtype=_DTYPES[dtype], device=self._device)

    def full(self, shape, value, dtype="float32"):
        return torch.full(tuple(shape), value, dtype=_DTYPES[dtype], device=self._device)

    def arange(self, count, dtype="int64"):
        return torch.arange(count, dtype=_DTYPES[dtype], device=self._device)

    def cast(self, x, dtype):
        return x.to(_DTYPES[dtype])

    def dtype(self, x):
        return _NAMES[x.dtype]

    def to_device(self, x):
        return x.to(self._device, non_blocking=True)

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
        if self._is_eight_bit and torch_cuda.takes_eight_bits(x, weight):
            return torch_cpu.activated(torch_cuda.linear_in_eight_bits(x, weight, bias), activation)
        if self._device.type == "cpu":
            return torch_cpu.linear(x, weight, bias, activation)
        return torch_cpu.activated(F.linear(x, weight, bias), activation)

    def conv2d(self, x, weight, bias=None, stride=(1, 1)):
        return F.conv2d(x, weight, bias, tuple(stride))

    def conv3d(self, x, weight, bias=None, stride=(1, 1, 1)):
        convolution = torch_cpu.conv3d if self._device.type == "cpu" else F.conv3d
        return convolution(x, weight, bias, tuple(stride))

    def embedding(self, table, ids):
        return F.embedding(ids, table)

    def layer_norm(self, x, weight=None, bias=None, eps=1e-6):
        return F.layer_norm(x, x.shape[-1:], weight, bias, eps)

    def rms_norm(self, x, weight, eps=1e-6):
        if x.dtype == weight.dtype == torch.float32:
            return F.rms_norm(x, x.shape[-1:], weight, eps)
        return F.rms_norm(x.float(), x.shape[-1:], None, eps).to(x.dtype) * weight

    def group_norm(self, x, groups, weight, bias, eps=1e-6):
        norm = torch_cpu.group_norm if self._device.type == "cpu" else F.group_norm
        return norm(x, groups, weight, bias, eps)

    def moments(self, x):
        return (torch_cpu.moments if self._device.type == "cpu" else torch_cpu.plain_moments)(x)

    def window(self, x, gain, shift, before=None, activation=None):
        window = torch_cpu.window if self._device.type == "cpu" else torch_cpu.plain_window
        return window(x, gain, shift, before, activation)

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
        if not self.attention_reason:
            self._settle_attention()
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        if self._device.type == "cpu":
            k, v = torch_cpu.by_heads(k), torch_cpu.by_heads(v)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale).transpose(1, 2)

    def _settle_attention(self):
        # Measured once, when it is first needed: the fastest kernel depends on device, driver and version.
        if not self.attention_reason:
            order, self.attention_reason = torch_cuda.choose_attention(self._device)
            torch_cuda.use_attention(order)

    def rotate(self, x, cos, sin):
        if self._device.type == "cpu" and not torch.compiler.is_compiling():
            return torch_cpu.rotate(x, cos, sin)
        wide = x.float()
        pairs = wide.unflatten(-1, (-1, 2))
        turned = torch.stack([-pairs[..., 1], pairs[..., 0]], -1).flatten(-2)
        return (wide * cos[:, None] + turned * sin[:, None]).to(x.dtype)

    def interleave(self, x, factors, start=0):
        batch, channels, frames, height, width = x.shape
        channels //= math.prod(factors)
        height, width = height - factors[1] + 1, width - factors[2] + 1
        shape = (batch, channels, frames * factors[0], height * factors[1], width * factors[2])
        layout = torch.channels_last_3d if self._device.type == "cpu" else torch.contiguous_format
        out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout)
        for index, (time, row, column) in enumerate(itertools.product(*map(range, factors))):
            place = x[:, index * channels :][:, :channels, :, row : row + height, column : column + width]
            out[:, :, time :: factors[0], row :: factors[1], column :: factors[2]] = place
        return out[:, :, start:]

    # --- control

    def compile(self, function):
        is_cuda = self._device.type == "cuda"
        if is_cuda and os.environ.get("FRAMEWAKE_COMPILE") == "0":
            return function
        if is_cuda:
            self._settle_attention()  # a program that is being compiled cannot stop to measure
        # One program for each size on CUDA: sizes that stay open would cost speed in every step.
        compiled = torch.compile(function, dynamic=False if is_cuda else None)

        def call(*arguments, **named):
            nonlocal compiled
            try:
                return compiled(*arguments, **named)
            except torch._dynamo.exc.TorchDynamoException as error:
                problem = EngineError(
                    f"torch.compile failed: {str(error).splitlines()[0]} It needs a C++ compiler (on Debian: "
                    "apt install g++; or set CXX to one), and Triton on CUDA. Install it, or run without compiling "
                    "(FRAMEWAKE_COMPILE=0)."
                )
                if not is_cuda:
                    raise problem from error
                # There, compiling is done unasked for some percent of speed: no run may fail over it.
                logging.getLogger(__name__).warning("%s Going on without.", problem)
                compiled = function
                return function(*arguments, **named)

        return call

    def grad(self, function):
        def value_and_grad(weights, *args):
            leaves = {name: w.detach().requires_grad_(True) for name, w in weights.items()}
            with torch.enable_grad():
                value = function(leaves, *args)
            grads = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
            found = {n: torch.zeros_like(leaves[n]) if g is None else g for n, g in zip(leaves, grads, strict=True)}
            return value.detach(), found

        return value_and_grad

    def synchronize(self):
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def memory(self):
        if self._device.type == "cuda":
            free, total = torch.cuda.mem_get_info(self._device)
            used, peak = torch.cuda.memory_allocated(self._device), torch.cuda.max_memory_allocated(self._device)
            cached = torch.cuda.memory_reserved(self._device) - used  # held by torch, free for the next tensor
            return {"free": free + cached, "total": total, "used": used, "peak": peak}
        return host_memory()

    def mark(self):
        if self._device.type != "cuda":
            return _nothing
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self._device))
        return event.synchronize

    def copy_stream(self):
        if self._device.type != "cuda":
            return contextlib.nullcontext()
        if self._copies is None:  # one for good: each stream has its own pool of device memory
            self._copies = torch.cuda.Stream(self._device)
        return _copying(self._copies)

    # --- collectives

    def rank(self):
        return dist.get_rank() if dist.is_initialized() else 0

    def size(self):
        return dist.get_world_size() if dist.is_initialized() else 1

    def all_gather(self, x, axis):
        if self.size() == 1:
            return x
        pieces = [torch.empty_like(x) for _ in range(self.size())]
        dist.all_gather(pieces, x.contiguous())
        return torch.cat(pieces, dim=axis)

    def all_to_all(self, x, split_axis, concat_axis):
        if self.size() == 1:
            return x
        sent = [piece.contiguous() for piece in x.chunk(self.size(), dim=split_axis)]
        received = [torch.empty_like(piece) for piece in sent]
        dist.all_to_all(received, sent)
        return torch.cat(received, dim=concat_axis)

    def all_reduce(self, x):
        if self.size() > 1:
            x = x.clone()
            dist.all_reduce(x)
        return x

    def broadcast(self, x, source=0):
        if self.size() > 1:
            x = x.clone()
            dist.broadcast(x, source)
        return x


@contextlib.contextmanager
def _copying(stream):
    with torch.cuda.stream(stream):
        yield
    stream.synchronize()


def _nothing() -> None:
    """What a CPU has to wait for: every call has finished when it returns."""


def devices() -> list[str]:
    """The devices of this machine that torch can use."""
    return ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]


why_absent = torch_cuda.why_absent


def make(device: str, reason: str) -> TorchEngine:
    """A torch engine; ``device`` is "cpu", "cuda:n" or "cuda:n+fp8" (existence is checked by the caller).

    Raises: EngineError where eight bits are asked of a device that has none.
    """
    device, _, kind = device.partition("+")
    if device == "cpu":
        keep_freed_memory()
    else:
        torch_cuda.check_kernels(device)
    if kind and torch.cuda.get_device_capability(device) < (8, 9):
        raise EngineError(f"{device} has no products in eight bits (from Ada and Hopper on): leave out +fp8.")
    return TorchEngine(device, reason, is_eight_bit=bool(kind))


def draw_normal(device: str, shape: tuple[int, ...], seed: int, dtype: str) -> torch.Tensor:
    """Standard normal numbers of torch's own generator on a device, drawn in the type itself.

    The numbers depend on device and type, as the original's do: this exists to repeat them.
    Source: specification, section 6.2.
    """
    generator = torch.Generator(device).manual_seed(seed)
    return torch.randn(shape, generator=generator, device=device, dtype=_DTYPES[dtype])
