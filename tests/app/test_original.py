"""The original's command line: published calls, every flag, file names."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from lora_files import keys_of, write
from toy_layouts import write_tencent, write_wide_toy

from framewake.app.original import file_name, files_of, main, notes_on, translate
from framewake.app.original_flags import FLAGS, parser
from framewake.errors import InputError
from framewake.media.video import read_metadata, read_video
from framewake.weights.checkpoint.layouts import Files

PROMPT = "An Asian man with short hair waves a firework stick."
PUBLISHED = (
    "--model HYVideo-T/2 --i2v-mode --i2v-resolution 720p {} --infer-steps 50 --video-length 129 --flow-reverse "
    "--flow-shift {} --seed 0 --embedded-cfg-scale 6.0 --save-path ./results"
)


def parsed(text):
    return vars(parser().parse_args(text.split()))


def test_the_published_stable_call_runs(call_original, picture, tmp_path):
    text = PUBLISHED.format("--i2v-stability", "7.0").replace("129", "5").replace("50", "2")
    answer = call_original("--prompt", PROMPT, "--i2v-image-path", picture, *text.split())
    assert answer.code == 0, answer.err
    assert "Note" not in answer.err
    [clip] = (tmp_path / "results").iterdir()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d-\d\d:\d\d:\d\d_seed0_" + re.escape(PROMPT) + r"\.mp4", clip.name)
    request = read_metadata(clip)["request"]
    assert (request["is_stable"], request["flow_shift"], request["frames"], request["steps"]) == (True, 7.0, 5, 2)
    assert request["embedded_guidance"] == 6.0 and read_metadata(clip)["crf"] == 23


def test_the_published_settings():
    got = translate(parsed(f"--prompt x --i2v-image-path a.png {PUBLISHED.format('--i2v-stability', '7.0')}")).request
    assert (got.frames, got.steps, got.seed, got.resolution, got.precision) == (129, 50, 0, "720p", "auto")
    got = translate(parsed(f"--prompt x --i2v-image-path a.png {PUBLISHED.format('', '17.0')}")).request
    assert (got.is_stable, got.flow_shift) == (False, 17.0)


def test_the_published_lora_call_runs(call_original, picture, tmp_path):
    text = PUBLISHED.format("--i2v-stability --use-lora --lora-scale 0.5", "5.0").replace("129", "5").replace("50", "2")
    path = write(tmp_path / "a.safetensors", keys_of("official"))
    given = ("--prompt", PROMPT, "--i2v-image-path", picture, *text.split())
    answer = call_original(*given, "--lora-path", path)
    assert answer.code == 0, answer.err
    assert f"LoRA {path} at 0.5: official format" in answer.err
    [clip] = (tmp_path / "results").iterdir()
    assert read_metadata(clip)["request"]["loras"] == [f"{path}:0.5"]
    answer = call_original(*given)
    assert answer.code == 2 and "--use-lora needs --lora-path" in answer.err
    answer = call_original(*given, "--lora-path", "gone.safetensors")
    assert answer.code == 3 and "no such LoRA" in answer.err and answer.err.count("\n") == 1


def test_every_flag_is_accepted_and_unused_ones_are_named_once():
    assert len(FLAGS) == len({flag.name for flag in FLAGS}) == 63
    words = []
    for flag in FLAGS:
        if flag.name in ("use-lora", "prompt"):
            continue
        value = {"seed": 1, "neg-prompt": "x", "embedded-cfg-scale": 6.0}.get(flag.name, flag.default)
        values = [] if flag.kind is bool else [str(v) for v in (value if flag.takes_many else [value])]
        words += [f"--{flag.name}", *(values if values != [""] else ["x"])]
    given = vars(parser().parse_args([*words, "--prompt", "x"]))
    notes = translate(given).notes
    [warning] = [note for note in notes if "have no meaning" in note]
    without_lora = ("lora-path", "lora-scale")
    for flag in FLAGS:
        assert (f"--{flag.name}," in f"{warning[:-1]},") == (not flag.is_used or flag.name in without_lora), flag.name


def test_missing_flags_get_the_right_behaviour_and_a_note(call_original, picture, tmp_path):
    base = ("--prompt", "x", "--i2v-image-path", picture, "--video-length", 5, "--infer-steps", 1)
    answer = call_original(*base, "--i2v-mode", "--seed", 5)
    assert answer.code == 0, answer.err
    assert "--flow-reverse is missing" in answer.err and "--embedded-cfg-scale is missing" in answer.err
    complete = ("--flow-reverse", "--embedded-cfg-scale", "6.0", "--seed", 5, "--save-path", "other")
    assert "missing" not in call_original(*base, "--i2v-mode", *complete).err
    [first], [second] = (list((tmp_path / name).iterdir()) for name in ("results", "other"))
    assert read_metadata(first) == read_metadata(second)


def test_several_videos(call_original, picture, tmp_path):
    text = "--i2v-mode --video-length 1 --infer-steps 1 --seed 7 --num-videos 2 --save-path a --save-path-suffix b"
    assert call_original("--prompt", "x", "--i2v-image-path", picture, *text.split()).code == 0
    assert sorted(p.name.split("_")[1] for p in (tmp_path / "a_b").iterdir()) == ["seed7", "seed8"]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("--i2v-mode", "--i2v-image-path"),
        ("--i2v-mode --i2v-image-path gone.png", "gone.png"),
        ("--i2v-image-path {} --video-length 6", "nearest is 5"),
        ("--i2v-image-path {} --video-length many", "--video-length"),
        ("--i2v-image-path {} --i2v-resolution 1080p", "1080p"),
        ("--i2v-image-path {} --i2v-condition-type latent_concat", "token_replace"),
        ("--i2v-image-path {} --ulysses-degree 0", "expected 1 or more"),
        ("--i2v-image-path {} --denoise-type ddpm", "flow"),
        ("--i2v-image-path {} --num-videos 0", "--num-videos"),
        ("--nonsense", "--nonsense"),
    ],
)
def test_mistakes(call_original, picture, text, word):
    answer = call_original("--prompt", "x", *text.format(picture).split())
    assert answer.code == 2 and word in answer.err and answer.err.count("\n") == 1, answer.err


def test_no_prompt(call_original, picture):
    answer = call_original("--i2v-mode", "--i2v-image-path", picture)
    assert answer.code == 2 and "--prompt" in answer.err


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    """The same weights as the diffusers layout has them, and as the original's."""
    source = write_wide_toy(tmp_path_factory.mktemp("source"))
    return source, write_tencent(tmp_path_factory.mktemp("ckpts"), source)


