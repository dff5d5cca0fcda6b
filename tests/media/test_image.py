from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from framewake.golden import rule
from framewake.media import image as pictures
from framewake.media.picture import load_picture
from framewake.shapes import base_px, choose_bucket, resized_size

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = json.loads((GOLDEN / "cases.json").read_text())["cases"]


def of_kind(kind):
    found = [case for case in CASES if case["kind"] == kind]
    return pytest.mark.parametrize("case", found, ids=[case["id"] for case in found])


def photo(case):
    given = case["inputs"]["photo"]
    height, width = (given.get(side, given.get(f"image_{side}")) for side in ("height", "width"))
    return Image.fromarray(rule.image("photo", height, width, given.get("seed", case["seed"]), block=given["block"]))


@of_kind("image_preprocess")
def test_golden_bucket_pixels_are_equal(case):
    arrays = np.load(GOLDEN / case["file"])
    image = photo(case)
    bucket = choose_bucket(base_px(case["config"]["resolution"]), image.height, image.width)
    assert bucket == tuple(arrays["bucket"])
    pixels = pictures.bucket_pixels(image, *bucket)
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    if "pixels_u8" in arrays:
        assert np.array_equal(planes, arrays["pixels_u8"])
    assert hashlib.sha256(planes.tobytes()).digest() == arrays["sha256_u8"].tobytes()
    assert np.array_equal(pictures.normalise(pixels)[:, ::37, ::37], arrays["pixels_sample"])


@of_kind("end_to_end_predict")
def test_golden_pixels_of_the_sampler_are_equal(case):
    image = photo(case)
    bucket = choose_bucket(case["inputs"]["photo"]["bucket_base"], image.height, image.width)
    pixels = pictures.normalise(pictures.bucket_pixels(image, *bucket))
    assert np.array_equal(pixels, np.load(GOLDEN / case["file"])["pixels"][0, :, 0])


@of_kind("clip_image")
def test_golden_clip_pixels_are_equal(case):
    arrays = np.load(GOLDEN / case["file"])
    config = case["config"]
    square = pictures.clip_crop(photo(case), config["crop"])
    assert np.array_equal(square.transpose(2, 0, 1), arrays["pixels_u8"])
    values = pictures.clip_pixels(photo(case), config["crop"], mean=config["mean"], std=config["std"])
    assert values.dtype == np.float32
    assert np.array_equal(values[:, ::24, ::24], arrays["pixel_values_sample"])


def test_normalise_puts_frames_after_channels():
    clip = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    values = pictures.normalise(clip)
    assert values.shape == (3, 2, 4, 5)
    assert values[1, 1, 2, 3] == (np.float32(clip[1, 2, 3, 1]) / np.float32(255) - np.float32(0.5)) * 2
    assert pictures.normalise(np.array([[[0, 255, 0]]], np.uint8)).ravel().tolist() == [-1, 1, -1]


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (7, 5)])
def test_tiny_pictures_fill_their_bucket(tmp_path, size):
    Image.new("RGB", size, (9, 99, 199)).save(tmp_path / "tiny.png")
    image = load_picture(tmp_path / "tiny.png").image
    bucket = choose_bucket(480, image.height, image.width)
    pixels = pictures.bucket_pixels(image, *bucket)
    assert pixels.shape == (*bucket, 3)
    assert np.unique(pixels.reshape(-1, 3), axis=0).tolist() == [[9, 99, 199]]
    assert pictures.clip_pixels(image, 336).shape == (3, 336, 336)


def test_a_rounded_ratio_leaves_no_black_line():
    # 1841 / 4554 lies between 608 / 1504 and its rounding to five digits.
    bucket = choose_bucket(960, 1841, 4554)
    assert (bucket, resized_size(bucket, 1841, 4554)) == ((608, 1504), (608, 1503))
    pixels = pictures.bucket_pixels(Image.new("RGB", (4554, 1841), (255, 255, 255)), *bucket)
    assert (pixels.shape, pixels.min()) == ((608, 1504, 3), 255)


@pytest.mark.parametrize(("size", "axis"), [((96, 64), 1), ((64, 96), 0)])
def test_the_crop_lies_where_it_is_asked_for(size, axis):
    shades = np.arange(96, dtype=np.uint8).reshape((1, 96, 1) if axis else (96, 1, 1))
    image = Image.fromarray(np.ascontiguousarray(np.broadcast_to(shades, (*size[::-1], 3))))
    centred = pictures.bucket_pixels(image, 64, 64)
    assert np.array_equal(pictures.bucket_pixels(image, 64, 64, place=(0.5, 0.5)), centred)
    for place, first in ((0.0, 0), (0.25, 8), (0.5, 16), (1.0, 32)):
        place_of = (place, 0.9) if axis else (0.1, place)
        found = pictures.bucket_pixels(image, 64, 64, place=place_of)
        assert np.array_equal(found.take(range(64), axis=axis).max(axis=1 - axis)[:, 0], np.arange(first, first + 64))


@pytest.mark.parametrize("framed", [pictures.bucket_pixels, pictures.covering_pixels])
@pytest.mark.parametrize(("size", "bucket"), [((90, 30), (64, 96)), ((30, 90), (96, 64)), ((600, 60), (64, 128))])
def test_a_picture_that_is_to_fit_is_there_whole(framed, size, bucket):
    halves = np.zeros((size[1], size[0], 3), np.uint8)
    halves[: size[1] // 2, :, 0] = 250
    halves[:, : size[0] // 2, 1] = 250
    found = framed(Image.fromarray(halves), *bucket, place=None).astype(int)
    assert found.shape == (*bucket, 3)
    corners = [found[y, x, :2].tolist() for y, x in ((0, 0), (0, -1), (-1, 0), (-1, -1))]
    assert corners == [[250, 250], [250, 0], [0, 250], [0, 0]], "the edges go on outwards"
    plain = framed(Image.new("RGB", size, (9, 99, 199)), *bucket, place=None)
    assert np.unique(plain.reshape(-1, 3), axis=0).tolist() == [[9, 99, 199]]


def test_what_fits_is_not_touched():
    noise = np.random.default_rng(3).integers(0, 256, (64, 96, 3), np.uint8)
    assert np.array_equal(pictures.bucket_pixels(Image.fromarray(noise), 64, 96, place=None), noise)
    wider = pictures.bucket_pixels(Image.fromarray(noise), 64, 128, place=None)
    assert np.array_equal(wider[:, 16:112], noise), "sharp, in the middle"
    outside = np.concatenate([wider[:, :16], wider[:, 112:]], axis=1).astype(int)
    assert np.abs(np.diff(outside, axis=0)).max() < np.abs(np.diff(noise.astype(int), axis=0)).max() / 3
