"""Torch on a CPU."""

from __future__ import annotations

import contextlib

import torch

from framewake.engine.host import bound_freed_memory, host_memory
from framewake.engine.torch import onednn
from framewake.engine.torch.engine import TorchEngine, not_compiled
from framewake.engine.traits import Traits

LARGE = 1 << 22  # numbers of a clip for which a look at the memory is nothing beside its convolution


class TorchCpu(TorchEngine):
    """The contract over torch on a CPU."""

    traits = Traits(
        is_host=True,
        precision="float32",
        products=("float32", "float16", "bfloat16"),
        fused_attention=("float32", "float16", "bfloat16"),
        draws_as_torch=True,
        holds_arrays=True,
        compiles_blocks=False,
        product_share=0.7,
        start_bytes=30 << 20,
        slab_numbers=1 << 20,  # 4 MiB in float32
        chunk_tokens=448,
        convolution_floor=20 << 20,
    )
    attention_reason = "torch's kernel for this processor"
    plain_reason = ""
    _layout = torch.channels_last_3d

    def linear(self, x, weight, bias=None, activation=None):
        if onednn.takes_linear(x, weight, bias):
            return onednn.linear(x, weight, bias, activation)
        return super().linear(x, weight, bias, activation)

    def conv3d(self, x, weight, bias=None, stride=(1, 1, 1)):
        if x.numel() >= LARGE:
            bound_freed_memory()
        return onednn.conv3d(x, weight, bias, tuple(stride))

    def group_norm(self, x, groups, weight, bias, eps=1e-6):
        return onednn.group_norm(x, groups, weight, bias, eps)

    def moments(self, x):
        return onednn.moments(x) if onednn.is_one_clip(x) else super().moments(x)

    def window(self, x, gain, shift, before=None, activation=None):
        if onednn.is_one_clip(x, gain, shift, before):
            return onednn.window(x, gain, shift, before, activation)
        return super().window(x, gain, shift, before, activation)

    def key_lengths(self, lengths):
        return tuple(lengths)

    def attention_kernels(self, order=()):
        return ()

    def _attend(self, q, k, v, scale, mask):
        return super()._attend(q, onednn.by_heads(k), onednn.by_heads(v), scale, mask)

    def rotate(self, x, cos, sin):
        return super().rotate(x, cos, sin) if torch.compiler.is_compiling() else onednn.rotate(x, cos, sin)

    def compile(self, function):
        compiled = self._compiled(function, dynamic=None)

        def call(*arguments, **named):
            try:
                return compiled(*arguments, **named)
            except torch._dynamo.exc.TorchDynamoException as error:
                needs = "a C++ compiler (on Debian: apt install g++; or set CXX to one)"
                raise not_compiled(error, needs) from error

        return call

    def make_deterministic(self):
        return None  # it is

    def synchronize(self):
        return None  # every call has finished when it returns

    def memory(self):
        return host_memory()

    def mark(self):
        return self.synchronize

    def copy_stream(self):
        return contextlib.nullcontext()
