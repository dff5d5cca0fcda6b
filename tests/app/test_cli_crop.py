"""``--crop`` from the command line to the clip, and what goes on from one or repeats it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
from toy_checkpoint import write_picture

from framewake.media.video import read_metadata

PROMPT = "the red circle moves left"
SMALL = ("--resolution", "360p", "--seed", 4)


@pytest.fixture
def tall(tmp_path):
    return write_picture(tmp_path / "tall.png", 90, 71)


def test_a_crop_makes_a_clip_of_its_own_that_like_repeats(call, tall, tmp_path):
    made = {}
    for name, crop in (("plain", []), ("centre", ["0.5,0.5"]), ("right", ["1,0"]), ("fit", ["fit"])):
        option = ("--crop", *crop) if crop else ()
        assert call("animate", tall, PROMPT, *SMALL, *option, "-o", f"{name}.mp4").code == 0
        made[name] = (tmp_path / f"{name}.mp4").read_bytes()
    assert made["plain"] == made["centre"] and len(set(made.values())) == 3
    assert "crop" not in read_metadata("plain.mp4")["request"]
    for name in ("right", "fit"):
        assert call("animate", "--like", f"{name}.mp4", "-o", f"{name}-again.mp4").code == 0
        assert (tmp_path / f"{name}-again.mp4").read_bytes() == made[name]
    call("animate", "--like", "fit.mp4", "--crop", "1,0", "-o", "other.mp4")
    assert (tmp_path / "other.mp4").read_bytes() == made["right"]


@pytest.mark.parametrize("crop", ["1,0", "fit"])
def test_a_stopped_clip_keeps_its_crop(call, tall, tmp_path, crop):
    arguments = ["animate", tall, PROMPT, *SMALL, "--steps", 500, "--crop", crop]
    command = [sys.executable, "-m", "framewake.app.cli", *map(str, arguments), "--json", "-o", "clip.mp4"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    for line in process.stdout:
        if '"index": 7' in line:
            break
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    contradiction = call(*arguments[:-1], "0,1", "-o", "clip.mp4", "--resume")
    assert contradiction.code == 2 and "crop is" in contradiction.err
    answer = call("animate", "--resume", "--json")
    steps = [json.loads(line) for line in answer.out.splitlines() if '"step"' in line]
    assert answer.code == 0 and steps[0]["index"] > 7
    call(*arguments, "-o", "whole.mp4")
    assert (tmp_path / "clip.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


@pytest.mark.parametrize("crop", ["2,0", "0.5", "fits"])
def test_a_crop_that_is_none(call, tall, crop):
    answer = call("animate", tall, PROMPT, *SMALL, "--crop", crop)
    assert answer.code == 2 and "or fit to keep the whole picture" in answer.err
