"""Our table of names against the lists of the diffusers classes themselves."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from framewake.config import HUNYUAN_DIT, HUNYUAN_VAE
from framewake.models.dit import DiT
from framewake.models.vae import CausalVAE
from framewake.weights.checkpoint import diffusers as layout
from framewake.weights.reading.names import diffusers_dit, translate

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

DATA = Path(__file__).parents[1] / "data"
TOY = dataclasses.replace(
    HUNYUAN_DIT,
    hidden_size=32,
    heads=2,
    rope_dims=(4, 6, 6),
    double_blocks=3,
    single_blocks=2,
    refiner_blocks=1,
    text_width=24,
    pooled_width=20,
)
CONFIGS = {
    "published": HUNYUAN_DIT,
    "toy": TOY,
    "no guidance": dataclasses.replace(TOY, has_guidance=False, condition="none"),
    "latent_concat": dataclasses.replace(TOY, in_channels=33, condition="latent_concat", has_guidance=False),
}


def fields(content):
    return {name: value for name, value in content.items() if not name.startswith("_")}


def their_shapes(kind, content):
    with torch.device("meta"):
        model = kind(**fields(content))
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


@pytest.mark.parametrize("name", CONFIGS)
def test_every_transformer_name_is_used_exactly_once(name):
    config = CONFIGS[name]
    theirs = their_shapes(diffusers.HunyuanVideoTransformer3DModel, layout.dit_content(config))
    rules = diffusers_dit(config)
    used = [their for rule in rules for their in rule.theirs]
    assert sorted(used) == sorted(theirs)
    ours = {rule.ours: rule.shape(theirs.__getitem__) for rule in rules}
    assert len(ours) == len(rules)
    assert ours == DiT(None, config).shapes()


def test_published_lists():
    dit = {name: tuple(shape) for name, shape in json.loads((DATA / "dit-keys.json").read_text()).items()}
    vae = {name: tuple(shape) for name, shape in json.loads((DATA / "vae-keys.json").read_text()).items()}
    assert len(dit) == 856
    assert len(vae) == 248
    theirs = their_shapes(diffusers.HunyuanVideoTransformer3DModel, layout.dit_content(HUNYUAN_DIT))
    assert {rule.ours: rule.shape(theirs.__getitem__) for rule in diffusers_dit(HUNYUAN_DIT)} == dit
    assert their_shapes(diffusers.AutoencoderKLHunyuanVideo, layout.vae_content(HUNYUAN_VAE)) == vae
    assert CausalVAE(None, HUNYUAN_VAE).shapes() == vae


def test_there_and_back_changes_nothing():
    ours = {name: np.random.default_rng(0).normal(size=shape) for name, shape in DiT(None, TOY).shapes().items()}
    rules = diffusers_dit(TOY)
    theirs = translate(rules, ours)
    assert {name: values.shape for name, values in theirs.items()} == their_shapes(
        diffusers.HunyuanVideoTransformer3DModel, layout.dit_content(TOY)
    )
    back = {rule.ours: rule.join(theirs.__getitem__) for rule in rules}
    assert list(back) == [rule.ours for rule in rules]
    assert all(np.array_equal(back[name], ours[name]) for name in ours)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_transformer_config_there_and_back(config):
    assert layout.dit_config(layout.dit_content(config)) == config


def test_autoencoder_config_there_and_back():
    assert layout.vae_config(layout.vae_content(HUNYUAN_VAE)) == HUNYUAN_VAE
