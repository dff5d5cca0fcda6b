"""Tensors straight into arrays of a computing type: the same bits as reading and narrowing them whole."""

from __future__ import annotations

import os

import numpy as np
import pytest
from cut_tensors import check_cuts, check_file

from framewake.errors import CheckpointError
from framewake.weights.reading.direct import BLOCK, LEAST, READ, lies_as_file
from framewake.weights.reading.files import TensorFile
from framewake.weights.reading.mapped import MappedTensors, Stretch
from framewake.weights.reading.names import NameRule, same
from framewake.weights.reading.narrow import CHUNK, narrowed
from framewake.weights.reading.pieces import Target, cast
from framewake.weights.reading.scales import with_scales
from framewake.weights.reading.storage import STORAGE
from framewake.weights.reading.torch_file import TorchFile
from framewake.weights.stores.room import Room
from framewake.weights.writing.files import TORCH_KINDS, write_safetensors, write_torch

ROWS = CHUNK // 64 + 5  # so that chunks do not end with the tensor
KINDS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")


def drawn(kind, seed=1):
    """Every bit pattern where there are few, and random numbers."""
    draw = np.random.default_rng(seed)
    size = STORAGE[kind].itemsize
    if size <= 2:
        count = 64 * ROWS
        return (
            np.resize(draw.permutation(1 << (8 * size)), count).astype(f"u{size}").view(STORAGE[kind]).reshape(-1, 64)
        )
    return draw.standard_normal((ROWS, 64)).astype(STORAGE[kind])


def test_a_number_alone_keeps_its_shape():
    """CLIP's whole file has one, and was refused for it when it was converted to bfloat16."""
    number = np.array(2.6592, np.float32)
    assert narrowed(number, "bfloat16").shape == narrowed(number, "float16").shape == ()
    assert cast(number, "F32", "BF16", "logit_scale") == 0x402A


def written(path, arrays, kind):
    targets = [Target(name, kind, x.shape, lambda x=x: iter([np.ascontiguousarray(x)])) for name, x in arrays.items()]
    (write_torch if path.suffix == ".pt" else write_safetensors)(path, targets)
    return (TorchFile if path.suffix == ".pt" else TensorFile)(path)


@pytest.mark.filterwarnings("ignore:invalid value")  # signalling NaN patterns
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_type_becomes_every_other(tmp_path, kind, dtype, suffix):
    if suffix == ".pt" and kind not in TORCH_KINDS:
        pytest.skip("no such storage in .pt files")
    file = written(tmp_path / f"a{suffix}", {"x": drawn(kind)}, kind)
    found = MappedTensors(file, same(file.names())).values("x", dtype)
    check_file(file, dtype)
    stored = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
    expected = file.raw("x") if stored.get(kind) == dtype else narrowed(file.read("x"), dtype)
    assert found.dtype == expected.dtype and found.tobytes() == expected.tobytes()


