"""framewake extend, and animate --then, as they are called."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from toy_checkpoint import write_picture

from framewake.media.video import read_metadata, read_video, write_video

FIRST, THEN = "the red circle moves left", ("--then", "it grows", "--then", "it turns")
SMALL = ("--resolution", "360p", "--steps", 3, "--seed", 4)
WIDE = ("--resolution", "720p", *SMALL[2:])  # the smallest that has other shapes than a square


def test_then_and_like(call, picture, tmp_path):
    found = call("animate", picture, FIRST, *THEN, *SMALL, "-o", "a.mp4")
    assert found.code == 0 and found.out.startswith("a.mp4: 13 frames of 64x64, seed 4")
    assert "3 segments, 13 frames of 64x64" in found.err
    told = call("info", "a.mp4").out
    assert "segment 2:" in told and "5 frames, seed 5: it grows" in told
    assert call("animate", "--like", "a.mp4", "-o", "b.mp4", "-q").code == 0
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert call("animate", "--like", "a.mp4", "-o", "c.mp4", "-q", "--no-anchor").code == 0
    assert read_metadata(tmp_path / "c.mp4")["anchor"] is False
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4", "c.mp4"]


def test_a_wide_clip_goes_on_in_its_size(call, tmp_path):
    """A picture that is as wide as a clip gets a narrower one: the frames of the clip before must not."""
    wide = write_picture(tmp_path / "wide.png", height=90, width=160)
    assert call("animate", wide, FIRST, *THEN, *WIDE, "-o", "a.mp4", "-q").code == 0
    assert call("extend", "a.mp4", "it falls", "-o", "b.mp4", "-q").code == 0
    first, longer = (read_video(tmp_path / name)[0] for name in ("a.mp4", "b.mp4"))
    assert first.shape[1] < first.shape[2] and longer.shape[1:] == first.shape[1:]
    assert call("animate", tmp_path / "a.mp4", FIRST, *WIDE, "-o", "c.mp4", "-q").code == 0
    assert read_video(tmp_path / "c.mp4")[0].shape[1:] != first.shape[1:], "the picture would show nothing"


def test_plan_says_what_segments_take(call, picture):
    found = call("plan", picture, FIRST, *THEN, *SMALL).out
    assert "3 segments like this, one after another: 13 frames, about " in found


def test_a_clip_of_framewake_goes_on_with_its_settings(call, picture, tmp_path):
    call("animate", picture, FIRST, *SMALL, "--fps", 7, "-o", "a.mp4", "-q")
    assert call("extend", "a.mp4", "it grows", "-o", "b.mp4", "-q").out == "b.mp4\n"
    assert call("extend", "b.mp4", "it turns", "--then", "it falls", "-o", "c.mp4", "-q").code == 0
    made = read_metadata(tmp_path / "b.mp4")
    assert (made["request"]["steps"], made["request"]["seed"], made["request"]["fps"]) == (3, 5, 7)
    assert made["before"]["clip"] == "a.mp4" and made["before"]["made"]["request"]["prompt"] == FIRST
    assert [each["request"]["seed"] for each in read_metadata(tmp_path / "c.mp4")["segments"]] == [6, 7]
    assert len(read_video(tmp_path / "c.mp4")[0]) == 5 + 4 + 8
    assert call("animate", "--like", "c.mp4", "-o", "d.mp4", "-q").code == 0
    assert (tmp_path / "d.mp4").read_bytes() == (tmp_path / "c.mp4").read_bytes()
    shutil.copy(tmp_path / "a.mp4", tmp_path / "b.mp4")
    changed = call("animate", "--like", "c.mp4", "-o", "e.mp4")
    assert changed.code == 2 and "b.mp4 is not the clip that c.mp4 goes on from" in changed.err


def test_any_clip_goes_on(call, tmp_path):
    frames = np.random.default_rng(1).integers(0, 255, (3, 40, 72, 3)).astype(np.uint8)
    write_video(tmp_path / "phone.mp4", frames, fps=9, metadata=None)
    assert call("extend", "phone.mp4", "it grows", *SMALL, "-o", "b.gif", "-q").code == 0
    found, fps = read_video(tmp_path / "b.gif")
    assert len(found) == 3 + 4 and fps == pytest.approx(9, abs=0.2)
    assert read_metadata(tmp_path / "b.gif")["before"]["made"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("extend", "none.mp4", "x"), "none.mp4"),
        (("animate", "PICTURE", FIRST, *THEN, "--draft", 2), "--draft is for a clip of one segment"),
        (("animate", "PICTURE", FIRST, *THEN, "--resume", "-o", "a.mp4"), "nothing to go on from"),
        (("animate", "PICTURE", FIRST, "--then", " "), "the prompt is empty"),
    ],
)
def test_what_is_refused_before_any_work(call, picture, tmp_path, arguments, message):
    words = [picture if word == "PICTURE" else word for word in arguments]
    answer = call(*words)
    assert answer.code == 2 and message in answer.err and not list(tmp_path.iterdir())


def test_a_longer_clip_that_is_stopped_goes_on(call, picture, tmp_path):
    """Ctrl-C in the second segment; the command that is told goes on."""
    call("animate", picture, FIRST, *THEN, *SMALL, "-o", "whole.mp4", "-q")
    words = ["animate", picture, FIRST, *THEN, *SMALL, "-o", "clip.mp4", "--json"]
    command = [sys.executable, "-m", "framewake.app.cli", *map(str, words)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, text=True, env=environment, **pipes)
    begun = 0
    for line in process.stdout:
        begun += '"read image"' in line and '"stage_started"' in line
        if begun == 2 and '"step"' in line:
            process.send_signal(signal.SIGINT)
            break
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "framewake animate --resume -o clip.mp4" in err
    other = call("animate", "--resume", "-o", "clip.mp4", "--steps", 9)
    assert other.code == 2 and "leave out prompts and settings" in other.err
    assert call("animate", "--resume", "-q").out == "clip.mp4\n"
    assert (tmp_path / "clip.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
