"""Every format into every other and back, and merging for good."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from engines_here import FIRST
from lora_files import BASE, SHAPES, TARGETS, as_bfloat16, diffusers_keys, diffusers_metadata, expected, keys_of, write
from toy_checkpoint import DIT, write_toy

from framewake import engine as engines
from framewake.errors import CheckpointError
from framewake.models.dit import DiT
from framewake.weights.checkpoint.load import open_checkpoint
from framewake.weights.lora.convert import convert
from framewake.weights.lora.file import open_lora
from framewake.weights.lora.fuse import fuse, stored
from framewake.weights.lora.keys import FORMATS
from framewake.weights.lora.view import Merger
from framewake.weights.reading.files import TensorFile
from framewake.weights.writing.files import write_tensors

QKV = "double_blocks.0.txt_attn_qkv.weight"


def converted(source, path, style):
    return convert(open_lora(source, TARGETS), path, style, TARGETS)


def merged(path, engine):
    lora, base = open_lora(path, TARGETS), {name: engine.asarray(x, "float32") for name, x in BASE.items()}
    merger = Merger(engine, [lora])
    return {name: engine.numpy(merger.merged(name, x, [1.0])) for name, x in base.items()}


def same_tensors(one, other):
    one, other = TensorFile(one), TensorFile(other)
    assert set(one.names()) == set(other.names())
    for name in one.names():
        assert np.array_equal(one.read(name), other.read(name)), name
        if not name.endswith(".alpha"):
            assert one.dtype(name) == other.dtype(name), name


def original(tmp_path, style):
    path = tmp_path / f"{style}.safetensors"
    if style == "diffusers":
        return write(path, diffusers_keys(alpha=None), diffusers_metadata())
    return write(path, keys_of(style, "lora_A" if style == "comfyui" else "lora_down"))


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(FORMATS, 2)))
def test_there_and_back_is_exact(tmp_path, first, second):
    source, middle, back = original(tmp_path, first), tmp_path / "middle.safetensors", tmp_path / "back.safetensors"
    converted(source, middle, second)
    assert open_lora(middle, TARGETS).format == second
    converted(middle, back, first)
    same_tensors(source, back)


@pytest.mark.parametrize("style", FORMATS)
def test_a_converted_file_gives_the_same_weights(tmp_path, style, engine):
    for first in FORMATS:
        path = tmp_path / f"{first}-as-{style}.safetensors"
        converted(original(tmp_path, first), path, style)
        found = merged(path, engine)
        worst = max(np.abs(found[n] - expected(n)).max() / np.abs(expected(n)).max() for n in TARGETS.shapes)
        assert worst <= 2e-6


def test_bits_of_bfloat16_are_kept(tmp_path):
    bits, kinds = as_bfloat16(keys_of("official"))
    source = tmp_path / "a.safetensors"
    write_tensors(source, bits, kinds=kinds)
    converted(source, tmp_path / "b.safetensors", "diffusers")
    file = TensorFile(tmp_path / "b.safetensors")
    assert {file.dtype(name) for name in file.names()} == {"BF16"}
    converted(tmp_path / "b.safetensors", tmp_path / "c.safetensors", "official")
    same_tensors(source, tmp_path / "c.safetensors")


def apart(alphas=(3.0, 3.0, 3.0), parts=("add_q_proj", "add_k_proj", "add_v_proj"), dtypes=(np.float32,) * 3):
    """Query, key and value with factors of their own."""
    tensors, rng = {}, np.random.default_rng(0)
    for number, (part, alpha, dtype) in enumerate(zip(parts, alphas, dtypes, strict=True)):
        key, rank = f"transformer.transformer_blocks.0.attn.{part}", number + 2
        tensors[f"{key}.lora_A.weight"] = rng.standard_normal((rank, 32)).astype(dtype)
        tensors[f"{key}.lora_B.weight"] = rng.standard_normal((32, rank)).astype(dtype)
        tensors[f"{key}.alpha"] = np.float32(alpha * rank)
    return {name: np.asarray(x) for name, x in tensors.items()}


@pytest.mark.parametrize(
    "tensors",
    [
        apart(),
        apart(alphas=(1.0, 0.5, 3.0)),
        apart((1.0, 1.0), ("add_q_proj", "add_v_proj"), (np.float32,) * 2),
        apart(dtypes=(np.float32, np.float16, np.float32)),
    ],
)
def test_separate_query_key_value_become_blocks_of_one_pair(tmp_path, tensors):
    engine = engines.get(FIRST)
    source = write(tmp_path / "a.safetensors", tensors)
    assert converted(source, tmp_path / "b.safetensors", "official") == 1
    assert converted(tmp_path / "b.safetensors", tmp_path / "c.safetensors", "diffusers") == len(tensors) // 3
    want, *others = (merged(tmp_path / f"{name}.safetensors", engine)[QKV] for name in "abc")
    for found in others:
        assert np.abs(found - want).max() <= 2e-6 * np.abs(want).max()
    assert np.abs(want - BASE[QKV]).max() > 0.1


def test_the_pieces_come_back_as_they_were(tmp_path):
    source = write(tmp_path / "a.safetensors", {k: x for k, x in apart((1.0,) * 3).items() if not k.endswith("alpha")})
    converted(source, tmp_path / "b.safetensors", "comfyui")
    converted(tmp_path / "b.safetensors", tmp_path / "c.safetensors", "diffusers")
    same_tensors(source, tmp_path / "c.safetensors")


def test_no_file_is_replaced(tmp_path):
    source = original(tmp_path, "kohya")
    with pytest.raises(CheckpointError, match="already exists"):
        converted(source, source, "official")


# --- merging for good


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return write_toy(tmp_path_factory.mktemp("toy"))


def test_a_merged_checkpoint_is_the_view_made_permanent(tmp_path, toy, engine):
    checkpoint = open_checkpoint(toy)
    targets = TARGETS
    loras = [open_lora(original(tmp_path, style), targets) for style in ("kohya", "diffusers")]
    folder = tmp_path / "new"
    assert fuse(checkpoint, loras, [0.5, 0.25], folder=folder, engine=engine) == len(targets.shapes)
    found = open_checkpoint(folder).tensors("dit")
    found.check(DiT(None, DIT).shapes())
    merger = Merger(engine, loras)
    for name in SHAPES:
        base = engine.asarray(checkpoint.tensors("dit").read(name), "float32")
        assert np.array_equal(found.read(name), engine.numpy(merger.merged(name, base, [0.5, 0.25]))), name
    for path in toy.rglob("*"):
        if path.is_file() and path.parent.name != "transformer":
            assert (folder / path.relative_to(toy)).read_bytes() == path.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["new"]
    with pytest.raises(CheckpointError, match="already exists"):
        fuse(checkpoint, loras, [1.0, 1.0], folder=folder, engine=engine)


def test_stored_types():
    values = np.asarray([1.0, 1.00390625, 1.01171875, -3.14159], np.float32)
    assert stored(values, "F32", "x").tobytes() == values.tobytes()
    bits = stored(values, "BF16", "x")
    assert bits.tolist() == [0x3F80, 0x3F80, 0x3F82, 0xC049]  # ties go to the even one
    with pytest.raises(CheckpointError, match="float16 cannot hold"):
        stored(np.asarray([1e6], np.float32), "F16", "x")
    with pytest.raises(CheckpointError, match="F8_E4M3"):
        stored(values, "F8_E4M3", "x")
