"""Previews: colours from latents without the decoder."""

from __future__ import annotations

import numpy as np

from framewake.golden import rule
from framewake.pipeline.preview import chart, fit


def test_a_linear_latent_is_recovered():
    picture = rule.image("photo", 64, 96, 3, block=8)
    cells = picture.reshape(8, 8, 12, 8, 3).mean(axis=(1, 3))
    mix = np.random.default_rng(0).standard_normal((3, 6))
    latent = np.moveaxis(cells / 255.0 @ mix, -1, 0)[None, :, None].astype(np.float32)
    preview = fit(latent, picture)
    got = preview(np.repeat(latent, 3, axis=2)).astype(float)
    assert got.shape == (8, 12, 3)
    assert np.abs(got - cells).max() <= 6  # levels; the ridge costs a few


def test_broken_numbers_give_a_picture():
    preview = fit(np.zeros((1, 4, 1, 8, 8), np.float32), chart(64, 64))
    got = preview(np.full((1, 4, 1, 8, 8), np.nan, np.float32))
    assert got.dtype == np.uint8 and got.shape == (8, 8, 3)


def test_the_chart_has_many_colours():
    colours = chart(64, 64).reshape(-1, 3)
    assert len(np.unique(colours, axis=0)) > 1000
    assert (colours.max(axis=0) - colours.min(axis=0)).min() > 200
