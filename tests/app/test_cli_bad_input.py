"""Everything a person can get wrong: one line, the right exit code, nothing loaded and nothing left behind."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import zlib

import pytest
from PIL import Image
from small_disk import MIB, mounted

from framewake.errors import CheckpointError
from framewake.pipeline import Pipeline

PROMPT = "the red circle moves left"


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    checked = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + checked + struct.pack(">I", 1000) + b"IDAT"


@pytest.fixture
def pictures(tmp_path, picture):
    """Bad pictures by name."""
    files = tmp_path / "pictures"
    files.mkdir()
    (files / "cut.png").write_bytes(picture.read_bytes()[: picture.stat().st_size // 2])
    (files / "huge.png").write_bytes(png_header(20000, 20000))
    (files / "zero.png").write_bytes(png_header(0, 10))
    (files / "empty.png").write_bytes(b"")
    (files / "text.png").write_text("this is no picture")
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(files / "moving.gif", save_all=True, append_images=frames[1:])
    content = (files / "moving.gif").read_bytes()
    (files / "moving.gif").write_bytes(content[: len(content) - 6])  # cut within its last frame
    (files / "photo.jpg").write_bytes(b"\xff\x0a" + bytes(50))
    return files


def refused(answer, code, *words):
    """The answer is one line with these words."""
    assert answer.code == code, answer.err
    assert answer.out == ""
    assert answer.err.count("\n") == 1 and answer.err.startswith("framewake: "), answer.err
    for word in words:
        assert word in answer.err, answer.err


def test_a_worker_makes_no_queue_of_its_own(call, tmp_path):
    pytest.importorskip("sqlalchemy")
    refused(call("worker", "--storage", tmp_path / "gone"), 2, "gone is no folder", "framewake serve")
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("missing.png", "no such file"),
        ("cut.png", "damaged or cut off"),
        ("huge.png", "too big"),
        ("zero.png", ""),
        ("empty.png", "empty"),
        ("text.png", "not a picture"),
        ("moving.gif", "damaged or cut off"),
        ("photo.jpg", "is JPEG XL"),
        (".", "folder"),
    ],
)
def test_bad_pictures(call, pictures, name, word):
    refused(call("animate", pictures / name, PROMPT), 2, word)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--frames", "6"], ["nearest is 5"]),
        (["--frames", "0"], ["frames"]),
        (["--frames", "many"], ["frames is 'many'", "whole number from 1 to"]),
        (["--frames", "9.5"], ["frames is '9.5'", "whole number"]),
        (["--flow-shift", "wide"], ["flow_shift is 'wide'", "number from"]),
        (["--resolution", "72p"], ["720p", "Did you mean"]),
        (["--steps", "0"], ["steps"]),
        (["--seed", "-1"], ["seed"]),
        (["--flow-shift", "nan"], ["flow_shift"]),
        (["--guidance", "inf"], ["embedded_guidance"]),
        (["--precision", "int4"], ["precision", "bfloat16"]),
        (["--fps", "0"], ["fps"]),
        (["--crf", "99"], ["crf is 99", "51"]),
        (["--crf", "good"], ["crf is 'good'", "whole number from 0 to 51"]),
        (["--preset", "calm"], ["stable"]),
        (["--rng", "dice"], ["philox"]),
        (["--engine", "torch:cup"], ["torch:cup", "Did you mean 'torch:cpu'"]),
        (["-o", "nowhere/clip.mp4"], ["nowhere", "mkdir"]),
        (["-o", "clip.avi"], [".avi", ".mp4"]),
        (["-o", ""], ["--output is empty"]),
        (["-o", "-"], ["standard output", "clip.mp4"]),
        (["--prompt", "another"], ["the prompt is given twice", "--prompt 'another'"]),
        (["--image", "other.png"], ["the image is given twice", "--image 'other.png'"]),
        (["--like", ""], ["--like is empty"]),
        (["--batch", ""], ["--batch is empty"]),
        (["--from-latents", ""], ["--from-latents is empty"]),
        (["--checkpoint", ""], ["--checkpoint is empty"]),
        (["--lora", ""], ["path of a LoRA is empty"]),
        (["--like", "gone.mp4"], ["gone.mp4"]),
        (["--batch", "gone.jsonl"], ["gone.jsonl"]),
        (["--from-latents", "gone.npz"], ["--from-latents"]),
        (["--stepps", "5"], ["no such option: --stepps", "--steps", "`framewake animate --help`"]),
    ],
)
def test_bad_options(call, picture, tmp_path, options, words):
    refused(call("animate", picture, PROMPT, *options), 2, *words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["info", ""],
        ["quality", "", "a.mp4"],
        ["quality", "a.mp4", ""],
        ["plan", "a.png", "x", "--checkpoint", ""],
        ["doctor", "--golden", ""],
        ["checkpoints", "verify", ""],
        ["checkpoints", "convert", "", "new"],
        ["checkpoints", "convert", "demo", ""],
        ["checkpoints", "download", ""],
        ["checkpoints", "list", ""],
        ["lora", "info", ""],
        ["lora", "convert", "", "b.safetensors", "--format", "kohya"],
        ["lora", "merge", "", "a.safetensors", "new"],
        ["lora", "merge", "demo", "a.safetensors", ""],
        ["lora", "train", "", "a.safetensors"],
        ["lora", "train", "clips", ""],
        ["serve", "--data", ""],
        ["serve", "--database", ""],
        ["serve", "--loras", ""],
        ["serve", "--api-key-file", ""],
        ["worker", "--storage", ""],
        ["jobs", "list", "--server", ""],
    ],
)
def test_an_empty_path_is_not_this_folder(call, tmp_path, arguments):
    refused(call(*arguments), 2, "is empty: expected a ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["plan", "a.png", "x", "--part", "dit"], 2, ["names no file", "dit=model.safetensors"]),
        (["lora", "info", "demo/trail"], 3, ["Did you mean 'demo/trails'?"]),
        (["lora", "info", "gone.safetensors"], 3, ["gone.safetensors: there is no such", "Check the path"]),
        (["lora", "convert", "demo/trails", "a.bin", "--format", "kohya", "--checkpoint", "demo"], 2, [".safetensors"]),
        (
            ["lora", "convert", "demo/trails", "no/a.safetensors", "--format", "kohya", "--checkpoint", "demo"],
            2,
            ["no is no folder", "make it first"],
        ),
        (["doctor", "--golden", "."], 2, ["holds no golden cases", "tests/golden"]),
        (["checkpoints", "download", __file__], 2, ["is a file", "name a folder"]),
        (["checkpoints", "download", "new", "--by-hand", "--mirror", "hf"], 2, ["--mirror is 'hf'", "https://"]),
    ],
)
def test_places_that_are_none(call, picture, tmp_path, arguments, code, words):
    answer = call(*(picture if argument == "a.png" else argument for argument in arguments))
    line = answer.err.strip().split("\n")[-1]
    assert answer.code == code and line.startswith("framewake: "), answer.err
    for word in words:
        assert word in line
    assert list(tmp_path.iterdir()) == []


def test_an_empty_variable_is_one_that_is_not_set(call, picture, monkeypatch):
    monkeypatch.setenv("FRAMEWAKE_CHECKPOINT", "")
    answer = call("plan", picture, PROMPT, "--frames", "5", "--resolution", "360p")
    assert answer.code == 0 and "The plan:" in answer.out


def test_an_empty_checkpoint_from_python():
    with pytest.raises(CheckpointError, match="path is empty"):
        Pipeline.load("", engine="torch:cpu")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["serve", "--port", "x"], ["--port is 'x'", "whole number from 0 to 65535"]),
        (["serve", "--port", "65536"], ["--port is 65536", "from 0 to 65535"]),
        (["serve", "--max-queued", "0"], ["--max-queued is 0", "of 1 or more"]),
        (["serve", "--max-megapixels", "1.5"], ["--max-megapixels is '1.5'", "whole number from 1 to 100"]),
        (
            ["worker", "--storage", ".", "--save-every", "often"],
            ["--save-every is 'often'", "whole number of 1 or more"],
        ),
        (["jobs", "list", "--limit", "1001"], ["--limit is 1001", "from 1 to 1000"]),
    ],
)
def test_bad_numbers_of_the_service(call, tmp_path, arguments, words):
    refused(call(*arguments), 2, *words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["info"], ["missing argument 'FILE'. See `framewake info --help`."]),
        (["serve", "--port"], ["option '--port' requires an argument. See"]),
        (["animat"], ["no such command 'animat'", "See `framewake --help`."]),
    ],
)
def test_what_is_no_command_line_is_told_as_everything_else(call, arguments, words):
    refused(call(*arguments), 2, *words)


def test_a_clip_that_claims_an_impossible_quality(call, picture, tmp_path):
    (tmp_path / "clip").mkdir()
    content = {"framewake": {"request": {"prompt": PROMPT, "image": str(picture)}, "crf": "high"}}
    (tmp_path / "clip" / "metadata.json").write_text(json.dumps(content))
    refused(call("animate", "--like", "clip"), 2, "crf is 'high'", "whole number")


@pytest.mark.parametrize("prompt", ["", "  \n "])
def test_empty_prompts(call, picture, prompt):
    refused(call("animate", picture, prompt), 2, "prompt is empty")


def test_missing_arguments(call, picture):
    refused(call("animate"), 2, "neither picture nor prompt", "framewake animate IMAGE")
    refused(call("plan"), 2, "neither picture nor prompt", "framewake plan IMAGE", "framewake plan --help")
    refused(call("animate", picture), 2, "no prompt")
    refused(call("animate", "--prompt", PROMPT), 2, "none was named")
    refused(call("animat"), 2, "animat")


def test_bad_checkpoints(call, picture, tmp_path):
    refused(call("animate", picture, PROMPT, "--checkpoint", "gone"), 3, "gone")
    (tmp_path / "empty").mkdir()
    refused(call("animate", picture, PROMPT, "--checkpoint", "empty"), 3, "model_index.json")
    (tmp_path / "ckpts" / "hunyuan-video-i2v-720p").mkdir(parents=True)
    refused(call("animate", picture, PROMPT, "--checkpoint", "ckpts"), 3, "i2v-720p/transformers", "download")


def test_a_damaged_checkpoint(call, picture, toy, tmp_path):
    shutil.copytree(toy, tmp_path / "damaged")
    weights = tmp_path / "damaged" / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    answer = call("animate", picture, PROMPT, "--checkpoint", "damaged", "-q")
    refused(answer, 3, "diffusion_pytorch_model.safetensors")
    assert not list(tmp_path.glob("*.mp4"))


def test_a_full_disk(call, picture, tmp_path):
    with mounted(tmp_path / "disk", MIB) as disk:
        disk.fill()
        refused(call("animate", picture, PROMPT, "-o", "disk/clip.mp4"), 5, "no room", "0 bytes are free")
        assert list(disk.folder.iterdir()) == [disk.filler]


def test_refusals_load_no_framework(toy, picture):
    """A mistake in the request is told before torch or MindSpore are imported."""
    code = """
