"""Noise: the same numbers for a seed, everywhere."""

import numpy as np
import pytest

from framewake.errors import InputError
from framewake.sampling.noise import draw, stabilised


def test_a_seed_is_a_promise():
    # Written out: a change of these numbers changes every video that was ever made from a seed.
    expected = np.random.Generator(np.random.Philox(key=42)).standard_normal(3, dtype=np.float32)
    assert draw((3,), 42).tolist() == expected.tolist()
    assert draw((2, 4), 7).dtype == np.float32
    assert not np.array_equal(draw((8,), 1), draw((8,), 2))


def test_noise_is_standard_normal():
    noise = draw((16, 5, 60, 60), 0)
    assert abs(float(noise.mean())) < 0.01
    assert abs(float(noise.std()) - 1) < 0.01


@pytest.mark.parametrize("seed", [-1, 2**128])
def test_seeds_out_of_range_are_refused(seed):
    with pytest.raises(InputError, match="out of range"):
        draw((2,), seed)


def test_stability_mixes_the_image_into_every_frame(engine):
    noise, image = draw((1, 4, 3, 4, 4), 1), draw((1, 4, 1, 4, 4), 2)
    mixed = engine.numpy(stabilised(engine, engine.asarray(noise), engine.asarray(image)))
    expected = noise * np.float32(0.999) + image * (np.float32(1) - np.float32(0.999))
    assert np.abs(mixed - expected).max() == 0
    half = stabilised(engine, engine.asarray(noise, "float16"), engine.asarray(image, "float16"))
    assert engine.dtype(half) == "float16"
