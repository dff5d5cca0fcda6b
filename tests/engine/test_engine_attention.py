"""Attention with lengths, with masks, in pieces, against numpy in float64."""

from __future__ import annotations

import numpy as np
import numpy_layers as layers
import pytest

SCALE = 0.25


def arrays(batch=2, queries=7, keys=9, heads=3, width=16):
    random = np.random.default_rng(3)
    shapes = [(batch, queries, heads, width), (batch, keys, heads, width), (batch, keys, heads, width)]
    return [random.standard_normal(shape).astype(np.float32) for shape in shapes]


def difference(engine, qkv, mask=None, lengths=None) -> float:
    tensors = [engine.asarray(x) for x in qkv]
    found = engine.attention(
        *tensors, scale=SCALE, mask=None if mask is None else engine.asarray(mask), lengths=lengths
    )
    assert tuple(found.shape) == qkv[0].shape
    expected = layers.attention(*[x.astype(np.float64) for x in qkv], scale=SCALE, mask=mask, lengths=lengths)
    return float(np.abs(engine.numpy(found) - expected).max())


def test_plain(engine):
    assert difference(engine, arrays()) <= 5e-6


@pytest.mark.parametrize("lengths", [(4, 9), (9, 1), (5, 5), (9, 9)])
def test_lengths(engine, lengths):
    assert difference(engine, arrays(), lengths=lengths) <= 5e-6


def test_length_of_a_single_sample_trims(engine):
    assert difference(engine, arrays(batch=1), lengths=(4,)) <= 5e-6


def test_keys_beyond_the_length_do_not_matter(engine):
    q, k, v = arrays()
    k[0, 4:], v[0, 4:] = 1e4, np.nan
    tensors = [engine.asarray(x) for x in (q, k, v)]
    out = engine.numpy(engine.attention(*tensors, scale=SCALE, lengths=(4, 9)))
    expected = layers.attention(
        q[:1].astype(np.float64), k[:1, :4].astype(np.float64), v[:1, :4].astype(np.float64), scale=SCALE
    )
    assert np.abs(out[:1] - expected).max() <= 5e-6
    assert np.isfinite(out).all()


@pytest.mark.parametrize("shape", [(2, 1, 1, 9), (1, 1, 7, 9), (2, 1, 7, 9), (7, 9), (2, 3, 7, 9)])
def test_masks_of_every_broadcast_shape(engine, shape):
    mask = np.random.default_rng(1).random(shape) < 0.6
    mask[..., 0] = True  # every query sees something
    assert difference(engine, arrays(), mask=mask) <= 5e-6


def test_lengths_equal_the_mask_they_stand_for(engine):
    lengths = (4, 9)
    mask = (np.arange(9)[None] < np.array(lengths)[:, None])[:, None, None]
    tensors = [engine.asarray(x) for x in arrays()]
    by_length = engine.numpy(engine.attention(*tensors, scale=SCALE, lengths=lengths))
    by_mask = engine.numpy(engine.attention(*tensors, scale=SCALE, mask=engine.asarray(mask)))
    assert np.abs(by_length - by_mask).max() <= 5e-6


def test_large_scores_stay_finite(engine):
    q, k, v = arrays()
    assert difference(engine, [q * 30, k * 30, v]) <= 1e-4


def test_queries_in_pieces_give_the_same(engine, monkeypatch):
    if engine.kind != "mindspore":
        pytest.skip("torch's own attention cuts by itself")
    from framewake.engine.mindspore import ascend

    monkeypatch.setattr(ascend, "SCORES", 2 * 3 * 9 * 2)  # two queries at a time
    mask = np.random.default_rng(1).random((2, 1, 7, 9)) < 0.6
    mask[..., 0] = True
    assert difference(engine, arrays()) <= 5e-6
    assert difference(engine, arrays(), mask=mask) <= 5e-6
    assert difference(engine, arrays(), mask=mask[:, :, :1]) <= 5e-6
