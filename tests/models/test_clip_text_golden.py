"""CLIP text against arrays of the original."""

from __future__ import annotations

import pytest
import text_golden as golden

from framewake.models.clip_text import ClipText


@pytest.mark.parametrize("name", golden.ids_of("clip_text"))
def test_matches_the_original(engine, name):
    model = ClipText(engine, golden.clip_text_config(name))
    assert model.shapes() == golden.table(name, "clip_text")
    weights = golden.store(engine, model.shapes(), golden.CASES[name]["seed"])
    pooled, hidden = model(weights, *golden.tokens(name))
    expected = golden.arrays(name)
    assert golden.largest(engine.numpy(pooled), expected["pooled"]) <= 3e-5
    assert golden.largest(engine.numpy(hidden), expected["last_hidden_state"]) <= 3e-5
