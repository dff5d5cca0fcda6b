"""Torch on a CUDA device."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import types

import torch

from framewake.engine.torch import eight_bits
from framewake.engine.torch.attention import attend, choose_attention, composed, use_attention
from framewake.engine.torch.driver import check_device, is_slow_in_convolutions
from framewake.engine.torch.engine import ACTIVATIONS, DTYPES, NAMES, TorchEngine, not_compiled
from framewake.engine.traits import Traits

NEEDS = "Triton, a C compiler and Python's headers (on Debian: apt install gcc libc6-dev python3-dev)"
TENSOR_CORES_OF_BFLOAT16 = (8, 0)  # Ampere; before it bfloat16 is emulated, and float16 is what is fast
LEAST_MARGIN, MARGIN = 600 << 20, 0.04  # for the workspaces of cuDNN and cuBLAS, and holes between tensors


class TorchCuda(TorchEngine):
    """The contract over torch on a CUDA device. What asks the driver stands in the methods at the end."""

    # Half-precision convolutions over frames leave cuDNN in some of its versions when channels stand first, for a way
    # through 27 copies of the clip; channels last, they stay, and cuDNN need not turn the clip around.
    _layout = torch.channels_last_3d

    def __init__(self, device: torch.device, reason: str, *, is_eight_bit: bool = False) -> None:
        super().__init__(device, reason)
        self.name += "+fp8" if is_eight_bit else ""
        self.plain_reason = ""
        self._is_eight_bit = is_eight_bit
        self._copies = None
        self._order = ()

    @functools.cached_property
    def traits(self):
        precision = "bfloat16" if self._capability() >= TENSOR_CORES_OF_BFLOAT16 else "float16"
        fused = tuple(NAMES[kind] for kind in self._attention.types)
        return Traits(
            is_host=False,
            precision=precision,
            products=("float32", "float16", "bfloat16"),
            fused_attention=fused,
            draws_as_torch=True,
            holds_arrays=True,
            compiles_blocks=precision in fused,
            has_gradients=not self._is_eight_bit,  # torch's product in eight bits is not known to have one
            product_share=0.7,
            start_bytes=30 << 20,
            text_bucket=64,
            margin_bytes=max(LEAST_MARGIN, int(MARGIN * self.memory()["total"])),
        )

    @functools.cached_property
    def _attention(self):
        # Measured once, when it is first needed: the fastest kernel depends on device, driver and version.
        return self._choose_attention()

    @property
    def attention_reason(self):
        return self._attention.reason if "_attention" in vars(self) else ""

    def key_lengths(self, lengths):
        return torch.tensor(tuple(lengths))  # on the host: of a tensor, a program knows no numbers

    def attention(self, q, k, v, *, scale, mask=None, lengths=None):
        if not isinstance(lengths, torch.Tensor):
            return super().attention(q, k, v, scale=scale, mask=mask, lengths=lengths)
        return attend(q, k, v, lengths, scale, q.dtype not in self._attention.types)

    def attention_kernels(self, order=()):
        order = tuple(order)
        if order and set(order) == set(self._attention.order) and order != self._order:
            if self._order:
                torch.compiler.reset()  # compiled programs would keep theirs
            use_attention(order)
            self._order = order
        elif not self._order:
            return self.attention_kernels(self._attention.order)
        return self._order

    def _moved(self, x, kind):
        if self._is_copying():
            # From pinned memory a copy runs by itself; the stream is waited for before the array can go.
            return x.to(dtype=kind).pin_memory().to(self._device, non_blocking=True)
        return super()._moved(x, kind)

    def pad(self, x, widths, mode="constant"):
        if mode != "replicate" or x.ndim != 5:
            return super().pad(x, widths, mode)
        # Torch's own gives channels first, and the convolution behind it would turn them around once more.
        widths = [(0, 0)] * (3 - len(widths)) + list(widths)
        shape = [*x.shape[:2], *(size + sum(width) for size, width in zip(x.shape[2:], widths, strict=True))]
        out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=self._layout)
        inner = tuple(slice(before, before + size) for size, (before, _) in zip(x.shape[2:], widths, strict=True))
        out[:, :, inner[0], inner[1], inner[2]] = x
        for axis, (size, (before, after)) in enumerate(zip(x.shape[2:], widths, strict=True), start=2):
            if before:
                out.narrow(axis, 0, before).copy_(out.narrow(axis, before, 1))
            if after:
                out.narrow(axis, before + size, after).copy_(out.narrow(axis, before + size - 1, 1))
        return out

    def conv3d(self, x, weight, bias=None, stride=(1, 1, 1)):
        x, weight = (each.contiguous(memory_format=self._layout) for each in (x, weight))
        return super().conv3d(x, weight, bias, stride)

    def group_norm(self, x, groups, weight, bias, eps=1e-6):
        if x.ndim != 5 or x.is_contiguous():
            return super().group_norm(x, groups, weight, bias, eps)
        # Torch's own turns a clip around first, and leaves it so.
        mean, variance = (each.double().unflatten(1, (groups, -1)) for each in self.moments(x))
        middle = mean.mean(2, keepdim=True)
        spread = (variance + (mean - middle) ** 2).mean(2, keepdim=True)
        gain = torch.rsqrt(spread + eps).expand_as(mean).flatten(1) * weight.double()
        shift = bias.double() - middle.expand_as(mean).flatten(1) * gain
        gain, shift = (each.float()[:, :, None, None, None] for each in (gain, shift))
        return torch.addcmul(shift, x.float(), gain).to(x.dtype)

    def linear(self, x, weight, bias=None, activation=None):
        if self._is_eight_bit and eight_bits.takes_eight_bits(x, weight):
            return ACTIVATIONS[activation](eight_bits.linear_in_eight_bits(x, weight, bias))
        return super().linear(x, weight, bias, activation)

    def _attend(self, q, k, v, scale, mask):
        if not self._order:
            self.attention_kernels()
        if q.dtype not in self._attention.types:
            return composed(q, k, v, scale, mask)
        return super()._attend(q, k, v, scale, mask)

    def compile(self, function):
        if os.environ.get("FRAMEWAKE_COMPILE") == "0":
            self.plain_reason = "FRAMEWAKE_COMPILE is 0"
            return function
        self.attention_kernels()  # a program that is being compiled cannot stop to measure
        if hasattr(torch._dynamo.config, "fail_on_recompile_limit_hit"):  # before torch 2.6 its log alone tells it
            torch._dynamo.config.fail_on_recompile_limit_hit = True
        # One program for each size: sizes that stay open would cost speed in every step.
        compiled = self._compiled(_with_own_code(function), dynamic=False)

        def call(*arguments, **named):
            nonlocal compiled
            try:
                return compiled(*arguments, **named)
            except torch.cuda.OutOfMemoryError:
                raise
            except Exception as error:  # noqa: BLE001 - torch, Triton and a C compiler each have their own
                # Compiling is done unasked for some percent of speed: no run may fail over it. What is wrong with
                # the call itself is raised again below.
                problem = not_compiled(error, NEEDS)
                logging.getLogger(__name__).warning("%s Going on without.", problem)
                self.plain_reason = str(problem)
                compiled = function
                return function(*arguments, **named)

        return call

    # --- what asks the driver

    def _capability(self):
        return torch.cuda.get_device_capability(self._device)

    def _choose_attention(self):
        preferred = "bfloat16" if self._capability() >= TENSOR_CORES_OF_BFLOAT16 else "float16"
        return choose_attention(self._device, DTYPES[preferred])

    def _is_copying(self):
        return self._copies is not None and torch.cuda.current_stream(self._device) == self._copies

    def make_deterministic(self):
        # Attention's gradient adds up in any order otherwise, and cuBLAS takes what workspace is free.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # it costs a pass, and nobody reads it

    def synchronize(self):
        torch.cuda.synchronize(self._device)

    def memory(self):
        free, total = torch.cuda.mem_get_info(self._device)
        used, peak = torch.cuda.memory_allocated(self._device), torch.cuda.max_memory_allocated(self._device)
        cached = torch.cuda.memory_reserved(self._device) - used  # held by torch, free for the next tensor
        return {"free": free + cached, "total": total, "used": used, "peak": peak}

    def mark(self):
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self._device))
        return event.synchronize

    def copy_stream(self):
        if self._copies is None:  # one for good: each stream has its own pool of device memory
            self._copies = torch.cuda.Stream(self._device)
        return _copying(self._copies)


def _with_own_code(function):
    """The same function with a code object of its own.

    Torch counts programs by code object and stops at the eighth, without a word and for the life of the process; the
    closures that a model makes for its sizes would share one.
    """
    if not isinstance(function, types.FunctionType):
        return function
    code, rest = function.__code__, (function.__name__, function.__defaults__, function.__closure__)
    made = types.FunctionType(code.replace(), function.__globals__, *rest)
    made.__kwdefaults__ = function.__kwdefaults__
    return made


@contextlib.contextmanager
def _copying(stream):
    with torch.cuda.stream(stream):
        yield
    stream.synchronize()


def make(device, reason, *, is_eight_bit):
    """An engine for a device that computes; products and convolutions in float32 are what their name says.

    Raises: EngineError where the driver or this build of torch cannot serve the device, or has no eight bits for it.
    """
    check_device(device)
    # By default the convolutions would round to ten bits behind the first.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    if is_eight_bit:
        eight_bits.check_eight_bits(torch.device(device))
    if is_slow_in_convolutions(torch.device(device)):
        logging.getLogger(__name__).warning(
            "torch %s has no fast convolution over frames in float16 on %s: decoding takes far longer and many times "
            "the memory. Take another torch (2.9.0 is known for it).",
            torch.__version__,
            device,
        )
    return TorchCuda(torch.device(device), reason, is_eight_bit=is_eight_bit)
