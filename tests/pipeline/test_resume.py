"""A stopped clip goes on from its saved step and becomes, byte for byte, what it would have been."""

from __future__ import annotations

import dataclasses

import pytest
from toy_checkpoint import write_picture

from framewake.errors import InputError, ResourceError
from framewake.pipeline import Job, Output, Pipeline, StageFinished, StageStarted, Step, Tile
from framewake.pipeline.latents import latents_path, load_latents
from framewake.pipeline.precision import choose_precision
from framewake.pipeline.run import Making, has_room_for_both

STEPS = 7


@pytest.fixture(scope="module")
def pipeline(toy, engine):
    return Pipeline.load(toy, engine=engine)


def stop_at(pipeline, request, output, step):
    events = pipeline.run(request, output)
    for event in events:
        if isinstance(event, Step) and event.index == step:
            events.close()


@pytest.mark.parametrize("settings", [{}, {"guidance_scale": 2.0}, {"is_stable": False}])
def test_a_resumed_clip_is_the_same_file(pipeline, request_of, tmp_path, settings):
    request = request_of(steps=STEPS, **settings)
    whole, parts = tmp_path / "whole.mp4", tmp_path / "parts.mp4"
    list(pipeline.run(request, whole))
    stop_at(pipeline, request, parts, 2)
    events = pipeline.resume(load_latents(latents_path(parts)), Output(parts))
    for event in events:  # stopped once more
        if isinstance(event, Step) and event.index == 4:
            events.close()
    assert load_latents(latents_path(parts)).step == 4
    steps = [e for e in pipeline.resume(load_latents(latents_path(parts)), Output(parts)) if isinstance(e, Step)]
    assert [step.index for step in steps] == [5, 6, 7]
    assert parts.read_bytes() == whole.read_bytes()


def test_latents_are_saved_on_the_way(pipeline, request_of, tmp_path):
    seen = {}
    for event in pipeline.run(request_of(steps=STEPS), Output(str(tmp_path / "clip.mp4"), save_every=2)):
        file = latents_path(tmp_path / "clip.mp4")
        if isinstance(event, Step):
            seen[event.index] = load_latents(file).step if file.exists() else None
    assert seen == {1: None, 2: 2, 3: 2, 4: 4, 5: 4, 6: 6, 7: 6}
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_a_clip_that_is_stopped_behind_its_last_step_is_not_lost(pipeline, request_of, tmp_path):
    whole, parts = tmp_path / "whole.mp4", tmp_path / "parts.mp4"
    list(pipeline.run(request_of(steps=3), whole))
    stop_at(pipeline, request_of(steps=3), parts, 3)
    saved = load_latents(latents_path(parts))
    assert saved.step == 3
    assert not any(isinstance(event, Step) for event in pipeline.resume(saved, Output(parts)))
    assert parts.read_bytes() == whole.read_bytes()


def test_another_picture_is_refused(pipeline, request_of, tmp_path):
    picture = write_picture(tmp_path / "own.png")
    stop_at(pipeline, request_of(steps=STEPS, image=str(picture)), tmp_path / "clip.mp4", 2)
    write_picture(picture, 60, 80)
    saved = load_latents(latents_path(tmp_path / "clip.mp4"))
    with pytest.raises(InputError, match="the picture is not what the clip was begun with"):
        list(pipeline.resume(saved, Output(tmp_path / "clip.mp4")))


def test_a_resumed_clip_keeps_to_the_memory_that_it_may_take(toy, engine, request_of, tmp_path):
    stop_at(Pipeline.load(toy, engine=engine), request_of(steps=STEPS), tmp_path / "clip.mp4", 2)
    saved = load_latents(latents_path(tmp_path / "clip.mp4"))
    limited = Pipeline.load(toy, engine=engine, memory=1)
    with pytest.raises(ResourceError, match="may take 0 MiB beside the"):
        list(limited.resume(saved, Output(tmp_path / "clip.mp4")))
    assert limited.parts.held() == (), "refused too late"


def test_a_run_leaves_nothing_behind_however_it_ends(toy, engine, request_of, tmp_path):
    pipeline = Pipeline.load(toy, engine=engine)
    pipeline.parts.keeps_all = False
    stop_at(pipeline, request_of(steps=STEPS), tmp_path / "clip.mp4", 2)
    assert pipeline.parts.held() == ()
    list(pipeline.resume(load_latents(latents_path(tmp_path / "clip.mp4")), Output(tmp_path / "clip.mp4")))
    assert pipeline.parts.held() == ()


def finished_latents(toy, engine, request_of, path):
    """What is saved of a clip that was stopped behind its last step."""
    stop_at(Pipeline.load(toy, engine=engine), request_of(steps=2), path, 2)
    return load_latents(latents_path(path))


def test_finished_latents_ask_for_the_autoencoder_alone(toy, engine, request_of, tmp_path):
    saved = finished_latents(toy, engine, request_of, tmp_path / "clip.mp4")
    pipeline, held = Pipeline.load(toy, engine=engine), set()
    pipeline.parts.keeps_all = False
    for event in pipeline.resume(saved, Output(tmp_path / "clip.mp4")):
        if isinstance(event, StageStarted | StageFinished | Tile):
            held |= set(pipeline.parts.held())
    assert held == {"vae"} and set(pipeline.parts.placements) == {"vae"}
    assert pipeline.parts.held() == (), "the next run would not know that it is there"


def test_finished_latents_keep_to_the_memory_that_they_may_take(toy, engine, request_of, tmp_path):
    saved = finished_latents(toy, engine, request_of, tmp_path / "clip.mp4")
    limited = Pipeline.load(toy, engine=engine, memory=1)
    with pytest.raises(
        ResourceError, match=r"autoencoder needs .* and may take 0 MiB beside the \d.* holds\. Nothing is lost"
    ):
        list(limited.resume(saved, Output(tmp_path / "clip.mp4")))
    assert limited.parts.held() == ()
    with pytest.raises(InputError, match="which is no clip"):
        list(limited.resume(saved._replace(latents=saved.latents[:, :, :0]), Output(tmp_path / "clip.mp4")))


def test_the_transformer_leaves_before_a_decode_that_needs_its_place(toy, engine, request_of):
    """Several clips in one run: the weights stay for the next clip only where a decode fits beside them."""
    pipeline = Pipeline.load(toy, engine=engine)
    pipeline.parts.keeps_all = False
    jobs = [Job(request_of(seed=seed)) for seed in (1, 2)]
    found = pipeline.forecast(jobs[0], is_timed=False)
    both = found.placements["dit"].weights + found.placements["vae"].peak
    assert has_room_for_both(dataclasses.replace(found, room=both))
    assert not has_room_for_both(dataclasses.replace(found, room=both - 1))
    clips = [Making(pipeline.plan(job), choose_precision("float32", engine), {}) for job in jobs]
    for is_roomy, expected in ((True, [True, False]), (False, [False, False])):
        held = [
            "dit" in pipeline.parts.held()
            for event in pipeline._run(clips, is_roomy=is_roomy)
            if isinstance(event, StageStarted) and event.stage == "decode"
        ]
        assert held == expected
