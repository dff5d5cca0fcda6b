"""A batch that was stopped, however it was, is finished by one command: it makes what is missing, nothing else."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from engines_here import FIRST
from toy_checkpoint import write_picture

from framewake.app.animate import plans_of
from framewake.app.batches import BatchRun, making
from framewake.app.options import PLACES
from framewake.errors import InputError, NumericsError
from framewake.lasting import read_record, write_record
from framewake.pipeline import Note, Pipeline, Result, StageStarted, Step
from framewake.pipeline.latents import load_latents, save_latents
from framewake.request import Request

SMALL = ("--resolution", "360p")
LINES = [
    {"prompt": "the red circle moves left", "steps": 2},
    {"prompt": "a blue square spins", "steps": 60, "seed": 2},
    {"prompt": "the red circle moves left", "steps": 2},
    {"prompt": "a blue square moves up", "steps": 2},
]
RESUME = ("animate", "--batch", "many.jsonl", "-o", "clips", *SMALL, "--resume")

RECORD = Path("clips/.many.jsonl.framewake")


@pytest.fixture
def folder(call, picture, tmp_path):
    """An empty folder with a batch file in it, in which commands are called."""
    (tmp_path / "a.png").write_bytes(picture.read_bytes())
    write_lines(LINES)
    return tmp_path


def write_lines(lines):
    with open("many.jsonl", "w") as file:
        file.writelines(json.dumps({"image": "a.png"} | line) + "\n" for line in lines)


def clips():
    return {path.name: path.read_bytes() for path in Path("clips").glob("*.mp4")}


def begun_and_stopped(number):
    """The batch, ended by a signal while its second clip is made; what it said last."""
    command = [sys.executable, "-m", "framewake.app.cli", *RESUME[:-1], "--json"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, **pipes)
    results = 0
    for line in process.stdout:
        results += '"result"' in line
        if results and '"index": 7' in line:
            process.send_signal(number)
            break
    _, told = process.communicate(timeout=60)
    assert process.returncode == (-number if number == signal.SIGKILL else 130), told
    return told.splitlines()[-1] if told else ""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
def test_a_batch_goes_on_however_it_was_stopped(folder, call, name):
    told = begun_and_stopped(getattr(signal, name))
    first = clips()
    assert len(first) == 1
    (begun,) = Path("clips").glob("*.latents.safetensors")
    steps = load_latents(begun).step
    assert steps >= (5 if name == "SIGKILL" else 7)
    arguments = RESUME
    if name != "SIGKILL":
        assert "1 of 4 clips are made" in told
        arguments = shlex.split(told.partition("`")[2].partition("`")[0])[1:]
    answer = call(*arguments)
    assert answer.code == 0, answer.err
    events = [json.loads(line) for line in answer.out.splitlines() if line.startswith("{")]
    if events:
        assert next(event["index"] for event in events if event["event"] == "step") == steps + 1
    made = clips()
    assert len(made) == 4 and first.items() <= made.items(), "a finished clip was made again"
    assert not [name for name in made if name.endswith("-2.mp4")]
    assert sorted(path.name for path in Path("clips").iterdir()) == sorted([*made, ".many.jsonl.framewake"])
    again = call(*RESUME, "-q")
    assert again.code == 0 and again.out == "" and clips() == made


def test_what_is_missing_is_made(folder, call):
    """Lines that were changed, added, moved and taken out; clips that were deleted, cut, and that are another's."""
    spins, turns = ({"prompt": text, "steps": 1} for text in ("it spins", "it turns"))
    write_lines([*LINES[2:], spins, turns])
    assert call(*RESUME[:-1], "-q").code == 0
    before = clips()
    deleted, cut, kept, other = (entry["name"] for entry in read_record(RECORD)["clips"])
    (Path("clips") / deleted).unlink()
    (Path("clips") / cut).write_bytes(before[cut][: len(before[cut]) // 2])
    (Path("clips") / other).write_bytes(before[kept])
    write_lines(
        [
            {"prompt": "it turns", "steps": 1},
            *LINES[2:],
            {"prompt": "it spins", "steps": 1},
            {"prompt": "new", "steps": 1},
        ]
    )
    answer = call(*RESUME)
    assert answer.code == 0 and "1 of 5 clips are made already" in answer.err, answer.err
    made = clips()
    assert {name: made[name] for name in (deleted, cut, kept)} == {name: before[name] for name in (deleted, cut, kept)}
    assert made[other] == before[kept], "somebody's clip was replaced"
    assert len(made) == 6
    write_lines([LINES[2] | {"steps": 1}])  # another line, which asks for another clip
    assert call(*RESUME, "-q").code == 0
    assert made.items() < clips().items() and len(clips()) == 7


def test_another_folder_begins_there(folder, call):
    write_lines([LINES[0]])
    assert call(*RESUME, "-q").code == 0
    answer = call(*RESUME[:4], "elsewhere/deep", *SMALL, "--resume")
    assert answer.code == 0 and "nothing of this batch was begun in" in answer.err
    assert len(list(Path("elsewhere/deep").glob("*.mp4"))) == 1


def test_without_resume_a_batch_begins_anew_and_says_so(folder, call):
    write_lines([LINES[1] | {"steps": 1}])
    assert call(*RESUME[:-1], "-q").code == 0
    answer = call(*RESUME[:-1])
    assert "was begun before and begins anew" in answer.err and "--resume` makes what is missing" in answer.err
    assert len(clips()) == 2


def test_another_picture_is_another_clip(folder, call):
    write_lines([LINES[0]])
    assert call(*RESUME, "-q").code == 0
    write_picture(folder / "a.png", 60, 80)
    assert call(*RESUME, "-q").code == 0
    assert len(clips()) == 2


def test_another_checkpoint_is_refused(folder, call, toy):
    write_lines([LINES[0]])
    assert call(*RESUME, "-q").code == 0
    other = shutil.copytree(toy, folder / "other")
    (file,) = (other / "transformer").glob("*.safetensors")
    content = file.read_bytes()
    file.write_bytes(content[:-999] + bytes(value ^ 1 for value in content[-999:]))
    answer = call(*RESUME, "--checkpoint", other)
    assert answer.code == 2 and "begun with other weights" in answer.err and answer.err.count("\n") == 1


def test_clips_without_settings_inside_are_found_too(folder, call):
    write_lines([LINES[0], LINES[2]])
    assert call(*RESUME, "--no-metadata", "-q").code == 0
    made = clips()
    next(Path("clips").glob("*.mp4")).unlink()
    assert call(*RESUME, "--no-metadata", "-q").code == 0
    assert clips() == made


def test_saved_latents_of_another_clip_begin_anew(folder, call):
    begun_and_stopped(signal.SIGTERM)
    (begun,) = Path("clips").glob("*.latents.safetensors")
    saved = load_latents(begun)
    metadata = saved.metadata | {"request": saved.metadata["request"] | {"seed": 99}}
    save_latents(begun, saved._replace(metadata=metadata))
    answer = call(*RESUME)
    assert answer.code == 0 and "begins anew: the saved latents are of another clip (seed 2, saved 99)" in answer.err
    assert len(clips()) == 4 and not list(Path("clips").glob("*latents*"))


def test_every_bit_of_a_record_counts(tmp_path):
    file = tmp_path / "record"
    write_record(file, {"a": [1]})
    whole = file.read_bytes()
    assert read_record(file) == {"a": [1]}
    for place in range(len(whole)):
        for bit in range(8):
            file.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            with pytest.raises(InputError):
                read_record(file)
    for content in (b"", whole[:-1], whole + b"\n", b"\xff" * 80, b"0\n[" + b"[" * 9999):
        file.write_bytes(content)
        with pytest.raises(InputError):
            read_record(file)


@pytest.mark.parametrize("content", [{}, [], None, {"format": "framewake batch 1"}, "damaged"])
def test_a_record_that_cannot_be_believed_is_told(folder, call, content):
    write_lines([LINES[0]])
    RECORD.parent.mkdir()
    write_record(RECORD, content)
    if content == "damaged":
        RECORD.write_bytes(RECORD.read_bytes()[1:])
    answer = call(*RESUME)
    assert answer.code == 2 and "delete it" in answer.err and answer.err.count("\n") == 1
    assert call(*RESUME[:-1], "-q").code == 0


class Broken(Pipeline):
    """A pipeline that fails over one seed, after it has begun."""

    def run_all(self, jobs):
        clip = -1
        for event in super().run_all(jobs):
            clip += isinstance(event, StageStarted) and event.stage == "encode image"
            if clip >= 0 and jobs[clip].request.seed == 13 and isinstance(event, Step):
                raise NumericsError("NaN appeared")
            yield event


def test_a_clip_that_fails_costs_the_others_nothing(folder, toy):
    requests = [Request("a", image="a.png", resolution="360p", steps=1, seed=seed) for seed in (1, 13, 2, 13, 3)]
    pipeline = Broken.load(toy, engine=FIRST)
    given = {name: place.default for name, place in PLACES.items()}
    given |= {"output": "clips", "batch": "many.jsonl", "resume": True}
    lines = list(zip(requests, plans_of(requests, pipeline.checkpoint), strict=True))
    batch, failed = BatchRun(given, lines, pipeline.checkpoint, crf=18), []
    batch.begin()
    events = list(making(pipeline, batch, failed))
    assert [event.seed for event in events if isinstance(event, Result)] == [1, 2, 3]
    assert len(failed) == 2 and sum("failed, the others are made" in e.text for e in events if isinstance(e, Note)) == 2
    pipeline = Pipeline.load(toy, engine=FIRST)
    batch = BatchRun(given, lines, pipeline.checkpoint, crf=18)
    assert batch.made == 3
    assert [event.seed for event in making(pipeline, batch, failed) if isinstance(event, Result)] == [13, 13]
