"""What lies beside weights: other variants, a system's own files, links without an end, other parts."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from toy_checkpoint import write_toy

from framewake.errors import CheckpointError, InputError
from framewake.pipeline.checkpoint import open_whole
from framewake.weights.checkpoint.layouts import Files, parse_files
from framewake.weights.checkpoint.load import open_checkpoint
from framewake.weights.reading.files import open_tensors, read_json
from framewake.weights.writing.files import write_tensors

ONE = {"x.weight": np.ones((2, 2), np.float32)}
APPLE = b"\0\5\x16\7\0\2\0\0Mac OS X"
WEIGHTS = {
    "dit": "transformer/diffusion_pytorch_model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
    "llava": "text_encoder/model.safetensors",
    "clip": "text_encoder_2/model.safetensors",
}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return write_toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def folder(toy, tmp_path):
    return shutil.copytree(toy, tmp_path / "copy")


@pytest.mark.parametrize("ending", [".safetensors", ".SAFETENSORS", ".sft", ".ckpt", ".pth", ".PT", ".gguf"])
def test_endings_in_any_letters(tmp_path, ending):
    write_tensors(tmp_path / "x.safetensors", ONE)
    (tmp_path / "x.safetensors").rename(tmp_path / f"y{ending}")
    assert open_tensors(tmp_path).names() == ("x.weight",)


@pytest.mark.parametrize("variant", ["fp16", "non_ema", "bf16"])
def test_a_variant_beside_the_main_file_does_not_count(tmp_path, variant):
    write_tensors(tmp_path / f"model.{variant}.safetensors", {"other.weight": ONE["x.weight"]})
    assert open_tensors(tmp_path).names() == ("other.weight",)
    write_tensors(tmp_path / "model.safetensors", ONE)
    assert open_tensors(tmp_path).names() == ("x.weight",)
    write_tensors(tmp_path / "another.safetensors", ONE)
    with pytest.raises(CheckpointError, match=r"several: another\.safetensors, model\.safetensors;.*--part NAME=FILE"):
        open_tensors(tmp_path)


def test_what_macos_puts_beside_files_is_not_taken_for_them(folder):
    for file in [file for file in folder.rglob("*") if file.is_file()]:
        file.with_name(f"._{file.name}").write_bytes(APPLE)
    open_whole(folder)


def test_a_link_without_an_end_is_told(folder):
    file = folder / WEIGHTS["dit"]
    file.unlink()
    file.symlink_to("../../blobs/abc")
    with pytest.raises(CheckpointError, match=r"a link to \.\./\.\./blobs/abc, which is not there.*cp -rL"):
        open_whole(folder)


def test_json_that_begins_with_a_mark(tmp_path):
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf" + json.dumps({"a": 1}).encode())
    assert read_json(tmp_path / "a.json") == {"a": 1}


@pytest.mark.parametrize("place", WEIGHTS)
@pytest.mark.parametrize("given", WEIGHTS)
def test_a_part_in_the_place_of_another_is_told_where_it_goes(toy, place, given):
    files = parse_files([f"{place}={toy / WEIGHTS[given]}"])
    if place == given:
        open_whole(toy, files)
        return
    with pytest.raises(CheckpointError, match=rf" is an? .*, no .*Name it with --part {given}=FILE"):
        open_whole(toy, files)


def test_a_lora_is_no_part(toy, tmp_path):
    write_tensors(tmp_path / "a.safetensors", {"a.lora_A.weight": np.ones((2, 2), np.float32)})
    with pytest.raises(CheckpointError, match=r"is a LoRA, no transformer.*--lora FILE"):
        open_checkpoint(toy, Files(dit=tmp_path / "a.safetensors"))


def test_another_vision_tower_takes_the_place_of_the_folders(toy, tmp_path):
    whole = open_tensors(toy / WEIGHTS["llava"])
    tower = {name: whole.read(name) * 2 for name in whole.names() if not name.startswith("language_model.")}
    write_tensors(tmp_path / "tower.safetensors", tower)
    both = open_whole(toy, Files({"llava-vision": tmp_path / "tower.safetensors"})).tensors("llava")
    for name in whole.names():
        times = 1 if name.startswith("language_model.") else 2
        assert np.array_equal(both.read(name), whole.read(name) * times), name


def test_an_address_is_no_part():
    with pytest.raises(InputError, match=r"addresses are not fetched.*curl -fLO https://a\.b/c\.safetensors"):
        parse_files(["dit=https://a.b/c.safetensors"])


def test_colours_that_would_be_divided_by_nothing(folder):
    path = folder / "image_processor" / "preprocessor_config.json"
    content = json.loads(path.read_text())
    for wrong in ([0.5, 0.0, 0.5], [0.5, float("nan"), 0.5], [-1, -1, -1]):
        path.write_text(json.dumps(content | {"image_std": wrong}))
        with pytest.raises(CheckpointError, match="the second has to be above 0"):
            open_whole(folder)


@pytest.mark.parametrize("kind", ["F4", "F8_E8M0", "C64", "U16"])
def test_types_that_are_not_read_are_no_damage(tmp_path, kind):
    header = json.dumps({"a": {"dtype": kind, "shape": [2], "data_offsets": [0, 8]}}).encode()
    (tmp_path / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(CheckpointError, match=rf"is stored as {kind}, which is not read.*bfloat16"):
        open_tensors(tmp_path)


# In a process of its own: MindSpore reads its settings when it is imported.
WRITE = """
import sys
import mindspore
import numpy as np
values = np.load(sys.argv[1])
tensors = [{"name": name, "data": mindspore.Tensor(values[name])} for name in values.files]
mindspore.save_checkpoint(tensors, sys.argv[2], append_dict={"epoch": 3, "learning_rate": 0.1, "note": "x"})
"""


def test_what_mindspore_keeps_of_a_training_run_is_no_weight(toy, tmp_path):
    pytest.importorskip("mindspore")
    file = open_checkpoint(toy).tensors("dit")
    np.savez(tmp_path / "x.npz", **{name: file.read(name) for name in file.names()})
    subprocess.run([sys.executable, "-c", WRITE, tmp_path / "x.npz", tmp_path / "x.ckpt"], check=True)
    assert "epoch" in open_tensors(tmp_path / "x.ckpt").names()
    open_whole(toy, Files(dit=tmp_path / "x.ckpt"))
