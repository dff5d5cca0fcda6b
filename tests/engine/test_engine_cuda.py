"""The branch for CUDA, as far as a CPU can run it."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import numpy_layers as layers
import pytest

torch = pytest.importorskip("torch")

from cuda_here import CudaHere  # noqa: E402

from framewake import engine as engines  # noqa: E402
from framewake.engine.torch import attention, cuda, driver, eight_bits  # noqa: E402
from framewake.errors import EngineError, InputError  # noqa: E402

CPU = torch.device("cpu")
HALF = (torch.bfloat16, torch.float16)


@pytest.fixture
def here():
    return CudaHere()


def python(code: str, **variables: str) -> str:
    """What a process of its own prints: torch keeps its settings for the process."""
    environment = os.environ | variables
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- attention


def test_the_right_kernels_are_found_with_their_reason():
    order, reason, types = attention.choose_attention(CPU, torch.bfloat16, probe=(1, 256, 2, 64))
    assert order[-1] == "plain" and "cuDNN" not in order
    assert reason.startswith(f"{order[0]}, none is clearly faster here: ") and "cuDNN not (" in reason
    assert set(types) == {torch.bfloat16, torch.float16, torch.float32}
    for kind, most in attention.MOST_ERROR.items():
        for call in attention.CALLS:
            assert attention.attention_error("plain", CPU, kind, call) < most


def test_kernels_are_tried_with_views_masks_and_all_widths():
    assert {width for width, _, _ in attention.CALLS} == {64, 128, 512}
    assert any(is_view for _, is_view, _ in attention.CALLS) and any(has_mask for *_, has_mask in attention.CALLS)


def test_a_wrong_kernel_is_left_out(monkeypatch):
    def error(name, device, kind, call):
        if name == "cuDNN":
            raise RuntimeError("no such card\nmore")
        return 0.5 if (name, kind, call[0]) == ("flash", torch.float16, 64) else 1e-5

    monkeypatch.setattr(attention, "attention_error", error)
    monkeypatch.setattr(attention, "attention_seconds", lambda name, *_: 1.0)
    order, reason, types = attention.choose_attention(CPU, torch.bfloat16, probe=(1, 64, 2, 64))
    assert order == ("memory-efficient", "plain") and len(types) == 3
    assert "flash not (wrong by 0.5)" in reason and "cuDNN not (no such card)" in reason


def test_a_kernel_stays_when_only_bfloat16_refuses_it(monkeypatch):
    """As on cards before Ampere."""

    def error(name, device, kind, call):
        if name != "memory-efficient" or kind == torch.bfloat16:
            raise RuntimeError("needs sm80")
        return 1e-5

    monkeypatch.setattr(attention, "attention_error", error)
    monkeypatch.setattr(attention, "attention_seconds", lambda name, *_: 1.0)
    order, _, types = attention.choose_attention(CPU, torch.float16, probe=(1, 64, 2, 64))
    assert order == ("memory-efficient", "plain") and types == (torch.float16, torch.float32)
    order, _, types = attention.choose_attention(CPU, torch.bfloat16, probe=(1, 64, 2, 64))
    assert order == ("memory-efficient", "plain"), "the text encoders and the autoencoder have it still"


@pytest.mark.parametrize(
    ("seconds", "first"),
    [
        ({"flash": 1.0, "cuDNN": 0.95}, "flash"),
        ({"flash": 1.0, "cuDNN": 0.8}, "cuDNN"),
        ({"flash": 1.0, "cuDNN": 0.89, "memory-efficient": 0.88}, "cuDNN"),
        ({"memory-efficient": 2.0, "cuDNN": 1.9}, "cuDNN"),
        ({"memory-efficient": 2.0}, "memory-efficient"),
    ],
)
def test_only_a_clear_win_changes_the_order(seconds, first):
    order = attention.in_order(seconds)
    assert order[0] == first and set(order) == set(seconds)


def test_an_order_once_set_stays_until_another_is_set():
    code = """
import torch
from framewake.engine.torch import attention
for order in (("memory-efficient", "flash", "plain"), ("flash", "plain")):
    attention.use_attention(order)
    print(torch._C._get_sdp_priority_order()[:len(order)], torch.backends.cuda.mem_efficient_sdp_enabled())
x = torch.ones(1, 2, 8, 64)
assert torch.equal(torch.nn.functional.scaled_dot_product_attention(x, x, x), x)
"""
    first, second = (
        [int(attention.BACKENDS[name]) for name in order]
        for order in (("memory-efficient", "flash", "plain"), ("flash", "plain"))
    )
    assert python(code).splitlines() == [f"{first} True", f"{second} False"]


def test_a_recorded_order_is_taken_where_the_kernels_are_the_same():
    code = """
