"""`framewake lora train`, as it is called."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from engines_here import FIRST, needs_torch
from PIL import Image
from test_start import Started, needs_linux

from framewake.golden import rule
from framewake.media.video import write_video
from framewake.train.state import load_run

SMALL = ("--frames", 5, "--rank", 2, "--save-every", 2)


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    for number in range(2):
        picture = rule.image(f"clip{number}", 64, 64, number)
        write_video(
            folder / f"{number}.webp", np.stack([np.roll(picture, i, 1) for i in range(5)]), fps=12, metadata={}
        )
        (folder / f"{number}.txt").write_text("the red circle moves left")
    return folder


def test_train_use_and_go_on(call, data, picture, toy):
    answer = call("lora", "train", data, "a.safetensors", *SMALL, "--steps", 3)
    assert answer.code == 0, answer.err
    assert answer.out.startswith("a.safetensors: 3 updates, loss ")
    assert "2 clips (0 encoded before), 16 modules" in answer.err and "saved after update 2" in answer.err
    answer = call("animate", picture, "the red circle moves left", "--resolution", "360p", "--lora", "a.safetensors",
                  "-o", "x.webp")  # fmt: skip
    assert answer.code == 0 and "official format, rank 2, alpha 2; 16 of 16 modules" in answer.err
    said = call("lora", "info", "a.safetensors", "--checkpoint", toy).out
    assert "\n  ss_steps: 3\n" in said and "\n  modelspec.architecture: hunyuan-video/lora\n" in said
    answer = call("lora", "train", data, "a.safetensors", "--resume", "--steps", 4, "--json")
    events = [json.loads(line) for line in answer.out.splitlines()]
    assert [event["event"] for event in events] == ["started", "update", "saved", "trained"]
    assert events[0]["first"] == 3 and events[0]["cached"] == 2 and events[-1]["path"] == "a.safetensors"
    assert events[1]["step"] == 4 and events[1]["loss"] > 0
    answer = call("lora", "curve", "a.safetensors")
    assert answer.out.startswith("a.training.png: 4 updates, loss "), answer.err
    assert Image.open("a.training.png").format == "PNG"
    answer = call("lora", "curve", "b.safetensors")
    assert answer.code == 2 and "there is no b.training.csv" in answer.err


def test_a_loss_that_grows_without_end_is_told_once(call, data):
    answer = call("lora", "train", data, "a.safetensors", *SMALL, "--steps", 6, "--lr", 1)
    assert answer.code == 0 and answer.err.count("the loss diverges") == 1, answer.err
    assert "with a smaller --lr" in answer.err
    answer = call("lora", "train", data, "b.safetensors", *SMALL, "--steps", 6, "--lr", 1, "--json")
    told = [event for event in map(json.loads, answer.out.splitlines()) if event["event"] == "diverged"]
    assert len(told) == 1 and told[0]["average"] > 10 * told[0]["began"] > 0 and 1 < told[0]["step"] < 6


def test_mistakes_are_one_line(call, data):
    for arguments, words in [
        ((data, "a.pt"), "end in .safetensors"),
        ((data, "a.safetensors", "--resume"), "no saved run"),
        ((data, "a.safetensors", "--frames", 9), "--frames 5"),
        ((data, "a.safetensors", "--frames", 5, "--target", "x"), "fits no module"),
        (("gone", "a.safetensors"), "does not exist"),
        ((data, "a.safetensors", "--frames", 5, "--engine", "torch:tpu"), "torch:tpu"),
    ]:
        answer = call("lora", "train", *arguments)
        assert answer.code == 2 and words in answer.err and answer.err.count("\n") == 1, answer.err


def test_help_has_examples(call):
    text = call("lora", "train", "--help").out
    assert "framewake lora train clips/ style.safetensors --resume" in text and "--target PATTERN" in text


def test_ctrl_c_saves_and_says_how_to_go_on(data, toy, tmp_path):
    command = [sys.executable, "-m", "framewake.app.cli", "lora", "train", str(data), "a.safetensors", "--json"]
    command += [*map(str, SMALL), "--steps", "100000", "--save-every", "1000000", "--checkpoint", str(toy)]
    environment = os.environ | {"FRAMEWAKE_ENGINE": FIRST}
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    for line in process.stdout:
        if json.loads(line)["event"] == "update":
            process.send_signal(signal.SIGTERM)  # the same as Ctrl-C, which background jobs may ignore
            break
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130 and "go on with `framewake lora train" in err and "--resume" in err, err
    assert Path(tmp_path / "a.safetensors").exists() and (tmp_path / "a.training.safetensors").exists()
    assert json.loads(out.splitlines()[-1])["event"] == "error"


def test_two_processes_train_as_two_batches_behind_an_update(call, data, toy, engine):
    words = [data, "--checkpoint", toy, "--engine", engine.name, *SMALL, "--steps", 3]
    answer = call("lora", "train", *words[:1], "one.safetensors", *words[1:], "--accumulate", 2)
    assert answer.code == 0, answer.err
    again = [sys.executable, "-m", "framewake", "lora", "train", *words[:1], "two.safetensors", *words[1:]]
    # Other clips' folder of what is encoded, so that both processes encode.
    done = subprocess.run(
        list(map(str, [*again, "--devices", 2, "--cache", "cache"])), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert Path("two.safetensors").read_bytes() == Path("one.safetensors").read_bytes()
    assert "saved after update 2" in done.stderr and done.stderr.count("2 clips (0 encoded before)") == 1
    answer = call("lora", "train", data, "two.safetensors", "--resume", "--steps", 4, "--checkpoint", toy)
    assert answer.code == 0 and "the first 3 updates were made by 2 devices, not 1." in answer.err


@needs_linux
@needs_torch
@pytest.mark.parametrize("blow", [(None, "SIGINT", 130), (0, "SIGKILL", 4), (1, "SIGKILL", 4), (1, "SIGSTOP", 4)])
def test_two_processes_that_train_end_together_and_say_how_to_go_on(data, toy, tmp_path, monkeypatch, blow):
    monkeypatch.chdir(tmp_path)
    rank, number, expected = blow
    words = (*SMALL, "--checkpoint", toy, "--steps", 100000, "--json")
    run = Started(data, "a.safetensors", *words, command=("lora", "train"))
    run.wait_for('"step": 7')
    os.kill(run.process.pid if rank is None else run.pids[rank], getattr(signal, number))
    code, said = run.ended()
    assert code == expected and len(said) == 1, said
    assert said[0].startswith("framewake: stopped" if rank is None else f"framewake: process {rank} of 2 "), said
    assert "lora train" in said[0] and "--resume" in said[0] and "--devices 2`" in said[0], said
    assert load_run(tmp_path / "a.safetensors").state.step >= (6 if rank == 0 else 7)


def test_many_prompts_make_many_samples(call, data, picture):
    Path("prompts.txt").write_text(f"# two\nit moves left --d 3 --f 5\n\nit moves right --i {picture}\n")
    words = ("--sample-every", 1, "--sample-prompts", "prompts.txt", "--sample-image", picture)
    answer = call("lora", "train", data, "a.safetensors", *SMALL, "--steps", 1, *words)
    assert answer.code == 0, answer.err
    assert Path("a-000001-01.mp4").exists() and Path("a-000001-02.mp4").exists()
    Path("prompts.txt").write_text("it moves --x 3\n")
    answer = call("lora", "train", data, "b.safetensors", *SMALL, *words)
    assert answer.code == 2 and "prompts.txt, line 1: --x 3 is unknown: expected a prompt" in answer.err
