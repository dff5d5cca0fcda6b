"""Every door opens every part before anything is loaded, and names what cannot be used."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from engines_here import FIRST

from framewake.app import original
from framewake.golden import rule
from framewake.media.video import write_video
from framewake.pipeline.events import StageStarted
from framewake.pipeline.latents import latents_path
from framewake.pipeline.run import Pipeline
from framewake.request import Request
from framewake.weights.reading.files import open_tensors
from framewake.weights.writing.files import write_tensors

pytest.importorskip("torch")  # the doors below ask for its engine


@pytest.fixture
def folder(toy, tmp_path):
    return shutil.copytree(toy, tmp_path / "checkpoint")


def weights(folder, part):
    (path,) = (folder / part).glob("*.safetensors")
    return path


def missing(folder, part):
    weights(folder, part).unlink()
    return f"{part} holds no"


def cut(folder, part):
    path = weights(folder, part)
    path.write_bytes(path.read_bytes()[:-100])
    return "not a usable safetensors file"


def begun(folder, part):
    path = weights(folder, part)
    path.rename(path.with_name(path.name + ".incomplete"))
    return "not downloaded to its end"


def pointer(folder, part):
    weights(folder, part).write_text(POINTER)
    return "git lfs pull"


def other_sizes(folder, part):
    path = weights(folder, part)
    file = open_tensors(path)
    write_tensors(path, {n: np.zeros((*file.shape(n), 1), np.float32) for n in file.names()})
    return "does not fit the model"


def lost_shard(folder, part):
    path = weights(folder, part)
    names = open_tensors(path).names()
    places = {name: path.name if name != names[0] else "model-00002-of-00002.safetensors" for name in names}
    path.with_name("model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return "lacks 1 of the 2 files"


FAULTS = [missing, cut, begun, pointer, other_sizes, lost_shard]
PARTS = ["transformer", "vae", "text_encoder", "text_encoder_2"]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_cannot_be_used(call, folder, picture, fault, part):
    said = fault(folder, part)
    for command in ("plan", "animate"):
        answer = call(command, picture, "x", "--checkpoint", folder, *(["-q"] if command == "animate" else []))
        assert answer.code == 3 and answer.out == "" and said in answer.err, answer.err


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
TOKENIZERS = {
    "gone": (shutil.rmtree, "no folder 'tokenizer'"),
    "without files": (lambda path: [file.unlink() for file in path.iterdir()], "no tokenizer in"),
    "broken": (lambda path: (path / "tokenizer.json").write_text("{"), "not readable JSON"),
    "pointer": (lambda path: (path / "tokenizer.json").write_text(POINTER), "git lfs pull"),
    "empty": (lambda path: (path / "tokenizer.json").write_text("{}"), "not a readable tokenizer"),
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_tokenizers(call, folder, picture, name):
    change, said = TOKENIZERS[name]
    change(folder / "tokenizer")
    answer = call("plan", picture, "x", "--checkpoint", folder)
    assert answer.code == 3 and answer.out == "" and said in answer.err, answer.err


CONFIGS = {
    "gone": (None, "config.json"),
    "broken": ("{", "is not JSON"),
    "pointer": (POINTER, "git lfs pull"),
    "of another class": ('{"_class_name": "FluxTransformer2DModel"}', "FluxTransformer2DModel"),
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("part", PARTS[:2])
def test_configs(call, folder, picture, name, part):
    content, said = CONFIGS[name]
    path = folder / part / "config.json"
    path.unlink() if content is None else path.write_text(content)
    answer = call("plan", picture, "x", "--checkpoint", folder)
    assert answer.code == 3 and said in answer.err and f"{part}/config.json" in answer.err, answer.err


@pytest.mark.parametrize("flag", ["dit", "vae", "llava", "llava-vision", "clip", "dit-scales"])
def test_parts_that_are_not_there(call, picture, flag):
    answer = call("plan", picture, "x", "--part", f"{flag}=/nowhere/x.gguf")
    assert answer.code == 3 and answer.out == "" and "/nowhere/x.gguf" in answer.err, answer.err


def test_several_faults_are_told_together(call, folder, picture):
    for part in PARTS[1:]:
        pointer(folder, part)
    answer = call("animate", picture, "x", "--checkpoint", folder, "-q")
    assert answer.code == 3 and "3 of 4 parts cannot be used" in answer.err and answer.err.count("git lfs pull") == 3


def test_a_batch(call, folder, picture, tmp_path):
    cut(folder, "vae")
    (tmp_path / "jobs.jsonl").write_text(json.dumps({"image": str(picture), "prompt": "x"}) + "\n")
    answer = call("animate", "--batch", "jobs.jsonl", "--checkpoint", folder)
    assert answer.code == 3 and "autoencoder" not in answer.out and "Encoding" not in answer.err, answer.err


def test_the_original(call, folder, picture):
    cut(folder, "vae")
    flags = "--i2v-mode --video-length 5 --infer-steps 2 --flow-reverse --embedded-cfg-scale 6.0 --model-base"
    answer = call("--prompt", "x", "--i2v-image-path", picture, *flags.split(), folder, program=original.main)
    assert answer.code == 3 and "not a usable safetensors file" in answer.err and "Encoding" not in answer.err


def test_training(call, folder, tmp_path):
    data = tmp_path / "clips"
    data.mkdir()
    clip = np.stack([rule.image("clip", 64, 64, 0)] * 5)
    write_video(data / "0.webp", clip, fps=12, metadata={})
    (data / "0.txt").write_text("x")
    cut(folder, "transformer")
    answer = call("lora", "train", data, "a.safetensors", "--steps", 1, "--checkpoint", folder)
    assert answer.code == 3 and "not a usable safetensors file" in answer.err and "encoded" not in answer.err


@pytest.mark.parametrize("door", ["serve", "worker"])
def test_the_service(call, folder, tmp_path, door):
    pytest.importorskip("fastapi")
    cut(folder, "vae")
    data = tmp_path / "data"
    data.mkdir()
    place = ("--data", data, "--port", "0", "--no-page", "--no-worker") if door == "serve" else ("--storage", data)
    answer = call(door, "--checkpoint", folder, *place)
    assert answer.code == 3 and "not a usable safetensors file" in answer.err and "serves" not in answer.err, answer.err


def test_finished_latents_need_the_autoencoder_alone(call, folder, picture, tmp_path):
    """A broken transformer keeps nobody from the clip that it has made."""
    pipeline = Pipeline.load(folder, engine=FIRST)
    events = pipeline.run(Request("x", image=str(picture), seed=1, resolution="360p"), tmp_path / "x.webp")
    assert any(isinstance(event, StageStarted) and event.stage == "decode" for event in events)
    events.close()
    cut(folder, "transformer")
    answer = call("animate", "--from-latents", latents_path(tmp_path / "x.webp"), "--checkpoint", folder, "-q")
    assert answer.code == 0 and (tmp_path / "x.webp").is_file(), answer.err
    cut(folder, "vae")
    shutil.copy(tmp_path / "x.webp", tmp_path / "y.webp")
    assert call("animate", picture, "x", "--checkpoint", folder).code == 3
