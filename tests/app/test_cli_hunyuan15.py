"""HunyuanVideo-1.5 from the command line: the same commands, and the files tell which model it is."""

from __future__ import annotations

import pytest
from toy15 import write_toy15


@pytest.fixture(scope="module")
def toy15(tmp_path_factory):
    return write_toy15(tmp_path_factory.mktemp("cli15") / "whole")


def test_a_clip_from_the_command_line(call, toy15, picture):
    options = ("--checkpoint", toy15, "--seed", 3, "-o", "clip.gif", "--memory", "8GB")
    answer = call("animate", picture, 'a sign says "Open"', *options)
    assert answer.code == 0 and "5 frames of 112x80" in answer.out, answer.err
    other = call("animate", picture, "a circle", *options[:4], "-o", "b.gif", "--resolution", "360p")
    assert other.code == 2 and "resolution '360p' is unknown: choose one of 480p" in other.err


def test_it_is_planned_and_verified(call, toy15, picture):
    answer = call("plan", picture, "a circle", "--checkpoint", toy15)
    assert answer.code == 0 and "vision encoder: resident" in answer.out, answer.err
    answer = call("checkpoints", "verify", toy15)
    assert answer.code == 0 and "layout, pictures to video\n" in answer.out and "BAD" not in answer.out, answer.out
    alone = call("checkpoints", "verify", toy15 / "image_encoder" / "model.safetensors")
    assert alone.code == 0 and "is a SigLIP vision tower, one part alone (--part siglip=" in alone.out, alone.err
