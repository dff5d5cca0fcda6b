"""Step caches in whole runs: told, kept with a stopped clip, gone with their request."""

from __future__ import annotations

import numpy as np
import pytest
from lora_files import keys_of, write

from framewake.errors import InputError
from framewake.media.video import read_metadata
from framewake.pipeline import Job, Output, Pipeline, Result, Step
from framewake.pipeline.latents import latents_path, load_latents

STEPS = 8


@pytest.fixture(scope="module")
def pipeline(toy, engine):
    return Pipeline.load(toy, engine=engine)


def result_of(pipeline, request, output=None):
    return next(event for event in pipeline.run(request, output) if isinstance(event, Result))


def test_a_run_tells_what_was_skipped(pipeline, request_of, tmp_path):
    events = list(pipeline.run(request_of(steps=STEPS, cache="fixed:3"), tmp_path / "clip.mp4"))
    skipped = [event.index for event in events if isinstance(event, Step) and event.is_skipped]
    result = events[-1]
    assert skipped == [3, 4, 6, 7]  # counted from 1
    assert (result.cached.computed, result.cached.skipped) == (4, 4) and result.cached.seconds_saved >= 0
    written = read_metadata(tmp_path / "clip.mp4")
    assert written["steps"] == {"computed": 4, "skipped": 4} and written["request"]["cache"] == "fixed:3"
    plain = result_of(pipeline, request_of(steps=STEPS))
    assert plain.cached is None and "steps" not in plain.metadata
    assert not np.array_equal(plain.frames, result.frames)


def test_a_threshold_of_zero_gives_the_same_clip(pipeline, request_of):
    plain = result_of(pipeline, request_of(steps=4, guidance_scale=2.0))
    for text in ("first-block:0", "easy:0"):
        assert np.array_equal(
            result_of(pipeline, request_of(steps=4, guidance_scale=2.0, cache=text)).frames, plain.frames
        )


def test_nothing_is_left_for_the_next_request(pipeline, request_of):
    first, second = request_of(steps=STEPS, cache="easy:0.2"), request_of(steps=STEPS, cache="easy:0.2", seed=4)
    alone = [result_of(pipeline, request).frames for request in (first, second)]
    together = [
        event.frames for event in pipeline.run_all([Job(first), Job(second), Job(first)]) if isinstance(event, Result)
    ]
    assert [np.array_equal(a, b) for a, b in zip(together, [*alone, alone[0]], strict=True)] == [True] * 3


@pytest.mark.parametrize(
    "settings",
    [
        {"cache": "easy:0.2"},
        {"cache": "first-block:2", "guidance_scale": 2.0},
        {"cache": "tea:1"},
        {"cache": "taylor2:2", "is_stable": False},
    ],
    ids=lambda settings: settings["cache"],
)
def test_a_resumed_clip_is_the_same_file(pipeline, request_of, tmp_path, settings):
    request = request_of(steps=STEPS, **settings)
    whole, part = tmp_path / "whole.mp4", tmp_path / "part.mp4"
    assert result_of(pipeline, request, whole).cached.skipped > 0
    events = pipeline.run(request, part)
    for event in events:
        if isinstance(event, Step) and event.index == 5:
            events.close()
    list(pipeline.resume(load_latents(latents_path(part)), Output(part)))
    assert part.read_bytes() == whole.read_bytes()


def test_a_step_at_which_a_lora_changes_is_computed(pipeline, request_of, tmp_path):
    file = write(tmp_path / "a.safetensors", keys_of("kohya", alpha=None))
    request = request_of(steps=STEPS, cache="fixed:9", loras=[f"{file}:0-3=1,3-8=0.2"])
    steps = [event for event in pipeline.run(request) if isinstance(event, Step)]
    assert [step.index - 1 for step in steps if not step.is_skipped] == [0, 1, 3, 7]


def test_latents_without_their_cache_are_refused(pipeline, request_of, tmp_path):
    events = pipeline.run(request_of(steps=STEPS, cache="fixed:3"), tmp_path / "clip.mp4")
    for event in events:
        if isinstance(event, Step) and event.index == 5:
            events.close()
    saved = load_latents(latents_path(tmp_path / "clip.mp4"))
    with pytest.raises(InputError, match="delete the file, start anew"):
        list(pipeline.resume(saved._replace(cache={}), Output(tmp_path / "clip.mp4")))
