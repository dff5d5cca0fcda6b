"""HunyuanVideo-1.5 from the command line: the same commands, and the files tell which model it is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from toy15 import write_toy15

from framewake.app.original import main
from framewake.media.video import read_metadata
from framewake.pipeline.latents import SavedLatents, latents_path, save_latents


@pytest.fixture(scope="module")
def toy15(tmp_path_factory):
    return write_toy15(tmp_path_factory.mktemp("cli15") / "whole")


def test_a_clip_from_the_command_line(call, toy15, picture):
    options = ("--checkpoint", toy15, "--seed", 3, "-o", "clip.gif", "--memory", "8GB")
    answer = call("animate", picture, 'a sign says "Open"', *options)
    assert answer.code == 0 and "5 frames of 112x80" in answer.out, answer.err


def test_another_size_than_the_checkpoints_is_refused_wherever_it_is_asked_for(call, toy15, picture):
    asked = (picture, "a circle", "--checkpoint", toy15, "--resolution", "720p")
    line = json.dumps({"image": str(picture), "prompt": "a circle", "resolution": "720p"})
    Path("many.jsonl").write_text(line + "\n", encoding="utf-8")
    original = ("--prompt", "x", "--i2v-image-path", picture, "--model-base", toy15, "--save-path", "out")
    for answer in (
        call("animate", *asked, "-o", "b.gif"),
        call("plan", *asked),
        call("animate", "--batch", "many.jsonl", *asked[2:4], "-o", "many"),
        call("animate", *asked, "--then", "a square", "-o", "c.gif"),
        call(*original, "--i2v-resolution", "720p", program=main),
    ):
        told = "resolution '720p' is not what this checkpoint was trained for: take 480p, or a checkpoint for 720p."
        assert answer.code == 2 and told in answer.err and answer.out == "", answer.err
    same = call("animate", *asked[:4], "--resolution", "480p", "--seed", 1, "-o", "a.gif")
    assert same.code == 0 and "--resume" not in same.err, same.err
    own = call(*original, "--embedded-cfg-scale", 6.0, program=main)
    [clip] = Path("out").iterdir()
    request = read_metadata(clip)["request"]
    assert own.code == 0 and "changes nothing" not in own.err, own.err
    assert (request["resolution"], request["flow_shift"], request["guidance_scale"]) == ("480p", 5.0, 6.0)


def test_it_is_planned_and_verified(call, toy15, picture):
    answer = call("plan", picture, "a circle", "--checkpoint", toy15)
    assert answer.code == 0 and "vision encoder: resident" in answer.out, answer.err
    answer = call("checkpoints", "verify", toy15)
    assert answer.code == 0 and "BAD" not in answer.out, answer.out
    assert "is toy 1.5 in the diffusers layout, pictures to video\n" in answer.out
    named = call("checkpoints", "verify", toy15, "--part", "variant=720p_i2v")
    assert named.code == 2 and "framewake.json says what its transformer is: leave out variant=720p_i2v" in named.err
    alone = call("checkpoints", "verify", toy15 / "image_encoder" / "model.safetensors")
    assert alone.code == 0 and "is a SigLIP vision tower, one part alone (--part siglip=" in alone.out, alone.err


def test_super_resolution(call, toy15, picture, tmp_path_factory):
    larger = write_toy15(tmp_path_factory.mktemp("cli15") / "larger", enlarges=True)
    options = ("--checkpoint", larger, "--seed", 3, "--super-resolution")
    answer = call("plan", picture, "a circle", *options)
    assert answer.code == 0 and "super-resolution to 160x112, 4 steps" in answer.out, answer.err
    assert "latent upsampler: resident" in answer.out and "super-resolution transformer: resident" in answer.out
    answer = call("animate", picture, "a circle", *options, "-o", "clip.gif")
    assert answer.code == 0 and "5 frames of 160x112" in answer.out, answer.err
    told = call("info", "clip.gif")
    assert re.search("super resolution: +yes", told.out) and "160 x 112 px" in told.out, told.out
    sizes = np.zeros((1, 4, 2, 7, 10), np.float32), np.zeros((1, 4, 2, 5, 7), np.float32)
    saved = SavedLatents(sizes[0], read_metadata("clip.gif"), 5, {}, {}, lesser=sizes[1])
    save_latents(latents_path(Path("half.gif")), saved)
    told = call("info", latents_path(Path("half.gif")))
    assert "step 2 of 2, and step 3 of super-resolution" in told.out, told.out
    again = call("animate", "--like", "clip.gif", "--checkpoint", larger, "-o", "again.gif")
    assert again.code == 0 and "5 frames of 160x112" in again.out, again.err
    long = call("animate", picture, "a circle", *options, "--then", "a square", "-o", "long.gif")
    assert long.code == 0 and "9 frames of 160x112" in long.out, long.err
    answer = call("checkpoints", "verify", larger)
    assert answer.code == 0 and "ok   super-resolution transformer:" in answer.out and "BAD" not in answer.out
    for checkpoint, told in ((toy15, "has no latent upsampler"), (None, "has no super-resolution")):
        place = () if checkpoint is None else ("--checkpoint", checkpoint)
        refused = call("animate", picture, "a circle", *place, "--super-resolution", "-o", "no.gif")
        assert refused.code == 2 and told in refused.err and refused.out == "", refused.err
