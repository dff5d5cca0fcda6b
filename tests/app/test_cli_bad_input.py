"""Everything a person can get wrong: one line, the right exit code, nothing loaded and nothing left behind."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import zlib

import pytest
from PIL import Image
from small_disk import MIB, mounted

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
        ("moving.gif", "2 frames"),
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
        (["--crf", "99"], ["crf", "51"]),
        (["--preset", "calm"], ["stable"]),
        (["--rng", "dice"], ["philox"]),
        (["--engine", "torch:cup"], ["torch:cup", "Did you mean 'torch:cpu'"]),
        (["--engine", "torch:cuda:7"], ["cuda:7"]),
        (["--engine", "mindspore:ascend"], ["ascend"]),
        (["-o", "nowhere/clip.mp4"], ["nowhere", "mkdir"]),
        (["-o", "clip.avi"], [".avi", ".mp4"]),
        (["-o", ""], ["output"]),
        (["--like", "gone.mp4"], ["gone.mp4"]),
        (["--batch", "gone.jsonl"], ["gone.jsonl"]),
        (["--from-latents", "gone.npz"], ["--from-latents"]),
        (["--stepps", "5"], ["--stepps", "--steps"]),
    ],
)
def test_bad_options(call, picture, tmp_path, options, words):
    refused(call("animate", picture, PROMPT, *options), 2, *words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("prompt", ["", "  \n "])
def test_empty_prompts(call, picture, prompt):
    refused(call("animate", picture, prompt), 2, "prompt is empty")


def test_missing_arguments(call, picture):
    refused(call("animate"), 2, "neither picture nor prompt")
    refused(call("animate", picture), 2, "no prompt")
    refused(call("animate", "--prompt", PROMPT), 2, "none was named")
    refused(call("animat"), 2, "animat")


def test_bad_checkpoints(call, picture, tmp_path):
    refused(call("animate", picture, PROMPT, "--checkpoint", "gone"), 3, "gone")
    (tmp_path / "empty").mkdir()
    refused(call("animate", picture, PROMPT, "--checkpoint", "empty"), 3, "model_index.json")
    (tmp_path / "ckpts" / "hunyuan-video-i2v-720p").mkdir(parents=True)
    refused(call("animate", picture, PROMPT, "--checkpoint", "ckpts"), 3, "text_encoder_i2v", "download")


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
        refused(call("animate", picture, PROMPT, "-o", "disk/clip.mp4"), 5, "no room", "0 are free")
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
    assert done.returncode == 2 and "pip install" in done.stderr and done.stderr.count("\n") == 1


def test_doctor_and_info(call, tmp_path):
    refused(call("info", "gone.mp4"), 2, "gone.mp4")
    (tmp_path / "text.mp4").write_text("no video")
    refused(call("info", "text.mp4"), 2, "text.mp4")
    refused(call("doctor", "--engine", "torch:cup"), 2, "torch:cup")
    answer = call("doctor", "--golden", "gone")
    assert answer.code in (2, 3) and answer.err.count("\n") == 1