def test_pieces_are_joined_and_halves_changed_over(tmp_path):
    a, b = drawn("BF16", 1), drawn("BF16", 2)
    file = written(tmp_path / "a.safetensors", {"q": a, "k": b}, "BF16")
    joined = MappedTensors(file, [NameRule("qk", ("q", "k"), (ROWS, ROWS))])
    assert joined.values("qk", "bfloat16").tobytes() == np.concatenate([a, b]).tobytes()
    check_cuts(joined, "qk", "bfloat16")
    half = ROWS // 2 * 2
    file = written(tmp_path / "b.safetensors", {"x": a[:half]}, "BF16")
    swapped = MappedTensors(file, [NameRule("y", ("x",), (), True)])
    check_cuts(swapped, "y", "bfloat16")
    assert swapped.values("y", "bfloat16").tobytes() == np.concatenate([a[half // 2 : half], a[: half // 2]]).tobytes()


@pytest.mark.parametrize("scales", [np.float32(0.75), np.linspace(0.1, 3, ROWS, dtype=np.float32)])
def test_scales_are_applied_in_float32(tmp_path, scales):
    bits = np.resize(np.arange(120, dtype=np.uint8), (ROWS, 64))
    path = tmp_path / "a.safetensors"
    made = [("x.weight", "F8_E4M3", bits), ("x.weight_scale", "F32", np.asarray(scales))]
    write_safetensors(path, [Target(n, k, v.shape, lambda v=v: iter([v.reshape(-1)])) for n, k, v in made])
    file = with_scales(TensorFile(path), {}, None)
    check_file(file, "bfloat16")
    found = MappedTensors(file, same(file.names())).values("x.weight", "bfloat16")
    assert found.tobytes() == narrowed(file.read("x.weight"), "bfloat16").tobytes()


def test_a_number_alone_and_nothing_at_all(tmp_path):
    file = written(
        tmp_path / "a.safetensors", {"one": np.float32(3).reshape(()), "none": np.zeros((0, 4), "f4")}, "F32"
    )
    tensors = MappedTensors(file, same(file.names()))
    assert tensors.values("one", "bfloat16").shape == () and tensors.values("none", "float32").shape == (0, 4)
    assert tensors.values("one", "float32") == 3


def test_a_file_that_is_cut_off_meanwhile_is_told(tmp_path):
    path = tmp_path / "a.safetensors"
    file = written(path, {"x": drawn("F32")}, "F32")
    os.truncate(path, path.stat().st_size - 8)
    with pytest.raises(CheckpointError, match="cut off"):
        MappedTensors(file, same(file.names())).values("x", "float32")


def test_a_file_that_is_replaced_meanwhile_is_still_the_old_one(tmp_path):
    path = tmp_path / "a.safetensors"
    old = drawn("F32")
    file = written(path, {"x": old}, "F32")
    written(path, {"x": old + 1}, "F32")
    assert np.array_equal(MappedTensors(file, same(file.names())).values("x", "float32"), old)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_memory_that_lies_as_the_file_is_filled_with_the_same_bytes(tmp_path, suffix):
    """Around the file cache: only whole blocks can be read that way, so ends of every kind are there."""
    draw = np.random.default_rng(3)
    sizes = {"a": 3, "b": LEAST // 2 + 5, "c": LEAST // 2, "d": READ // 2 + BLOCK + 1, "e": 7, "f": LEAST // 2 + 2048}
    arrays = {name: draw.integers(0, 1 << 16, count, dtype=np.uint16) for name, count in sizes.items()}
    file = written(tmp_path / f"x{suffix}", arrays, "BF16")
    tensors, room = MappedTensors(file, same(file.names())), Room(lies_as_file=True)
    room.announce(array.nbytes for array in arrays.values())
    for _ in range(2):  # the second time into memory that was used
        for name, expected in arrays.items():
            found = tensors.values(name, "bfloat16", empty=room.empty)
            assert lies_as_file(found, file.start(name)) == (expected.nbytes >= LEAST)
            assert np.array_equal(found, expected)
            found[:] = 0
        runs = [
            Stretch("e", 2, 5),
            Stretch("d", 77, READ // 2 - 99),
            Stretch("b", 1, LEAST // 2),
        ]  # in another order than the file
        joined = tensors.joined(runs, "bfloat16", empty=room.empty)
        assert np.array_equal(joined, np.concatenate([arrays[x.name][x.first : x.first + x.numbers] for x in runs]))
    room.close()


def test_a_large_file_that_is_cut_off_meanwhile_is_told(tmp_path):
    path = tmp_path / "a.safetensors"
    file = written(path, {"x": np.ones(LEAST, np.uint16)}, "BF16")
    os.truncate(path, path.stat().st_size - LEAST - 9)
    room = Room(lies_as_file=True)
    with pytest.raises(CheckpointError, match="cut off"):
        MappedTensors(file, same(file.names())).values("x", "bfloat16", empty=room.empty)
