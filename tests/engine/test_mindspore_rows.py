"""Convolutions of mindspore:cpu that are made from rows of memory: in pieces, and beside torch's."""

from __future__ import annotations

import importlib
import importlib.util

import numpy as np
import pytest

from framewake import engine as engines

pytestmark = pytest.mark.skipif(importlib.util.find_spec("mindspore") is None, reason="mindspore is not installed")

SHAPES = [  # clip, weight, stride
    ((1, 4, 7, 6, 5), (5, 4, 3, 3, 3), (1, 1, 1)),
    ((2, 3, 6, 7, 8), (6, 3, 3, 3, 3), (2, 2, 2)),
    ((2, 4, 6, 7, 9), (6, 4, 3, 3, 3), (1, 2, 2)),
    ((1, 4, 6, 8, 6), (3, 4, 3, 3, 3), (1, 1, 1)),
    ((2, 4, 5, 4, 6), (8, 4, 2, 2, 2), (1, 1, 1)),
    ((1, 4, 3, 4, 6), (8, 4, 1, 1, 1), (1, 1, 1)),
]


@pytest.mark.parametrize(("clip", "weight", "stride"), SHAPES)
def test_convolution_is_torchs_whole_and_in_pieces(clip, weight, stride, monkeypatch):
    torch = pytest.importorskip("torch")
    engine = engines.get("mindspore:cpu")  # it is the one that may import MindSpore: its settings stand before
    numbers = np.random.default_rng(1)
    x, w, b = (numbers.standard_normal(shape).astype(np.float32) for shape in (clip, weight, weight[:1]))
    expected = torch.nn.functional.conv3d(*(torch.from_numpy(a).double() for a in (x, w, b)), stride=stride).numpy()
    whole = engine.numpy(engine.conv3d(*(engine.asarray(a) for a in (x, w, b)), stride=stride))
    assert whole.shape == expected.shape
    assert np.abs(whole - expected).max() < 1e-5 * np.abs(expected).max()
    rows = importlib.import_module("framewake.engine.mindspore.rows")
    monkeypatch.setattr(rows, "COPIED", 2 * clip[0] * weight[1] * weight[2] * clip[3] * clip[4])
    pieces = engine.numpy(engine.conv3d(*(engine.asarray(a) for a in (x, w, b)), stride=stride))
    assert np.abs(pieces - expected).max() < 1e-5 * np.abs(expected).max()
