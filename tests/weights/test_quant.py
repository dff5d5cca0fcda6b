"""Eight-bit weights: the nearest number each, and a file of them that every store and engine reads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from engines_here import FIRST
from toy_checkpoint import DIT, write_toy

from framewake import engine as engines
from framewake.errors import CheckpointError, InputError
from framewake.golden import rule
from framewake.models.dit import DiT
from framewake.pipeline.hunyuan import HUNYUAN
from framewake.weights.checkpoint.load import open_checkpoint
from framewake.weights.reading.files import TensorFile
from framewake.weights.reading.mapped import MappedTensors
from framewake.weights.reading.names import same
from framewake.weights.reading.narrow import from_bfloat16, to_bfloat16
from framewake.weights.reading.pieces import Target
from framewake.weights.reading.scales import with_scales
from framewake.weights.reading.storage import widen
from framewake.weights.stores.quant import SCALE, STORED, Tally, dequantise, is_quantised, quantise, to_float8
from framewake.weights.stores.store import Resident
from framewake.weights.stores.streamed import Streamed
from framewake.weights.writing.convert import convert
from framewake.weights.writing.files import write_safetensors

KINDS = ("fp8", "int8")
CONFIG = replace(DIT, double_blocks=2, single_blocks=2)


def matrix(seed=1, shape=(64, 96)):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) * np.exp(rng.standard_normal((shape[0], 1)))).astype(np.float32)


def test_float8_is_the_nearest_number():
    table = widen(np.arange(256, dtype=np.uint8), "F8_E4M3")
    numbers = np.sort(table[np.isfinite(table)])
    values = np.concatenate([numbers, (numbers[1:] + numbers[:-1]) / 2, matrix().ravel() * 50, [0.0, 1e-9, 500, -1e9]])
    found = widen(to_float8(values), "F8_E4M3")
    best = np.abs(np.clip(values, -448, 448)[:, None] - numbers).min(axis=1)
    assert np.abs(np.abs(found - np.clip(values, -448, 448)) - best).max() == 0


def test_float8_rounds_as_torch_does():
    torch = pytest.importorskip("torch")
    values = np.concatenate([matrix().ravel() * 30, np.float32([0.0, 447, 2**-9, 2**-10, 3 * 2**-10, 17, 19])])
    expected = torch.from_numpy(values.astype(np.float32)).to(torch.float8_e4m3fn).view(torch.uint8).numpy()
    values = np.where(np.abs(values) > 448, 0, values)
    expected = np.where(np.abs(values) > 448, 0, expected)
    inside = np.abs(values) > 0
    assert np.array_equal(to_float8(values)[inside], expected[inside])


@pytest.mark.parametrize("kind", KINDS)
def test_the_error_is_what_eight_bits_allow(kind):
    values = matrix()
    found = dequantise(quantise(values, kind), kind)
    largest = np.abs(values).max(axis=1, keepdims=True)
    # int8: half a step of 127 to the row's largest; fp8: half of one in eight of the number itself.
    bound = largest / 254 * 1.0001 if kind == "int8" else np.maximum(np.abs(values) / 16, largest * 2.0**-16)
    assert (np.abs(found - values) <= bound).all()
    tally = Tally()
    for rows in np.split(values, 4):
        tally.add(rows, quantise(rows, kind), kind)
    assert 0 < tally.relative < 0.03, tally.relative


def test_fp8_comes_back_exactly_in_bfloat16():
    found = dequantise(quantise(matrix(), "fp8"), "fp8")
    assert np.array_equal(from_bfloat16(to_bfloat16(found)), found)


@pytest.mark.parametrize("kind", KINDS)
def test_zeros_stay_and_faults_are_refused(kind):
    values = matrix()
    values[3] = 0
    stored = quantise(values, kind)
    assert (dequantise(stored, kind)[3] == 0).all() and np.isfinite(stored.scales).all()
    values[5, 5] = np.nan
    with pytest.raises(CheckpointError, match="NaN"):
        quantise(values, kind)


def test_what_is_kept_in_sixteen_bits():
    names = [
        *("img_in.proj.weight", "time_in.mlp.0.weight", "final_layer.linear.weight"),
        *("double_blocks.0.img_mod.linear.weight", "single_blocks.3.modulation.linear.weight"),
        *("txt_in.individual_token_refiner.blocks.0.self_attn_qkv.weight", "language_model.model.embed_tokens.weight"),
    ]
    assert not [name for name in names if is_quantised(name, (8, 8))]
    names = [
        *(
            "double_blocks.19.txt_mlp.fc1.weight",
            "double_blocks.0.img_attn_qkv.weight",
            "single_blocks.39.linear2.weight",
        ),
        "language_model.model.layers.3.mlp.gate_proj.weight",
    ]
    assert [name for name in names if is_quantised(name, (8, 8))] == names
    assert not is_quantised("double_blocks.0.img_attn_qkv.bias", (8,))


def written(path, shapes, kind):
    """A file of a model in eight bits, and the values it stands for."""
    arrays, kinds, expected = {}, {}, {}
    for name, shape in shapes.items():
        values = rule.weight(name, shape, 7)
        if is_quantised(name, shape):
            stored = quantise(values, kind)
            arrays[name], kinds[name] = stored.bits, STORED[kind]
            scale = name.removesuffix(".weight") + SCALE
            arrays[scale], kinds[scale] = stored.scales, "F32"
            expected[name] = dequantise(stored, kind)
        else:
            arrays[name], kinds[name] = to_bfloat16(values), "BF16"
            expected[name] = from_bfloat16(arrays[name])
    write_safetensors(path, [target(name, kinds[name], array) for name, array in arrays.items()])
    return expected


def target(name, kind, array):
    return Target(name, kind, array.shape, lambda: iter([np.ascontiguousarray(array)]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_in_eight_bits_runs_resident_and_streamed(engine, tmp_path, kind):
    model = DiT(engine, CONFIG)
    expected = written(tmp_path / "dit.safetensors", model.shapes(), kind)
    file = TensorFile(tmp_path / "dit.safetensors")
    scaled = with_scales(file, {}, None)
    tensors = MappedTensors(scaled, same(scaled.names()))
    tensors.check(model.shapes())
    resident = Resident({name: engine.asarray(tensors.values(name, "float32")) for name in model.shapes()})
    streamed = Streamed(engine, tensors, "float32", names=model.shapes(), streams=model.streams())
    for name in model.streams():
        for number, (ours, theirs) in enumerate(zip(resident.blocks(name), streamed.blocks(name), strict=True)):
            for key in ours:
                want = expected[f"{name}.{number}.{key}"]
                assert np.array_equal(engine.numpy(ours[key]), want) and np.array_equal(engine.numpy(theirs[key]), want)
    streamed.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_converted_checkpoint_is_read_again(tmp_path, kind):
    engine = engines.get(FIRST)
    small = open_checkpoint(write_toy(tmp_path / "toy"))
    shapes = HUNYUAN.shapes(small)
    with pytest.raises(InputError, match="--layout framewake"):
        list(convert(small, tmp_path / "no", shapes=shapes, dtype=kind))
    files = list(convert(small, tmp_path / "eight", shapes=shapes, dtype=kind, layout="framewake"))
    errors = {file.component: file.error for file in files}
    assert errors["vae"] is None and 0.001 < errors["dit"] < 0.04 and 0.001 < errors["llava"] < 0.04, errors
    eight = open_checkpoint(tmp_path / "eight")
    for component in ("dit", "llava"):
        found = eight.store(component, engine, "float32", shapes=shapes[component]).part("")
        large = [name for name, shape in shapes[component].items() if is_quantised(name, shape)]
        assert large
        for name in large:
            want = dequantise(quantise(rule.weight(name, shapes[component][name], 7), kind), kind)
            assert np.array_equal(engine.numpy(found[name]), want), name
    before, after = (tmp_path / name / "transformer" for name in ("toy", "eight"))
    assert size(after) < 0.5 * size(before)


def size(folder):
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
