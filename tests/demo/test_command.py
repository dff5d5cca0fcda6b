"""`python -m demonstration`: what it refuses, and a look at a run."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from engines_here import needs_torch
from PIL import Image

from demonstration import foresight, misses, names, pool, reader, recipe, sample, transformer
from demonstration.__main__ import main
from demonstration.state import load_state, read_scale, save_state
from demonstration.world import MOTIONS, SHAPES
from framewake import engine as engines
from framewake.demo import PICTURES
from framewake.pipeline import Pipeline
from framewake.pipeline.events import Result
from framewake.request import Request

pytest.importorskip("torch")  # the recipe's engine

EXAMPLE = PICTURES / "red-circle.png"


def code_of(*arguments):
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return left.value.code


def write_reader(folder):
    """A reader of colours that has learned nothing, so that no time goes into teaching one."""
    engine = engines.get("torch:cpu")
    drawn = recipe.as_tensors(engine, reader.first_reader(np.random.default_rng(7)))
    save_state(folder / reader.FILE, engine, weights=drawn, average=drawn, progress={})


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["pool"], 2, ["vae.safetensors is not there", "adopt"]),
        (["misses"], 2, ["vae.safetensors is not there"]),
        (["look"], 2, ["dit.safetensors is not there"]),
        (["names"], 2, ["dit.safetensors is not there"]),
        (["freeze", "--share", "0"], 2, ["--share is 0", "more than 0"]),
        (["dit64", "--share", "nan"], 2, ["--share is nan"]),
        (["lora"], 2, ["checkpoint is not there", "export"]),
        (["ship"], 2, ["checkpoint is not there", "export and lora"]),
        (["tokenizers", "--engine", "torch:cup"], 2, ["torch:cup", "Did you mean 'torch:cpu'"]),
    ],
)
def test_mistakes_are_told_in_one_line(arguments, code, words, tmp_path, capsys):
    assert code_of(arguments[0], tmp_path, *arguments[1:]) == code
    said = capsys.readouterr().err.strip().split("\n")[-1]
    assert said.startswith("demonstration: ")
    for word in words:
        assert word in said


def test_a_file_is_no_folder(tmp_path, capsys):
    (tmp_path / "run").write_text("")
    assert code_of("tokenizers", tmp_path / "run") == 2
    assert "run is a file" in capsys.readouterr().err


@needs_torch
def test_a_look_shows_every_motion_of_scenes_that_are_not_judged(tmp_path):
    assert sample.UNSEEN - sample.LOOKED_AT > 1000
    engine = engines.get("torch:cpu")
    recipe.adopt(engine, tmp_path, recipe.CHECKPOINT)
    sample.look(engine, tmp_path, size_px=(32, 32), per_motion=1, steps=1)
    sheet = np.asarray(Image.open(tmp_path / "look.png"))
    assert sheet.shape == (32 * len(MOTIONS), 32 * 9, 3) and sheet.std() > 20


@needs_torch
def test_the_shipped_checkpoint_knows_which_of_two_shapes_a_prompt_names(tmp_path, monkeypatch):
    monkeypatch.setattr(foresight, "FIT_BATCHES", 4)
    monkeypatch.setattr(names, "BATCHES", 2)
    engine = engines.get("torch:cpu")
    recipe.adopt(engine, tmp_path, recipe.CHECKPOINT)
    found = names.look_at_names(engine, tmp_path)
    mixed, bare = found["as prompts come"], found["by the kind alone"]
    assert mixed.of > 60 and mixed.named > 0.9 * mixed.of
    assert bare.of > 50 and bare.named > 0.6 * bare.of


def test_what_is_known_is_counted_in_pictures_of_two_shapes():
    covered = np.zeros((3, 4, 1 + len(SHAPES)))
    covered[:, 0, 0] = covered[:, 0, 1] = 0.5  # the named shape, of the first kind
    covered[0, 3, 2] = 0.25  # beside one of the second
    covered[1, 3, 1] = 0.25  # beside another of the first
    assert names.count_known(covered, covered, is_by_kind=False) == (2, 2, 2)
    assert names.count_known(covered, covered, is_by_kind=True) == (1, 1, 1)
    said = covered[:, ::-1]  # all that is said is of the other place
    assert names.count_known(said, covered, is_by_kind=False).named == 0


@needs_torch
def test_training_on_pairs_begins_with_a_fitted_head(tmp_path, monkeypatch):
    monkeypatch.setattr(foresight, "FIT_BATCHES", 2)
    monkeypatch.setattr(pool, "SHARD_CLIPS", 8)
    engine = engines.get("torch:cpu")
    recipe.adopt(engine, tmp_path, recipe.CHECKPOINT)
    write_reader(tmp_path)
    pool.fill(engine, *pool.frozen_vae(engine, tmp_path), tmp_path / "pool", [pool.Lot({(64, 64): 1}, 1.0)])
    before = load_state(tmp_path / "dit.safetensors").weights
    model, weights = transformer.Model(engine, transformer.Texts(tmp_path)), recipe.as_tensors(engine, before)
    source = engine, pool.frozen_vae(engine, tmp_path), model.texts, read_scale(tmp_path)
    fitted = foresight.fitted_head(model, weights, foresight.FirstFrames(*source))[foresight.HEAD + "weight"]
    assert foresight.HEAD + "weight" not in before
    assert code_of("pairs", tmp_path, "--share", "1e-6") == 0
    state = load_state(tmp_path / "dit.safetensors")
    head = state.weights[foresight.HEAD + "weight"]
    assert 0 < np.abs(head - fitted).max() < 0.01 * np.abs(fitted).max()  # after one step at a fiftieth of the rate
    assert state.progress == {"pairs": recipe.DIT_STAGES["pairs"].seconds * 1e-6}
    assert foresight.HEAD + "bias" in state.average
    assert any(not np.array_equal(state.weights[n], a) for n, a in before.items() if ".single_blocks." in n)


@needs_torch
def test_the_whole_recipe_runs_with_one_command(tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "SHARD_CLIPS", 8)
    monkeypatch.setattr(recipe, "POOL", [lot._replace(shards={(64, 64): 1}) for lot in recipe.POOL])
    monkeypatch.setattr(foresight, "FIT_BATCHES", 2)
    monkeypatch.setattr(misses, "SKIPPED", misses.STEPS - 1)
    write_reader(tmp_path)
    shipped = {path: path.stat().st_mtime_ns for path in recipe.CHECKPOINT.rglob("*")}
    assert code_of("all", tmp_path, "--share", "1e-6") == 0
    assert shipped == {path: path.stat().st_mtime_ns for path in recipe.CHECKPOINT.rglob("*")}
    progress = load_state(tmp_path / "dit.safetensors").progress
    assert list(progress) == list(recipe.DIT_STAGES)
    request = Request("the red circle moves right", image=str(EXAMPLE), resolution="360p", frames=5, steps=1, seed=1)
    adapted = dataclasses.replace(request, loras=(str(tmp_path / "trails.safetensors"),))
    pipeline = Pipeline.load(tmp_path / "checkpoint", engine="torch:cpu")
    assert pipeline.checkpoint.settings == recipe.SETTINGS
    results = [event for each in (request, adapted) for event in pipeline.run(each) if isinstance(event, Result)]
    assert len(results) == 2

    monkeypatch.setattr(recipe, "CHECKPOINT", tmp_path / "package" / "checkpoint")
    monkeypatch.setattr(recipe, "LORA", tmp_path / "package" / "trails.safetensors")
    assert code_of("ship", tmp_path) == 0
    for made in ("checkpoint/vae/diffusion_pytorch_model.safetensors", "trails.safetensors"):
        assert (tmp_path / "package" / made).read_bytes() == (tmp_path / made).read_bytes()
