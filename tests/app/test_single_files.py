"""One file or folder named where a whole checkpoint is expected: verified alone, or told where it goes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from toy_checkpoint import write_toy

from framewake.weights.checkpoint.load import open_checkpoint
from framewake.weights.reading.files import open_tensors
from framewake.weights.writing.files import write_tensors


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """Parts whose sizes follow the published rules, each in a file of its own without a config.json."""
    import dataclasses

    from toy_checkpoint import DIT, VAE

    wide = dataclasses.replace(DIT, hidden_size=64, rope_dims=(4, 14, 14))
    vae = dataclasses.replace(VAE, block_out_channels=(32, 32, 32, 32), norm_groups=32)
    source = write_toy(tmp_path_factory.mktemp("whole"), dit=wide, vae=vae)
    folder = tmp_path_factory.mktemp("files")
    checkpoint = open_checkpoint(source)
    for part, component in (("transformer", "dit"), ("vae", "vae")):
        tensors = checkpoint.tensors(component)
        write_tensors(folder / f"{part}.safetensors", {name: tensors.read(name) for name in tensors.names()})
    return folder


@pytest.mark.parametrize(
    ("part", "flag", "kind"), [("transformer", "dit", "a transformer"), ("vae", "vae", "an autoencoder")]
)
def test_a_file_alone(call, published, picture, part, flag, kind):
    path = published / f"{part}.safetensors"
    answer = call("checkpoints", "verify", path, "--full")
    assert answer.code == 0 and f"{path} is {kind}, one part alone (--part {flag}={path})" in answer.out, answer.err
    assert answer.out.count("ok   ") == 1
    found = json.loads(call("checkpoints", "verify", path, "--json").out)
    assert found["layout"] == "single part" and len(found["parts"]) == 1 and found["parts"][0]["problem"] is None
    for command in (("animate", picture, "x", "--checkpoint", path), ("plan", picture, "x", "--checkpoint", path),
                    ("checkpoints", "convert", path, "new")):  # fmt: skip
        told = call(*command)
        assert told.code == 3 and f"{kind} alone. Take it with --part {flag}={path}" in told.err, told.err


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder", "text_encoder_2"])
def test_a_part_of_a_folder(call, toy, picture, part):
    answer = call("checkpoints", "verify", toy / part)
    assert answer.code == 0 and answer.out.count("ok   ") == 1, answer.err
    (path,) = (toy / part).glob("*.safetensors")
    assert call("checkpoints", "verify", path).code == 0
    told = call("animate", picture, "x", "--checkpoint", toy / part)
    assert told.code == 3 and f"Name the whole: {toy}" in told.err


def test_diffusers_names_need_their_config(call, toy, tmp_path):
    (path,) = (toy / "transformer").glob("*.safetensors")
    shutil.copy(path, tmp_path / "x.safetensors")
    answer = call("checkpoints", "verify", tmp_path / "x.safetensors")
    assert answer.code == 3 and "in diffusers' names" in answer.err and "config.json" in answer.err


def test_a_language_model_and_a_tower_alone(call, toy, tmp_path):
    (path,) = (toy / "text_encoder").glob("*.safetensors")
    file = open_tensors(path)
    for name, is_language in (("text", True), ("vision", False)):
        folder = tmp_path / name
        folder.mkdir()
        shutil.copy(toy / "text_encoder" / "config.json", folder)
        tensors = {n: file.read(n) for n in file.names() if n.startswith("language_model.") == is_language}
        write_tensors(folder / "model.safetensors", tensors)
    answer = call("checkpoints", "verify", tmp_path / "text")
    assert answer.code == 0 and "without its vision tower" in answer.out and "--part llava=" in answer.out, answer.err
    answer = call("checkpoints", "verify", tmp_path / "vision")
    assert answer.code == 0 and "a LLaVA vision tower" in answer.out and "--part llava-vision=" in answer.out, (
        answer.err
    )


def test_a_damaged_file_alone(call, published, tmp_path):
    tensors = {n: x for n, x in read(published / "vae.safetensors").items() if "quant_conv" not in n or "post" in n}
    write_tensors(tmp_path / "x.safetensors", tensors)
    answer = call("checkpoints", "verify", tmp_path / "x.safetensors")
    assert answer.code == 3 and "BAD  autoencoder" in answer.out and "quant_conv" in answer.out


def read(path):
    file = open_tensors(path)
    return {name: file.read(name) for name in file.names()}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.lora_A.weight", "a.lora_B.weight"], "a LoRA.*framewake lora info"),
        (["decoder.up.0.block.0.conv1.weight"], "LDM names"),
        (["model.layer.weight"], "another model"),
    ],
)
def test_what_is_no_part(call, picture, tmp_path, names, message):
    import re

    write_tensors(tmp_path / "x.safetensors", {name: np.ones((2, 2), np.float32) for name in names})
    for command in (("checkpoints", "verify"), ("plan", picture, "x", "--checkpoint")):
        answer = call(*command, tmp_path / "x.safetensors")
        assert answer.code == 3 and re.search(message, answer.err), answer.err


def cached(toy, cache, hashes):
    """A hub's cache of a checkpoint, with a snapshot for each hash."""
    folder = cache / "models--owner--name"
    for value in hashes:
        shutil.copytree(toy, folder / "snapshots" / value)
    return folder


