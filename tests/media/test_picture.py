"""The file that a picture comes in: every kind, upright, and every way in which it can be wrong."""

from __future__ import annotations

import os
import shutil
import struct
import sys
import zlib

import numpy as np
import pytest
from made_files import png_chunk, sample, tiff_pages
from PIL import Image

from framewake.batch import read_batch
from framewake.demo import PICTURES
from framewake.errors import InputError
from framewake.media import picture as pictures
from framewake.media.kinds import KINDS
from framewake.media.picture import header_size, load_picture


def png_header(width, height):
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(b"")) + png_chunk(b"IEND", b"")


# --- good files


def test_the_picture_that_ships_is_a_picture_everywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image = load_picture("demo/red-circle").image
    assert image.size == (512, 512) and (PICTURES / "red-circle.png").stat().st_size < 10_000
    (tmp_path / "many.jsonl").write_text('{"prompt": "x", "image": "demo/red-circle"}\n')
    (only,) = read_batch(tmp_path / "many.jsonl")
    assert only.image == "demo/red-circle"
    with pytest.raises(InputError, match=r"no such picture ships\. Did you mean 'demo/red-circle'"):
        load_picture("demo/red-cirle")
    with pytest.raises(InputError, match=r"demo/mine\.png: there is no such file"):
        load_picture("demo/mine.png")
    (tmp_path / "demo").mkdir()
    sample().save(tmp_path / "demo" / "red-circle", format="PNG")  # one's own wins
    assert load_picture("demo/red-circle").image.size == (40, 30)
    assert read_batch(tmp_path / "many.jsonl")[0].image == str(tmp_path / "demo" / "red-circle")


@pytest.mark.parametrize("ending", ["png", "bmp", "tiff", "ppm", "webp", "gif", "jpg"])
def test_formats_open_as_rgb(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    image = sample().quantize(256) if ending == "gif" else sample()
    options = {"webp": {"lossless": True}, "jpg": {"quality": 95, "subsampling": 0}}
    image.save(path, **options.get(ending, {}))
    opened = load_picture(path).image
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
    opened = np.asarray(load_picture(path).image)
    assert opened.shape == upright.shape
    assert np.array_equal(opened, upright)


def test_damaged_exif_is_no_reason_to_refuse(tmp_path):
    path = tmp_path / "a.jpg"
    sample().save(path, exif=b"Exif\0\0II*\0\xff\xff\xff\x7f" + b"\xff" * 40, quality=95)
    assert load_picture(path).image.size == (40, 30)


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "LA"])
def test_other_colour_modes_become_rgb(tmp_path, mode):
    path = tmp_path / ("a.tiff" if mode == "CMYK" else "a.png")
    sample(mode).save(path)
    assert np.array_equal(np.asarray(load_picture(path).image), np.asarray(sample(mode).convert("RGB")))


def test_a_photograph_with_a_second_view_is_one_picture(tmp_path):
    path = tmp_path / "phone.jpg"
    sample().save(path, format="MPO", save_all=True, append_images=[sample(size=(20, 10))])
    with Image.open(path) as stored:
        assert stored.n_frames == 2
    assert load_picture(path).image.size == (40, 30)


# --- bad files


def refused(path, words):
    with pytest.raises(InputError, match=words) as caught:
        load_picture(path)
    assert "\n" not in str(caught.value)


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
    assert load_picture(tmp_path / "thin.png").image.size == (1000, 10)


def test_a_picture_that_may_not_be_read(tmp_path):
    path = tmp_path / "secret.png"
    sample().save(path)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    refused(path, "cannot be read")


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
            answers.add(load_picture(path).image.mode)
        except InputError:
            answers.add("refused")
    assert "refused" in answers
    assert answers <= {"refused", "RGB"}


# --- how it was held


XMP = b'<x:xmpmeta><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" %s/></x:xmpmeta>'


@pytest.mark.parametrize("ending", ["jpg", "webp", "tiff", "png"])
def test_every_format_is_turned(tmp_path, ending):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / f"a.{ending}"
    sample().save(path, exif=exif)
    with Image.open(path) as stored:
        if stored.getexif().get(0x0112) != 6:
            pytest.skip("this Pillow does not write it")
    assert load_picture(path).image.size == (30, 40)


@pytest.mark.parametrize("told", [b'tiff:Orientation="6"', b"tiff:Orientation='8'"])
def test_xmp_tells_it_where_exif_does_not(tmp_path, told):
    path = tmp_path / "a.jpg"
    sample().save(path)
    content, text = path.read_bytes(), b"http://ns.adobe.com/xap/1.0/\0" + XMP % told
    path.write_bytes(content[:2] + b"\xff\xe1" + struct.pack(">H", len(text) + 2) + text + content[2:])
    assert load_picture(path).image.size == (30, 40)


@pytest.mark.parametrize("number", [0, 9, 77])
def test_a_way_that_there_is_not_is_left_aside(tmp_path, number):
    exif = Image.Exif()
    exif[0x0112] = number
    sample().save(tmp_path / "a.jpg", exif=exif)
    assert load_picture(tmp_path / "a.jpg").image.size == (40, 30)


# --- several in one


