"""The transformer against the arrays of the original, on every engine."""

from pathlib import Path

import pytest

from framewake.golden.cases import read_cases
from framewake.golden.compare import rows
from framewake.golden.modules import dit_forward

CASES = {case.id: case for case in read_cases(Path(__file__).parent.parent / "golden") if case.kind == "dit_forward"}


@pytest.mark.parametrize("name", CASES)
def test_every_array_of_the_case_agrees(name, engine):
    arrays = CASES[name].arrays()
    measured = list(rows(CASES[name], arrays, dit_forward(CASES[name], engine, arrays)))
    assert {row.array for row in measured} == set(arrays)
    worst = max(measured, key=lambda row: row.difference / max(row.tolerance, 1e-30))
    assert all(row.passed for row in measured), worst
