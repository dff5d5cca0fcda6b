"""The benchmark of an update at full size, on a toy checkpoint: the program, its events and its floors."""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path

import pytest
from toy_checkpoint import DIT, write_toy

from framewake.pipeline.forecast.cost import Scene

pytest.importorskip("torch")


def test_an_update_is_made_watched_and_judged(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "scripts" / "benches"))
    training_run = importlib.import_module("measuring.training_run")
    if shutil.which("framewake", path=str(Path(sys.executable).parent)) is None:
        pytest.skip("the program is not installed beside Python")
    folder = write_toy(tmp_path / "toy")
    data = training_run.write_clip(folder, (64, 64), 5, "the red circle moves left")
    found = training_run.train(folder, data, "4GB", 5, lambda text: None)
    assert "rank 16, 64x64 x 5 frames" in found["forecast"] and found["seconds"] > 0
    assert set(found["own_peaks"]) >= {"train"} and 0 < found["own_peak"] <= 4 * 10**9
    scene = Scene(1, 32, 20, "bfloat16", False)
    floors = training_run.floors(DIT, scene, product_rate=1e9, disk_rate=1e9)
    assert 0 < floors["disk"] < floors["operations"]
    judged = training_run.judged(found | {"seconds": 2.0}, 1.5)
    assert judged["is_met"] and judged["share"] == 0.75
    assert not training_run.judged(found | {"seconds": 2.0}, 0.5)["is_met"]
    told = {"size": [5, 64, 64], "tokens": 52, "train": judged, "floors": floors, "machine_was": "idle"}
    assert training_run.row(told).count("|") == 11
