"""The training forward and its gradients: against the merged weights, against each other, against differences."""

from __future__ import annotations

import functools
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from lora_files import SHAPES
from toy_training import ALPHA, RANK, Task, apart, batch_of

from framewake import engine as engines
from framewake.config import HUNYUAN_DIT
from framewake.config15 import HUNYUAN15_DIT
from framewake.errors import InputError
from framewake.golden import rule
from framewake.models.dit import DiT
from framewake.pipeline.hunyuan import HUNYUAN
from framewake.pipeline.hunyuan15 import HUNYUAN15
from framewake.train.adapted import Dressed
from framewake.train.factors import chosen, start
from framewake.train.optimiser import OptimiserState
from framewake.train.settings import Training
from framewake.train.writer import write_lora
from framewake.weights.lora.file import open_lora
from framewake.weights.lora.keys import FORMATS
from framewake.weights.lora.targets import Targets
from framewake.weights.lora.view import LoraView
from framewake.weights.reading.names15 import published_dit

INSTALLED = [f"{kind}:cpu" for kind in ("torch", "mindspore") if importlib.util.find_spec(kind)]
PATTERNS = HUNYUAN.trained.modules
MODULES = chosen(SHAPES, PATTERNS)
KEYS = Path(__file__).parents[1] / "data" / "lora-keys.json"


def test_engines_agree_on_every_gradient():
    if len(INSTALLED) < 2:
        pytest.skip("one engine is installed")
    tasks = [Task(engines.get(name)) for name in INSTALLED]
    (one, first), (_, second) = (t.walk()(t.factors, t.resident(), batch_of(t.engine, 2)) for t in tasks)
    assert abs(one - tasks[1].whole(tasks[1].resident(), batch_of(tasks[1].engine, 2))[0]) < 1e-5 * one
    largest = apart(second, first)
    assert largest < 2e-4, f"largest relative difference {largest:.1e}"


def test_gradients_are_those_of_differences(engine):
    task, data = Task(engine), batch_of(engine, 2)
    base, walk = task.resident(), task.walk()
    _, found = walk(task.factors, base, data)
    for name in ("single_blocks.0.linear1.lora_down.weight", "double_blocks.0.txt_attn_qkv.lora_up.weight"):
        way = rule.input(f"way.{name}", task.factors[name].shape, 4)
        values = []
        for stride in (0.02, -0.02):
            moved = task.factors | {name: task.factors[name] + way * np.float32(stride)}
            values.append(walk(moved, base, data)[0])
        slope = (values[0] - values[1]) / 0.04
        assert slope == pytest.approx(float((found[name] * way).sum()), rel=0.02, abs=1e-4)


def test_only_factors_have_gradients_and_the_base_stays(engine):
    task = Task(engine)
    base = task.resident()
    before = {name: np.array(engine.numpy(x)) for name, x in base.part("").items()}
    _, found = task.walk()(task.factors, base, batch_of(engine, 2))
    assert set(found) == set(task.factors) and len(found) == 2 * len(task.modules)
    assert all(np.abs(x).max() > 0 for x in found.values())
    assert all(np.array_equal(engine.numpy(x), before[name]) for name, x in base.part("").items())


@pytest.mark.parametrize(
    ("family", "condition", "style"),
    [(HUNYUAN, "token_replace", style) for style in ("official", "diffusers")]
    + [(HUNYUAN15, "latent_concat", style) for style in FORMATS],
)
def test_training_computes_with_what_the_file_gives(engine, tmp_path, family, condition, style):
    task, data = Task(engine, family=family, condition=condition), batch_of(engine, 2, family=family)
    base, model = task.resident(), family.transformer(engine, task.config)
    settings = Training(rank=RANK, alpha=ALPHA, stored="float32", format=style)
    state = OptimiserState(1, task.factors, task.factors, task.factors)
    targets = Targets.of(task.config, task.shapes)
    write_lora(tmp_path / "a.safetensors", state, settings, targets=targets, about={})
    lora = open_lora(tmp_path / "a.safetensors", targets)
    assert len(lora.by_weight()) == len(task.modules)
    latents, told = task.loss.told(data)
    merged = model(LoraView(engine, base, [lora]), latents, **told)
    trained = model(Dressed(task.dressing, base, task.factors), latents, **told)
    difference = np.abs(engine.numpy(merged) - engine.numpy(trained)).max()
    # Split layers are multiplied apart, which rounds otherwise.
    whole = "official" if family is HUNYUAN else "comfyui"
    assert difference == 0 if style == whole else difference < 1e-4
    plain = model(base, latents, **told)
    assert np.abs(engine.numpy(plain) - engine.numpy(trained)).max() > 1e-2


def test_the_first_frame_is_given_and_does_not_count(engine):
    task, data = Task(engine), batch_of(engine, 2)
    transformer = functools.partial(DiT(engine, task.config), task.resident())

    def value(batch):
        return float(engine.numpy(task.loss(transformer, batch)))

    other = engine.concat([data.clean[:, :, :1] * 2.0, data.clean[:, :, 1:]], 2)
    assert value(data._replace(clean=other)) == value(data)
    assert value(data._replace(image=data.image * 2.0)) != value(data)


def test_targets_are_those_of_the_published_loras():
    shapes = DiT(None, HUNYUAN_DIT).shapes()
    found = {name.removesuffix(".weight").replace(".", "_") for name in chosen(shapes, PATTERNS)}
    keys = {key.removeprefix("Hunyuan_video_I2V_lora_").partition(".")[0] for key in json.loads(KEYS.read_text())}
    assert found == keys and len(found) == 325
    assert sum(64 * (rows + columns) for rows, columns in chosen(shapes, PATTERNS).values()) == 326_569_984


def test_targets_of_the_second_model_are_those_of_its_trainer_but_for_the_timestep():
    rules = {rule.ours: rule.theirs for rule in published_dit(HUNYUAN15_DIT)}
    shapes = HUNYUAN15.transformer(None, HUNYUAN15_DIT).shapes()
    found = chosen(shapes, HUNYUAN15.trained.modules)
    theirs = [module for name in found for module in rules[name]]
    assert len(theirs) == 778 and not any("time_in" in name for name in theirs)
    adapted = {name for name, shape in shapes.items() if len(shape) == 2 and "cond_type" not in name}
    assert adapted - set(found) == {"time_in.mlp.0.weight", "time_in.mlp.2.weight"}


def test_a_subset_of_targets():
    assert set(chosen(SHAPES, PATTERNS, patterns=["single_blocks.*"])) == {
        n for n in MODULES if n.startswith("single_blocks.")
    }
    with pytest.raises(InputError, match="fits no module"):
        chosen(SHAPES, PATTERNS, patterns=["single_blocks.*", "attention"])


def test_first_factors_change_nothing(engine):
    values = start(MODULES, RANK, 5)
    assert all(not x.any() for name, x in values.items() if name.endswith(".lora_up.weight"))
    down = np.concatenate([x.ravel() for name, x in values.items() if name.endswith(".lora_down.weight")])
    assert abs(down.std() * RANK - 1) < 0.05 and abs(down.mean()) < 0.02
    other = start(MODULES, RANK, 6)
    assert not any(np.array_equal(values[n], other[n]) for n in values if n.endswith(".lora_down.weight"))
    task = Task(engine)
    base, (latents, told) = task.resident(), task.loss.told(batch_of(engine, 2))
    dressed = Dressed(task.dressing, base, start(task.modules, RANK, 5))
    with_factors, without = (DiT(engine, task.config)(weights, latents, **told) for weights in (dressed, base))
    assert np.array_equal(engine.numpy(with_factors), engine.numpy(without))
