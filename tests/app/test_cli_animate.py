"""framewake animate, info and --version as they are called."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from engines_here import FIRST

from framewake import __version__
from framewake.media.video import read_metadata, read_video

SMALL = ("--resolution", "360p")
PROMPT = "the red circle moves left"


def framewake(*arguments, **options):
    """The program in a process of its own."""
    command = [sys.executable, "-m", "framewake.app.cli", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def test_version_and_help_load_no_framework():
    heavy = "{'torch', 'mindspore', 'numpy', 'PIL', 'rich', 'av', 'tokenizers'}"
    code = f"""
import sys
from framewake.app import cli
try:
    cli.main(sys.argv[1:])
except SystemExit as left:
    assert left.code == 0, left.code
assert not {heavy} & set(sys.modules), {heavy} & set(sys.modules)
"""
    for arguments in (["--version"], ["--help"], ["animate", "--help"], ["doctor", "--help"]):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
        assert (__version__ if arguments == ["--version"] else "Examples") in done.stdout


@pytest.mark.parametrize("group", ["checkpoints", "lora", "jobs"])
def test_a_group_alone_shows_its_help_as_it_is(call, group):
    answer = call(group)
    assert answer.code == 0 and answer.err == ""
    assert answer.out.startswith(f"Usage: framewake {group}") and "\nCommands:\n" in answer.out


def test_help_names_every_setting(call):
    from framewake.request import settings

    out = call("animate", "--help").out
    for setting in settings().values():
        assert setting.flag.split("/")[0] in out
    assert "Exit codes" in out


def test_a_clip_under_its_default_name(call, picture, tmp_path):
    answer = call("animate", picture, PROMPT, *SMALL, "--seed", 4)
    assert answer.code == 0 and "5 frames of 64x64, seed 4" in answer.out
    assert "Denoising" in answer.err
    call("animate", picture, PROMPT, *SMALL, "--seed", 4, "-q")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "the-red-circle-moves-left-seed4-2.mp4",
        "the-red-circle-moves-left-seed4.mp4",
    ]


def test_quiet_prints_the_path_only(call, picture):
    answer = call("animate", picture, PROMPT, *SMALL, "-q", "-o", "clip.webp")
    assert answer == (0, "clip.webp\n", "")


def test_like_repeats_a_clip_byte_for_byte(call, picture, tmp_path):
    call("animate", picture, PROMPT, *SMALL, "-o", "first.mp4", "--preset", "dynamic", "--steps", 3, "--crf", 30)
    assert call("animate", "--like", "first.mp4", "-o", "second.mp4").code == 0
    assert (tmp_path / "first.mp4").read_bytes() == (tmp_path / "second.mp4").read_bytes()
    assert read_metadata("first.mp4")["request"]["flow_shift"] == 17.0
    call("animate", "--like", "first.mp4", "-o", "third.mp4", "--steps", 2)
    first, third = (read_metadata(name)["request"] for name in ("first.mp4", "third.mp4"))
    assert third == first | {"steps": 2}


def test_json_events(call, picture):
    answer = call("animate", picture, PROMPT, *SMALL, "--json", "-o", "clip.gif")
    events = [json.loads(line) for line in answer.out.splitlines()]
    assert [e["index"] for e in events if e["event"] == "step"] == [1, 2]
    assert events[-1]["event"] == "result" and events[-1]["path"] == "clip.gif"
    assert events[-1]["metadata"]["request"]["prompt"] == PROMPT


def test_json_errors(call, picture):
    answer = call("animate", picture, PROMPT, "--frames", 6, "--json")
    event = json.loads(answer.out)
    assert answer.code == event["exit_code"] == 2
    assert event["event"] == "error" and event["kind"] == "InputError" and "nearest is 5" in event["message"]


def test_no_metadata(call, picture):
    call("animate", picture, PROMPT, *SMALL, "-o", "clip.mp4", "--no-metadata")
    answer = call("info", "clip.mp4")
    assert answer.code == 2 and "no settings" in answer.err


def test_info(call, picture):
    call("animate", picture, PROMPT, *SMALL, "-o", "clip.mp4", "--seed", 4)
    out = call("info", "clip.mp4").out
    assert PROMPT in out and "64 x 64" in out and FIRST in out
    assert json.loads(call("info", "clip.mp4", "--json").out) == read_metadata("clip.mp4")


def test_a_plan_for_several_devices_sets_them_against_one(call, picture):
    out = call("plan", picture, PROMPT, *SMALL, "--devices", 3).out
    assert "3 devices: memory and time are those of each" in out and "one device alone: about" in out
    record = json.loads(call("plan", picture, PROMPT, *SMALL, "--devices", 3, "--json").out)
    assert record["devices"] == 3 and record["seconds_alone"] > 0
    answer = call("plan", picture, PROMPT, *SMALL, "--devices", 9999)
    assert answer.code == 2 and "9999 devices cannot share" in answer.err


@pytest.mark.parametrize("command", ["animate", "plan"])
def test_a_batch_with_a_wrong_line_is_refused_by_its_number(call, picture, tmp_path, command):
    lines = [{"prompt": "x", "image": str(picture)}, {"prompt": "y", "image": "gone.png"}]
    (tmp_path / "many.jsonl").write_text("\n".join(map(json.dumps, lines)))
    answer = call(command, "--batch", "many.jsonl", *SMALL)
    assert answer.code == 2 and answer.err.startswith("framewake: clip 2 of 2: gone.png: there is no such file")
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix == ".mp4") == []


def test_a_batch(call, picture, tmp_path):
    lines = [{"prompt": PROMPT, "seed": 1}, {"prompt": "a blue square spins", "seed": 2, "steps": 1}]
    (tmp_path / "many.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "clips").mkdir()
    answer = call("animate", picture, "--batch", "many.jsonl", "-o", "clips", *SMALL)
    assert answer.code == 0 and "(2 of 2)" in answer.out
    names = sorted(p.name for p in (tmp_path / "clips").iterdir())
    assert names == [".many.jsonl.framewake", "a-blue-square-spins-seed2.mp4", "the-red-circle-moves-left-seed1.mp4"]


def test_a_bad_line_is_told_before_any_work(call, picture, tmp_path):
    (tmp_path / "many.jsonl").write_text('{"prompt": "x"}\n{"prompt": "x", "frame": 5}\n')
    answer = call("animate", picture, "--batch", "many.jsonl", *SMALL)
    assert answer.code == 2 and "line 2" in answer.err and "'frame'" in answer.err
    assert not list(tmp_path.glob("*.mp4"))


def test_ending_chooses_the_kind(call, picture, tmp_path):
    for name in ("clip.gif", "clip.webp", "frames/"):
        assert call("animate", picture, PROMPT, *SMALL, "-o", name, "-q").code == 0
    assert len(list((tmp_path / "frames").glob("*.png"))) == 5
    assert read_video(tmp_path / "clip.webp")[0].shape == (5, 64, 64, 3)


def test_from_latents(call, picture, tmp_path):
    kept = ("--no-metadata", "--memory", "8GB")
    call("animate", picture, PROMPT, *SMALL, *kept, "-o", "clip.mp4", "--seed", 4)
    want = (tmp_path / "clip.mp4").read_bytes()
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({len(want) - 500},) * 2);"
    code = f"{limited} from framewake.app import cli; cli.main()"
    arguments = ["animate", str(picture), PROMPT, *SMALL, *kept, "-o", "clip2.mp4", "--seed", "4"]
    failed = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert failed.returncode == 5, failed.stderr
    assert "framewake animate --from-latents clip2.mp4.latents.safetensors" in failed.stderr.splitlines()[-1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip.mp4", "clip2.mp4.latents.safetensors"]
    advice = failed.stderr.splitlines()[-1].partition("`framewake ")[2].partition("`")[0]
    assert "--no-metadata" in advice and "--memory 8GB" in advice
    assert call(*shlex.split(advice)).code == 0
    assert (tmp_path / "clip2.mp4").read_bytes() == want
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip.mp4", "clip2.mp4"]


def test_damaged_latents(call, tmp_path):
    (tmp_path / "x.latents.safetensors").write_bytes(b"PK nothing")
    np.savez(tmp_path / "y.latents.safetensors", latents=np.zeros(3))
    for name in ("x.latents.safetensors", "y.latents.npz", "z.latents.npz"):
        answer = call("animate", "--from-latents", name)
        assert answer.code == 2 and answer.err.count("\n") == 1, answer.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_leaves_no_half_file_and_says_how_to_go_on(call, toy, picture, tmp_path, number):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = framewake(
        "animate", picture, PROMPT, "--steps", 1000, "--seed", 4, "--json", "-o", "clip.mp4", env=environment
    )
    for line in process.stdout:
        if '"step"' in line:
            break
    process.send_signal(number)
    begin = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert time.monotonic() - begin < 20
    assert err.splitlines()[-1].startswith("framewake: stopped") and "framewake animate --resume -o clip.mp4" in err
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4.latents.safetensors"]


def test_resume_after_ctrl_c_gives_the_same_file(call, toy, picture, tmp_path):
    arguments = ["animate", picture, PROMPT, *SMALL, "--steps", 60, "--seed", 4]
    process = framewake(*arguments, "--json", "-o", "clip.mp4", env=os.environ | {"OMP_NUM_THREADS": "1"})
    for line in process.stdout:
        if '"index": 7' in line:
            break
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    contradiction = call(*arguments[:-1], 5, "-o", "clip.mp4", "--resume")
    assert contradiction.code == 2 and "seed is 5" in contradiction.err
    answer = call("animate", "--resume", "--json")
    steps = [json.loads(line) for line in answer.out.splitlines() if '"step"' in line]
    assert answer.code == 0 and steps[0]["index"] > 7
    call(*arguments, "-o", "whole.mp4", "--resume")  # nothing to go on from: begins anew
    assert (tmp_path / "clip.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "whole.mp4"]
    assert call("animate", "--resume").code == 2
