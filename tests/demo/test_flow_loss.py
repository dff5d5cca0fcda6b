"""The transformer's training loss on both engines: colours beside latents, and what is to be taken back."""

from __future__ import annotations

import numpy as np
import pytest

from demonstration import reader, recipe, transformer
from demonstration.state import load_state


@pytest.fixture
def drawn(engine, tmp_path):
    """Texts, weights, a batch of one clip of three latent frames, and noise."""
    recipe.adopt(engine, tmp_path, recipe.CHECKPOINT)
    texts = transformer.Texts(tmp_path)
    rng = np.random.default_rng(6)
    ids = texts.ids("the red circle grows")
    latents = rng.standard_normal((1, 16, 3, 4, 4)).astype(np.float32)
    batch = transformer.Batch(latents, np.zeros((1, 3, 64, 64), np.float32), *ids, moments=(0, 1, 2))
    noise = engine.asarray(rng.standard_normal(latents.shape).astype(np.float32))
    return texts, recipe.as_tensors(engine, load_state(tmp_path / "dit.safetensors").weights), batch, noise


def test_what_earlier_steps_got_wrong_is_to_be_taken_back(engine, drawn):
    texts, weights, batch, noise = drawn
    model, guidance = transformer.Model(engine, texts), np.float32([6.0])
    miss = model.first_miss(weights, batch, noise, guidance)
    alone = float(engine.numpy(model.loss(weights, batch, noise, np.float32([1.0]), guidance, None)))
    squared = np.mean(engine.numpy(miss)[:, :, 1:].astype(float) ** 2) * transformer.clip_weight(batch.latents).item()
    assert alone == pytest.approx(squared, rel=1e-3)
    # From the same noisy latents the same velocity is wanted, whether it is noise that they have too much of or a miss.
    sigma = np.float32([0.6])
    taken = model.loss(weights, batch, noise, sigma, guidance, miss)
    as_noise = model.loss(weights, batch, noise + miss * (0.4 / 0.6), sigma, guidance, None)
    assert float(engine.numpy(taken)) == pytest.approx(float(engine.numpy(as_noise)), rel=1e-3)


def test_half_of_all_steps_have_something_to_take_back_and_none_at_little_noise():
    rng, sigma = np.random.default_rng(2), np.float32([0.1, 0.5, 1.0])
    shares = [transformer.draw_steps_before(rng, sigma) for _ in range(200)]
    some = np.stack([share[:, 0, 0, 0, 0] for share in shares if share is not None])
    assert 70 < len(some) < 130
    assert not some[:, 0].any() and some[:, 1:].min() > 0 and 1.3 < some.max() <= 1.5


def test_errors_of_colours_count_beside_those_of_latents(engine, drawn):
    texts, weights, batch, noise = drawn
    readers = []
    for loud in (0.0, 1.0, 2.0):
        first = reader.first_reader(np.random.default_rng(7))
        first["last.weight"] *= np.float32(loud)
        readers.append(recipe.as_tensors(engine, first))
    plain, silent, once, twice = (
        float(engine.numpy(model.loss(weights, batch, noise, np.float32([0.5]), np.float32([6.0]), None)))
        for model in (transformer.Model(engine, texts, reader=r) for r in (None, *readers))
    )
    assert plain == pytest.approx(silent, rel=1e-6) and plain > 0
    assert twice - plain == pytest.approx(4 * (once - plain), rel=1e-4) and once > 1.01 * plain
