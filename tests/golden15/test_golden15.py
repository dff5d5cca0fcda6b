"""Every golden case of HunyuanVideo-1.5 on every installed engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from engines_here import needs_torch
from ranks_here import together

from framewake import engine as engines
from framewake import golden
from framewake.golden.cases import read_cases
from framewake.golden.runner import KINDS_15

FOLDER = Path(__file__).parent
SHARED = ("dit15_i2v_b1", "dit15_sr", "e2e15", "sr15")
CASES = {case.id: case for case in read_cases(FOLDER)}


@pytest.mark.parametrize("name", CASES)
def test_case_of_15(engine, name):
    rows = list(golden.run(FOLDER, engine, only=(name,)))
    assert {row.array for row in rows} >= set(CASES[name].meanings)
    assert all(np.isfinite(row.difference) for row in rows)
    assert [row for row in rows if not row.passed] == []


@needs_torch
@pytest.mark.parametrize(
    "name", [name for name in CASES if name.startswith(("dit15_i2v_b1", "dit15_sr", "e2e15", "sr15"))]
)
def test_case_of_15_among_several_devices(name):
    sent = []

    def work(rank):
        rows = list(golden.run(FOLDER, rank, only=(name,)))
        sent.append(len(rank.sent))
        return rows

    for rows in together(engines.get("torch:cpu"), 2, work):
        assert [row for row in rows if not row.passed] == []
    assert min(sent) == max(sent) > 5, "the devices shared the work"


def test_every_kind_of_15_is_among_the_cases():
    assert {case.kind for case in CASES.values()} == set(KINDS_15)
