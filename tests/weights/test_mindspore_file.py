"""MindSpore's .ckpt files, against files that MindSpore itself writes."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from cut_tensors import check_file
from toy_checkpoint import write_toy

from framewake.errors import CheckpointError
from framewake.models.dit import DiT
from framewake.weights.checkpoint.layouts import Files
from framewake.weights.checkpoint.load import open_checkpoint
from framewake.weights.reading.containers import container_of
from framewake.weights.reading.files import open_file
from framewake.weights.reading.mindspore_file import TYPES, MindsporeFile
from framewake.weights.reading.narrow import to_bfloat16


def number(value):
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def field(tag, content):
    return number(tag << 3 | 2) + number(len(content)) + content


def piece(name, shape, kind, content):
    """One tensor, or one piece of one, as MindSpore writes it."""
    tensor = b"".join(number(1 << 3) + number(size) for size in shape) + field(2, kind.encode()) + field(3, content)
    return field(1, field(1, name.encode()) + field(2, tensor))


def write(path, tensors):
    path.write_bytes(b"".join(piece(name, x.shape, "Float32", x.tobytes()) for name, x in tensors.items()))
    return path


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return write_toy(tmp_path_factory.mktemp("toy"))


def our_tensors(checkpoint, component):
    tensors = checkpoint.tensors(component)
    return {name: tensors.read(name) for name in tensors.names()}


def test_what_mindspore_writes(tmp_path):
    """In a process of its own: MindSpore's settings are for engines."""
    pytest.importorskip("mindspore")
    program = f"""
import numpy as np, mindspore as ms
rng = np.random.default_rng(0)
values = rng.normal(size=(4, 6)).astype(np.float32)
kinds = dict(f32=ms.float32, f16=ms.float16, bf16=ms.bfloat16, f64=ms.float64, i64=ms.int64, bool=ms.bool_)
saved = [{{"name": f"a.{{name}}", "data": ms.Tensor(values * 9).astype(kind)}} for name, kind in kinds.items()]
saved.append({{"name": "number", "data": ms.Tensor(2.5, ms.float32)}})
for crc in (False, True):
    path = {str(tmp_path)!r} + f"/{{crc}}.ckpt"
    ms.save_checkpoint(saved, path, append_dict={{"epoch": 3, "note": "abc"}}, crc_check=crc)
"""
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    values = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32) * 9
    for name in ("False", "True"):
        file = open_file(tmp_path / f"{name}.ckpt")
        assert container_of(file.path).key == "mindspore"
        assert set(file.names()) == {
            *(f"a.{kind}" for kind in ("f32", "f16", "bf16", "f64", "i64", "bool")),
            "number",
            "epoch",
        }
        assert file.shape("number") == () and file.read("number") == 2.5
        assert file.dtype("a.bf16") == "BF16" and file.shape("a.bf16") == (4, 6)
        assert np.array_equal(file.raw("a.bf16"), to_bfloat16(values))
        assert np.array_equal(file.read("a.f32"), values)
        assert np.array_equal(file.read("a.f16"), values.astype(np.float16))
        assert np.array_equal(file.read("a.i64"), values.astype(np.int64))
        file.check_sums()


def test_check_sums(tmp_path):
    import zlib

    content = piece("a", (4,), "Float32", bytes(16))
    path = tmp_path / "x.ckpt"
    path.write_bytes(content + b"crc_num" + zlib.crc32(content).to_bytes(10, "big"))
    open_file(path).check_sums()
    path.write_bytes(content + b"crc_num" + bytes(10))
    with pytest.raises(CheckpointError, match="check sum"):
        open_file(path).check_sums()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_tensor_in_pieces(tmp_path, dtype):
    values = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    data = values.tobytes()
    path = tmp_path / "x.ckpt"
    path.write_bytes(
        piece("first", (2,), "Float32", bytes(8))
        + b"".join(piece("a", (5, 7), "Float32", data[at : at + 60]) for at in range(0, 140, 60))
        + piece("last", (), "Float32", bytes(4))
    )
    file = open_file(path)
    assert np.array_equal(file.read("a"), values) and file.shape("last") == ()
    check_file(file, dtype)
    out = np.empty((5, 7), np.uint16 if dtype == "bfloat16" else dtype)
    file.fill("a", out, dtype)
    assert np.array_equal(out, to_bfloat16(values) if dtype == "bfloat16" else values.astype(dtype))


@pytest.mark.parametrize("prefix", ["", "network.", "network._backbone.", "transformer."])
def test_a_transformer(engine, toy, tmp_path, prefix):
    tensors = our_tensors(open_checkpoint(toy), "dit")
    path = write(tmp_path / "x.ckpt", {prefix + name: values for name, values in tensors.items()})
    checkpoint = open_checkpoint(toy, Files(dit=path))
    found = checkpoint.store("dit", engine, "float32", shapes=DiT(None, checkpoint.dit).shapes()).part("")
    assert all(np.array_equal(engine.numpy(found[name]), values) for name, values in tensors.items())


def test_names_of_mindspores_own_layers(toy, tmp_path):
    """Its norms have gamma and beta, its embeddings a table."""
    tensors = our_tensors(open_checkpoint(toy), "clip_text")
    renamed = {}
    for name, values in tensors.items():
        theirs = name.replace(".weight", ".gamma").replace(".bias", ".beta") if "norm" in name else name
        renamed[theirs.replace("embedding.weight", "embedding.embedding_table")] = values
    found = our_tensors(open_checkpoint(toy, Files(clip=write(tmp_path / "x.ckpt", renamed))), "clip_text")
    assert set(renamed) != set(tensors)
    assert all(np.array_equal(found[name], values) for name, values in tensors.items())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (piece("a", (4,), "Float32", bytes(16))[:-3], "cut off"),
        (piece("a", (5,), "Float32", bytes(16)), r"shape \[5\] and type Float32 has 16 bytes"),
        (piece("a", (2**40, 2**40), "Float32", bytes(16)), "has 16 bytes"),
        (piece("a", (4,), "Int4", bytes(16)), r"type 'Int4'; .*BFloat16"),
        (piece("a", (4,), "Float32", bytes(16)) * 2, "has 32 bytes"),
        (piece("a", (), "Int64", bytes(8)) + piece("b", (), "Int64", bytes(8)) + piece("a", (), "Int64", b""), "twice"),
        (field(1, field(1, b"a") + field(3, b"")), "map of parameters"),
        (field(1, field(1, b"a")), "no tensor"),
        (piece("a", (4,), "Float32", bytes(16)) + b"\x63\x01", "is no field"),
        (piece("a", (4,), "Float32", bytes(16)) + b"\x0a\xff\xff\xff", "no end"),
    ],
)  # fmt: skip
def test_damage(tmp_path, content, message):
    (tmp_path / "x.ckpt").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        MindsporeFile(tmp_path / "x.ckpt")


def test_every_byte_of_a_small_file(tmp_path):
    whole = piece("a.b", (4,), "Float32", bytes(16)) + piece("c", (), "BFloat16", bytes(2))
    path = tmp_path / "x.ckpt"
    for at in range(len(whole)):
        for content in (whole[:at], whole[:at] + bytes([whole[at] ^ 0x85]) + whole[at + 1 :]):
            path.write_bytes(content)
            try:
                file = open_file(path)
                for name in file.names():
                    file.read(name)
            except CheckpointError as error:
                assert str(path) in str(error)


def test_types_are_known_by_mindspores_names():
    serialization = pytest.importorskip("mindspore.train.serialization")
    assert set(TYPES) <= set(serialization.tensor_to_ms_type)
