"""LoRAs in whole runs: they change the clip, step by step, and leave nothing behind."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from engines_here import FIRST
from lora_files import keys_of, write

from framewake.batch import read_batch
from framewake.errors import CheckpointError, InputError
from framewake.media.video import read_metadata, read_video
from framewake.pipeline import Job, Note, Output, Pipeline, Result, Step
from framewake.pipeline.jobs import plan_job
from framewake.pipeline.latents import latents_path, load_latents


def frames_of(pipeline, request):
    return list(pipeline.run(request))[-1].frames


@pytest.fixture(scope="module")
def pipeline(toy, engine):
    return Pipeline.load(toy, engine=engine)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loras")
    half = {key: x * np.float32(0.3) for key, x in keys_of("kohya", alpha=None).items()}
    names = ["single_blocks.0.linear1.weight"]
    return str(write(folder / "a.safetensors", half)), str(
        write(folder / "b.safetensors", keys_of("comfyui", "lora_A", names=names))
    )


def test_a_lora_changes_the_clip_and_is_gone_afterwards(pipeline, request_of, files):
    plain = frames_of(pipeline, request_of())
    strong = frames_of(pipeline, request_of(loras=[files[0]]))
    weak = frames_of(pipeline, request_of(loras=[f"{files[0]}:0.5"]))
    both = frames_of(pipeline, request_of(loras=list(files)))
    clips = [plain, strong, weak, both]
    assert not any(np.array_equal(clips[i], clips[j]) for i in range(4) for j in range(i))
    assert np.array_equal(frames_of(pipeline, request_of()), plain)
    assert np.array_equal(frames_of(pipeline, request_of(loras=[f"{files[0]}:0"])), plain)
    assert np.array_equal(frames_of(pipeline, request_of(loras=[files[0]])), strong)


def test_weights_by_step(pipeline, request_of, files):
    def made(schedule):
        return frames_of(pipeline, request_of(loras=[f"{files[0]}:{schedule}"], steps=4))

    whole, first, last = made("1"), made("0-2=1"), made("2-4=1")
    assert np.array_equal(made("0-3=1.0,3-4=1"), whole)
    assert np.array_equal(made("0-4=0"), frames_of(pipeline, request_of(steps=4)))
    assert not np.array_equal(first, whole) and not np.array_equal(last, whole) and not np.array_equal(first, last)


def test_a_span_that_never_comes_is_refused(pipeline, request_of, files):
    request = request_of(loras=[f"{files[0]}:0-1=1,2-9=0.5"])
    with pytest.raises(InputError, match="from step 2 never comes, there are 2 steps"):
        pipeline.plan(Job(request))


def test_the_report_comes_once_for_each_file(pipeline, request_of, files, tmp_path):
    request = request_of(loras=[f"{files[0]}:-0.5", files[1]], ignores_lora_alpha=True)
    jobs = [Job(request, Output(tmp_path / f"{number}.webp")) for number in range(2)]
    events = list(pipeline.run_all(jobs))
    notes = [event.text for event in events if isinstance(event, Note)]
    assert [note.split(":")[0] for note in notes] == [f"LoRA {files[0]} at -0.5", f"LoRA {files[1]} at 1"]
    assert "kohya format, rank 4 to 5, no alpha" in notes[0] and "largest change" in notes[0]
    assert "comfyui format, rank 4, alpha 3; 1 of 1 modules matched, 1 weights" in notes[1]
    first, second = (event for event in events if isinstance(event, Result))
    assert np.array_equal(first.frames, second.frames)
    assert read_metadata(tmp_path / "0.webp")["request"]["loras"] == list(request.loras)


def test_alpha_can_be_ignored(pipeline, request_of, files):
    clips = [frames_of(pipeline, request_of(loras=[files[1]], ignores_lora_alpha=value)) for value in (True, False)]
    assert not np.array_equal(*clips)


def test_a_bad_lora_is_refused_before_anything_is_loaded(toy, request_of, files, tmp_path):
    tensors = keys_of("kohya") | {"lora_unet_other.lora_up.weight": np.zeros((2, 2), np.float32)}
    path = str(write(tmp_path / "c.safetensors", tensors))
    pipeline = Pipeline.load(toy, engine=FIRST)
    with pytest.raises(CheckpointError, match="--lora-partial"):
        list(pipeline.run(request_of(loras=[path])))
    assert pipeline.parts.held() == ()
    plan_job(Job(request_of(loras=[path], allows_partial_loras=True)), pipeline.checkpoint)


def test_batches_have_loras_of_their_own(request_of, files, tmp_path):
    (tmp_path / "b.jsonl").write_text(json.dumps({"prompt": "x", "loras": [f"{files[0]}:0.5"]}) + '\n{"prompt": "y"}')
    first, second = read_batch(tmp_path / "b.jsonl", common={"loras": [files[1]]})
    assert first.loras == (f"{files[0]}:0.5",) and second.loras == (files[1],)


def test_a_folder_of_peft_makes_a_clip(pipeline, request_of, files, tmp_path):
    """Where latents are saved for the case of a stop, with what they were made from."""
    shutil.copy(files[0], tmp_path / "adapter_model.safetensors")
    list(pipeline.run(request_of(loras=[str(tmp_path)]), tmp_path / "folder.mp4"))
    list(pipeline.run(request_of(loras=[files[0]]), tmp_path / "file.mp4"))
    assert np.array_equal(read_video(tmp_path / "folder.mp4")[0], read_video(tmp_path / "file.mp4")[0])


def test_a_resumed_clip_has_the_weights_of_its_steps(pipeline, request_of, files, tmp_path):
    request = request_of(loras=[f"{files[0]}:0-2=0.2,2-5=-0.7,5-6=1"], steps=6)
    whole, part = tmp_path / "whole.mp4", tmp_path / "part.mp4"
    list(pipeline.run(request, whole))
    events = pipeline.run(request, part)
    for event in events:
        if isinstance(event, Step) and event.index == 4:
            events.close()
    list(pipeline.resume(load_latents(latents_path(part)), Output(part)))
    assert part.read_bytes() == whole.read_bytes()
