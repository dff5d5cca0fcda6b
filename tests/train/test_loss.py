"""The training forward and its gradients: against the merged weights, against each other, against differences."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from lora_files import SHAPES, TARGETS
from toy_checkpoint import DIT

from framewake import engine as engines
from framewake.config import HUNYUAN_DIT
from framewake.errors import InputError
from framewake.golden import rule
from framewake.models.dit import DiT, TextStates
from framewake.train.batch import Batch
from framewake.train.factors import chosen, start
from framewake.train.loss import FlowLoss
from framewake.train.optimiser import OptimiserState
from framewake.train.settings import Training
from framewake.train.writer import write_lora
from framewake.weights.lora.file import open_lora
from framewake.weights.lora.view import LoraView
from framewake.weights.stores.store import Resident

INSTALLED = [f"{kind}:cpu" for kind in ("torch", "mindspore") if importlib.util.find_spec(kind)]
RANK, ALPHA = 3, 2.0
MODULES = chosen(SHAPES)
KEYS = Path(__file__).parents[1] / "data" / "lora-keys.json"


def loss_of(engine, dtype="float32"):
    return FlowLoss(DiT(engine, DIT), MODULES, rank=RANK, alpha=ALPHA, guidance=6.0, dtype=dtype)


def store(engine, dtype="float32"):
    return Resident({name: engine.asarray(x, dtype) for name, x in rule.weights(SHAPES, 7).items()})


def factors(engine):
    """Factors as they are in the middle of training: neither is zero."""
    values = start(MODULES, RANK, 1)
    moved = {name: x + 0.1 * rule.input(name, x.shape, 3) for name, x in values.items()}
    return {name: engine.asarray(x.astype(np.float32)) for name, x in moved.items()}


def batch(engine):
    shape = (2, 4, 3, 4, 4)
    arrays = {name: rule.input(name, shape, 9) for name in ("clean", "noise")}
    image = rule.input("image", (2, 4, 1, 4, 4), 9)
    text = TextStates(
        engine.asarray(rule.input("states", (2, 6, 16), 9)), (6, 4), engine.asarray(rule.input("pooled", (2, 16), 9))
    )
    sigma = np.asarray([0.3, 0.9], np.float32)
    return Batch(engine.asarray(arrays["clean"]), engine.asarray(image), text, engine.asarray(arrays["noise"]), sigma)


def gradients(engine):
    value, found = loss_of(engine).with_gradients()(factors(engine), store(engine), batch(engine))
    return float(engine.numpy(value)), {name: engine.numpy(x) for name, x in found.items()}


def test_engines_agree_on_every_gradient():
    if len(INSTALLED) < 2:
        pytest.skip("one engine is installed")
    (one, first), (other, second) = (gradients(engines.get(name)) for name in INSTALLED)
    assert abs(one - other) < 1e-5 * one
    largest = max(float(np.abs(first[name] - second[name]).max() / np.abs(first[name]).max()) for name in first)
    assert set(first) == set(second) and largest < 2e-4, f"largest relative difference {largest:.1e}"


def test_gradients_are_those_of_differences(engine):
    loss, weights, base, data = loss_of(engine), factors(engine), store(engine), batch(engine)
    _, found = loss.with_gradients()(weights, base, data)
    for name in ("single_blocks.0.linear1.lora_down.weight", "double_blocks.0.txt_attn_qkv.lora_up.weight"):
        way = rule.input(f"way.{name}", tuple(weights[name].shape), 4)
        values = []
        for stride in (0.02, -0.02):
            moved = weights | {name: weights[name] + engine.asarray(way * np.float32(stride))}
            values.append(float(engine.numpy(loss(moved, base, data))))
        slope = (values[0] - values[1]) / 0.04
        assert slope == pytest.approx(float((engine.numpy(found[name]) * way).sum()), rel=0.02, abs=1e-4)


def test_only_factors_have_gradients_and_the_base_stays(engine):
    base = store(engine)
    before = {name: np.array(engine.numpy(x)) for name, x in base.part("").items()}
    _, found = loss_of(engine).with_gradients()(factors(engine), base, batch(engine))
    assert set(found) == set(factors(engine)) and len(found) == 2 * len(MODULES)
    assert all(np.abs(engine.numpy(x)).max() > 0 for x in found.values())
    assert all(np.array_equal(engine.numpy(x), before[name]) for name, x in base.part("").items())


@pytest.mark.parametrize("style", ["official", "diffusers"])
def test_training_computes_with_what_the_file_gives(engine, tmp_path, style):
    weights, base, data = factors(engine), store(engine), batch(engine)
    settings = Training(rank=RANK, alpha=ALPHA, stored="float32", format=style)
    state = OptimiserState(1, weights, weights, weights)
    write_lora(engine, tmp_path / "a.safetensors", state, settings, base=DIT, name="toy")
    lora = open_lora(tmp_path / "a.safetensors", TARGETS)
    assert len(lora.by_weight()) == len(MODULES)
    loss = loss_of(engine)
    merged = loss.velocity(LoraView(engine, base, [lora]), data.noise, data)
    trained = loss.velocity(loss.view(weights, base), data.noise, data)
    difference = np.abs(engine.numpy(merged) - engine.numpy(trained)).max()
    # Split layers are multiplied apart, which rounds otherwise.
    assert difference == 0 if style == "official" else difference < 1e-4
    plain = loss.velocity(base, data.noise, data)
    assert np.abs(engine.numpy(plain) - engine.numpy(trained)).max() > 1e-2


def test_the_first_frame_is_given_and_does_not_count(engine):
    loss, weights, base, data = loss_of(engine), factors(engine), store(engine), batch(engine)
    value = float(engine.numpy(loss(weights, base, data)))
    other = engine.concat([data.clean[:, :, :1] * 2.0, data.clean[:, :, 1:]], 2)
    assert float(engine.numpy(loss(weights, base, data._replace(clean=other)))) == value
    assert float(engine.numpy(loss(weights, base, data._replace(image=data.image * 2.0)))) != value


def test_targets_are_those_of_the_published_loras():
    shapes = DiT(None, HUNYUAN_DIT).shapes()
    found = {name.removesuffix(".weight").replace(".", "_") for name in chosen(shapes)}
    keys = {key.removeprefix("Hunyuan_video_I2V_lora_").partition(".")[0] for key in json.loads(KEYS.read_text())}
    assert found == keys and len(found) == 325
    assert sum(64 * (rows + columns) for rows, columns in chosen(shapes).values()) == 326_569_984


def test_a_subset_of_targets():
    assert set(chosen(SHAPES, ["single_blocks.*"])) == {n for n in MODULES if n.startswith("single_blocks.")}
    with pytest.raises(InputError, match="fits no module"):
        chosen(SHAPES, ["single_blocks.*", "attention"])


def test_first_factors_change_nothing(engine):
    values = start(MODULES, RANK, 5)
    assert all(not x.any() for name, x in values.items() if name.endswith(".lora_up.weight"))
    down = np.concatenate([x.ravel() for name, x in values.items() if name.endswith(".lora_down.weight")])
    assert abs(down.std() * RANK - 1) < 0.05 and abs(down.mean()) < 0.02
    other = start(MODULES, RANK, 6)
    assert not any(np.array_equal(values[n], other[n]) for n in values if n.endswith(".lora_down.weight"))
    loss, base, data = loss_of(engine), store(engine), batch(engine)
    weights = {name: engine.asarray(x) for name, x in values.items()}
    difference = engine.numpy(loss.velocity(loss.view(weights, base), data.noise, data)) - engine.numpy(
        loss.velocity(base, data.noise, data)
    )
    assert np.abs(difference).max() == 0
