"""`framewake animate --lora` and `framewake lora`, as they are called."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from lora_files import TARGETS, adapted, keys_of, write
from PIL import Image

from framewake.media.video import read_metadata, read_video
from framewake.weights.checkpoint.load import open_checkpoint

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


def test_info_shows_what_a_file_says_of_itself(call, tmp_path, toy):
    said = {"ss_tag_frequency": "words " * 100, "ss_comment": "red\x1b[31m"}
    write(tmp_path / "b.safetensors", keys_of("kohya"), said)
    lines = call("lora", "info", "b.safetensors", "--checkpoint", toy).out.splitlines()
    assert "  ss_comment: red\\u001b[31m" in lines
    cut = next(line for line in lines if line.startswith("  ss_tag_frequency: words"))
    assert cut.endswith("...") and len(cut) < 130
    record = json.loads(call("lora", "info", "b.safetensors", "--checkpoint", toy, "--json").out)
    assert record["metadata"].items() >= said.items()


def test_a_file_for_neither_published_model_asks_for_a_checkpoint(call, lora, monkeypatch):
    monkeypatch.delenv("FRAMEWAKE_CHECKPOINT")
    answer = call("lora", "info", lora)
    assert answer.code == 3 and "a model of another size" in answer.err
    assert "against HunyuanVideo and HunyuanVideo-1.5 as published: name another with --checkpoint" in answer.err


def pair(module, width, kind="AB"):
    """Factors of a square layer."""
    down, up = np.ones((2, width), np.float32), np.ones((width, 2), np.float32)
    return {f"{module}.lora_{kind[0]}.weight": down, f"{module}.lora_{kind[1:]}.weight": up}


@pytest.mark.parametrize(
    ("model", "style", "tensors"),
    [
        ("HunyuanVideo-1.5", "official", pair("double_blocks.53.img_attn_q", 2048)),
        ("HunyuanVideo-1.5", "diffusers", pair("transformer.transformer_blocks.0.attn.to_q", 2048)),
        ("HunyuanVideo-1.5", "comfyui", pair("time_r_in.mlp.2", 2048)),
        ("HunyuanVideo", "comfyui", pair("diffusion_model.double_blocks.0.img_attn_proj", 3072)),
        ("HunyuanVideo", "diffusers", pair("transformer.transformer_blocks.0.attn.to_q", 3072)),
    ],
)
def test_tensors_tell_the_published_model(call, monkeypatch, model, style, tensors):
    monkeypatch.delenv("FRAMEWAKE_CHECKPOINT")
    write("a.safetensors", tensors)
    record = json.loads(call("lora", "info", "a.safetensors", "--json").out)
    assert (record["model"], record["format"], record["matched"]) == (model, style, 1)
    assert f"\n  model: {model}" in call("lora", "info", "a.safetensors").out
    answer = call("lora", "convert", "a.safetensors", "b.safetensors", "--format", "kohya")
    assert answer.code == 0 and "1 modules in kohya format" in answer.out, answer.err


def test_tensors_that_fit_both_published_models_ask_for_a_checkpoint(call, monkeypatch):
    monkeypatch.delenv("FRAMEWAKE_CHECKPOINT")
    write("a.safetensors", {"diffusion_model.double_blocks.0.img_attn_q_norm.diff": np.ones(128, np.float32)})
    answer = call("lora", "info", "a.safetensors")
    assert answer.code == 2 and "fit HunyuanVideo and HunyuanVideo-1.5 alike" in answer.err, answer.err
    assert "--checkpoint" in answer.err


def test_convert_and_merge(call, lora, toy, picture):
    answer = call("lora", "convert", lora, "d.safetensors", "--format", "diffusers", "--checkpoint", toy)
    assert answer.code == 0 and "diffusers format, from kohya" in answer.out, answer.err
    assert call("lora", "convert", lora, "e.safetensors", "--format", "kohia").code == 2
    assert call("lora", "convert", lora, "d.safetensors", "--format", "kohya").code == 3
    answer = call("lora", "merge", toy, "d.safetensors:0.1", "merged")
    assert answer.code == 0 and f"{len(TARGETS.shapes)} changed weights" in answer.out, answer.err
    assert open_checkpoint("merged").dit == open_checkpoint(toy).dit
    # As PNG files: what WebP makes of one level more is another picture by ten.
    for name, more in [("one", ("--lora", f"{lora}:0.1")), ("two", ("--checkpoint", "merged"))]:
        assert call("animate", picture, PROMPT, *SMALL, "--seed", 4, "-o", f"{name}/", *more).code == 0
    clips = [
        np.stack([np.asarray(Image.open(path)).astype(int) for path in sorted(Path(name).glob("*.png"))])
        for name in ("one", "two")
    ]
    assert np.abs(clips[0] - clips[1]).max() <= 1


def test_the_one_that_ships_needs_no_checkpoint(call, monkeypatch):
    monkeypatch.delenv("FRAMEWAKE_CHECKPOINT", raising=False)
    answer = call("lora", "info", "demo/trails")
    assert answer.code == 0 and "43 of 43 modules matched" in answer.out and "largest change" in answer.out, answer.err
    answer = call("lora", "convert", "demo/trails", "t.safetensors", "--format", "diffusers")
    assert answer.code == 0 and "69 modules in diffusers format" in answer.out, answer.err


def test_one_of_several_adapters(call, toy):
    tensors = {}
    for name in ("one", "two"):
        for key, x in keys_of("comfyui", "lora_A", names=["single_blocks.0.linear2.weight"]).items():
            tensors[key.replace(".weight", f".{name}.weight") if "lora_" in key else key] = x
    write("b.safetensors", tensors)
    answer = call("lora", "info", "b.safetensors", "--checkpoint", toy)
    assert answer.code == 3 and "2 adapters: one, two" in answer.err and answer.err.count("\n") == 1
    options = ("--adapter", "two", "--checkpoint", toy)
    assert call("lora", "info", "b.safetensors", *options).code == 0
    answer = call("lora", "convert", "b.safetensors", "two.safetensors", "--format", "kohya", *options)
    assert answer.code == 0 and call("lora", "info", "two.safetensors", "--checkpoint", toy).code == 0, answer.err


def test_a_conversion_says_what_it_leaves_out(call, toy):
    name = "single_blocks.0.linear2"
    tensors = keys_of("comfyui", names=[f"{name}.weight"]) | {f"diffusion_model.{name}.diff_b": np.ones(32, np.float32)}
    write("c.safetensors", tensors)
    arguments = ("lora", "convert", "c.safetensors", "d.safetensors", "--format", "official", "--checkpoint", toy)
    answer = call(*arguments)
    assert answer.code == 3 and "cannot hold" in answer.err and "--format kohya" in answer.err
    answer = call(*arguments, "--lora-partial")
    assert answer.code == 0 and "without 1 change that it cannot hold" in answer.out, answer.err


@pytest.mark.parametrize("command", ["animate", "plan", "info", "merge"])
def test_numbers_that_cannot_be_meant_are_refused_at_every_door(call, picture, toy, command):
    """Eight-bit numbers without their scales, of a type that could be plain."""
    tensors = keys_of("kohya", names=["single_blocks.0.linear2.weight"])
    write("e.safetensors", {key: x if "alpha" in key else x * np.float32(500) for key, x in tensors.items()})
    arguments = {
        "animate": ("animate", picture, PROMPT, *SMALL, "--lora", "e.safetensors"),
        "plan": ("plan", picture, PROMPT, *SMALL, "--lora", "e.safetensors"),
        "info": ("lora", "info", "e.safetensors", "--checkpoint", toy),
        "merge": ("lora", "merge", toy, "e.safetensors", "new"),
    }[command]
    answer = call(*arguments)
    assert answer.code == 3 and "nothing would be left of it" in answer.err and answer.err.count("\n") == 1, answer.err


def test_a_pt_file_is_a_lora_too(call, toy):
    torch = pytest.importorskip("torch")
    tensors = keys_of("kohya", names=["single_blocks.0.linear2.weight"])
    torch.save({key: torch.from_numpy(np.array(x)) for key, x in tensors.items()}, "f.pt")
    answer = call("lora", "info", "f.pt", "--checkpoint", toy)
    assert answer.code == 0 and "1 of 1 modules matched" in answer.out, answer.err


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