import sys; sys.path.insert(0, "tests")
from cuda_here import CudaHere
engine = CudaHere()
print(engine.attention_reason, engine.attention_kernels(), engine.attention_reason)
print(engine.attention_kernels(["memory-efficient", "flash", "plain"]), engine.attention_kernels())
print(engine.attention_kernels(["cuDNN", "plain"]))
"""
    usual, other = ("flash", "memory-efficient", "plain"), ("memory-efficient", "flash", "plain")
    assert python(code).splitlines() == [f" {usual} said by a test", f"{other} {other}", f"{other}"]


@pytest.mark.parametrize("has_mask", [False, True])
def test_without_a_fused_kernel_few_scores_exist_at_a_time(monkeypatch, has_mask):
    monkeypatch.setattr(attention, "SCORES", 7 * 40)
    random = np.random.default_rng(3)
    q, k, v = (random.standard_normal((2, n, 2, 8)).astype(np.float32) for n in (33, 40, 40))
    mask = random.random((1, 1, 33, 40)) < 0.7 if has_mask else None

    class Old(CudaHere):
        fused = HALF

    engine = Old()
    found = engine.attention(
        *map(engine.asarray, (q, k, v)), scale=0.3, mask=None if mask is None else engine.asarray(mask)
    )
    assert np.abs(found.numpy() - layers.attention(q, k, v, scale=0.3, mask=mask)).max() <= 2e-6
    assert engine.traits.fused_attention == ("bfloat16", "float16")


# --- traits


def test_cards_before_ampere_compute_in_float16():
    class Turing(CudaHere):
        capability = (7, 5)
        kernels = ("memory-efficient", "plain")
        fused = (torch.float16, torch.float32)

    old, new = Turing().traits, CudaHere().traits
    assert (old.precision, new.precision) == ("float16", "bfloat16")
    assert old.compiles_blocks and old.fused_attention == ("float16", "float32")


def test_a_margin_is_left_to_the_libraries(here):
    assert here.traits.margin_bytes == max(600 << 20, int(0.04 * here.memory()["total"])) > 900 << 20


def test_traits_go_through_json(here):
    import json

    assert type(here.traits).from_plain(json.loads(json.dumps(here.traits.to_plain()))) == here.traits


# --- convolutions


def test_clips_keep_their_channels_last(here):
    random = np.random.default_rng(1)
    x = here.asarray(random.standard_normal((1, 8, 3, 4, 6)).astype(np.float32))
    weight = here.asarray(random.standard_normal((16, 8, 3, 3, 3)).astype(np.float32))
    padded = here.pad(x, [(2, 0), (1, 1), (1, 1)], "replicate")
    assert np.array_equal(padded.numpy(), np.pad(x.numpy(), [(0, 0), (0, 0), (2, 0), (1, 1), (1, 1)], "edge"))
    out = here.conv3d(padded, weight)
    for clip in (padded, here.interleave(out, (2, 1, 2), 1)):
        assert clip.is_contiguous(memory_format=torch.channels_last_3d) and not clip.is_contiguous()
    expected = layers.convolution(padded.numpy().astype(np.float64), weight.numpy(), np.zeros(16), (1, 1, 1))
    assert np.abs(out.numpy() - expected).max() <= 1e-5 * np.abs(expected).max()


def test_every_convolution_of_a_decode_has_its_channels_last(monkeypatch):
    """Channels first, cuDNN 9.8 to 9.14 refuse half precision, and torch makes 27 copies of the clip."""
    from toy_checkpoint import VAE

    from framewake.models.vae import CausalVAE

    here, layouts = CudaHere(), []
    plain = torch.nn.functional.conv3d

    def seen(x, weight, *rest):
        layouts.append(all(each.is_contiguous(memory_format=torch.channels_last_3d) for each in (x, weight)))
        return plain(x, weight, *rest)

    monkeypatch.setattr(torch.nn.functional, "conv3d", seen)
    model = CausalVAE(here, VAE)
    weights = {name: here.full(shape, 0.01) for name, shape in model.shapes().items()}
    model.decode(weights, here.zeros((1, VAE.latent_channels, 3, 4, 4)))
    assert layouts and all(layouts)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_groups_are_normalised_where_they_lie(here, dtype):
    random = np.random.default_rng(4)
    array = (random.standard_normal((2, 8, 5, 6, 7)) * 0.3 + 2).astype(np.float32)
    weight, bias = random.standard_normal((2, 8)).astype(np.float32)
    x = here.asarray(array, dtype).contiguous(memory_format=torch.channels_last_3d)
    out = here.group_norm(x, 2, here.asarray(weight), here.asarray(bias))
    assert out.is_contiguous(memory_format=torch.channels_last_3d) and here.dtype(out) == dtype
    expected = layers.group_norm(here.numpy(x).astype(np.float64), 2, weight, bias)
    assert (
        np.abs(here.numpy(out) - expected).max() <= {"float32": 3e-6, "float16": 1e-3}[dtype] * np.abs(expected).max()
    )


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
def test_a_way_around_the_library_is_noticed(monkeypatch):
    with torch.backends.mkldnn.flags(enabled=False):
        assert driver.is_slow_in_convolutions(CPU)
    asked = []

    def select(*given):
        asked.append(given[0].is_contiguous(memory_format=torch.channels_last_3d) and given[0].dtype == torch.float16)
        return torch._C._ConvBackend.Cudnn

    monkeypatch.setattr(torch._C, "_select_conv_backend", select)
    assert not driver.is_slow_in_convolutions(CPU) and asked == [True]


def test_float32_is_float32():
    code = """
