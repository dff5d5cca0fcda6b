"""CLIP text at toy size: where the pooled vector is taken, and refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from text_golden import largest, store

from framewake.config import ClipTextConfig
from framewake.errors import InputError
from framewake.models.clip_text import ClipText

CONFIG = ClipTextConfig(
    hidden_size=16,
    mlp_size=24,
    layers=2,
    heads=2,
    vocab_size=40,
    max_positions=10,
    activation="gelu",
    norm_eps=1e-5,
    eos_token_id=2,
)
IDS = np.array([[38, 4, 5, 6, 39, 39, 39, 39], [38, 7, 39, 39, 39, 39, 39, 39]])
MASK = np.array([[1, 1, 1, 1, 1, 0, 0, 0], [1, 1, 1, 0, 0, 0, 0, 0]])


@pytest.fixture(scope="module")
def weights(engine):
    return store(engine, ClipText(engine, CONFIG).shapes(), 9)


def test_pools_at_the_first_highest_id_of_each_row(engine, weights):
    pooled, hidden = (engine.numpy(x) for x in ClipText(engine, CONFIG)(weights, IDS, MASK))
    assert hidden.shape == (2, 5, 16)
    assert largest(pooled, np.stack([hidden[0, 4], hidden[1, 2]])) == 0


def test_pools_at_the_named_end_id(engine, weights):
    model = ClipText(engine, replace(CONFIG, eos_token_id=5))
    ids = np.where(IDS == 7, 5, IDS)
    pooled, hidden = (engine.numpy(x) for x in model(weights, ids, MASK))
    assert largest(pooled, np.stack([hidden[0, 2], hidden[1, 1]])) == 0


def test_a_row_of_a_batch_equals_the_row_alone(engine, weights):
    model = ClipText(engine, CONFIG)
    together = engine.numpy(model(weights, IDS, MASK)[0])
    for i in range(2):
        alone = engine.numpy(model(weights, IDS[i : i + 1], MASK[i : i + 1])[0])
        assert largest(together[i : i + 1], alone) <= 1e-6


def test_refuses_more_tokens_than_positions(engine, weights):
    ids = np.full((1, 11), 3)
    with pytest.raises(InputError, match=r"11 text tokens .* at most 10"):
        ClipText(engine, CONFIG)(weights, ids, np.ones_like(ids))
