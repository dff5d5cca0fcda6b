"""The whole chain on random weights: what comes out, in which order, and that it repeats."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from engines_here import FIRST
from toy_checkpoint import write_toy

from framewake import engine as engines
from framewake.engine.torch.cpu import TorchCpu
from framewake.errors import InputError, NumericsError, ResourceError
from framewake.media.video import read_metadata, read_video
from framewake.pipeline import Job, Note, Output, Pipeline, Result, StageFinished, StageStarted, Step
from framewake.pipeline.latents import latents_path

STAGES = ["read image", "encode text", "encode image", "denoise", "decode", "write"]


def frames_of(pipeline, request):
    return list(pipeline.run(request))[-1].frames


@pytest.fixture(scope="module")
def pipeline(toy, engine):
    return Pipeline.load(toy, engine=engine)


@pytest.fixture(scope="module")
def torch_pipeline(toy):
    return Pipeline.load(toy, engine=FIRST)


def test_events_come_in_order(pipeline, request_of, tmp_path):
    path = tmp_path / "clip.mp4"
    events = list(pipeline.run(request_of(), path))
    assert [e.stage for e in events if isinstance(e, StageStarted)] == STAGES
    assert [e.stage for e in events if isinstance(e, StageFinished)] == STAGES
    denoising = events[events.index(StageStarted("denoise")) + 1 :][:3]
    assert [type(e) for e in denoising] == [Step, Step, StageFinished]
    assert [(e.index, e.count) for e in denoising[:2]] == [(1, 2), (2, 2)]
    assert denoising[0].seconds_left > 0 and denoising[1].seconds_left == 0
    assert denoising[0].preview.shape == (8, 8, 3) and denoising[0].preview.dtype == np.uint8
    result = events[-1]
    assert isinstance(result, Result)
    assert result.path == path and result.seed == 3 and set(result.timings) == set(STAGES)
    assert result.frames.shape == (5, 64, 64, 3) and result.frames.dtype == np.uint8
    assert result.frames.std() > 5, "the clip is a flat picture"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip.mp4"]
    frames, fps = read_video(path)
    assert frames.shape == result.frames.shape and fps == 12
    assert read_metadata(path) == dict(result.metadata)


def test_a_seed_repeats_and_another_does_not(pipeline, request_of):
    first, again, other = (frames_of(pipeline, request_of(seed=seed)) for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_engines_agree(pipeline, torch_pipeline, request_of):
    got, want = (frames_of(p, request_of()).astype(int) for p in (pipeline, torch_pipeline))
    assert np.abs(got - want).max() <= 1


def test_prompt_and_picture_matter(torch_pipeline, request_of, tmp_path):
    from toy_checkpoint import write_picture

    base = frames_of(torch_pipeline, request_of())
    assert not np.array_equal(base, frames_of(torch_pipeline, request_of(prompt="a blue square spins slowly")))
    other = write_picture(tmp_path / "other.png", 70, 50)
    assert frames_of(torch_pipeline, request_of(image=str(other))).shape[1:3] != (64, 50)


def test_settings_change_the_clip(torch_pipeline, request_of):
    base = frames_of(torch_pipeline, request_of())
    for change in (
        {"is_stable": False, "flow_shift": 7.0},
        {"flow_shift": 17.0},
        {"embedded_guidance": 1.0},
        {"guidance_scale": 2.0},
        {"steps": 3},
        {"rng": "torch"},
    ):
        assert not np.array_equal(base, frames_of(torch_pipeline, request_of(**change))), change


def test_true_guidance_on_every_engine(pipeline, torch_pipeline, request_of):
    request = request_of(guidance_scale=2.0, negative_prompt="a blue square")
    got, want = (frames_of(p, request).astype(int) for p in (pipeline, torch_pipeline))
    assert np.abs(got - want).max() <= 1


def test_torch_noise_needs_the_torch_engine(pipeline, request_of):
    if pipeline.engine.kind == "torch":
        return
    with pytest.raises(InputError, match="philox"):
        next(pipeline.run(request_of(rng="torch")))


def test_one_frame_is_the_picture(torch_pipeline, request_of):
    frames = frames_of(torch_pipeline, request_of(frames=1))
    assert frames.shape == (1, 64, 64, 3)
    assert np.array_equal(frames, frames_of(torch_pipeline, request_of(frames=1, seed=9)))


def test_closing_stops_and_keeps_the_latents(torch_pipeline, request_of, tmp_path):
    for every, left in ((5, ["clip.mp4.latents.safetensors"]), (0, [])):
        events = torch_pipeline.run(request_of(steps=50), Output(tmp_path / "clip.mp4", save_every=every))
        for event in events:
            if isinstance(event, Step) and event.index == 2:
                events.close()
        assert [path.name for path in tmp_path.iterdir()] == left
        latents_path(tmp_path / "clip.mp4").unlink(missing_ok=True)


def test_a_batch_shares_the_encoders(torch_pipeline, request_of, tmp_path):
    jobs = [Job(request_of(seed=seed), Output(tmp_path / f"{seed}.gif")) for seed in (3, 4)]
    events = list(torch_pipeline.run_all(jobs))
    assert [e.stage for e in events if isinstance(e, StageStarted)] == STAGES + STAGES[2:]
    results = [e for e in events if isinstance(e, Result)]
    assert [r.path.name for r in results] == ["3.gif", "4.gif"]
    for result in results:
        assert np.array_equal(result.frames, frames_of(torch_pipeline, request_of(seed=result.seed)))


def test_a_batch_is_checked_before_work_starts(torch_pipeline, request_of, tmp_path):
    jobs = [Job(request_of(), Output(tmp_path / "a.mp4")), Job(request_of(frames=6))]
    with pytest.raises(InputError, match="nearest is 5"):
        next(torch_pipeline.run_all(jobs))


def test_parts_leave_when_memory_is_short(toy, request_of):
    pipeline = Pipeline.load(toy, engine=FIRST)
    pipeline.parts.keeps_all = False
    held = {}
    for event in pipeline.run(request_of()):
        if isinstance(event, StageFinished):
            held[event.stage] = set(pipeline.parts.held())
    assert held["encode text"] == {"llava", "clip_text"}
    assert held["encode image"] == {"vae"}
    assert held["denoise"] == {"vae", "dit"}
    assert held["decode"] == {"vae"}


def test_half_precision_stays_close(pipeline, request_of):
    exact = frames_of(pipeline, request_of()).astype(int)
    for precision, limit in (("float16", 6), ("bfloat16", 80)):  # levels; a wrong type would give noise, 255
        if precision == "bfloat16" and pipeline.engine.kind == "mindspore":
            with pytest.raises(InputError, match="no bfloat16 matrix product"):
                next(pipeline.run(request_of(precision=precision)))
            continue
        half = frames_of(pipeline, request_of(precision=precision)).astype(int)
        difference = np.abs(exact - half).max()
        assert 0 < difference < limit, (precision, difference)


def test_text_to_video(tmp_path, request_of, engine):
    pipeline = Pipeline.load(write_toy(tmp_path, "none"), engine=engine)
    frames = frames_of(pipeline, request_of(image=None, resolution="720p"))
    assert frames.shape[0] == 5 and frames.shape[2] > frames.shape[1]
    with pytest.raises(InputError, match="takes no picture"):
        next(pipeline.run(request_of()))


def test_latent_concat_drops_its_first_frames(tmp_path, request_of, engine):
    pipeline = Pipeline.load(write_toy(tmp_path, "latent_concat"), engine=engine)
    assert frames_of(pipeline, request_of(frames=9)).shape == (5, 64, 64, 3)
    assert frames_of(pipeline, request_of(frames=9, guidance_scale=2.0)).shape == (5, 64, 64, 3)
    with pytest.raises(InputError, match="5 or more"):
        next(pipeline.run(request_of(frames=1)))


def test_a_picture_is_asked_for(torch_pipeline, request_of):
    with pytest.raises(InputError, match="none was named"):
        next(torch_pipeline.run(request_of(image=None)))


def test_broken_numbers_stop_the_run_after_the_first_step(toy, request_of, tmp_path):
    pipeline = Pipeline.load(toy, engine=engines.get(FIRST))
    weights = pipeline.parts.get("dit", "float32").weights.part("final_layer")
    weights["linear.bias"][0] = float("nan")
    seen = []
    with pytest.raises(NumericsError, match="NaN appeared in the latents at step 1 of 2 in float32"):
        seen.extend(pipeline.run(request_of(), tmp_path / "clip.mp4"))
    assert not any(isinstance(event, Step) for event in seen)
    assert list(tmp_path.iterdir()) == []


def test_a_long_prompt_is_cut_and_said(torch_pipeline, request_of):
    notes = [e.text for e in torch_pipeline.run(request_of(prompt="red " * 400)) if isinstance(e, Note)]
    assert len(notes) == 1 and "400 tokens" in notes[0] and "not used" in notes[0]


def test_control_tokens_in_a_prompt_are_text(torch_pipeline, request_of):
    plain = frames_of(torch_pipeline, request_of())
    for prompt in ("the <image> moves left", "the red<|eot_id|> circle", "{} {0} %s"):
        assert frames_of(torch_pipeline, request_of(prompt=prompt)).shape == plain.shape


def test_latents_survive_a_failed_write(torch_pipeline, request_of, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    output = Output(folder / "clip.mp4")
    saved = latents_path(output.path)
    events = torch_pipeline.run(request_of(), output.path)
    with pytest.raises(InputError, match="go on with `framewake animate --from-latents") as raised:
        for event in events:
            if event == StageStarted("write"):
                output.path.mkdir()  # something took the name while the clip was being made
    assert str(saved) in str(raised.value)
    assert sorted(p.name for p in folder.iterdir()) == ["clip.mp4", "clip.mp4.latents.safetensors"]

    from framewake.pipeline.latents import load_latents

    resumed = list(torch_pipeline.resume(load_latents(saved), Output(tmp_path / "resumed.mp4")))[-1]
    assert np.array_equal(resumed.frames, frames_of(torch_pipeline, request_of()))
    assert read_metadata(tmp_path / "resumed.mp4")["request"]["seed"] == 3


def test_latents_that_cannot_be_saved_stop_nothing(torch_pipeline, request_of, tmp_path):
    path = tmp_path / "clip.mp4"
    latents_path(path).mkdir()
    events = list(torch_pipeline.run(request_of(), path))
    assert any(isinstance(e, Note) and "cannot be saved" in e.text for e in events)
    assert path.is_file() and sorted(p.name for p in tmp_path.iterdir()) == sorted([path.name, latents_path(path).name])


class SmallEngine(TorchCpu):
    """torch on a device with almost no memory left."""

    def memory(self):
        return super().memory() | {"free": 5000}


def test_weights_that_do_not_fit_are_refused_with_both_numbers(toy, request_of):
    pipeline = Pipeline.load(toy, engine=SmallEngine(torch.device("cpu"), "a test"))
    with pytest.raises(ResourceError, match="large text encoder needs") as raised:
        list(pipeline.run(request_of()))
    assert raised.value.bytes_free == 5000 < raised.value.bytes_needed


class GreedyEngine(TorchCpu):
    """torch asked for more than any machine has, in the middle of the transformer."""

    def rms_norm(self, x, weight, eps=1e-6):
        self.zeros((2**50,))
        return super().rms_norm(x, weight, eps)


def test_a_framework_without_memory_is_told_in_words(toy, request_of):
    pipeline = Pipeline.load(toy, engine=GreedyEngine(torch.device("cpu"), "a test"))
    with pytest.raises(ResourceError, match="ran out of memory in the stage 'encode text'"):
        list(pipeline.run(request_of()))
