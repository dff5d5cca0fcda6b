"""Decoding a few frames at a time gives what decoding at once gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from framewake.config import HUNYUAN_VAE
from framewake.golden import rule
from framewake.models import tiling, vae_slabs
from framewake.models.vae import CausalVAE
from framewake.pipeline.forecast import autoencoder

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


def test_large_frames_begin_with_slabs_of_their_own(engine, monkeypatch):
    monkeypatch.setattr(vae_slabs, "LARGE", 1)
    vae, w = decoder(engine, TOY)
    latents = engine.asarray(rule.input("latents", (1, 4, 5, 2, 3), 1))
    assert [int(x.shape[2]) for x in vae_slabs.opened(latents, 2 * 24)] == [1, 1, 2, 1]
    found = engine.numpy(vae_slabs.decode(vae, w, latents, numbers=700))
    assert largest(found, engine.numpy(vae.decode(w, latents))) <= 5e-6


@pytest.mark.parametrize("frame", [0, 1])
def test_an_opening_is_what_the_taps_give_over_repeated_frames(engine, frame):
    weight = engine.asarray(rule.weight("w", (6, 4, 3, 3, 3), 1))
    clip = engine.asarray(rule.input("x", (1, 4, 2, 5, 5), 1))[:, :, : 1 + frame]
    repeated = engine.concat([clip[:, :, :1]] * 2 + [clip], 2)[:, :, frame:]
    expected = engine.numpy(engine.conv3d(repeated, weight))
    found = engine.numpy(engine.conv3d(clip, vae_slabs.opening(engine, weight, frame)))
    assert largest(found, expected[:, :, -1:]) <= 1e-6


class Counted:
    """An engine that adds up the operations of its convolutions of three dimensions."""

    def __init__(self, engine):
        self.engine = engine
        self.operations = 0.0

    def __getattr__(self, name):
        return getattr(self.engine, name)

    def conv3d(self, x, weight, bias=None, stride=(1, 1, 1)):
        found = self.engine.conv3d(x, weight, bias, stride)
        _, inputs, *taps = weight.shape
        self.operations += 2.0 * inputs * np.prod(taps) * np.prod(found.shape)
        return found


@pytest.mark.parametrize("least", [1, vae_slabs.LARGE])  # numbers of a frame that is large
def test_the_forecast_counts_the_operations_of_slabs(engine, monkeypatch, least):
    monkeypatch.setattr(vae_slabs, "LARGE", least)
    monkeypatch.setattr(autoencoder, "LARGE", least)
    counted = Counted(engine)
    config = replace(TOY, mid_block_attention=False)
    vae, w = decoder(counted, config)
    latents = engine.asarray(rule.input("latents", (1, 4, 3, 16, 12), 1))
    vae_slabs.decode(vae, w, latents, numbers=20000)
    ratio = counted.operations / autoencoder.decode_operations(config, (3, 16, 12), is_in_slabs=True)
    assert 1 <= ratio <= 1.1, ratio  # enlargements compute one row and column more
    assert counted.operations < 0.8 * autoencoder.decode_operations(config, (3, 16, 12))


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


@pytest.mark.parametrize("numbers", [1, 700, 1 << 30])
@pytest.mark.parametrize(
    "config",
    [
        TOY,
        replace(TOY, layers_per_block=2, block_out_channels=(4, 4, 8, 8)),
        replace(TOY, spatial_compression=4, temporal_compression=2),
        replace(TOY, mid_block_attention=False),
    ],
)
@pytest.mark.parametrize("frames", [1, 5, 13])
def test_slabs_give_the_same_latents(engine, config, frames, numbers):
    vae, w = decoder(engine, config)
    pixels = engine.asarray(rule.input("pixels", (2, 3, frames, 16, 24), 1))
    found = engine.numpy(vae_slabs.moments(vae, w, pixels, numbers=numbers))
    assert largest(found, engine.numpy(vae.moments(w, pixels))) <= 5e-6
