"""`python -m framewake.demo`: what it refuses, and a look at a run."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from framewake import engine as engines
from framewake.demo import recipe, sample
from framewake.demo.__main__ import main
from framewake.demo.world import MOTIONS

pytest.importorskip("torch")  # the recipe's engine


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["pool64"], 2, ["vae.safetensors is not there", "adopt"]),
        (["misses"], 2, ["vae.safetensors is not there"]),
        (["look"], 2, ["dit.safetensors is not there"]),
        (["freeze", "--seconds", "0"], 2, ["--seconds is 0", "more than 0"]),
        (["dit64", "--seconds", "nan"], 2, ["--seconds is nan"]),
        (["tokenizers", "--engine", "torch:cup"], 4, ["torch:cup", "Did you mean 'torch:cpu'"]),
    ],
)
def test_mistakes_are_told_in_one_line(arguments, code, words, tmp_path, capsys):
    assert main([arguments[0], str(tmp_path), *arguments[1:]]) == code
    said = capsys.readouterr().err.strip().split("\n")[-1]
    assert said.startswith("framewake.demo: ")
    for word in words:
        assert word in said


def test_a_file_is_no_folder(tmp_path, capsys):
    (tmp_path / "run").write_text("")
    assert main(["tokenizers", str(tmp_path / "run")]) == 2
    assert "run is a file" in capsys.readouterr().err


def test_a_look_shows_every_motion_of_scenes_that_are_not_judged(tmp_path):
    assert sample.UNSEEN - sample.LOOKED_AT > 1000
    engine = engines.get("torch:cpu")
    recipe.adopt(engine, tmp_path, recipe.CHECKPOINT)
    sample.look(engine, tmp_path, size_px=(32, 32), per_motion=1, steps=1)
    sheet = np.asarray(Image.open(tmp_path / "look.png"))
    assert sheet.shape == (32 * len(MOTIONS), 32 * 9, 3) and sheet.std() > 20
