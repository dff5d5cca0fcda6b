"""Clips of several segments: their seams, their colours, and the same bytes whatever stops them."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from engines_here import FIRST
from toy_checkpoint import write_toy

from framewake.errors import InputError
from framewake.media.anchor import colour_offset, led_back, shifted
from framewake.media.video import read_metadata, read_video, write_video
from framewake.pipeline import Output, Pipeline, Result, Step
from framewake.pipeline.longer import (
    RECORD,
    Longer,
    begin,
    begun,
    count_frames,
    make_longer,
    plan_longer,
    segments_path,
)


@pytest.fixture(scope="module")
def pipeline(toy, engine):
    return Pipeline.load(toy, engine=engine)


def longer_of(request_of, path, count=3, **changes):
    first = request_of(**({"steps": 3} | changes))
    more = tuple(dataclasses.replace(first, prompt=f"it grows {n}", seed=first.seed + n) for n in range(1, count))
    return Longer((first, *more), Output(path, 0))


def made(pipeline, longer):
    longer = begin(longer, plan_longer(longer, pipeline.checkpoint))
    return list(make_longer(pipeline, longer))[-1]


def test_no_frame_is_doubled_at_a_seam(pipeline, request_of, tmp_path):
    """The clip of the segments is their own frames in a row, but the first of each that follows another."""
    longer = dataclasses.replace(longer_of(request_of, tmp_path / "clip.webp"), is_anchored=False)
    result = made(pipeline, longer)
    assert isinstance(result, Result) and result.frames.shape == (5 + 4 + 4, 64, 64, 3)
    image, place = longer.requests[0].image, 0
    for number, request in enumerate(longer.requests):
        events = pipeline.run(dataclasses.replace(request, image=str(image)), tmp_path / f"{number}")
        frames = next(event.frames for event in events if isinstance(event, Result))
        assert np.array_equal(result.frames[place : place + 4], frames[:4] if number == 0 else frames[1:])
        assert number > 0 or np.array_equal(result.frames[4], frames[4])
        place += 4 + (number == 0)
        image = tmp_path / f"{number}" / "frame_00004.png"
    assert [path.name for path in tmp_path.glob("clip*")] == ["clip.webp"]
    told = read_metadata(tmp_path / "clip.webp")
    assert [each["request"]["prompt"] for each in told["segments"]] == [each.prompt for each in longer.requests]
    assert told["anchor"] is False and told["request"]["image"] == longer.requests[0].image


def test_a_seam_of_a_checkpoint_that_drops_its_first_frames(request_of, tmp_path, engine):
    """The picture was among them, so that every frame that is left is new; what a cache did is told by segment."""
    pipeline = Pipeline.load(write_toy(tmp_path / "toy", "latent_concat"), engine=engine)
    longer = longer_of(request_of, tmp_path / "clip.webp", 2, frames=9, steps=6, cache="fixed:3")
    longer = dataclasses.replace(longer, is_anchored=False)
    result = made(pipeline, longer)
    assert count_frames(plan_longer(longer, pipeline.checkpoint), pipeline.checkpoint) == len(result.frames) == 5 + 5
    image = longer.requests[0].image
    for number, request in enumerate(longer.requests):
        events = pipeline.run(dataclasses.replace(request, image=str(image)), tmp_path / f"{number}")
        frames = next(event.frames for event in events if isinstance(event, Result))
        assert np.array_equal(result.frames[5 * number : 5 * number + 5], frames)
        image = tmp_path / f"{number}" / "frame_00004.png"
    told = read_metadata(tmp_path / "clip.webp")
    steps = {"computed": 4, "skipped": 2}
    assert [(each["frames"], each["steps"]) for each in told["segments"]] == [(5, steps)] * 2 and "steps" not in told


def test_whatever_stops_it_the_clip_is_the_same(pipeline, request_of, tmp_path):
    """Closed behind every third event of the whole, one after another, and gone on from what is on the disk."""
    whole, parts = tmp_path / "whole.mp4", tmp_path / "parts.mp4"
    made(pipeline, longer_of(request_of, whole, 2))
    longer = longer_of(request_of, parts, 2)
    begin(longer, plan_longer(longer, pipeline.checkpoint))
    lives, done, steps = 0, False, []
    while not done:
        lives += 1
        events = make_longer(pipeline, begun(parts, ()))
        for number, event in enumerate(events, 1):
            steps += [event.index] if isinstance(event, Step) else []
            done = isinstance(event, Result)
            if number == 7 + lives:
                events.close()
        assert lives < 30
    assert lives > 4 and parts.read_bytes() == whole.read_bytes()
    assert steps == [1, 2, 3, 1, 2, 3], "a step was computed twice"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parts.mp4", "whole.mp4"]


def test_kills_at_any_moment_cost_nothing(toy, request_of, tmp_path):
    """FRAMEWAKE_KILLS=40 for the whole measurement: clips are begun until so many lives have ended."""
    kills, seed = (int(os.environ.get(f"FRAMEWAKE_KILLS{name}", n)) for name, n in (("", "6"), ("_SEED", "1")))
    pipeline = Pipeline.load(toy, engine=FIRST)
    whole, parts = tmp_path / "whole.mp4", tmp_path / "parts.mp4"
    since = time.monotonic()
    made(pipeline, longer_of(request_of, whole, 3))
    seconds, killed = time.monotonic() - since, 0
    while killed < kills:
        longer = longer_of(request_of, parts, 3)
        longer = dataclasses.replace(longer, output=dataclasses.replace(longer.output, save_every=1))
        begin(longer, plan_longer(longer, pipeline.checkpoint))
        program = [sys.executable, str(Path(__file__).with_name("killed_longer.py")), str(toy), str(parts)]
        program += [str(seconds), str(kills - killed), str(seed + killed)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        lives = subprocess.check_output(program, text=True, env=environment, timeout=600).splitlines()
        assert lives[-1] in ("ended 0 0 True", "killed 0 True") and all(
            life.startswith("killed") for life in lives[:-1]
        ), lives
        done = [int(life.split()[1]) for life in lives[:-1] if life.split()[2] == "False"]
        assert done == sorted(done), "a segment was lost"
        killed += sum(life.startswith("killed") for life in lives)
        assert parts.read_bytes() == whole.read_bytes()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["parts.mp4", "whole.mp4"]
        parts.unlink()


@pytest.mark.parametrize("size", [None, (80, 48)])
def test_a_clip_goes_on(pipeline, request_of, tmp_path, size):
    """Its frames stay as they are; one of another size is cropped and scaled as a picture is."""
    before = tmp_path / "before.webp"
    height, width = size or (64, 64)
    frames = np.random.default_rng(1).integers(0, 255, (3, height, width, 3)).astype(np.uint8)
    write_video(before, frames, fps=8, metadata=None)
    longer = longer_of(request_of, tmp_path / "clip.webp", 1, image=str(before))
    result = made(pipeline, dataclasses.replace(longer, before=str(before), digest="x"))
    assert len(result.frames) == 3 + 4
    if size is None:
        assert np.array_equal(result.frames[:3], read_video(before)[0])
    assert read_metadata(tmp_path / "clip.webp")["before"] == {"clip": str(before), "sha256": "x", "made": None}


def test_what_was_written_down_is_checked(pipeline, request_of, tmp_path):
    longer = longer_of(request_of, tmp_path / "clip.mp4", 2)
    longer = begin(longer, plan_longer(longer, pipeline.checkpoint))
    assert begun(tmp_path / "clip.mp4", ()) == longer
    record = segments_path(tmp_path / "clip.mp4") / RECORD
    record.write_text(record.read_text().replace("it grows", "it falls"))
    with pytest.raises(InputError, match="damaged"):
        begun(tmp_path / "clip.mp4", ())


def test_colours_are_told_from_what_stands_still():
    """A quarter of the picture is something else by now, and has no say."""
    first = np.random.default_rng(1).integers(40, 200, (32, 32, 3)).astype(np.uint8)
    last = shifted(first, np.array([-6.0, 3.0, 0.0]))
    last[:16, :16] = 255 - last[:16, :16]
    found = colour_offset(first, last)
    assert found.shape == (32, 32, 3) and np.abs(found - [6, -3, 0]).max() < 1e-5
    last[:, 24:] = shifted(last[:, 24:], np.array([0.0, 0.0, 8.0]))
    found = colour_offset(first, last)
    assert found[16, 31].tolist() == pytest.approx([6, -3, -8], abs=0.01), "each place has an offset of its own"
    assert found[16, 8].tolist() == pytest.approx([6, -3, 0], abs=0.01)
    assert not colour_offset(first, 255 - first).any(), "a new scene has colours of its own"


def test_colours_are_led_back_on_the_way():
    frames = np.full((5, 2, 2, 3), 100, np.uint8)
    found = led_back(frames, np.array([8.0, -4.0, 0.0]))
    assert found[:, 0, 0].tolist() == [[100, 100, 100], [102, 99, 100], [104, 98, 100], [106, 97, 100], [108, 96, 100]]
    assert led_back(frames, np.zeros(3)) is frames


def test_an_anchored_segment_ends_where_the_next_begins(pipeline, request_of, tmp_path):
    free, held = (
        made(pipeline, dataclasses.replace(longer_of(request_of, tmp_path / f"{x}.webp", 2), is_anchored=x)).frames
        for x in (False, True)
    )
    offset = colour_offset(free[0], free[4])
    assert np.array_equal(held[4], shifted(free[4], offset)) and np.array_equal(held[0], free[0])
