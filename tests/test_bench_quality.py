"""What the benchmark of the demonstration's quality says about its target."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from demonstration.follow import Verdict

GOOD = Verdict(True, "", first_frame_psnr=28.0, colour_error=11.9, mean_colour_error=7.0, is_whole=True)
WRONG = Verdict(False, "stayed", first_frame_psnr=27.9, colour_error=12.0, mean_colour_error=8.0, is_whole=False)


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "scripts" / "benches"))
    return importlib.import_module("demo_quality")


def test_the_target_is_for_each_motion_and_not_for_their_mean(bench):
    assert bench.target({"up": [GOOD] * 19, "spin": [GOOD]}).endswith("reached.")
    assert "missed: " in bench.target({"up": [GOOD] * 100, "spin": [GOOD] * 9 + [WRONG]})
    said = bench.target({"up": [GOOD] * 19 + [WRONG], "spin": [GOOD] * 9 + [WRONG]}).partition("missed: ")[2]
    assert said == (
        "spin followed 90%, first frame under 28 dB in 2 of 30 scenes, a channel off by 12 levels or more in 2 of 30 "
        "scenes, torn apart in 2 of 30 scenes."
    )


def test_the_table_has_both_measures_of_colour(bench):
    header, _, *rows = bench.table({"up": [GOOD, WRONG]}, {"one shape": [GOOD], "two shapes": [WRONG]})
    assert [len(row.split("|")) for row in rows] == [len(header.split("|"))] * 4
    assert "| 7.5 | 8.0, 7.5 | 12.0, 11.9 | 1/2 |" in rows[0] and rows[-1].startswith("| all |")
