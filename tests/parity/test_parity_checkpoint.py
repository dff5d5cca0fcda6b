"""A written checkpoint opened by diffusers and transformers: every model gives what ours gives."""

from __future__ import annotations

import numpy as np
import pytest
from toy_checkpoint import write_toy

from framewake import engine as engines
from framewake.golden import rule
from framewake.models.clip_text import ClipText
from framewake.models.dit import DiT, TextStates
from framewake.models.llava import Llava
from framewake.models.vae import CausalVAE
from framewake.nn.rope import rope_table
from framewake.weights.checkpoint.load import open_checkpoint

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def engine():
    return engines.get("torch:cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_toy(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def theirs(folder):
    return diffusers.HunyuanVideoImageToVideoPipeline.from_pretrained(folder, dtype=torch.float32)


@pytest.fixture(scope="module")
def checkpoint(folder):
    return open_checkpoint(folder)


def check(found, expected):
    assert found.shape == expected.shape
    assert float(expected.abs().max()) > 0.01
    assert float((found - expected).abs().max()) <= 3e-5 * float(expected.abs().max())


def draw(name, shape):
    return torch.from_numpy(rule.input(name, shape, 9))


def test_transformer(engine, checkpoint, theirs):
    config = checkpoint.dit
    dit = DiT(engine, config)
    cos, sin = rope_table((2, 2, 3), config.rope_dims, config.rope_theta)
    latents, states = draw("latents", (1, config.in_channels, 2, 4, 6)), draw("states", (1, 5, config.text_width))
    pooled, timestep, guidance = draw("pooled", (1, config.pooled_width)), torch.tensor([700.0]), torch.tensor([6016.0])
    found = dit(
        checkpoint.store("dit", engine, "float32", shapes=dit.shapes()),
        latents,
        timestep=timestep,
        text=TextStates(states, (5,), pooled),
        rope=(torch.from_numpy(cos), torch.from_numpy(sin)),
        guidance=guidance,
    )
    arguments = {"hidden_states": latents, "encoder_hidden_states": states, "pooled_projections": pooled}
    mask = torch.ones(1, 5, dtype=torch.long)
    check(found, theirs.transformer(timestep=timestep, encoder_attention_mask=mask, guidance=guidance, **arguments)[0])


def test_autoencoder(engine, checkpoint, theirs):
    vae = CausalVAE(engine, checkpoint.vae)
    w = checkpoint.store("vae", engine, "float32", shapes=vae.shapes()).part("")
    pixels = draw("pixels", (1, 3, 5, 16, 16))
    mean, _ = vae.encode(w, pixels)
    check(mean, theirs.vae.encode(pixels).latent_dist.mode())
    check(vae.decode(w, mean), theirs.vae.decode(mean).sample)


def test_llava(engine, checkpoint, theirs):
    config = checkpoint.configs["llava"]
    llava = Llava(engine, config)
    store = checkpoint.store("llava", engine, "float32", shapes=llava.shapes())
    ids = np.array([[0, 9, config.image_token_id, 11, 12, 13, config.pad_token_id]])
    mask = (ids != config.pad_token_id).astype(np.int64)
    pixels = draw("pixels", (1, 3, config.vision.image_size, config.vision.image_size))
    found = llava(store, ids, mask, pixels)
    # Theirs wants the picture's id once per feature.
    wide = np.concatenate([ids[:, :2], np.full((1, llava.image_tokens), config.image_token_id), ids[:, 3:]], axis=1)
    wide_mask = torch.from_numpy((wide != config.pad_token_id).astype(np.int64))
    outputs = theirs.text_encoder(
        input_ids=torch.from_numpy(wide), attention_mask=wide_mask, pixel_values=pixels, output_hidden_states=True
    )
    check(found, outputs.hidden_states[-3][:, : found.shape[1]])


def test_clip_text(engine, checkpoint, theirs):
    clip = ClipText(engine, checkpoint.configs["clip_text"])
    store = checkpoint.store("clip_text", engine, "float32", shapes=clip.shapes())
    end = checkpoint.configs["clip_text"].eos_token_id
    ids = np.array([[1, 5, 7, end, end, end]])
    pooled, last = clip(store, ids, np.array([[1, 1, 1, 1, 0, 0]]))
    outputs = theirs.text_encoder_2(torch.from_numpy(ids))
    check(pooled, outputs.pooler_output)
    check(last, outputs.last_hidden_state[:, :4])


def test_their_scheduler_has_our_shift(checkpoint, theirs):
    assert theirs.scheduler.config.shift == checkpoint.settings.flow_shift
