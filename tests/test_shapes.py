from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from demonstration.models import RESOLUTION_BASES
from framewake import shapes
from framewake.errors import InputError
from framewake.shapes import LatentShape, PixelShape

TESTS = Path(__file__).parent
GOLDEN = TESTS / "golden"
CASES = [case for case in json.loads((GOLDEN / "cases.json").read_text())["cases"] if case["kind"] == "buckets"]
BASES = [*shapes.PUBLISHED_RESOLUTIONS.values(), *RESOLUTION_BASES.values()]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_golden_buckets_are_equal(case):
    arrays = np.load(GOLDEN / case["file"])
    base = shapes.base_px(case["config"]["resolution"])
    assert base == case["config"]["base_size"]
    assert np.array_equal(shapes.buckets(base), arrays["bucket_list"])
    assert [shapes.bucket_ratio(bucket) for bucket in shapes.buckets(base)] == arrays["bucket_ratio"].tolist()
    chosen, resized, boxes = [], [], []
    for width, height in arrays["image_size"].tolist():
        bucket = shapes.choose_bucket(base, height, width)
        size = shapes.resized_size(bucket, height, width)
        top, left = (shapes.crop_offset(side, crop) for side, crop in zip(size, bucket, strict=True))
        chosen.append(bucket)
        resized.append(size[::-1])
        boxes.append((left, top, left + bucket[1], top + bucket[0]))
    assert np.array_equal(chosen, arrays["bucket"])
    assert np.array_equal(resized, arrays["resized"])
    assert np.array_equal(boxes, arrays["crop_box"])


def test_published_lists_are_equal():
    published = json.loads((TESTS / "data" / "i2v-buckets.json").read_text())
    for resolution, base in shapes.PUBLISHED_RESOLUTIONS.items():
        assert [list(bucket) for bucket in shapes.buckets(base)] == published[resolution]


def test_demonstration_buckets():
    assert shapes.buckets(64) == ((128, 32), (96, 32), (64, 32), (64, 64), (32, 64), (32, 96), (32, 128))
    assert {(96, 96), (64, 128), (128, 64)} <= set(shapes.buckets(96))
    assert {(128, 128), (96, 160), (64, 256)} <= set(shapes.buckets(128))


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1280, 720), (704, 1248)), ((720, 1280), (1248, 704)), ((1024, 1024), (960, 960)), ((832, 480), (736, 1248))],
)
def test_examples_of_the_specification(size, expected):
    assert shapes.choose_bucket(960, size[1], size[0]) == expected


@given(st.sampled_from(BASES), st.integers(1, 12000), st.integers(1, 12000))
def test_the_crop_fits(base, height, width):
    bucket = shapes.choose_bucket(base, height, width)
    resized = shapes.resized_size(bucket, height, width)
    assert bucket in shapes.buckets(base)
    # One pixel can be missing, because the ratios of buckets are rounded; ``bucket_pixels`` sees to it.
    assert resized[0] >= bucket[0] - 1 and resized[1] >= bucket[1] - 1
    assert min(resized) == min(bucket)


@given(st.integers(-10, 100_000))
def test_nearest_frames_is_valid_and_nearest(frames):
    nearest = shapes.nearest_frames(frames)
    assert shapes.check_frames(nearest) == nearest
    valid = [count for count in range(max(1, frames - 8), max(2, frames + 8)) if count % 4 == 1] or [1]
    assert abs(nearest - frames) == min(abs(count - frames) for count in valid)


@pytest.mark.parametrize(("frames", "hint"), [(130, "129"), (131, "133"), (0, "1"), (-3, "1"), (24, "25")])
def test_wrong_frames_name_the_nearest(frames, hint):
    with pytest.raises(InputError, match=rf"{frames} frames .* nearest is {hint}\."):
        shapes.check_frames(frames)


def test_unknown_resolution_names_the_nearest():
    with pytest.raises(InputError, match=r"'720' is unknown: choose one of 720p, 540p, 360p\. Did you mean '720p'\?"):
        shapes.base_px("720")


def test_latent_shape_and_tokens():
    latents = shapes.latent_shape(PixelShape(129, 704, 1248), channels=16)
    assert latents == LatentShape(16, 33, 88, 156)
    assert shapes.token_grid(latents) == (33, 44, 78)
    assert shapes.token_count(latents) == 113_256
    assert shapes.token_count(shapes.latent_shape(PixelShape(129, 960, 960), channels=16)) == 118_800


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (PixelShape(129, 700, 1248), "height of 700 px .* 696 or 704"),
        (PixelShape(129, 704, 0), "width of 0 px"),
        (PixelShape(128, 704, 704), "nearest is 129"),
    ],
)
def test_impossible_sizes_are_refused(pixels, words):
    with pytest.raises(InputError, match=words):
        shapes.latent_shape(pixels, channels=16)


def test_latents_that_do_not_divide_into_patches():
    with pytest.raises(InputError, match="patches"):
        shapes.token_grid(LatentShape(16, 33, 87, 88))


@pytest.mark.parametrize("base", [0, 16])
def test_a_base_below_one_step_is_refused(base):
    with pytest.raises(InputError, match="too small"):
        shapes.buckets(base)


@pytest.mark.parametrize("size", [(0, 10), (10, 0), (-1, 5)])
def test_a_picture_without_area_is_refused(size):
    with pytest.raises(InputError, match="no area"):
        shapes.choose_bucket(960, *size)
