"""Decoded pixels as the frames of a clip."""

from __future__ import annotations

import numpy as np
import pytest

from framewake.errors import NumericsError
from framewake.pipeline.finish import to_frames


def pixels_of(values, dtype):
    return np.resize(np.asarray(values, dtype), (1, 3, 2, 128, 256))


def test_every_half_number_is_mapped_as_its_arithmetic_does():
    numbers = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    pixels = pixels_of(numbers[~np.isnan(numbers)], "float16")
    units = np.clip(pixels / 2 + 0.5, 0, 1).astype(np.float32)
    expected = np.moveaxis((units * np.float32(255)).astype(np.uint8)[0], 0, -1)
    found = to_frames(pixels)
    assert found.dtype == np.uint8 and found.shape == (2, 128, 256, 3) and np.array_equal(found, expected)
    assert len(np.unique(found)) == 256


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_nan_is_refused_and_infinity_is_white_or_black(dtype):
    pixels = pixels_of([np.inf, -np.inf, 0.0, -1.0, 1.0], dtype)
    assert to_frames(pixels)[0, 0, :5, 0].tolist() == [255, 0, 127, 0, 255]
    for nan in (np.nan, -np.nan):
        pixels[0, 1, 1, 5, 7] = nan
        with pytest.raises(NumericsError, match="--precision float32"):
            to_frames(pixels)
