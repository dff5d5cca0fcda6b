"""framewake doctor: the machine, and golden folders that pass and fail."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from engines_here import FIRST, INSTALLED, needs_torch

from framewake import engine as engines
from framewake.lasting import read_record, write_record
from framewake.pipeline.forecast import Links, known_links
from framewake.pipeline.forecast.probe import FORMAT

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


@needs_torch
def test_two_devices_agree_with_a_golden_folder_or_say_where_not(golden):
    content = json.loads((GOLDEN / "cases.json").read_text())
    chosen = [case for case in content["cases"] if case["id"] in ("dit_tr_b2", "schedule")]
    (golden / "cases.json").write_text(json.dumps(content | {"cases": chosen}))
    for case in chosen:
        shutil.copy(GOLDEN / case["file"], golden)
    words = [sys.executable, "-m", "framewake", "doctor", "--golden", golden, "--devices", "2", "--engine", "torch:cpu"]
    good = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert good.returncode == 0 and "arrays agree, 2 cases" in good.stdout, good.stderr
    with np.load(golden / "dit_tr_b2.npz") as arrays:
        changed = dict(arrays) | {"output": arrays["output"] + 1}
    np.savez(golden / "dit_tr_b2.npz", **changed)
    bad = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert bad.returncode not in (0, 130) and "FAILED dit_tr_b2" in bad.stdout, (bad.stdout, bad.stderr)


def test_one_device_has_no_links(call):
    answer = call("doctor", "--devices", 1)
    assert answer.code == 2 and "exchanges with nobody" in answer.err


@needs_torch
def test_links_are_measured_once_and_counted_by_plan(call, picture, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    kept = tmp_path / "cache" / "framewake" / "probe.json"

    def planned(count):
        words = ("it moves", "--frames", 5, "--resolution", "360p", "--engine", "torch:cpu", "--devices", count)
        return json.loads(call("plan", picture, *words, "--json").out)

    before = planned(2)
    assert before["links"] is None and any("`framewake doctor --devices 2` measures" in x for x in before["lines"])
    words = [sys.executable, "-m", "framewake", "doctor", "--devices", "2", "--engine", "torch:cpu", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    found = json.loads(done.stdout)
    assert found["bytes_per_second"] > 0 and found["is_kept"] and found["devices"] == 2
    after = planned(2)
    assert after["links"] == {name: found[name] for name in ("bytes_per_second", "at")}
    assert after["seconds_per_step"] > before["seconds_per_step"]
    assert any("counted (measured" in line for line in after["lines"])
    assert planned(3)["links"] is None
    engine = engines.get("torch:cpu")
    assert known_links(engine, 2) == Links(found["bytes_per_second"], found["at"])
    for other in {name.partition(":")[0]: name for name in INSTALLED if not name.startswith("torch")}.values():
        assert known_links(engines.get(other), 2) is None
    rates = read_record(kept)["rates"]
    [key] = [key for key in rates if key.startswith("links")]
    for entry in (None, [], [0, found["at"]], ["x", 1], [1e9, 0], [1e9, found["at"] + 1e9], {"a": 1}):
        write_record(kept, {"format": FORMAT, "rates": rates | {key: entry}})
        assert known_links(engine, 2) is None, entry
    write_record(kept, {"format": FORMAT, "rates": rates})
    assert known_links(engine, 2) is not None
    kept.write_bytes(kept.read_bytes()[:-9])
    assert known_links(engine, 2) is None


def test_a_damaged_golden_folder(call, golden):
    (golden / "schedule.npz").unlink()
    answer = call("doctor", "--golden", golden)
    assert answer.code == 3 and answer.err.count("\n") == 1 and "schedule" in answer.err
