"""Decoding a few frames at a time gives what decoding at once gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from framewake.config import HUNYUAN_VAE
from framewake.golden import rule
from framewake.models import tiling, vae_slabs
from framewake.models.vae import CausalVAE

TOY = replace(HUNYUAN_VAE, latent_channels=4, block_out_channels=(4, 8, 8, 8), layers_per_block=1, norm_groups=2)


def decoder(engine, config, dtype="float32"):
    vae = CausalVAE(engine, config)
    return vae, {name: engine.asarray(rule.weight(name, shape, 1), dtype) for name, shape in vae.shapes().items()}


def largest(found, expected):
    assert found.shape == expected.shape, (found.shape, expected.shape)
    return float(np.abs(found.astype(np.float64) - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("numbers", [1, 700, 1 << 30])  # slabs of one frame, of several, of all
@pytest.mark.parametrize(
    "config",
    [TOY, replace(TOY, spatial_compression=4, temporal_compression=2), replace(TOY, mid_block_attention=False)],
)
@pytest.mark.parametrize("size", [(1, 3, 2), (2, 2, 3), (5, 2, 2)])
def test_slabs_give_the_same_clip(engine, config, size, numbers):
    vae, w = decoder(engine, config)
    latents = engine.asarray(rule.input("latents", (2, 4, *size), 1))
    found = engine.numpy(vae_slabs.decode(vae, w, latents, numbers=numbers))
    assert largest(found, engine.numpy(vae.decode(w, latents))) <= 5e-6


def test_half_precision_keeps_its_type_and_stays_close(engine):
    vae, w = decoder(engine, TOY, "float16")
    latents = engine.asarray(rule.input("latents", (1, 4, 3, 3, 3), 1))
    half = vae_slabs.decode(vae, w, latents, numbers=700)
    assert engine.dtype(half) == "float16"
    _, wide = decoder(engine, TOY)
    assert largest(engine.numpy(half), engine.numpy(vae.decode(wide, latents))) <= 1e-2


def test_a_mean_far_from_zero_costs_no_digits(engine):
    """Statistics are taken around each channel's own mean: squares of large numbers would cancel."""
    x = rule.input("x", (1, 4, 6, 8, 8), 1).astype(np.float32) + np.float32(300)
    slabs = vae_slabs.cut(engine.asarray(x), 4 * 64 * 2)
    assert [int(slab.shape[2]) for slab in slabs] == [2, 2, 2]
    found = vae_slabs.joined([vae_slabs.moments_of(engine, slab) for slab in slabs])
    mean, spread = (engine.numpy(part)[0] for part in found)
    wide = x.astype(np.float64)[0].reshape(4, -1)
    assert np.abs(mean - wide.mean(1)).max() <= 1e-4
    assert np.abs(spread / wide.var(1) - 1).max() <= 1e-3


def test_a_tile_on_a_cpu(engine):
    vae, w = decoder(engine, TOY)
    latents = engine.asarray(rule.input("latents", (1, 4, 3, 2, 2), 1))
    found = engine.numpy(tiling.decode_tile(vae, w, latents))
    assert largest(found, engine.numpy(vae.decode(w, latents))) <= 5e-6
