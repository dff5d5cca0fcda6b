"""What the demonstration's training does with embedded guidance, which tells it nothing."""

from __future__ import annotations

import numpy as np
import pytest

from demonstration import foresight, pool, recipe, transformer
from framewake.models.dit import SCALAR_LAYERS
from framewake.nn.embedding import scalar_embedding
from framewake.weights.checkpoint.load import open_checkpoint

SCALES = np.array([0, 1000, 5900, 6000, 6016, 10000, 20000], np.float32)


def told(engine, embedder: dict) -> np.ndarray:
    weights = {name: engine.asarray(array) for name, array in embedder.items()}
    return engine.numpy(scalar_embedding(engine, weights, SCALAR_LAYERS, engine.asarray(SCALES)))


def test_settled_guidance_is_the_mean_of_what_was_trained_at(engine):
    rng = np.random.default_rng(0)
    shapes = {"mlp.0.weight": (8, 256), "mlp.0.bias": (8,), "mlp.2.weight": (8, 8), "mlp.2.bias": (8,)}
    arrays = {f"dit.guidance_in.{n}": rng.standard_normal(s).astype(np.float32) / 4 for n, s in shapes.items()}
    before = transformer.part(arrays, "dit.guidance_in.")
    many = np.linspace(*transformer.GUIDANCES, 4096) * 1000
    angles = many[:, None] * np.exp(-np.log(10000) * np.arange(128) / 128)
    hidden = np.concatenate([np.cos(angles), np.sin(angles)], 1) @ before["mlp.0.weight"].T + before["mlp.0.bias"]
    expected = (hidden / (1 + np.exp(-hidden)) @ before["mlp.2.weight"].T + before["mlp.2.bias"]).mean(0)
    assert told(engine, before).std(0).max() > 0.05
    after = transformer.part(arrays | transformer.settled_guidance(engine, arrays), "dit.guidance_in.")
    np.testing.assert_allclose(told(engine, after), np.broadcast_to(expected, (7, 8)), atol=2e-3)


def test_the_shipped_checkpoint_is_told_the_same_by_every_scale(engine):
    tensors = open_checkpoint(recipe.CHECKPOINT).tensors("dit")
    found = recipe.read_all(tensors)
    said = told(engine, transformer.part(found, "guidance_in."))
    assert np.abs(said).max() > 0.01 and not np.ptp(said, axis=0).any()


@pytest.mark.parametrize("draw", [transformer.draw_guidance, transformer.draw_sigma])
def test_what_is_drawn_for_training_differs_from_clip_to_clip(draw):
    values = draw(np.random.default_rng(0), 64)
    assert values.shape == (64,) and values.dtype == np.float32 and len(set(values)) > 32


def test_first_frames_are_told_as_many_scales_as_clips(engine, tmp_path):
    recipe.adopt(engine, tmp_path, recipe.CHECKPOINT)
    vae, weights = pool.frozen_vae(engine, tmp_path)
    frames = foresight.FirstFrames(engine, (vae, weights), transformer.Texts(tmp_path), 1.0)
    scales = frames.draw(np.random.default_rng(1), 16).guidance
    low, high = transformer.GUIDANCES
    assert len(set(scales)) == 16 and low <= scales.min() < scales.max() <= high
