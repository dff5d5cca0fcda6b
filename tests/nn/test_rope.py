"""Rotary tables and rotation against the original's arrays, and the embeddings' table."""

from pathlib import Path

import numpy as np
import pytest

from framewake.errors import InputError
from framewake.golden.cases import read_cases
from framewake.golden.compare import rows
from framewake.golden.tables import rope, timestep_embedding
from framewake.nn.modulation import gated_sum, normed_and_modulated
from framewake.nn.rope import rope_table

KINDS = {"rope": rope, "timestep_embedding": timestep_embedding}
CASES = {case.id: case for case in read_cases(Path(__file__).parent.parent / "golden") if case.kind in KINDS}


@pytest.mark.parametrize("name", CASES)
def test_every_array_of_the_case_agrees(name, engine):
    arrays = CASES[name].arrays()
    measured = list(rows(CASES[name], arrays, KINDS[CASES[name].kind](CASES[name], engine, arrays)))
    assert {row.array for row in measured} == set(arrays)
    assert all(row.passed for row in measured), max(measured, key=lambda row: row.difference)


def test_rotation_keeps_lengths_and_knows_only_distances(engine):
    cos, sin = (engine.asarray(table) for table in rope_table((6, 1, 1), (8, 2, 2), 256.0))
    ones = engine.full((1, 6, 1, 12), 1.0)
    turned = engine.numpy(engine.rotate(ones, cos, sin))[0, :, 0]
    assert np.abs((turned**2).sum(1) - 12).max() < 1e-5
    products = turned @ turned.T
    assert np.abs(np.diag(products, 1) - products[0, 1]).max() < 1e-5


def test_long_videos_change_the_temporal_axis_only():
    short, long = (rope_table((49, 2, 3), (16, 56, 56), 256.0, frames)[0] for frames in (192, 193))
    assert np.abs(short[:, :16] - long[:, :16]).max() > 0.1
    assert np.array_equal(short[:, 16:], long[:, 16:])


@pytest.mark.parametrize(("grid", "dims"), [((0, 2, 2), (4, 6, 6)), ((1, 2, 2), (3, 6, 7))])
def test_impossible_tables_are_refused(grid, dims):
    with pytest.raises(InputError, match="rope_table"):
        rope_table(grid, dims, 256.0)


@pytest.mark.parametrize("batch", [1, 3])
def test_token_groups_follow_their_own_vectors(engine, batch):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, 7, 16)).astype(np.float32)
    shifts, scales = rng.standard_normal((2, 2, batch, 16)).astype(np.float32)
    made = normed_and_modulated(
        engine,
        engine.asarray(x),
        (3, 4),
        [engine.asarray(s) for s in shifts],
        [engine.asarray(s) for s in scales],
    )
    wide = x.astype(np.float64)
    normed = (wide - wide.mean(-1, keepdims=True)) / np.sqrt(wide.var(-1, keepdims=True) + 1e-6)
    group = np.array([0, 0, 0, 1, 1, 1, 1])
    expected = normed * (1 + scales[group].transpose(1, 0, 2)) + shifts[group].transpose(1, 0, 2)
    assert np.abs(engine.numpy(made) - expected).max() < 1e-5
    added = gated_sum(engine, engine.asarray(x), made, (3, 4), [engine.asarray(s) for s in scales])
    assert np.abs(engine.numpy(added) - (x + expected * scales[group].transpose(1, 0, 2))).max() < 1e-5
