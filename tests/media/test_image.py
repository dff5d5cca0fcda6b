from __future__ import annotations

import hashlib
import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from framewake.errors import InputError
from framewake.golden import rule
from framewake.media import image as pictures
from framewake.media.image import load_image
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


# --- good files


def sample(mode="RGB", size=(40, 30)):
    values = rule.image("sample", size[1], size[0], 3, block=8)
    return Image.fromarray(values).convert(mode)


@pytest.mark.parametrize("ending", ["png", "bmp", "tiff", "ppm", "webp", "gif", "jpg"])
def test_formats_open_as_rgb(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    image = sample().quantize(256) if ending == "gif" else sample()
    options = {"webp": {"lossless": True}, "jpg": {"quality": 95, "subsampling": 0}}
    image.save(path, **options.get(ending, {}))
    opened = load_image(path)
    assert (opened.mode, opened.size) == ("RGB", (40, 30))
    limit = 8 if ending == "jpg" else 0
    assert np.abs(np.asarray(opened, int) - np.asarray(image.convert("RGB"), int)).max() <= limit


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    upright = np.zeros((20, 30, 3), np.uint8)
    upright[:5, :5] = (255, 0, 0)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.png"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif)
    opened = np.asarray(load_image(path))
    assert opened.shape == upright.shape
    assert np.array_equal(opened, upright)


def test_damaged_exif_is_no_reason_to_refuse(tmp_path):
    path = tmp_path / "a.jpg"
    sample().save(path, exif=b"Exif\0\0II*\0\xff\xff\xff\x7f" + b"\xff" * 40, quality=95)
    assert load_image(path).size == (40, 30)


def test_alpha_is_dropped_and_not_blended(tmp_path):
    values = np.full((4, 6, 4), (10, 200, 30, 0), np.uint8)
    Image.fromarray(values).save(tmp_path / "clear.png")
    assert np.array_equal(np.asarray(load_image(tmp_path / "clear.png")), values[..., :3])


def test_sixteen_bit_grey_keeps_its_upper_byte(tmp_path):
    values = np.arange(0, 65536, 256, dtype=np.uint16).reshape(16, 16) + 7
    Image.fromarray(values).save(tmp_path / "deep.png")
    grey = np.asarray(load_image(tmp_path / "deep.png"))
    assert np.array_equal(grey[..., 0], values >> 8)
    assert np.array_equal(grey[..., 0], grey[..., 2])


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "LA"])
def test_other_colour_modes_become_rgb(tmp_path, mode):
    path = tmp_path / ("a.tiff" if mode == "CMYK" else "a.png")
    sample(mode).save(path)
    assert np.array_equal(np.asarray(load_image(path)), np.asarray(sample(mode).convert("RGB")))


def test_a_photograph_with_a_second_view_is_one_picture(tmp_path):
    path = tmp_path / "phone.jpg"
    sample().save(path, format="MPO", save_all=True, append_images=[sample(size=(20, 10))])
    with Image.open(path) as stored:
        assert stored.n_frames == 2
    assert load_image(path).size == (40, 30)


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (7, 5)])
def test_tiny_pictures_fill_their_bucket(tmp_path, size):
    Image.new("RGB", size, (9, 99, 199)).save(tmp_path / "tiny.png")
    image = load_image(tmp_path / "tiny.png")
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


# --- bad files


def refused(path, words):
    with pytest.raises(InputError, match=words) as caught:
        load_image(path)
    assert "\n" not in str(caught.value)


def png_header(width, height):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_missing_empty_and_nameless(tmp_path):
    refused(tmp_path / "no.png", "there is no such file")
    refused("", "no picture was named")
    (tmp_path / "empty.png").write_bytes(b"")
    refused(tmp_path / "empty.png", r"is empty \(0 bytes\)")
    refused(tmp_path, "is a folder")
    refused(tmp_path / "empty.png" / "x.png", "there is no such file|cannot be read")
    refused("a\0b.png", "cannot be read|no such file")
    refused("x" * 5000, "cannot be read|no such file")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_refused_without_waiting_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    refused(tmp_path / "pipe.png", "device or a pipe")


