"""Numbers that cannot be meant are refused before work starts; strong LoRAs are not among them."""

from __future__ import annotations

import numpy as np
import pytest
from lora_files import BASE, TARGETS, keys_of, write

from framewake.errors import CheckpointError
from framewake.weights.lora.file import open_lora
from framewake.weights.lora.report import report
from framewake.weights.lora.sizes import MOST_GAIN, check_sizes, gain_of, square
from framewake.weights.writing.files import write_tensors

MODULE = "transformer.transformer_blocks.0.attn.to_q"
DOWN, UP = f"{MODULE}.lora_A.weight", f"{MODULE}.lora_B.weight"
WIDTH = 32


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def opened(path, tensors, kinds=None, **options):
    write_tensors(path / "a.safetensors", tensors, kinds=kinds)
    return open_lora(path / "a.safetensors", TARGETS, **options)


def eight_bits(values, largest=448.0):
    """Numbers scaled to the largest of e4m3, as eight-bit files hold them, in bits."""
    scaled = np.abs(values) / np.abs(values).max() * largest
    table = np.arange(127)
    held = np.where(table >> 3, (8 + (table & 7)) * 2.0 ** ((table >> 3) - 10), (table & 7) * 2.0**-9)
    codes = np.abs(scaled[..., None] - held).argmin(-1).astype(np.uint8)
    return codes | (np.signbit(values).astype(np.uint8) << 7), np.abs(values).max() / largest


@pytest.mark.parametrize("rank", [1, 16])
def test_fp8_without_scales_is_refused(tmp_path, rank):
    tensors = {DOWN: eight_bits(drawn(rank, WIDTH))[0], UP: eight_bits(drawn(WIDTH, rank, seed=1))[0]}
    lora = opened(tmp_path, tensors, dict.fromkeys(tensors, "F8_E4M3"))
    with pytest.raises(CheckpointError, match=r"img_attn_qkv.weight by .* stored as F8_E4M3.*scales may be missing"):
        check_sizes(lora)


def test_fp8_is_read_with_its_scales_and_as_a_plain_cast(tmp_path):
    factors = {DOWN: 0.1 * drawn(4, WIDTH), UP: 0.1 * drawn(WIDTH, 4, seed=1)}
    tensors, kinds = {}, {}
    for name, values in factors.items():
        bits, scale = eight_bits(values)
        tensors |= {name: bits, f"{name}_scale": np.asarray(scale, np.float32)}
        kinds |= {name: "F8_E4M3", f"{name}_scale": "F32"}
    lora = opened(tmp_path, tensors, kinds)
    check_sizes(lora)
    [update] = lora.updates
    want = factors[UP] @ factors[DOWN]
    found = lora.part(update, "up") @ lora.part(update, "down")
    assert np.abs(found - want).max() < 0.1 * np.abs(want).max()
    plain = {name: eight_bits(values, np.abs(values).max())[0] for name, values in factors.items()}
    check_sizes(opened(tmp_path, plain, dict.fromkeys(plain, "F8_E4M3")))


def test_int8_needs_scales(tmp_path):
    tensors = {DOWN: np.full((4, WIDTH), 9, np.int8), UP: np.full((WIDTH, 4), 9, np.int8)}
    with pytest.raises(CheckpointError, match="as I8, whole numbers without the scales"):
        opened(tmp_path, tensors, dict.fromkeys(tensors, "I8"))
    scales = {DOWN + "_scale": np.full((4, 1), 0.01, np.float32), UP + "_scale": np.asarray(0.02, np.float32)}
    lora = opened(tmp_path, tensors | scales, dict.fromkeys(tensors, "I8") | dict.fromkeys(scales, "F32"))
    assert gain_of(lora.updates[0], square(lora, lora.updates[0])) == pytest.approx(
        4 * 0.09 * 0.18 * np.sqrt(WIDTH), rel=1e-5
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("ending", ["lora_A.weight", "lora_magnitude_vector", "diff_b"])
def test_nan_and_infinity_are_refused(tmp_path, value, ending):
    tensors = {DOWN: drawn(4, WIDTH), UP: drawn(WIDTH, 4)}
    tensors |= {f"{MODULE}.lora_magnitude_vector": np.ones(WIDTH, np.float32), f"{MODULE}.diff_b": drawn(WIDTH)}
    tensors[f"{MODULE}.{ending}"].reshape(-1)[1] = value
    with pytest.raises(CheckpointError, match="NaN or infinity"):
        check_sizes(opened(tmp_path, tensors))


def test_strong_loras_pass(tmp_path):
    """As strong as a layer itself, of high rank, at weight 2; and factors of plain random numbers, as tests have."""
    tensors = keys_of("kohya", alpha=None)
    for name in list(tensors):
        if name.endswith("up.weight"):
            tensors[name] = tensors[name] * np.float32(2)
    lora = open_lora(write(tmp_path / "a.safetensors", tensors), TARGETS)
    check_sizes(lora)
    facts = report(lora, lambda name: float(np.linalg.norm(BASE[name])))
    assert 1 < facts.largest < 100 and facts.gain < MOST_GAIN / 100
    full = {DOWN: drawn(128, WIDTH), UP: drawn(WIDTH, 128, seed=1), f"{MODULE}.alpha": np.asarray(256, np.float32)}
    check_sizes(opened(tmp_path, full))


def test_far_too_much_is_told_loudly(tmp_path):
    lora = opened(tmp_path, {DOWN: drawn(4, WIDTH), UP: drawn(WIDTH, 4, seed=1)})
    facts = report(lora)
    assert facts.largest is None and facts.gain > 3
    assert "times the weight itself is far more" in facts.sentence(1.0) and "far more" not in facts.sentence(0.01)
    quiet = facts._replace(gain=0.5)
    assert "far more" not in quiet.sentence(2.0)
