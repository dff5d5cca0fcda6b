"""However a run is asked to end, it saves what is there: a closed terminal, signals in pairs; nohup keeps it going."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from framewake.app.stopping import stopped_by_signals
from framewake.golden import rule
from framewake.media.video import write_video
from framewake.pipeline.latents import load_latents

PROGRAM = [sys.executable, "-m", "framewake.app.cli"]
ANIMATE = ["animate", "--resolution", "360p", "--seed", "4", "-o", "clip.mp4"]
TRAIN = ["lora", "train", "clips", "a.safetensors", "--frames", "5", "--rank", "2", "--steps", "100000"]
TRAIN += ["--save-every", "100000"]
BATCH = ["animate", "--batch", "many.jsonl", "--resolution", "360p", "-o", "out"]


@pytest.fixture
def folder(call, picture, tmp_path):
    """A folder with what each command needs."""
    (tmp_path / "clips").mkdir()
    frames = np.stack([np.roll(rule.image("clip", 64, 64, 1), i, 1) for i in range(5)])
    write_video(tmp_path / "clips" / "0.webp", frames, fps=12, metadata={})
    (tmp_path / "clips" / "0.txt").write_text("the red circle moves left")
    line = {"image": str(picture), "prompt": "it moves", "steps": 1000}
    (tmp_path / "many.jsonl").write_text(f"{json.dumps(line)}\n" * 2)
    return tmp_path


def command_of(what, picture):
    if what == "animate":
        return [*PROGRAM, *ANIMATE, "--steps", "1000", str(picture), "the red circle moves left"]
    return [*PROGRAM, *(TRAIN if what == "train" else BATCH)]


def wait_until(condition):
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come so far")


@pytest.mark.parametrize("what", ["animate", "batch", "train"])
def test_a_terminal_that_goes_away_costs_nothing(folder, picture, what):
    """It is closed while bars are drawn on it: SIGHUP comes, and nothing can be written any more."""
    child, terminal = pty.fork()
    if child == 0:
        with contextlib.suppress(OSError):
            os.execve(sys.executable, command_of(what, picture), os.environ | {"OMP_NUM_THREADS": "1"})
        os._exit(1)
    seen = b""
    while not re.search(rb"(step|update) \d+ of", seen):
        seen += os.read(terminal, 4096)
    os.close(terminal)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 130
    if what == "train":
        assert (folder / "a.training.safetensors").exists() and (folder / "a.safetensors").exists()
    else:
        (saved,) = folder.rglob("*.latents.safetensors")
        assert load_latents(saved).step >= 1
    assert not list(folder.rglob("*.part"))


@pytest.mark.parametrize("pair", [("SIGHUP", "SIGTERM"), ("SIGTERM", "SIGINT"), ("SIGINT", "SIGINT")])
def test_a_second_signal_does_not_break_the_saving(folder, picture, pair):
    command = [*command_of("animate", picture), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stdout:
        if '"step"' in line and json.loads(line)["index"] >= 7:
            break
    for name in pair:
        process.send_signal(getattr(signal, name))
        time.sleep(0.002)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130 and "framewake animate --resume -o clip.mp4" in told, told
    assert load_latents(folder / "clip.mp4.latents.safetensors").step >= 7


def test_under_nohup_a_closed_terminal_stops_nothing(folder, picture):
    command = [*PROGRAM, *ANIMATE, "--steps", "60", str(picture), "the red circle moves left", "--json"]
    ignoring = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh"]
    process = subprocess.Popen([*ignoring, *command], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if '"step"' in line:
            process.send_signal(signal.SIGHUP)
    assert process.wait() == 0 and (folder / "clip.mp4").exists()


def test_the_command_that_goes_on_names_what_was_given(folder, picture, toy):
    """What saved latents do not hold: the checkpoint's place, the engine, limits, and that settings stay outside."""
    shutil.copytree(toy, "my checkpoint")
    given = ["--checkpoint", "my checkpoint", "--engine", "torch:cpu", "--memory", "8GB", "--no-metadata", "-q"]
    command = [*command_of("animate", picture), "--steps", "1000", *given]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until((folder / "clip.mp4.latents.safetensors").exists)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    (advice,) = re.findall("`(.+)`", told)
    words = shlex.split(advice)
    assert words == ["framewake", "animate", "--resume", "-o", "clip.mp4", *given]
    process = subprocess.Popen([*PROGRAM, *words[1:]], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    before = load_latents(folder / "clip.mp4.latents.safetensors").step
    wait_until(lambda: load_latents(folder / "clip.mp4.latents.safetensors").step > before)
    process.send_signal(signal.SIGINT)
    assert advice in process.communicate(timeout=60)[1]


class Swallower:
    """Python drops what is raised in a destructor."""

    def __del__(self):
        signal.raise_signal(signal.SIGHUP)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_that_a_destructor_swallows_still_ends_the_run():
    with stopped_by_signals() as check:
        check()
        Swallower()
        with pytest.raises(KeyboardInterrupt):
            check()
