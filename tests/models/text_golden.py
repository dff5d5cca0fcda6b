"""Reads the golden text cases: configurations, weights and inputs from the rule."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from framewake.golden import rule
from framewake.weights.checkpoint import configs
from framewake.weights.stores.store import Resident

FOLDER = Path(__file__).parent.parent / "golden"
CASES = {case["id"]: case for case in json.loads((FOLDER / "cases.json").read_text())["cases"]}
TABLES = json.loads((FOLDER / "tensors.json").read_text())


def ids_of(kind):
    return [name for name, case in CASES.items() if case["kind"] == kind]


def arrays(name):
    return np.load(FOLDER / CASES[name]["file"])


def table(name, model):
    return {key: tuple(shape) for key, shape in TABLES["tables"][TABLES["cases"][name][model]].items()}


def tokens(name):
    inputs = CASES[name]["inputs"]
    ids = np.array([inputs["input_ids"]], dtype=np.int64)
    mask = (np.arange(ids.shape[1]) < inputs["valid_ids"]).astype(np.int64)[None]
    return ids, mask


def llava_config(name):
    return configs.llava_config(CASES[name]["config"]["llava"])


def clip_text_config(name):
    return configs.clip_text_config(CASES[name]["config"]["clip_text"])


def store(engine, shapes, seed):
    return Resident({key: engine.asarray(rule.weight(key, shape, seed)) for key, shape in shapes.items()})


def largest(found, expected):
    """The largest absolute difference, over the expected array's largest magnitude."""
    assert found.shape == expected.shape, (found.shape, expected.shape)
    return float(np.abs(found.astype(np.float64) - expected).max() / np.abs(expected).max())