def test_of_many_pages_the_first_is_taken_at_once(tmp_path):
    path = tmp_path / "a.tiff"
    path.write_bytes(tiff_pages(60_000))
    found = load_picture(path)
    assert found.image.getpixel((0, 0)) == (200, 200, 200)
    assert len(found.notes) == 1 and "several pages" in found.notes[0]


def test_a_moving_picture_that_is_too_long_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "MOST_FRAMES", 3)
    frames = [Image.new("RGB", (8, 8), (index * 50, 0, 0)) for index in range(5)]
    for ending in ("gif", "webp", "png"):
        path = tmp_path / f"a.{ending}"
        frames[0].save(path, save_all=True, append_images=frames[1:])
        refused(path, "--first-frame")
        assert load_picture(path, takes_first_frame=True).image.size == (8, 8)


# --- kinds


HEADS = {
    b"\0\0\0\x18ftypheic\0\0\0\0mif1heic": "HEIC",
    b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic": "HEIC",
    b"\0\0\0\x18ftypcrx \0\0\0\0crx isom": "raw",
    b"II*\0\x10\0\0\0CR\2\0" + bytes(50): "raw",
    b"FUJIFILMCCD-RAW 0201": "raw",
    b"IIU\0" + bytes(50): "raw",
    b"\xff\x0a" + bytes(50): "JPEG XL",
    b"\0\0\0\x0cJXL \r\n\x87\n": "JPEG XL",
    b"8BPS\0\1": "Photoshop",
    b"%PDF-1.7\n": "PDF",
    b"%!PS-Adobe-3.0 EPSF-3.0\nshowpage\n": "PostScript",  # which is never run
    b"v/1\1" + bytes(50): "OpenEXR",
    b"#?RADIANCE\n": "Radiance",
    b"<?xml version='1.0'?>\n<!-- made -->\n<svg xmlns='http://www.w3.org/2000/svg'/>": "SVG",
    b"\n<svg width='3'/>": "SVG",
    b"<!DOCTYPE html><html><body>404</body></html>": "HTML",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n": "git lfs pull",
    b"PK\3\4" + bytes(40): "archive",
    b"ID3\3" + bytes(40): "sound",
    b"hello there": "text",
    b"gimp xcf v011\0": "GIMP",
}


@pytest.mark.parametrize("head", HEADS, ids=HEADS.values())
def test_what_is_not_read_is_named_with_the_way_out(tmp_path, head, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    path = tmp_path / "photo.jpg"
    path.write_bytes(head)
    refused(path, HEADS[head])
    with pytest.raises(InputError, match=HEADS[head]):
        header_size(head, "input_reference")


def test_heic_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "a.jpg").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    refused(tmp_path / "a.jpg", r"HEIC picture, although its name ends in \.jpg.*pip install pillow-heif")


@pytest.mark.parametrize("name", ["a.heic", "a.jpg"])
def test_heic_is_read_with_its_library(tmp_path, name):
    heif = pytest.importorskip("pillow_heif")
    stored = heif.from_pillow(sample())
    stored.save(tmp_path / "a.heic", quality=-1)
    if name != "a.heic":
        shutil.move(tmp_path / "a.heic", tmp_path / name)
    found = load_picture(tmp_path / name)
    assert found.image.size == (40, 30) and not found.notes
    assert np.abs(np.asarray(found.image).astype(int) - np.asarray(sample())).max() <= 8


def test_a_raw_picture_in_a_tiff_is_not_taken_for_its_thumbnail(tmp_path):
    small = Image.new("RGB", (16, 12))
    for tags in ({50706: b"\1\4\0\0"}, {254: 1, 330: 8}):
        small.save(tmp_path / "a.tiff", tiffinfo=tags)
        refused(tmp_path / "a.tiff", "camera's raw picture")


def test_every_kind_says_something_and_ends_it():
    for kind in KINDS:
        assert kind.advice.endswith("."), kind.name
        assert bool(kind.demuxer) == (kind.reader == "clip"), kind.name


# --- paths


def test_addresses_and_the_home_folder(tmp_path, monkeypatch):
    refused("https://example.com/a b.png", r"https://example\.com/a b\.png is an address.*curl -fLO 'https://example")
    refused("file:///tmp/a.png", "without file://")
    refused("s3://bucket/a.png", "is an address")
    refused("data:image/png;base64," + "A" * 10_000, r"^data:image/png;base64,A{8}\.\.\. is a picture in an address")
    monkeypatch.setenv("HOME", str(tmp_path))
    sample().save(tmp_path / "a.png")
    assert load_picture("~/a.png").image.size == (40, 30)
    refused("~nobody-of-that-name/a.png", "no such file")
    refused("~/a .png", "no such file. Did you mean 'a.png'")
    batch = tmp_path / "deeper"
    batch.mkdir()
    lines = [f'{{"prompt": "x", "image": "{name}"}}' for name in ("~/a.png", "https://example.com/a.png", "a.png")]
    (batch / "b.jsonl").write_text("\n".join(lines))
    found = [request.image for request in read_batch(batch / "b.jsonl")]
    assert found == ["~/a.png", "https://example.com/a.png", str(batch / "a.png")]
