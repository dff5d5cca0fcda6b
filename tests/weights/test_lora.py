"""The merge of a LoRA file with the original's keys."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from framewake.errors import CheckpointError
from framewake.golden import rule
from framewake.weights.lora import DOWN, PREFIX, UP, merge, resolve

DATA = Path(__file__).parents[1] / "data"
BASE = {"double_blocks.0.img_mod.linear.weight": (6, 4), "double_blocks.0.img_mod.linear.bias": (6,)}
PATH = "double_blocks_0_img_mod_linear"


def pair(path=PATH, rank=2, rows=6, columns=4):
    shapes = {PREFIX + path + DOWN: (rank, columns), PREFIX + path + UP: (rows, rank)}
    return rule.weights(shapes, 1)


def test_every_key_of_the_official_recipe_resolves():
    lora = json.loads((DATA / "lora-keys.json").read_text())
    names = json.loads((DATA / "dit-keys.json").read_text())
    paths = {key.removeprefix(PREFIX).rsplit(".lora_", 1)[0] for key in lora}
    modules = {path: resolve(path, names) for path in paths}
    assert len(modules) == len(set(modules.values())) == 325
    for path, module in modules.items():
        assert module.replace(".", "_") == path
        rows, columns = names[f"{module}.weight"]
        assert lora[PREFIX + path + UP][0] == rows
        assert lora[PREFIX + path + DOWN][1] == columns


def test_merge_adds_the_scaled_product_and_ignores_alpha():
    base, lora = rule.weights(BASE, 0), pair()
    expected = base["double_blocks.0.img_mod.linear.weight"] + 0.5 * (
        lora[PREFIX + PATH + UP] @ lora[PREFIX + PATH + DOWN]
    )
    merged = merge(base, lora | {PREFIX + PATH + ".alpha": np.float32(9)}, 0.5)
    assert np.abs(merged["double_blocks.0.img_mod.linear.weight"] - expected).max() < 1e-6
    assert merged["double_blocks.0.img_mod.linear.bias"] is base["double_blocks.0.img_mod.linear.bias"]


def test_merge_keeps_the_weights_type():
    base = {name: x.astype(np.float16) for name, x in rule.weights(BASE, 0).items()}
    assert {x.dtype for x in merge(base, pair(), 1.0).values()} == {np.dtype(np.float16)}


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        (pair("double_blocks_9_img_mod_linear"), "no module"),
        (pair("double_blocks_0_img_mod"), "does not fit"),
        (pair(rows=5), "does not fit"),
        (pair(columns=3), "does not fit"),
        ({PREFIX + PATH + UP: np.zeros((6, 2), np.float32)}, "only one"),
        ({"lora_unet_x.lora_up.weight": np.zeros((6, 2), np.float32)}, "lora_unet_x"),
        ({PREFIX + PATH + ".diff": np.zeros((6, 2), np.float32)}, "diff"),
    ],
)
def test_files_for_something_else(lora, message):
    with pytest.raises(CheckpointError, match=message):
        merge(rule.weights(BASE, 0), lora, 1.0)
