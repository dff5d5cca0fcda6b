"""A file is told by its first bytes, and what cannot be read is named with the way out."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from framewake.errors import CheckpointError
from framewake.weights.reading.containers import CONTAINERS, container_of, expect
from framewake.weights.reading.files import READERS, open_file
from framewake.weights.writing.files import write_tensors

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 16060617592\n"


def zipped(name: str) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        archive.writestr(name, b"x" * 100)
    return memory.getvalue()


def tarred() -> bytes:
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("model/config.json"))
    return memory.getvalue()


def picture(kind: str) -> bytes:
    memory = io.BytesIO()
    Image.new("RGB", (64, 64)).save(memory, kind)
    return memory.getvalue()


def array(save) -> bytes:
    memory = io.BytesIO()
    save(memory, np.zeros(4))
    return memory.getvalue()


# What the file holds, and what its message has to say.
FOREIGN = {
    "pointer": (POINTER, "Git LFS pointer.*git lfs pull"),
    "annex": (b"/annex/objects/SHA256E-s3--aa.safetensors\n", "git annex get"),
    "page": (b"\xef\xbb\xbf\n <!DOCTYPE html><html><head><title>Sign in</title>", "web page.*Download it again"),
    "xml": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code>', "XML.*AccessDenied"),
    "json": (b'{"error":"Access to model x is restricted"}', "JSON.*restricted.*index.json"),
    "list": (b"[1, 2, 3]", "JSON"),
    "text": (b"Entry not found", "plain text.*Entry not found"),
    "chinese": ("模型不存在".encode() * 100, "plain text.*模型不存在"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5.*safetensors"),
    "npy": (array(np.save), "numpy array"),
    "npz": (array(np.savez), "several numpy arrays"),
    "zip": (zipped("model/model.txt"), "zip archive.*Unpack"),
    "tar": (tarred(), "tar archive.*Unpack"),
    "gzip": (gzip.compress(b"x"), "gzip.*Unpack"),
    "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(99), "7-Zip.*Unpack"),
    "tar of torch": (b"sys_info\0" + bytes(248) + b"ustar", r"before torch 1\.6"),
    "pickle": (pickle.dumps({"a": 1}, protocol=2), "pickle.*run code"),
    "old torch": (b"\x80\x02\x8a\x0a\x6c\xfc\x9c" + bytes(99), r"before torch 1\.6.*save it again"),
    "onnx": (b"\x08\x07\x12\x07pytorch\x1a\x052.4.0", "ONNX.*made from"),
    "mindir": (b"\n\x050.1.0\x12\tMindSpore", "MindIR"),
    "tensorrt": (b"ptrt" + bytes(99), "TensorRT"),
    "om": (b"IMOD" + bytes(99), "Ascend"),
    "png": (picture("PNG"), "a picture.*first argument"),
    "jpeg": (picture("JPEG"), "a picture"),
    "webp": (picture("WEBP"), "a picture"),
    "mp4": (b"\0\0\0\x20ftypisom" + bytes(99), "a clip"),
    "zeros": (bytes(5000), "nothing but zeros"),
    "empty": (b"", "an empty file"),
    "noise": (bytes(range(200, 230)), "no known kind.*c8 c9 ca cb"),
}


def test_programs_in_a_zip_are_no_weights(tmp_path):
    """TorchScript has a pickle of tensors too."""
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        for name in ("data.pkl", "code/__torch__/model.py", "constants.pkl"):
            archive.writestr(f"x/{name}", b"x")
    with pytest.raises(CheckpointError, match=r"TorchScript.*made from"):
        expect(tmp_path / "x.pt", READERS)


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("suffix", ["", ".safetensors", ".pt", ".ckpt"])
def test_what_a_file_is_stands_in_the_message(name, suffix, tmp_path):
    content, message = FOREIGN[name]
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    if name == "noise" and suffix:
        message = "not a usable safetensors|not a .pt file"  # damage, told by the reader of what it should be
    with pytest.raises(CheckpointError, match=f"(?s){message}") as caught:
        open_file(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["", ".bin", ".ckpt", ".pt", ".gguf"])
def test_safetensors_under_another_name(suffix, tmp_path):
    path = tmp_path / f"model{suffix}"
    write_tensors(path, {"a": np.ones(3, np.float32)})
    assert open_file(path).names() == ("a",)


@pytest.mark.parametrize("suffix", [".part", ".partial", ".incomplete", ".crdownload", ".aria2"])
def test_an_unfinished_download(suffix, tmp_path):
    path = tmp_path / f"model.safetensors{suffix}"
    path.write_bytes(bytes(100))
    with pytest.raises(CheckpointError, match="unfinished download"):
        open_file(path)


def test_what_aria2_has_not_finished(tmp_path):
    """It takes the whole file's place at once, so that size and header are right and the rest is zeros."""
    path = tmp_path / "model.safetensors"
    write_tensors(path, {"a": np.zeros(3, np.float32)})
    path.with_name(path.name + ".aria2").write_bytes(b"\0\1")
    with pytest.raises(CheckpointError, match=r"unfinished download.*-c"):
        open_file(path)


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for place, message in (
        (tmp_path / "pipe", "a pipe"),
        (tmp_path, "a folder"),
        (tmp_path / "none", "cannot be read"),
    ):
        with pytest.raises(CheckpointError, match=message):
            container_of(place)
    with pytest.raises(CheckpointError, match="cannot be read"):
        container_of(tmp_path / "a\0b")


def test_a_door_that_reads_less(tmp_path):
    write_tensors(tmp_path / "a.safetensors", {"a": np.ones(3, np.float32)})
    assert expect(tmp_path / "a.safetensors", ("safetensors",)).key == "safetensors"
    with pytest.raises(CheckpointError, match="Expected: torch"):
        expect(tmp_path / "a.safetensors", ("torch",))


def test_readers_are_those_that_the_page_names():
    assert {each.key for each in CONTAINERS if each.handling != "refused"} == set(READERS)