def made(call, place, picture, *more):
    flags = ["--prompt", "x", "--i2v-mode", "--i2v-image-path", picture, "--seed", 3, "--save-path", "out"]
    answer = call(*flags, "--model-base", place, *more, program=main)
    assert answer.code == 0, answer.err
    [clip] = Path("out").iterdir()
    frames = read_video(clip)[0]
    clip.unlink()
    return frames


def test_tencents_tree_is_read(call, picture, trees):
    source, tree = trees
    expected = made(call, source, picture)
    assert np.array_equal(made(call, tree, picture), expected)
    weight = tree / "hunyuan-video-i2v-720p" / "transformers"
    for name in (weight, weight / "mp_rank_00_model_states.pt"):
        assert np.array_equal(made(call, source, picture, "--i2v-dit-weight", name), expected)


def test_a_missing_transformer(call_original, picture):
    answer = call_original("--prompt", "x", "--i2v-image-path", picture, "--i2v-dit-weight", "mine.pt")
    assert answer.code == 3 and "mine.pt is missing" in answer.err


def test_the_transformer_of_text_alone(call_original, picture):
    """The original reads --dit-weight without a picture, and --i2v-dit-weight with one."""
    assert files_of({"prompt": "x", "dit_weight": "mine.pt"}) == Files(dit=Path("mine.pt"))
    both = {"prompt": "x", "i2v_image_path": str(picture), "dit_weight": "mine.pt"}
    assert files_of(both) == Files()
    assert any("--i2v-dit-weight counts" in note for note in notes_on(both))
    answer = call_original("--prompt", "x", "--dit-weight", "mine.pt")
    assert answer.code == 3 and "mine.pt is missing" in answer.err


def test_file_names():
    assert file_name(" a/b c ", 3, "M") == "M_seed3_ab c.mp4"
    assert file_name("/" * 99 + "abc", 3, "M") == "M_seed3_a.mp4"
    assert len(file_name("雪" * 200, 3, "M").encode()) <= 255


def test_the_model_base(monkeypatch):
    given = {"prompt": "x", "i2v_image_path": "a.png"}
    monkeypatch.delenv("MODEL_BASE", raising=False)
    assert translate(given).checkpoint == "ckpts"
    monkeypatch.setenv("MODEL_BASE", "/models")
    assert translate(given).checkpoint == "/models"
    assert translate(given | {"model_base": "demo"}).checkpoint == "demo"
    with pytest.raises(InputError):
        translate({})
