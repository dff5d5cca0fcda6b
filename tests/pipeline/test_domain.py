"""What a checkpoint says that it knows, and who is told."""

from __future__ import annotations

import dataclasses

import numpy as np
from PIL import Image

from framewake.pipeline.domain import domain_note
from framewake.weights.checkpoint.settings import Domain, Settings

CATS = Settings(name="cats", domain=Domain("cats that run", (("cat", "cats"), ("runs", "run")), 0.5))
PLAIN = Image.new("RGB", (80, 60), (10, 200, 30))
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8))


def test_only_what_lies_outside_is_told():
    assert domain_note(CATS, PLAIN, "A CAT runs!") is None
    assert domain_note(CATS, None, "cats run") is None
    assert "this prompt does not look like what the checkpoint 'cats' knows: cats that run." in domain_note(
        CATS, PLAIN, "the cathedral runs"
    )
    assert "this picture does not" in domain_note(CATS, NOISE, "a cat runs")
    assert "this picture and prompt do not" in domain_note(CATS, NOISE, "a dog runs")


def test_a_checkpoint_that_says_nothing_knows_everything():
    assert domain_note(Settings(), NOISE, "a dog") is None
    assert domain_note(dataclasses.replace(CATS, domain=Domain()), NOISE, "") is None
    only_words = Domain("cats", (("cat",),))
    assert domain_note(dataclasses.replace(CATS, domain=only_words), NOISE, "cat") is None
