"""`framewake animate --lora` and `framewake lora`, as they are called."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from lora_files import TARGETS, adapted, keys_of, write

from framewake.media.video import read_metadata, read_video
from framewake.weights.load import open_checkpoint

PROMPT = "the red circle moves left"
SMALL = ("--resolution", "360p")


@pytest.fixture
def lora(tmp_path):
    return write(tmp_path / "a.safetensors", keys_of("kohya"))


def frames_of(path):
    return read_video(path)[0]


def test_a_clip_with_loras_is_made_again_from_itself(call, picture, lora):
    options = (*SMALL, "--seed", 4, "-o", "one.webp", "--lora", f"{lora}:0.1", "--lora", f"{lora}:1-2=0.1")
    answer = call("animate", picture, PROMPT, *options)
    assert answer.code == 0 and answer.err.count(f"LoRA {lora} at 0.1: kohya format") == 2, answer.err
    assert call("animate", "--like", "one.webp", "-o", "two.webp").code == 0
    assert np.array_equal(frames_of("one.webp"), frames_of("two.webp"))
    assert call("animate", picture, PROMPT, *SMALL, "--seed", 4, "-o", "plain.webp").code == 0
    assert not np.array_equal(frames_of("one.webp"), frames_of("plain.webp"))
    assert read_metadata("plain.webp")["request"]["loras"] == []
    assert f"{lora}:0.1, {lora}:1-2=0.1" in call("info", "one.webp").out
    assert "\nloras:" not in call("info", "plain.webp").out


def test_switches(call, picture, tmp_path):
    tensors = keys_of("kohya") | {"extra": np.zeros(1, np.float32)}
    path = write(tmp_path / "b.safetensors", tensors)
    answer = call("animate", picture, PROMPT, *SMALL, "--lora", path)
    assert answer.code == 3 and "'extra'" in answer.err and answer.err.count("\n") == 1
    answer = call("animate", picture, PROMPT, *SMALL, "--lora", path, "--lora-partial", "--lora-ignore-alpha", "--json")
    events = [json.loads(line) for line in answer.out.splitlines()]
    assert any("1 keys left out" in event.get("text", "") for event in events)
    request = events[-1]["metadata"]["request"]
    assert request["allows_partial_loras"] and request["ignores_lora_alpha"]


def test_mistakes(call, picture, lora):
    for text, code, words in [
        ("gone.safetensors", 3, "no such LoRA"),
        (f"{lora}:much", 2, "'much' is no number"),
        (f"{lora}:0-1=1,7-9=1", 2, "never comes"),
    ]:
        answer = call("animate", picture, PROMPT, *SMALL, "--lora", text)
        assert answer.code == code and words in answer.err and answer.err.count("\n") == 1


def test_info(call, lora, toy):
    answer = call("lora", "info", lora, "--checkpoint", toy)
    assert answer.code == 0, answer.err
    assert f"{len(adapted())} of {len(adapted())} modules matched" in answer.out
    assert re.search(r"largest change [\d.]+ % \(", answer.out)
    facts = json.loads(call("lora", "info", lora, "--checkpoint", toy, "--json").out)
    assert facts["format"] == "kohya" and facts["ranks"] == [4, 5] and facts["touched"] == len(adapted())


def test_info_without_a_checkpoint_means_the_published_model(call, lora, monkeypatch):
    monkeypatch.delenv("FRAMEWAKE_CHECKPOINT")
    answer = call("lora", "info", lora)
    assert answer.code == 3 and "a model of another size" in answer.err
    assert "the published model's: name another with --checkpoint" in answer.err


def test_convert_and_merge(call, lora, toy, picture):
    answer = call("lora", "convert", lora, "d.safetensors", "--format", "diffusers", "--checkpoint", toy)
    assert answer.code == 0 and "diffusers format, from kohya" in answer.out, answer.err
    assert call("lora", "convert", lora, "e.safetensors", "--format", "kohia").code == 2
    assert call("lora", "convert", lora, "d.safetensors", "--format", "kohya").code == 3
    answer = call("lora", "merge", toy, "d.safetensors:0.1", "merged")
    assert answer.code == 0 and f"{len(TARGETS.shapes)} changed weights" in answer.out, answer.err
    assert open_checkpoint("merged").dit == open_checkpoint(toy).dit
    for name, more in [("one.webp", ("--lora", f"{lora}:0.1")), ("two.webp", ("--checkpoint", "merged"))]:
        assert call("animate", picture, PROMPT, *SMALL, "--seed", 4, "-o", name, *more).code == 0
    difference = np.abs(frames_of("one.webp").astype(int) - frames_of("two.webp").astype(int))
    assert difference.max() <= 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("merge", "{toy}", "x"), "a LoRA and a new folder"),
        (("merge", "{toy}", "{lora}:0-3=1", "new"), "the same at every step"),
        (("merge", "{toy}", "{lora}", "{toy}"), "already exists"),
    ],
)
def test_merges_that_cannot_be(call, lora, toy, arguments, words):
    answer = call("lora", *(text.format(lora=lora, toy=toy) for text in arguments))
    assert answer.code in (2, 3) and words in answer.err and answer.err.count("\n") == 1
