"""Drafts of unfinished clips: what is in them, and a clip that is the same with them, whatever happens in between."""

from __future__ import annotations

import numpy as np
import pytest
from lora_files import keys_of, write
from toy_checkpoint import write_toy

from framewake.errors import InputError
from framewake.media.video import read_metadata, read_video
from framewake.pipeline import Draft, Drafts, Job, Output, Pipeline, Result, StageStarted, Step, finish
from framewake.pipeline.drafts import draft_path
from framewake.pipeline.events import Drafting
from framewake.pipeline.latents import latents_path, load_latents
from framewake.pipeline.precision import choose_precision
from framewake.pipeline.run import Making
from framewake.sampling.flow import schedule

STEPS = 7


@pytest.fixture(scope="module")
def pipeline(toy, engine):
    return Pipeline.load(toy, engine=engine)


def drafts_in(events):
    return [event for event in events if isinstance(event, Draft)]


@pytest.mark.parametrize("name", ["plain", "guided", "cached"])
def test_a_clip_with_drafts_is_the_same_file(pipeline, request_of, tmp_path, name):
    file = write(tmp_path / "a.safetensors", {key: x * np.float32(0.3) for key, x in keys_of("kohya").items()})
    lora = f"{file}:0-3=1,5-7=0.5"
    settings = {
        "plain": {},
        "guided": {"guidance_scale": 2.0, "is_stable": False},
        "cached": {"cache": "taylor1:2", "loras": [lora]},
    }
    request = request_of(steps=STEPS, **settings[name])
    whole, passed, stopped = (tmp_path / f"{name}.mp4" for name in ("whole", "passed", "stopped"))
    list(pipeline.run(request, whole))
    on_the_way = drafts_in(pipeline.run(request, Output(passed, drafts=Drafts((2, 4)))))
    assert [(draft.step, draft.count, draft.is_end) for draft in on_the_way] == [(2, STEPS, False), (4, STEPS, False)]
    assert not latents_path(passed).exists()
    events = list(pipeline.run(request, Output(stopped, drafts=Drafts(stop=4))))
    assert isinstance(events[-1], Draft) and events[-1].is_end and not stopped.exists()
    assert load_latents(latents_path(stopped)).step == 4
    assert draft_path(stopped, 4).read_bytes() == draft_path(passed, 4).read_bytes()
    steps = [e.index for e in pipeline.resume(load_latents(latents_path(stopped)), Output(stopped)) if type(e) is Step]
    assert steps == [5, 6, 7]
    assert whole.read_bytes() == passed.read_bytes() == stopped.read_bytes()


def saved_after(pipeline, request, path, step):
    events = pipeline.run(request, path)
    for event in events:
        if isinstance(event, Step) and event.index == step:
            events.close()
    return load_latents(latents_path(path)).latents


def test_a_draft_is_where_the_last_velocity_leads(pipeline, request_of, tmp_path):
    """The velocity is had from two saved steps, and the first frame is the picture's own."""
    request = request_of(steps=STEPS)
    before, after = (saved_after(pipeline, request, tmp_path / f"{step}.mp4", step) for step in (3, 4))
    sigmas = schedule(STEPS, 7.0).sigmas.astype(np.float64)
    clean = after - sigmas[4] * (after - before) / (sigmas[4] - sigmas[3])
    assert np.array_equal(after[:, :, 0], before[:, :, 0])
    precision = choose_precision("float32", pipeline.engine)
    plan = pipeline.plan(Job(request))
    decoding = finish.decode(pipeline.parts, clean.astype(np.float32), plan.request, precision)
    while True:
        try:
            next(decoding)
        except StopIteration as end:
            expected = end.value
            break
    (draft,) = drafts_in(pipeline.run(request, Output(tmp_path / "clip.mp4", drafts=Drafts(stop=4))))
    assert np.abs(draft.frames.astype(int) - expected).max() <= 1
    made = read_metadata(draft.path)
    assert made["draft"] == {"step": 4, "steps": STEPS, "size": "full"} and made["request"]["steps"] == STEPS


