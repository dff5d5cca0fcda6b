"""A log gets a line every minute and at every tenth, in every stage."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from framewake.app import lines, train
from framewake.app.lines import Lines, Pacer
from framewake.pipeline.events import Note, Result, StageFinished, StageStarted, Step, Tile, Written
from framewake.train.events import Encoded, Started, Trained, Update


class Paper:
    """Keeps lines, and waits for one."""

    def __init__(self):
        self.lines = []
        self._came = threading.Condition()

    def write(self, text):
        with self._came:
            self.lines.append(text)
            self._came.notify_all()

    def wait_for(self, words):
        with self._came:
            assert self._came.wait_for(lambda: any(words in line for line in self.lines), timeout=30), self.lines


def test_a_stage_that_tells_nothing_is_heard_of_all_the_same():
    paper = Paper()
    pacer = Pacer(paper.write, seconds=0.01)
    pacer.begin("Encoding the prompt")
    paper.wait_for("Encoding the prompt: 0.0 s so far")
    pacer.move(0.02, "step 1 of 50, 4 h 0 min left")
    paper.wait_for("Encoding the prompt: step 1 of 50, 4 h 0 min left, ")
    pacer.end("4.0 s")
    assert paper.lines[-1] == "Encoding the prompt: 4.0 s"
    pacer.close()
    assert threading.active_count() == len(threading.enumerate()) and "progress lines" not in names()


def names():
    return [thread.name for thread in threading.enumerate()]


def test_tenths_are_told_and_no_more(monkeypatch):
    monkeypatch.setattr(lines, "LEAST_SECONDS", 0.0)
    paper = Paper()
    pacer = Pacer(paper.write, seconds=1e9)
    pacer.begin("Denoising")
    for step in range(1, 101):
        pacer.move(step / 100, f"step {step} of 100")
    pacer.close()
    assert paper.lines == [f"Denoising: step {step} of 100" for step in range(10, 100, 10)]


STEP = Step(1, 50, 2.0, 98.0, np.zeros((1, 1, 3), np.uint8))


@pytest.mark.parametrize(
    ("stage", "event", "words"),
    [
        ("encode text", None, "Encoding the prompt: 0."),
        ("encode image", None, "Encoding the picture: 0."),
        (
            "denoise",
            Step(1, 50, 2.0, 98.0, np.zeros((1, 1, 3), np.uint8)),
            "Denoising: step 1 of 50, 1 min 38 s left, ",
        ),
        ("decode", Tile(1, 40, 39.0), "Decoding frames: tile 1 of 40, 39.0 s left, "),
        ("write", Written(0.05, 19.0), "Writing the clip: 5%, 19.0 s left, "),
    ],
)
def test_every_stage_of_a_clip(capsys, monkeypatch, stage, event, words):
    paper = Paper()
    monkeypatch.setattr(lines, "say", paper.write)
    screen = Lines(seconds=0.01)
    screen.show(StageStarted(stage))
    if event is not None:
        screen.show(event)
    paper.wait_for(words)
    screen.show(StageFinished(stage, 3.0))
    screen.show(Note("a note"))
    frames = np.zeros((5, 4, 6, 3), np.uint8)
    screen.show(Result(frames, Path("clip.mp4"), 3, {}, {}))
    screen.close()
    assert paper.lines[-2].endswith(": 3.0 s") and paper.lines[-1] == "Note: a note"
    assert capsys.readouterr().out.startswith("clip.mp4: 5 frames of 6x4, seed 3, ")


def test_every_stage_of_training(capsys, monkeypatch):
    paper = Paper()
    monkeypatch.setattr(train, "say", paper.write)
    screen = train.TrainingLines(seconds=0.01)
    screen.show(Started(3, 0, 16, 100, 0, 50, "it fits"))
    paper.wait_for("Encoding: ")
    screen.show(Encoded("clips", 1, 30))
    paper.wait_for("Encoding clips: 1 of 30, ")
    screen.show(Update(1, 50, 0.7, 0.5, 1.0, 0.1, 2.0, 98.0))
    paper.wait_for("Training: update 1 of 50, loss 0.5000, 1 min 38 s left, ")
    screen.show(Trained(Path("a.safetensors"), 50, 0.5, 3.0))
    assert "progress lines" not in names()
    assert capsys.readouterr().out == "a.safetensors: 50 updates, loss 0.5000, 3.0 s\n"