import sys
from framewake.app import cli
try:
    cli.main(sys.argv[1:])
except SystemExit as left:
    assert left.code == 2, left.code
assert not {"torch", "mindspore"} & set(sys.modules)
"""
    environment = os.environ | {"FRAMEWAKE_CHECKPOINT": str(toy)}
    for arguments in (
        ["animate", str(picture), "x", "--frames", "6"],
        ["animate", "gone.png", "x"],
        ["animate", str(picture), "x", "-o", "nowhere/x.mp4"],
    ):
        command = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("\n") == 1


def test_a_missing_framework_gives_the_install_line(toy, picture, tmp_path):
    """MindSpore hidden from Python: what a torch-only installation sees."""
    code = """
import importlib.util, sys
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "mindspore" else found(name, *rest)
from framewake.app import cli
cli.main(sys.argv[1:])
"""
    environment = os.environ | {"FRAMEWAKE_CHECKPOINT": str(toy)}
    command = [sys.executable, "-c", code, "animate", str(picture), "x", "--engine", "mindspore:cpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
    assert done.returncode == 4 and "pip install" in done.stderr and done.stderr.count("\n") == 1


def test_doctor_and_info(call, tmp_path):
    refused(call("info", "gone.mp4"), 2, "gone.mp4")
    (tmp_path / "text.mp4").write_text("no video")
    refused(call("info", "text.mp4"), 2, "text.mp4")
    refused(call("doctor", "--engine", "torch:cup"), 2, "torch:cup")
    answer = call("doctor", "--golden", "gone")
    assert answer.code in (2, 3) and answer.err.count("\n") == 1
