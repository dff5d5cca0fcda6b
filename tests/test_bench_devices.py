"""``scripts/bench devices``: the model of more devices, and a small run of it."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_model_gives_the_specification_s_times(monkeypatch):
    """Source: specification of several devices, section 7."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "benches"))
    bench = importlib.import_module("devices")
    found = [
        [bench.model_seconds(kind, 1) / bench.model_seconds(kind, count) for count in (2, 4, 8, 16)]
        for kind in bench.KINDS
    ]
    expected = [[1.97, 3.91, 7.8, 15.2], [1.77, 3.34, 6.5, 11.6], [1.98, 3.93, 7.8, 15.4], [1.86, 3.59, 7.1, 13.2]]
    for times, told in zip(found, expected, strict=True):
        assert times == pytest.approx(told, rel=0.01)
    assert bench.model_seconds(bench.KINDS[0], 1) == pytest.approx(21.7, rel=0.01)
    assert len(bench.modelled()) == 1 + len(bench.KINDS) * (1 + len(bench.COUNTS))


def made_small(script):
    """A middle transformer of one block of each kind: making 160 million random weights takes longer than all else."""
    text = script.read_text()
    for name, count in (("double_blocks", 4), ("single_blocks", 8)):
        assert f"{name}={count}," in text
        text = text.replace(f"{name}={count},", f"{name}=1,")
    script.write_text(text)


def test_a_small_run_sends_what_the_formula_says(tmp_path, engine):
    shutil.copytree(ROOT / "scripts" / "benches", tmp_path / "scripts" / "benches")
    made_small(tmp_path / "scripts" / "benches" / "measuring" / "middle.py")
    page = tmp_path / "docs" / "measurements" / "devices.md"
    page.parent.mkdir(parents=True)
    page.write_text((ROOT / "docs" / "measurements" / "devices.md").read_text())
    before = page.read_text().splitlines()
    command = [sys.executable, "scripts/benches/devices.py", "--grid", "2", "8", "8", "--rounds", "1"]
    command += ["--engine", engine.name]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((tmp_path / "results" / "bench-devices.json").read_text())
    assert found["sent"] == found["formula"] > 0 and found["difference"] <= 2e-6
    assert all(found[name] > 0 for name in ("alone", "together", "exchanges", "processor_alone", "processor_busiest"))
    *_, row = page.read_text().splitlines()
    assert f"| {engine.name}, 2 processes, 32 tokens |" in row
    assert page.read_text().splitlines()[:-1] == before and row.count("|") == before[-1].count("|")
