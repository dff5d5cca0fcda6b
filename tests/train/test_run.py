"""Whole training runs: they learn, are cut in two without a trace, and start at once the second time."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time

import numpy as np
import pytest
import ranks_here
from engines_here import needs_torch
from ranks_here import together
from toy_checkpoint import DIT, write_toy
from toy_training import losses

from framewake import engine as engines
from framewake.errors import CheckpointError, InputError
from framewake.media.video import read_metadata
from framewake.pipeline.adapters import targets_of
from framewake.pipeline.events import Note
from framewake.train.events import Encoded, Sampled, Saved, Started, Trained, Update
from framewake.train.state import state_path
from framewake.weights.checkpoint.load import open_checkpoint
from framewake.weights.lora.file import open_lora


def test_the_loss_goes_down(engine, trainer_of):
    # Nothing is left out and each update sees both clips of one size or the third: only the noise differs.
    settings = {"caption_drop": 0.0, "picture_drop": 0.0, "batch": 2, "learning_rate": 2e-2}
    found = losses(trainer_of(steps=24, **settings).run(engine))
    assert np.mean(found[-6:]) < 0.8 * np.mean(found[:6])


def test_events_come_in_order(engine, trainer_of, tmp_path):
    events = list(trainer_of(steps=3, save_every=2).run(engine))
    started = events[0]
    assert isinstance(started, Started) and (started.clips, started.first, started.steps) == (3, 0, 3)
    assert [e.step for e in events if isinstance(e, Update)] == [1, 2, 3]
    assert [e.step for e in events if isinstance(e, Saved)] == [2, 3]
    assert isinstance(events[-1], Trained) and events[-1].path == tmp_path / "a.safetensors"
    assert all(e.seconds > 0 and e.seconds_left >= 0 and e.norm > 0 for e in events if isinstance(e, Update))


@pytest.mark.parametrize("changes", [{}, {"batch": 2, "accumulation": 2, "weight_decay": 0.01, "warmup": 5}])
def test_a_run_in_two_parts_is_the_same_to_the_byte(engine, trainer_of, tmp_path, changes):
    whole = losses(trainer_of("whole.safetensors", steps=6, **changes).run(engine))
    first = losses(trainer_of("part.safetensors", steps=3, **changes).run(engine))
    second = losses(trainer_of("part.safetensors", resumes=True, steps=6).run(engine))
    assert first + second == whole
    assert (tmp_path / "part.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    states = [state_path(tmp_path / f"{name}.safetensors").read_bytes() for name in ("part", "whole")]
    assert states[0] == states[1]


def test_a_stopped_run_is_saved_where_it_stands(engine, trainer_of, tmp_path):
    list(trainer_of("whole.safetensors", steps=6).run(engine))
    events = trainer_of("part.safetensors", steps=6).run(engine)
    for event in events:
        if isinstance(event, Update) and event.step == 4:
            events.close()
    again = trainer_of("part.safetensors", resumes=True)
    assert again.first == 4
    list(again.run(engine))
    assert (tmp_path / "part.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


def test_what_was_encoded_is_used_again(engine, trainer_of, clips, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"

    def run(name, cache):
        return list(trainer_of(name, steps=1, cache=cache).run(engine))

    events = run("a.safetensors", first)
    assert events[0].cached == 0 and sum(isinstance(e, Encoded) for e in events) == 6
    files = {path.name: path.stat().st_mtime_ns for path in first.iterdir()}
    events = run("b.safetensors", first)
    assert events[0].cached == 3 and not any(isinstance(e, Encoded) for e in events)
    assert {path.name: path.stat().st_mtime_ns for path in first.iterdir()} == files
    run("c.safetensors", second)
    assert {path.name for path in second.iterdir()} == set(files)
    damaged = next(path for path in first.iterdir() if path.name.startswith("clip-"))
    damaged.write_bytes(damaged.read_bytes()[:-5])
    assert run("d.safetensors", first)[0].cached == 2
    assert len({(tmp_path / f"{name}.safetensors").read_bytes() for name in "abcd"}) == 1


def test_sample_clips_are_made_with_the_lora_of_their_moment(engine, trainer_of, picture, tmp_path):
    sampled = {"sample_every": 2, "sample_image": str(picture), "sample_prompt": "the red circle moves left"}
    events = list(trainer_of("a.safetensors", steps=4, **sampled).run(engine))
    found = {e.step: e.path for e in events if isinstance(e, Sampled)}
    assert found == {step: tmp_path / f"a-{step:06d}.mp4" for step in (2, 4)}
    assert found[2].read_bytes() != found[4].read_bytes()
    assert read_metadata(found[4])["request"]["loras"] == [str(tmp_path / "a.safetensors")]
    list(trainer_of("b.safetensors", steps=4).run(engine))
    assert (tmp_path / "b.safetensors").read_bytes() == (tmp_path / "a.safetensors").read_bytes()


@pytest.mark.parametrize("style", ["official", "kohya", "diffusers", "comfyui"])
def test_every_format_can_be_written(engine, trainer_of, toy, tmp_path, style):
    list(trainer_of(steps=2, format=style, alpha=2.0, targets=["*qkv", "single_blocks.*"]).run(engine))
    lora = open_lora(tmp_path / "a.safetensors", targets_of(toy))
    assert lora.format == style and not lora.unmatched
    assert {lora.factor(update) for update in lora.updates} == {0.5}
    said = lora.tensors.metadata
    expected = {"ss_network_dim": "4", "ss_network_alpha": "2", "ss_steps": "2", "ss_learning_rate": "0.01",
                "ss_mixed_precision": "no", "ss_num_train_items": "3", "modelspec.sai_model_spec": "1.0.0",
                "modelspec.architecture": "hunyuan-video/lora"}  # fmt: skip
    assert {name: said.get(name) for name in expected} == expected
    assert json.loads(said["ss_datasets"]) == [{"resolution": [64, 64], "frames": 5, "clips": 3}]
    touched = set(lora.by_weight())
    blocks = ("double_blocks.0.img_attn_qkv", "double_blocks.0.txt_attn_qkv", "single_blocks.0.")
    assert touched == {name for name in targets_of(toy).shapes if name.startswith(blocks)}
    assert not list(tmp_path.glob(".*"))


def test_a_file_without_a_saved_run_is_not_to_be_gone_on_with(trainer_of, tmp_path):
    target = trainer_of().places.target
    target.write_bytes(b"of somebody")
    with pytest.raises(InputError, match="exists: name another file, or take this one away"):
        trainer_of()


def test_other_settings_and_other_clips_cannot_go_on(trainer_of, engine, clips, tmp_path):
    list(trainer_of(steps=2).run(engine))
    with pytest.raises(InputError, match="was begun: go on with it with --resume"):
        trainer_of()
    with pytest.raises(InputError, match="trained to the end"):
        trainer_of(resumes=True)
    with pytest.raises(InputError, match="--rank is 8, but the run began with 4"):
        trainer_of(resumes=True, rank=8)
    with pytest.raises(InputError, match="no saved run"):
        trainer_of("other.safetensors", resumes=True)
    data = shutil.copytree(clips, tmp_path / "other")
    (data / "0.txt").write_text("something else")
    with pytest.raises(InputError, match="are not those that the run began with"):
        list(trainer_of(resumes=True, steps=3, data=data).run(engine))
    watched = {"validate_every": 1, "validation": "0.34"}
    list(trainer_of("watched.safetensors", steps=1, **watched).run(engine))
    for name in ("0.mp4", "1.webp"):
        (data / name).unlink()
    with pytest.raises(InputError, match="are not those that the run began with"):
        trainer_of("watched.safetensors", resumes=True, steps=3, data=data)


def test_another_checkpoint_cannot_go_on(engine, trainer_of, tmp_path):
    list(trainer_of(steps=1).run(engine))
    folder = write_toy(tmp_path / "other", dit=dataclasses.replace(DIT, single_blocks=2))
    with pytest.raises(CheckpointError, match="was trained on another checkpoint than"):
        list(trainer_of(resumes=True, steps=2, checkpoint=open_checkpoint(folder)).run(engine))


def test_long_captions_are_told(engine, trainer_of, clips, tmp_path):
    data = shutil.copytree(clips, tmp_path / "long")
    (data / "1.txt").write_text("red circle " * 200)
    notes = [e.text for e in trainer_of(data=data, steps=1).run(engine) if isinstance(e, Note)]
    assert len(notes) == 1 and "tokens" in notes[0]


def by_two(trainer_of, changes, *, pause=0.0):
    """The updates that two processes tell, of which the second is told something else."""

    def work(rank):
        found = []
        for event in trainer_of(**({"steps": 2} | (changes if rank.rank() else {}))).run(rank):
            time.sleep(pause)
            found += [event] if isinstance(event, Update) else []
        return found

    return together(engines.get("torch:cpu"), 2, work)


@needs_torch
@pytest.mark.parametrize("changes", [{"learning_rate": 2e-2}, {"steps": 5}, {"seed": 7}])
def test_processes_that_would_train_otherwise_are_refused(trainer_of, changes):
    with pytest.raises(InputError, match="process 1 would train otherwise than the first one"):
        by_two(trainer_of, changes)


@needs_torch
def test_what_only_the_first_process_looks_at_may_differ(trainer_of):
    first, second = by_two(trainer_of, {"save_every": 1, "stored": "bfloat16"})
    assert len(first) == 2 and second == []


@needs_torch
def test_nobody_waits_in_an_exchange_for_what_the_first_process_does_alone(trainer_of, monkeypatch):
    monkeypatch.setattr(ranks_here, "SECONDS", 1.0)  # as long as a wait in an exchange may be
    first, _ = by_two(trainer_of, {}, pause=1.2)
    assert len(first) == 2
