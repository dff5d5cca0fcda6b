"""Paths as people write them: "~", addresses, odd names, and the folder of a batch."""

from __future__ import annotations

import json
import os
import shutil

import pytest

SMALL = ("--frames", "5", "--resolution", "360p", "--steps", "1", "--seed", "1")


@pytest.fixture
def home(tmp_path, monkeypatch, picture):
    """A home folder with a picture in it."""
    place = tmp_path / "home"
    place.mkdir()
    shutil.copy(picture, place / "a.png")
    monkeypatch.setenv("HOME", str(place))
    monkeypatch.setenv("USERPROFILE", str(place))
    return place


def test_the_home_folder_wherever_a_path_is_taken(call, home, tmp_path):
    answer = call("animate", "~/a.png", "x", *SMALL, "--output=~/clip.webp", "-q")
    assert answer.code == 0, answer.err
    assert (home / "clip.webp").is_file()
    assert call("animate", "--like=~/clip.webp", "--image=~/a.png", "-o", "~/again.webp", "-q").code == 0
    assert (home / "again.webp").read_bytes() == (home / "clip.webp").read_bytes()
    assert call("info", "~/clip.webp").code == call("quality", "~/clip.webp", "~/again.webp").code == 0
    (home / "many.jsonl").write_text(json.dumps({"image": "~/a.png", "prompt": "x"}))
    assert call("animate", "--batch=~/many.jsonl", "--output=~/clips/deep", *SMALL, "-q").code == 0
    assert [path.name for path in (home / "clips" / "deep").glob("*.mp4")] == ["x-seed1.mp4"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home"]
    # A user who does not exist is a name like any other.
    assert call("info", "~nobody-of-this-name/a.mp4").code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["info", "https://example.com/a.mp4"],
        ["quality", "s3://bucket/a.mp4", "b.mp4"],
        ["animate", "a.png", "x", "-o", "https://example.com/a.mp4"],
        ["animate", "--like", "https://example.com/a.mp4"],
        ["animate", "--batch", "https://example.com/a.jsonl"],
        ["serve", "--data", "s3://bucket/folder"],
        ["lora", "train", "https://example.com/clips", "a.safetensors"],
    ],
)
def test_an_address_is_told_to_be_one(call, arguments):
    answer = call(*arguments)
    assert answer.code == 2 and "an address: only paths on this machine are taken" in answer.err
    assert "://" in answer.err and answer.err.count("\n") == 1


def test_the_folder_of_a_batch_is_made_and_a_refused_batch_leaves_none(call, home, tmp_path):
    (tmp_path / "many.jsonl").write_text(json.dumps({"image": "home/a.png", "prompt": "x", "lora": 1}))
    assert call("animate", "--batch", "many.jsonl", "-o", "clips/", *SMALL).code == 2
    (tmp_path / "many.jsonl").write_text(json.dumps({"image": "gone.png", "prompt": "x"}))
    assert call("animate", "--batch", "many.jsonl", "-o", "clips/a/b", *SMALL).code == 2
    (tmp_path / "many.jsonl").write_text(json.dumps({"image": "home/a.png", "prompt": "x"}))
    assert call("plan", "--batch", "many.jsonl", "-o", "clips/a/b", *SMALL).code == 0
    assert not (tmp_path / "clips").exists()
    for name in ("home/a.png", "clips.mp4"):
        answer = call("animate", "--batch", "many.jsonl", "-o", name, *SMALL)
        assert answer.code == 2 and "-o names the folder for all clips" in answer.err
    assert call("animate", "--batch", "many.jsonl", "-o", "home/a.png/clips", *SMALL).code == 2
    assert call("animate", "--batch", "many.jsonl", "-o", "clips/", *SMALL).code == 0
    assert len(list((tmp_path / "clips").glob("*.mp4"))) == 1


ODD = ["new\nline", "escape\x1b[2J", "-leading", "sp  ace", "\u202eleft", "a" * 300, "surrogate\udcff", "tab\t", "a\0b"]


@pytest.mark.parametrize("name", ODD)
def test_odd_names_are_told_in_one_line(call, tmp_path, name):
    for command in (["info"], ["quality", name], ["animate", "--like"], ["animate", "--batch"], ["plan", "--like"]):
        place = name if name != "-leading" or command[-1].startswith("--") else f"./{name}"
        answer = call(*[place if word == name else word for word in command], place)
        assert answer.code == 2, (command, answer.err)
        assert answer.err.count("\n") == 1 and all(letter.isprintable() for letter in answer.err[:-1]), answer.err
        assert "something failed" not in answer.err
    for arguments in (["animate", f"./{name}", "x"], ["plan", f"./{name}", "x"], ["doctor", "--golden", f"./{name}"]):
        answer = call(*arguments)
        assert answer.code == 2 and "something failed" not in answer.err, answer.err
        assert answer.err.count("\n") == 1 and all(letter.isprintable() for letter in answer.err[:-1]), answer.err


@pytest.mark.parametrize("name", [name for name in ODD if len(name) < 300 and "\0" not in name])
def test_odd_names_of_clips_are_taken(call, home, name):
    answer = call("animate", "home/a.png", "x", *SMALL, f"--output=./{name}.webp")
    assert answer.code == 0, answer.err
    assert answer.out.count("\n") == 1 and all(letter.isprintable() for letter in answer.out[:-1])
    assert os.path.isfile(f"{name}.webp")
    assert call("info", f"./{name}.webp").code == 0


def test_more_memory_than_there_is_is_said(call, home):
    answer = call("plan", "home/a.png", "x", *SMALL, "--memory", "900TB")
    assert answer.code == 0 and "more than torch:cpu has in all" in answer.err
    answer = call("plan", "home/a.png", "x", *SMALL, "--memory", "8")
    assert answer.code == 2 and "did you mean 8GB?" in answer.err


def test_help_as_a_word(call):
    assert call("help").out == call("--help").out
    assert call("help", "lora", "train").out == call("lora", "train", "--help").out
    assert call("help", "nothing").code == 2
