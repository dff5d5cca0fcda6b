"""framewake doctor: the machine, and golden folders that pass and fail."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from engines_here import FIRST

GOLDEN = Path(__file__).parents[1] / "golden"
SMALL = ("schedule", "timestep_embedding", "buckets", "rope")


@pytest.fixture
def golden(tmp_path):
    """A golden folder with the quick cases only."""
    folder = tmp_path / "golden"
    folder.mkdir()
    content = json.loads((GOLDEN / "cases.json").read_text())
    content["cases"] = [case for case in content["cases"] if case["kind"] in SMALL]
    (folder / "cases.json").write_text(json.dumps(content))
    shutil.copy(GOLDEN / "tensors.json", folder)
    for case in content["cases"]:
        shutil.copy(GOLDEN / case["file"], folder)
    return folder


def test_the_machine(call):
    out = call("doctor").out
    assert FIRST in out and "GiB free" in out and "Disk" in out
    content = json.loads(call("doctor", "--json").out)
    entry = next(entry for entry in content["engines"] if entry["engine"] == FIRST)
    assert 0 < entry["memory"]["free"] <= entry["memory"]["total"] and entry["error"] is None
    assert content["packages"]["numpy"] == np.__version__ and content["disk"]["free"] > 0


def test_a_golden_folder_that_agrees(call, golden):
    answer = call("doctor", "--golden", golden)
    assert answer.code == 0 and "arrays agree" in answer.out
    assert "tolerance" in answer.out and "FAILED" not in answer.out
    content = json.loads(call("doctor", "--golden", golden, "--json").out)
    assert content["passed"] is True and all(row["passed"] for row in content["rows"])


def test_a_golden_folder_that_does_not(call, golden):
    with np.load(golden / "schedule.npz") as arrays:
        changed = dict(arrays)
    name = next(iter(changed))
    changed[name] = changed[name] + np.float32(1e-3)
    np.savez(golden / "schedule.npz", **changed)
    answer = call("doctor", "--golden", golden)
    assert answer.code == 1 and answer.out.count("FAILED") == 1 and "1 of" in answer.out
    content = json.loads(call("doctor", "--golden", golden, "--json").out)
    assert content["passed"] is False and [row["array"] for row in content["rows"] if not row["passed"]] == [name]


def test_a_damaged_golden_folder(call, golden):
    (golden / "schedule.npz").unlink()
    answer = call("doctor", "--golden", golden)
    assert answer.code == 3 and answer.err.count("\n") == 1 and "schedule" in answer.err
