"""LLaVA at toy size: batches, gradients, what is read, and refusals."""

from __future__ import annotations

import numpy as np
import pytest
from text_golden import largest, store

from framewake.config import ClipVisionConfig, LlamaConfig, LlavaConfig
from framewake.errors import CheckpointError, InputError
from framewake.models.clip_layer import check_activation
from framewake.models.llava import Llava
from framewake.weights.stores.store import Resident

IMAGE, PAD = 90, 91
CONFIG = LlavaConfig(
    text=LlamaConfig(
        hidden_size=16,
        mlp_size=24,
        layers=4,
        heads=4,
        kv_heads=2,
        head_dim=8,
        vocab_size=96,
        norm_eps=1e-5,
        rope_theta=10000.0,
    ),
    vision=ClipVisionConfig(
        hidden_size=8,
        mlp_size=16,
        layers=3,
        heads=2,
        image_size=12,
        patch_size=4,
        activation="quick_gelu",
        norm_eps=1e-5,
    ),
    projector_activation="gelu",
    image_token_id=IMAGE,
    pad_token_id=PAD,
    vision_feature_layer=-2,
    drops_class_token=True,
)
ROWS = ([1, 2, IMAGE, 3, 4, 5, 6], [1, 2, IMAGE, 7, 8], [1, 2, IMAGE, 9])


def batch(rows, length=9):
    ids = np.full((len(rows), length), PAD, dtype=np.int64)
    mask = np.zeros((len(rows), length), dtype=np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)], mask[i, : len(row)] = row, 1
    return ids, mask


@pytest.fixture(scope="module")
def model(engine):
    return Llava(engine, CONFIG)


@pytest.fixture(scope="module")
def weights(engine, model):
    return store(engine, model.shapes(), 5)


@pytest.fixture(scope="module")
def pixels(engine):
    return engine.asarray(np.random.default_rng(0).standard_normal((3, 3, 12, 12)).astype(np.float32))


def test_a_row_of_a_batch_equals_the_row_alone(engine, model, weights, pixels):
    together = engine.numpy(model(weights, *batch(ROWS), pixels))
    assert together.shape == (3, 7 - 1 + 9, 16)
    for i, row in enumerate(ROWS):
        alone = engine.numpy(model(weights, *batch([row], len(row)), pixels[i : i + 1]))
        assert largest(together[i : i + 1, : alone.shape[1]], alone) <= 1e-5


def test_one_picture_serves_all_rows(engine, model, weights, pixels):
    rows = [ROWS[0], ROWS[0]]
    hidden = engine.numpy(model(weights, *batch(rows), pixels[:1]))
    assert largest(hidden[1:], hidden[:1]) <= 1e-6


def test_padding_embeddings_are_zero(engine, model, weights, pixels):
    seen = {}
    model(weights, *batch(ROWS), pixels, observe=lambda name, x: seen.update({name: engine.numpy(x)}))
    assert not seen["inputs_embeds"][2, 4 - 1 + 9 :].any()
    assert seen["inputs_embeds"][0].any(axis=-1).all()


def test_only_what_shapes_lists_is_read(engine, model, weights, pixels):
    listed = set(model.shapes())
    read = set()

    class Recording(dict):
        def __init__(self, prefix, tensors):
            super().__init__(tensors)
            self.prefix = prefix

        def __getitem__(self, name):
            read.add(f"{self.prefix}.{name}")
            return super().__getitem__(name)

    class Recorder:
        def part(self, prefix):
            return Recording(prefix, weights.part(prefix))

        def blocks(self, name, count=None):
            for i, tensors in enumerate(weights.blocks(name, count)):
                yield Recording(f"{name}.{i}", tensors)

    model(Recorder(), *batch(ROWS), pixels)
    assert read == listed
    assert not set(model.unused_shapes()) & listed
    assert "language_model.model.layers.3.mlp.up_proj.weight" in model.unused_shapes()


def test_text_alone_needs_no_vision_tower(engine, model):
    text = store(engine, model.language.shapes(), 5)
    hidden = engine.numpy(model(text, *batch([[1, 2, 3]]), None))
    assert hidden.shape == (1, 3, 16)
    assert np.isfinite(hidden).all()


def test_later_tokens_do_not_change_earlier_states(engine, model, weights, pixels):
    one = engine.numpy(model(weights, *batch([[1, 2, IMAGE, 3, 4]], 5), pixels[:1]))
    two = engine.numpy(model(weights, *batch([[1, 2, IMAGE, 3, 8]], 5), pixels[:1]))
    assert largest(two[:, :-1], one[:, :-1]) == 0
    assert largest(two[:, -1:], one[:, -1:]) > 1e-3


def test_skip_layers_zero_ends_with_the_norm(engine, model, pixels):
    weights = store(engine, model.shapes(0), 5)
    hidden = engine.numpy(model(weights, *batch(ROWS[:1]), pixels[:1], skip_layers=0))
    scaled = hidden / engine.numpy(weights.part("language_model.model.norm")["weight"])
    rms = np.sqrt((scaled[0] ** 2).mean(axis=-1))
    assert np.abs(rms - 1).max() <= 1e-3


def test_gradients_reach_both_models(engine, model, weights, pixels):
    ids, mask = batch(ROWS)

    def loss(tensors):
        return engine.mean(model(Resident(tensors), ids, mask, pixels) ** 2, (0, 1, 2))

    flat = weights.part("")
    value, gradients = engine.grad(loss)(flat)
    assert np.isfinite(engine.numpy(value)).all()
    for name in ("language_model.model.embed_tokens.weight", "vision_tower.vision_model.embeddings.class_embedding"):
        step = 1e-2 / np.abs(engine.numpy(gradients[name])).max()
        moved = flat | {name: flat[name] - gradients[name] * step * 1e-1}
        slope = engine.numpy(gradients[name] * gradients[name]).sum() * step * 1e-1
        drop = float(engine.numpy(value)) - float(engine.numpy(loss(moved)))
        assert slope > 0
        assert abs(drop - slope) <= 0.1 * slope, (name, drop, slope)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[1, IMAGE, IMAGE]], "found it 2 times in 1 rows"),
        ([[1, 2, 3]], "found it 0 times"),
        ([[1, IMAGE, 3], [IMAGE, 2, 3]], "one place in all rows"),
        ([[1, IMAGE, 96]], "outside the language model's vocabulary of 96"),
    ],
)
def test_refuses_ids_that_do_not_fit(model, weights, pixels, rows, message):
    with pytest.raises(InputError, match=message):
        model(weights, *batch(rows), pixels[: len(rows)])


def test_refuses_an_image_id_without_a_picture(model, weights):
    with pytest.raises(InputError, match="no picture was given"):
        model(weights, *batch(ROWS[:1]), None)


def test_refuses_padding_on_the_left(model, weights, pixels):
    with pytest.raises(InputError, match="pad on the right"):
        model(weights, np.array([[PAD, 1, IMAGE]]), np.array([[0, 1, 1]]), pixels[:1])


def test_refuses_an_unknown_activation():
    with pytest.raises(CheckpointError, match="Did you mean 'quick_gelu'"):
        check_activation("quickgelu")
