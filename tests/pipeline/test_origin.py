"""Where saved latents come from is kept with them, and a difference is told."""

from __future__ import annotations

import pytest

from framewake.pipeline import Note, Output, Pipeline, Step
from framewake.pipeline.latents import latents_path, load_latents
from framewake.pipeline.origin import differences, origin_of
from framewake.weights.load import open_checkpoint


def stopped(pipeline, request, output):
    events = pipeline.run(request, output)
    for event in events:
        if isinstance(event, Step) and event.index == 2:
            events.close()
    return load_latents(latents_path(output))


def notes(pipeline, saved, output):
    return [event.text for event in pipeline.resume(saved, Output(output)) if isinstance(event, Note)]


@pytest.mark.parametrize(("threads", "count"), [("1", 0), ("2", 1)])
def test_another_number_of_threads_is_told(toy, engine, request_of, tmp_path, monkeypatch, threads, count):
    pipeline, output = Pipeline(open_checkpoint(toy), engine), tmp_path / "clip.mp4"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    saved = stopped(pipeline, request_of(steps=4), output)
    assert saved.origin == origin_of(engine) and saved.origin["threads"] == 1
    assert "origin" not in saved.metadata, "it would get into the clip, which must not tell of the machine"
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    found = [text for text in notes(pipeline, saved, output) if "made elsewhere" in text]
    assert len(found) == count and all("threads 1, now 2" in text for text in found)
    assert output.exists()


def test_latents_of_an_older_program_tell_their_engine(toy, engine, request_of, tmp_path):
    pipeline, output = Pipeline(open_checkpoint(toy), engine), tmp_path / "clip.mp4"
    saved = stopped(pipeline, request_of(steps=4), output)
    old = saved._replace(origin={}, metadata=saved.metadata | {"engine": "torch:cuda:0"})
    assert any(f"engine torch:cuda:0, now {engine.name}" in text for text in notes(pipeline, old, output))


def test_differences():
    then = {"engine": "a", "threads": 2, "versions": {"torch": "1", "av": "3"}, "processor": "x"}
    now = {"engine": "a", "threads": 4, "versions": {"torch": "2", "av": "3"}, "device memory": "1 GiB"}
    assert differences(then, now) == ["threads 2, now 4", "torch 1, now 2"]