def test_a_cache_of_a_hub(call, toy, tmp_path, monkeypatch):
    folder = cached(toy, tmp_path / "hub", ["abc"])
    for place in (folder, folder / "snapshots", folder / "snapshots" / "abc"):
        answer = call("checkpoints", "verify", place)
        assert answer.code == 0 and f"{folder / 'snapshots' / 'abc'} is toy in the diffusers layout" in answer.out
    shutil.copytree(toy, folder / "snapshots" / "def")
    answer = call("checkpoints", "verify", folder)
    assert answer.code == 3 and "several snapshots, abc, def" in answer.err
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("def\n")
    assert f"{folder / 'snapshots' / 'def'} is toy in" in call("checkpoints", "verify", folder).out
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    answer = call("checkpoints", "verify", "owner/name")
    assert answer.code == 3 and f"--checkpoint {folder}" in answer.err
    shutil.rmtree(folder / "snapshots")
    (folder / "snapshots").mkdir()
    assert "no snapshot" in call("checkpoints", "verify", folder).err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hunyuanvideo-community/HunyuanVideo-I2V", "framewake checkpoints download DIR --name diffusers"),
        ("tencent/hunyuanvideo-i2v", "download DIR --name tencent"),
        ("city96/some-gguf", "hf download city96/some-gguf --local-dir DIR"),
        ("https://huggingface.co/a/b", "is an address"),
        ("/nowhere/at/all", "no such checkpoint"),
        ("x" * 5000, "no such checkpoint"),
    ],
)
def test_names_that_are_no_folder(call, picture, monkeypatch, tmp_path, name, message):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    answer = call("plan", picture, "x", "--checkpoint", name)
    assert answer.code == 3 and message in answer.err, answer.err


def test_a_folder_around_a_checkpoint(call, toy, picture, tmp_path):
    shutil.copytree(toy, tmp_path / "models" / "mine")
    answer = call("plan", picture, "x", "--checkpoint", tmp_path / "models")
    assert answer.code == 3 and f"Did you mean {tmp_path / 'models' / 'mine'}?" in answer.err


def test_one_shard_means_its_index(call, toy, tmp_path):
    (path,) = (toy / "transformer").glob("*.safetensors")
    tensors = read(path)
    names = list(tensors)
    groups = {f"model-{i + 1:05d}-of-00002.safetensors": names[i::2] for i in range(2)}
    for name, held in groups.items():
        write_tensors(tmp_path / name, {n: tensors[n] for n in held})
    places = {n: name for name, held in groups.items() for n in held}
    Path(tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    answer = call("checkpoints", "verify", toy, "--part", f"dit={tmp_path}/model-00001-of-00002.safetensors")
    assert answer.code == 0, answer.err
