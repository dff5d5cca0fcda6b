"""Torch on a CUDA device."""

from __future__ import annotations

import contextlib
import logging
import os

import torch

from framewake.engine.torch import eight_bits
from framewake.engine.torch.attention import choose_attention, use_attention
from framewake.engine.torch.engine import ACTIVATIONS, TorchEngine, not_compiled
from framewake.engine.traits import Traits


class TorchCuda(TorchEngine):
    """The contract over torch on a CUDA device."""

    traits = Traits(
        is_host=False,
        precision="bfloat16",
        products=("float32", "float16", "bfloat16"),
        fused_attention=("float32", "float16", "bfloat16"),
        draws_as_torch=True,
        holds_arrays=True,
        compiles_blocks=True,
        product_share=0.7,
        start_bytes=30 << 20,
    )

    def __init__(self, device: torch.device, reason: str, *, is_eight_bit: bool = False) -> None:
        super().__init__(device, reason)
        self.name += "+fp8" if is_eight_bit else ""
        self.attention_reason = ""
        self._is_eight_bit = is_eight_bit
        self._copies = None

    def _moved(self, x, kind):
        if self._copies is not None and torch.cuda.current_stream(self._device) == self._copies:
            # From pinned memory a copy runs by itself; the stream is waited for before the array can go.
            return x.to(dtype=kind).pin_memory().to(self._device, non_blocking=True)
        return super()._moved(x, kind)

    def linear(self, x, weight, bias=None, activation=None):
        if self._is_eight_bit and eight_bits.takes_eight_bits(x, weight):
            return ACTIVATIONS[activation](eight_bits.linear_in_eight_bits(x, weight, bias))
        return super().linear(x, weight, bias, activation)

    def _attend(self, q, k, v, scale, mask):
        self._settle_attention()
        return super()._attend(q, k, v, scale, mask)

    def _settle_attention(self):
        # Measured once, when it is first needed: the fastest kernel depends on device, driver and version.
        if not self.attention_reason:
            order, self.attention_reason = choose_attention(self._device)
            use_attention(order)

    def compile(self, function):
        if os.environ.get("FRAMEWAKE_COMPILE") == "0":
            return function
        self._settle_attention()  # a program that is being compiled cannot stop to measure
        # One program for each size: sizes that stay open would cost speed in every step.
        compiled = torch.compile(function, dynamic=False)

        def call(*arguments, **named):
            nonlocal compiled
            try:
                return compiled(*arguments, **named)
            except torch._dynamo.exc.TorchDynamoException as error:
                # Compiling is done unasked for some percent of speed: no run may fail over it.
                logging.getLogger(__name__).warning("%s Going on without.", not_compiled(error))
                compiled = function
                return function(*arguments, **named)

        return call

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


@contextlib.contextmanager
def _copying(stream):
    with torch.cuda.stream(stream):
        yield
    stream.synchronize()
