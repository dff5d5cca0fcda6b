"""The autoencoder against the diffusers class, with the same random weights.

Known departure of theirs: tiles of 16 frames where the original has 64, so only whole clips are compared.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from framewake import engine as engines
from framewake.golden import rule
from framewake.models.vae import CausalVAE
from framewake.weights.checkpoint import diffusers as layout

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from toy_checkpoint import VAE  # noqa: E402

CONFIGS = {
    "small": VAE,
    "widths": dataclasses.replace(VAE, block_out_channels=(8, 16, 24, 24), layers_per_block=2, latent_channels=6),
    "no attention": dataclasses.replace(VAE, mid_block_attention=False),
}


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module", params=CONFIGS.values(), ids=CONFIGS)
def models(request):
    """Our model, its weights, and theirs with the same weights."""
    engine, config = engines.get("torch:cpu"), request.param
    ours = CausalVAE(engine, config)
    weights = rule.weights(ours.shapes(), 5)
    content = {name: value for name, value in layout.vae_content(config).items() if not name.startswith("_")}
    theirs = diffusers.AutoencoderKLHunyuanVideo(**content).eval()
    theirs.load_state_dict({name: torch.from_numpy(np.array(x)) for name, x in weights.items()}, strict=True)
    return ours, {name: engine.asarray(x) for name, x in weights.items()}, theirs


def check(found, expected):
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) <= 3e-5 * float(expected.abs().max())


@pytest.mark.parametrize("shape", [(1, 3, 1, 24, 40), (2, 3, 1, 16, 16), (1, 3, 9, 16, 24)], ids=str)
def test_encode(models, shape):
    ours, weights, theirs = models
    pixels = torch.from_numpy(rule.input("pixels", shape, 1))
    mean, logvar = ours.encode(weights, pixels)
    posterior = theirs.encode(pixels).latent_dist
    check(mean, posterior.mode())
    check(logvar, posterior.logvar)


@pytest.mark.parametrize("grid", [(1, 4, 3), (3, 2, 4)], ids=str)
def test_decode(models, grid):
    ours, weights, theirs = models
    latents = torch.from_numpy(rule.input("latents", (1, ours.config.latent_channels, *grid), 1))
    check(ours.decode(weights, latents), theirs.decode(latents).sample)
