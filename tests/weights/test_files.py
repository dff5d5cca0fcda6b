"""Safetensors files, good ones and every kind of bad one."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from framewake.errors import CheckpointError, UnwritableError
from framewake.weights.reading.files import HEADER_BYTES, ShardedFiles, TensorFile, open_tensors
from framewake.weights.reading.pieces import Target
from framewake.weights.reading.scales import with_scales
from framewake.weights.writing.files import write_safetensors, write_tensors

ARRAYS = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3) / 7,
    "b": np.array([1.5, -2.25], dtype=np.float16),
    "ids": np.array([[1, 2**40]], dtype=np.int64),
    "scalar": np.array(3.0, dtype=np.float32),
    "empty": np.zeros((0, 4), dtype=np.float32),
}


def raw_file(path, header, data=b"", *, length=None):
    """A file with any header, right or wrong."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_reads_what_the_library_writes(tmp_path):
    save_file(ARRAYS, tmp_path / "x.safetensors", metadata={"format": "pt"})
    file = TensorFile(tmp_path / "x.safetensors")
    assert set(file.names()) == set(ARRAYS)
    assert file.metadata == {"format": "pt"}
    for name, values in ARRAYS.items():
        assert file.shape(name) == values.shape
        assert file.read(name).dtype == values.dtype
        assert np.array_equal(file.read(name), values)


def test_the_library_reads_what_we_write(tmp_path):
    write_tensors(tmp_path / "x.safetensors", ARRAYS)
    back = load_file(tmp_path / "x.safetensors")
    assert set(back) == set(ARRAYS)
    assert all(
        np.array_equal(back[name], values) and back[name].dtype == values.dtype for name, values in ARRAYS.items()
    )
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


def test_narrow_types_are_widened_exactly(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save_torch

    every = torch.arange(256, dtype=torch.uint8)
    tensors = {
        "BF16": torch.randn(300, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16),
        "F8_E4M3": every.clone().view(torch.float8_e4m3fn),
        "F8_E5M2": every.clone().view(torch.float8_e5m2),
    }
    save_torch(tensors, tmp_path / "x.safetensors")
    file = TensorFile(tmp_path / "x.safetensors")
    for name, values in tensors.items():
        assert file.dtype(name) == name
        assert np.array_equal(file.read(name), values.float().numpy(), equal_nan=True)
    assert file.raw("BF16").dtype == np.uint16


def test_data_is_not_read_before_it_is_asked_for(tmp_path):
    path = tmp_path / "x.safetensors"
    size = 2**40
    with open(path, "wb") as file:
        text = json.dumps({"huge": entry("U8", (size,), (0, size))}).encode()
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + size)  # a sparse file: a terabyte that takes no room
    assert TensorFile(path).shape("huge") == (size,)


TWO = {"a": entry(), "b": entry(offsets=(8, 16))}
BAD = {
    "empty file": (b"", None, b""),
    "three bytes": (b"abc", None, b""),
    "header longer than the file": ({"a": entry()}, 10**6, bytes(8)),
    "huge header": ({"a": entry()}, 2**63, bytes(8)),
    "no JSON": (b"{oops", None, b""),
    "no UTF-8": (b'{"\xff": 1}', None, b""),
    "deep JSON": (b"[" * 100_000, None, b""),
    "a list": ([1, 2], None, b""),
    "a number for a tensor": ({"a": 3}, None, b""),
    "metadata is a list": ({"__metadata__": [], "a": entry()}, None, bytes(8)),
    "unknown type": ({"a": entry("F7")}, None, bytes(8)),
    "type is a list": ({"a": entry(["F32"])}, None, bytes(8)),
    "negative size": ({"a": entry(shape=(-2,))}, None, bytes(8)),
    "fractional size": ({"a": entry(shape=(2.0,))}, None, bytes(8)),
    "boolean size": ({"a": entry(shape=(True, 2))}, None, bytes(8)),
    "size too small": ({"a": entry(shape=(1,))}, None, bytes(8)),
    "huge sizes": ({"a": entry(shape=(2**62, 2**62))}, None, bytes(8)),
    "offsets backwards": ({"a": entry(offsets=(8, 0))}, None, bytes(8)),
    "three offsets": ({"a": entry(offsets=(0, 8, 8))}, None, bytes(8)),
    "cut off": (TWO, None, bytes(15)),
    "more data than tensors": (TWO, None, bytes(17)),
    "overlap": ({"a": entry(), "b": entry(offsets=(4, 12))}, None, bytes(12)),
    "the same place twice": ({"a": entry(), "b": entry()}, None, bytes(8)),
    "gap": ({"a": entry(), "b": entry(offsets=(12, 20))}, None, bytes(20)),
    "twice the same name": (b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"a":1}', None, b""),
    "twice the same field": (b'{"a":{"dtype":"F32","dtype":"F16","shape":[0],"data_offsets":[0,0]}}', None, b""),
    "a field more": ({"a": entry() | {"more": 1}}, None, bytes(8)),
}


