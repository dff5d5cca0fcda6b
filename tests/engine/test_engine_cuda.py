"""What is told to torch about CUDA devices, as far as a CPU can run it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

from framewake import engine as engines  # noqa: E402
from framewake.engine.torch import attention, eight_bits  # noqa: E402
from framewake.errors import EngineError, InputError  # noqa: E402

CPU = torch.device("cpu")


def test_the_fastest_right_kernel_is_chosen_with_its_reason():
    order, reason = attention.choose_attention(CPU, probe=(1, 256, 2, 64))
    assert order[-1] == "plain" and "cuDNN" not in order
    assert reason.startswith(f"{order[0]}, the fastest here: {order[0]}") and "cuDNN not (" in reason
    assert attention.attention_error("plain", CPU) < attention.MOST_ERROR


def test_an_order_once_set_stays():
    code = """
import torch
from framewake.engine.torch import attention
attention.use_attention(("memory-efficient", "flash", "plain"))
print(torch._C._get_sdp_priority_order()[:3], torch.backends.cuda.cudnn_sdp_enabled())
x = torch.ones(1, 2, 8, 64)
assert torch.equal(torch.nn.functional.scaled_dot_product_attention(x, x, x), x)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    numbers = [int(attention.BACKENDS[name]) for name in ("memory-efficient", "flash", "plain")]
    assert done.stdout.split("\n")[0] == f"{numbers} False", done.stderr


@pytest.mark.parametrize("has_bias", [True, False])
def test_eight_bits_are_near(has_bias):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn((2, 640, 1024), generator=generator)
    x[0, 3] *= 1000  # a row of its own size costs the others nothing
    weight = torch.randn((2048, 1024), generator=generator) / 32
    bias = torch.randn(2048, generator=generator) if has_bias else None
    found = eight_bits.linear_in_eight_bits(x, weight, bias)
    expected = torch.nn.functional.linear(x, weight, bias)
    rows = ((found - expected).norm(dim=-1) / expected.norm(dim=-1)).flatten()
    assert 0.005 < rows.max() < 0.06, rows.max()  # e4m3 has 3 bits behind its first


def test_only_large_layers_in_half_precision_take_eight_bits():
    weight = torch.zeros((3072, 3072), dtype=torch.bfloat16)
    many, few = torch.zeros((1, 2048, 3072), dtype=torch.bfloat16), torch.zeros((1, 400, 3072), dtype=torch.bfloat16)
    takes = eight_bits.takes_eight_bits
    assert takes(many, weight) and not takes(few, weight) and not takes(many.float(), weight)
    assert not takes(many, weight[:64]) and not takes(many, weight[:3071])


def test_zeros_stay_zeros():
    bits, scales = eight_bits.in_eight_bits(torch.zeros((4, 16)))
    assert float(bits.float().abs().max()) == 0 and torch.isfinite(scales).all()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
@pytest.mark.parametrize("name", ["torch:cuda+fp8", "torch:cuda:1+fp8"])
def test_eight_bits_need_a_device(name):
    with pytest.raises(EngineError, match="there is no device"):
        engines.get(name)


def test_eight_bits_are_for_cuda_only():
    with pytest.raises(InputError, match="is unknown"):
        engines.get("torch:cpu+fp8")