@pytest.mark.parametrize(
    "content", [b"hello", b"%PDF-1.7\n", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\xd8\xff", b"\0" * 999]
)
def test_what_is_no_picture_is_refused(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    refused(tmp_path / "a.png", "not a picture|damaged")


def test_postscript_is_never_run(tmp_path):
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    refused(tmp_path / "a.png", "not a picture")


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "gif", "bmp", "tiff"])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_truncated_files_are_refused(tmp_path, ending, part):
    whole = tmp_path / f"whole.{ending}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)).save(whole)
    cut = tmp_path / f"cut.{ending}"
    cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * part)])
    refused(cut, "damaged or cut off|not a picture")


def test_huge_pictures_are_refused_by_their_header(tmp_path):
    path = tmp_path / "huge.png"
    path.write_bytes(png_header(10_001, 10_000))
    refused(path, r"too big \(10001 x 10000 px\): at most 100 megapixels")
    path.write_bytes(png_header(200_000, 200_000))
    refused(path, "too big .*at most 100 megapixels")
    # One pixel fewer is allowed by size: only then does the missing content show.
    path.write_bytes(png_header(10_000, 10_000))
    refused(path, "damaged or cut off")


def test_zero_sized_pictures_are_refused(tmp_path):
    for size in ((0, 5), (5, 0), (0, 0)):
        (tmp_path / "zero.png").write_bytes(png_header(*size))
        refused(tmp_path / "zero.png", "no area|not a picture|damaged")
    (tmp_path / "zero.gif").write_bytes(b"GIF89a\0\0\0\0\0\0\0;")
    refused(tmp_path / "zero.gif", "no area|not a picture|damaged")


def test_needles_are_refused(tmp_path):
    Image.new("RGB", (1001, 10)).save(tmp_path / "needle.png")
    refused(tmp_path / "needle.png", "at most 100 times the other")
    Image.new("RGB", (1000, 10)).save(tmp_path / "thin.png")
    assert load_image(tmp_path / "thin.png").size == (1000, 10)


@pytest.mark.parametrize(
    ("ending", "words"), [("gif", "frames"), ("webp", "frames"), ("png", "frames"), ("tiff", "pages")]
)
def test_several_pictures_in_one_file_are_refused(tmp_path, ending, words):
    path = tmp_path / f"moving.{ending}"
    others = [Image.new("RGB", (8, 8), (index * 50, 0, 0)) for index in range(1, 4)]
    Image.new("RGB", (8, 8)).save(path, save_all=True, append_images=others)
    refused(path, f"has 4 {words}")


def test_a_picture_that_may_not_be_read(tmp_path):
    path = tmp_path / "secret.png"
    sample().save(path)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    refused(path, "cannot be read")


def test_floating_point_brightness_is_refused(tmp_path):
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "f.tiff")
    refused(tmp_path / "f.tiff", "floating-point")


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "gif", "bmp", "tiff", "avif", "tga", "jp2"])
def test_flipped_bytes_open_or_are_refused(tmp_path, ending):
    if f".{ending}" not in Image.registered_extensions():
        pytest.skip("this Pillow cannot write the format")
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / f"a.{ending}"
    with_exif = {"exif": exif} if ending in ("png", "jpg", "webp", "avif") else {}
    sample().save(path, **with_exif)
    whole = path.read_bytes()
    random = np.random.default_rng(5)
    answers = set()
    for _ in range(60):
        content = np.frombuffer(whole, np.uint8).copy()
        where = random.integers(0, min(len(content), 300), 3)
        content[where] = random.integers(0, 256, 3)
        path.write_bytes(content.tobytes())
        try:
            answers.add(load_image(path).mode)
        except InputError:
            answers.add("refused")
    assert "refused" in answers
    assert answers <= {"refused", "RGB"}