@pytest.mark.parametrize(("header", "length", "data"), BAD.values(), ids=BAD)
def test_damaged(tmp_path, header, length, data):
    path = tmp_path / "x.safetensors"
    if header in (b"", b"abc"):
        path.write_bytes(header)
    else:
        raw_file(path, header, data, length=length)
    with pytest.raises(CheckpointError, match=r"x\.safetensors"):
        TensorFile(path)


def test_every_truncation_of_a_good_file_is_refused(tmp_path):
    write_tensors(tmp_path / "good", ARRAYS)
    whole = (tmp_path / "good").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "cut").write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            TensorFile(tmp_path / "cut")


def test_header_length_is_limited(tmp_path):
    path = tmp_path / "x.safetensors"
    with open(path, "wb") as file:
        file.write((HEADER_BYTES + 1).to_bytes(8, "little"))
        file.truncate(HEADER_BYTES + 100)
    with pytest.raises(CheckpointError, match="header"):
        TensorFile(path)


def shards(folder, places):
    write_tensors(folder / "m-1.safetensors", {"a": ARRAYS["a.weight"]})
    write_tensors(folder / "m-2.safetensors", {"b": ARRAYS["b"]})
    index = folder / "m.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return index


def test_shards_are_one_file(tmp_path):
    shards(tmp_path, {"a": "m-1.safetensors", "b": "m-2.safetensors"})
    file = open_tensors(tmp_path)
    assert isinstance(file, ShardedFiles)
    assert file.names() == ("a", "b")
    assert file.shape("a") == (2, 3)
    assert file.dtype("b") == "F16"
    assert np.array_equal(file.read("b"), ARRAYS["b"])


@pytest.mark.parametrize(
    "places",
    [
        {"a": "m-1.safetensors", "b": "m-1.safetensors"},
        {"a": "m-1.safetensors", "b": "m-2.safetensors", "c": "m-2.safetensors"},
        {"a": "m-1.safetensors", "b": "m-3.safetensors"},
        {"a": "m-1.safetensors", "b": "../m-2.safetensors"},
        {"a": 3},
        [],
    ],
    ids=["wrong shard", "unknown name", "no such shard", "outside", "a number", "a list"],
)
def test_bad_index(tmp_path, places):
    folder = tmp_path / "inner"
    folder.mkdir()
    shards(folder, places)
    with pytest.raises(CheckpointError):
        open_tensors(folder)


def test_folder_without_or_with_several_files(tmp_path):
    with pytest.raises(CheckpointError, match=r"no \.safetensors"):
        open_tensors(tmp_path)
    for name in ("x", "y"):
        write_tensors(tmp_path / f"{name}.safetensors", ARRAYS)
    with pytest.raises(CheckpointError, match=r"x\.safetensors, y\.safetensors"):
        open_tensors(tmp_path)


def test_unwritable(tmp_path):
    with pytest.raises(CheckpointError, match="float64"):
        write_tensors(tmp_path / "x", {"a": np.zeros(2)})
    with pytest.raises(UnwritableError, match="cannot be written"):
        write_tensors(tmp_path / "no folder" / "x", ARRAYS)


def test_nothing_is_left_of_a_file_whose_writing_was_stopped(tmp_path):
    def stopped():
        yield np.zeros(2, np.float32)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_safetensors(tmp_path / "x.safetensors", [Target("a", "F32", (4,), stopped)])
    assert list(tmp_path.iterdir()) == []


def test_opening_takes_time_in_proportion_to_the_names(tmp_path):
    """Quadratic work made half a minute, and more of more, of a file of a few megabytes."""
    count = 20_000
    names = [f"{number:06d}" for number in range(count)]
    nothing = {f"{name}.{kind}": entry("F32", (0,), (0, 0)) for name in names for kind in ("weight", "scale_weight")}
    raw_file(tmp_path / "m.safetensors", nothing)
    (tmp_path / "m.safetensors.index.json").write_text(
        json.dumps({"weight_map": dict.fromkeys(nothing, "m.safetensors")})
    )
    begin = time.process_time()
    file = with_scales(open_tensors(tmp_path), {}, None)
    assert len(file.names()) == count
    assert time.process_time() - begin < 5