import torch
from framewake.engine.torch import cuda, driver
for name in ("check_device", "is_slow_in_convolutions"):
    setattr(cuda, name, lambda *_: False)
torch.backends.cuda.matmul.allow_tf32 = True
cuda.make("cpu", "a test", is_eight_bit=False)
print(torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
"""
    assert python(code).split() == ["False", "False"]


# --- eight bits


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


def test_rounding_in_pieces_is_rounding(monkeypatch):
    x = torch.randn((70, 32), generator=torch.Generator().manual_seed(2))
    whole = eight_bits.in_eight_bits(x)
    monkeypatch.setattr(eight_bits, "NUMBERS", 16 * 32)
    for one, other in zip(whole, eight_bits.in_eight_bits(x), strict=True):
        assert torch.equal(one.float(), other.float())


def test_only_large_layers_in_half_precision_take_eight_bits():
    weight = torch.zeros((3072, 3072), dtype=torch.bfloat16)
    many, few = torch.zeros((1, 2048, 3072), dtype=torch.bfloat16), torch.zeros((1, 400, 3072), dtype=torch.bfloat16)
    takes = eight_bits.takes_eight_bits
    assert takes(many, weight) and not takes(few, weight) and not takes(many.float(), weight)
    assert not takes(many, weight[:64]) and not takes(many, weight[:3071])


def test_zeros_stay_zeros():
    bits, scales = eight_bits.in_eight_bits(torch.zeros((4, 16)))
    assert float(bits.float().abs().max()) == 0 and torch.isfinite(scales).all()


def test_a_trial_product_decides_whether_there_are_eight_bits(monkeypatch):
    eight_bits.check_eight_bits(CPU)
    right = eight_bits.linear_in_eight_bits

    def refused(*_):
        raise RuntimeError("Rowwise scaling is not currently supported on your device")

    faults = {
        "Rowwise scaling is not": refused,
        "can only concatenate tuple": lambda *_: (0.0,) + 1.0,  # as torch 2.4, which gives two tensors back
        "it is wrong by": lambda *given: right(*given) * 2.0,
    }
    for said, fault in faults.items():
        monkeypatch.setattr(eight_bits, "linear_in_eight_bits", fault)
        with pytest.raises(EngineError, match=f"no product in eight bits for cpu .*{said}.*leave out"):
            eight_bits.check_eight_bits(CPU)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
@pytest.mark.parametrize("name", ["torch:cuda+fp8", "torch:cuda:1+fp8"])
def test_eight_bits_need_a_device(name):
    with pytest.raises(EngineError, match="there is no device"):
        engines.get(name)


def test_eight_bits_are_for_cuda_only():
    with pytest.raises(InputError, match="is unknown"):
        engines.get("torch:cpu+fp8")


# --- devices and programs


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_card_that_is_counted_but_cannot_be_used(monkeypatch):
    """NVML counts a card under a driver that is too old for this torch."""
    from framewake.engine import torch as module

    with pytest.raises(EngineError, match=r"cuda:0 is there but cannot be used\. Torch says: .*--engine torch:cpu"):
        driver.check_device("cuda:0")
    monkeypatch.setattr(module, "devices", lambda: ["cpu", "cuda:0"])
    monkeypatch.setattr(engines, "installed", lambda: ["torch:cuda", "torch:cpu"])
    chosen = engines._choose()
    assert chosen.name == "torch:cpu" and "cuda:0 is there but cannot be used" in chosen.reason


def test_memory_grows_in_segments_unless_asked_otherwise():
    code = "import os, framewake.engine.torch; print(os.environ.get('PYTORCH_CUDA_ALLOC_CONF'))"
    clean = {"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:64"}
    assert python(code, **clean).strip() == "max_split_size_mb:64"
    unset = "import os; os.environ.pop('PYTORCH_CUDA_ALLOC_CONF', None); "
    assert python(unset + code).strip() == ("expandable_segments:True" if sys.platform == "linux" else "None")
    assert cuda.LEAST_MARGIN == 600 << 20