@pytest.mark.parametrize("condition", ["token_replace", "latent_concat"])
def test_a_small_draft_lasts_as_long_and_needs_no_decoder(engine, request_of, tmp_path, condition):
    pipeline = Pipeline.load(write_toy(tmp_path / "toy", condition), engine=engine)
    output = Output(tmp_path / "clip.mp4", drafts=Drafts(stop=4, size="small"))
    (draft,) = drafts_in(pipeline.run(request_of(steps=STEPS, frames=9), output))
    plan = pipeline.plan(Job(request_of(steps=STEPS, frames=9)))
    frames, fps = read_video(draft.path)
    assert frames.shape == (3 - (condition == "latent_concat"), plan.shape.height // 2, plan.shape.width // 2, 3)
    assert fps == pytest.approx(plan.request.fps * plan.latent.frames / 9, rel=1e-3)


def test_who_loses_power_in_a_draft_gets_it_again(pipeline, request_of, tmp_path):
    """Until the draft is there, the saved latents are those of an earlier step."""
    file, seen = latents_path(tmp_path / "clip.mp4"), {}
    output = Output(tmp_path / "clip.mp4", save_every=2, drafts=Drafts((4,)))
    for event in pipeline.run(request_of(steps=STEPS), output):
        if isinstance(event, Drafting | Draft | Step) and file.exists():
            seen.setdefault(type(event).__name__, []).append(load_latents(file).step)
    assert set(seen["Drafting"]) == {2} and seen["Draft"] == [4] and seen["Step"] == [2, 2, 2, 4, 6, 6]


def test_a_stop_in_a_draft_costs_no_step(pipeline, request_of, tmp_path):
    whole, clip = tmp_path / "whole.mp4", tmp_path / "clip.mp4"
    list(pipeline.run(request_of(steps=STEPS), whole))
    events = pipeline.run(request_of(steps=STEPS), Output(clip, save_every=0, drafts=Drafts(stop=4)))
    for event in events:
        if isinstance(event, Drafting):
            events.close()
    assert [path.name for path in tmp_path.glob("clip*")] == ["clip.mp4.latents.safetensors"]
    list(pipeline.resume(load_latents(latents_path(clip)), Output(clip)))
    assert clip.read_bytes() == whole.read_bytes()


def test_a_run_that_is_asked_ends_with_a_draft_behind_the_step(pipeline, request_of, tmp_path):
    asked = []
    output = Output(tmp_path / "clip.mp4", drafts=Drafts(is_asked=lambda: bool(asked)))
    events = pipeline.run(request_of(steps=STEPS), output)
    made = [event for event in events if isinstance(event, Step) and (event.index != 3 or not asked.append(1))]
    assert [step.index for step in made] == [1, 2, 3] and draft_path(output.path, 3).exists()


def test_the_transformer_leaves_before_a_draft_that_needs_its_place(toy, engine, request_of, tmp_path):
    pipeline = Pipeline.load(toy, engine=engine)
    pipeline.parts.keeps_all = False
    list(pipeline.run(request_of(steps=STEPS), tmp_path / "whole.mp4"))
    held = {}
    for is_roomy in (True, False):
        output = Output(tmp_path / f"{is_roomy}.mp4", drafts=Drafts((4,)))
        plan = pipeline.plan(Job(request_of(steps=STEPS), output))
        clip = Making(plan, choose_precision("float32", engine), {})
        for event in pipeline._run([clip], is_roomy=is_roomy):
            if isinstance(event, Drafting):
                held.setdefault(is_roomy, set()).add("dit" in pipeline.parts.held())
        assert output.path.read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert held == {True: {True}, False: {False}}


def test_clips_of_one_run_end_each_for_itself(pipeline, request_of, tmp_path):
    outputs = [Output(tmp_path / "a.mp4", drafts=Drafts(stop=2)), Output(tmp_path / "b.mp4")]
    jobs = [Job(request_of(steps=STEPS), output) for output in outputs]
    events = list(pipeline.run_all(jobs))
    ends = [type(event) for event in events if isinstance(event, Draft | Result)]
    stages = [event.stage for event in events if isinstance(event, StageStarted)]
    assert ends == [Draft, Result] and stages.count("denoise") == 2 and stages.count("decode") == 1


@pytest.mark.parametrize("drafts", [Drafts(stop=STEPS), Drafts((2, STEPS + 3)), Drafts((0,))])
def test_a_draft_beyond_the_steps_is_refused(pipeline, request_of, tmp_path, drafts):
    with pytest.raises(InputError, match="has 7 steps, and a draft comes after step 1 to 6"):
        pipeline.plan(Job(request_of(steps=STEPS), Output(tmp_path / "clip.mp4", drafts=drafts)))
    with pytest.raises(InputError, match="one step has no draft"):
        pipeline.plan(Job(request_of(steps=1), Output(tmp_path / "clip.mp4", drafts=drafts)))


@pytest.mark.parametrize(
    ("clip", "draft"),
    [("a.b.mp4", "a.b.draft-012.mp4"), ("a.GIF", "a.draft-012.GIF"), ("frames", "frames.draft-012.webp")],
)
def test_a_draft_is_named_after_its_clip(tmp_path, clip, draft):
    assert draft_path(tmp_path / clip, 12) == tmp_path / draft
