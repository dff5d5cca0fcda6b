"""Pictures that Pillow opens and shows wrongly: right here, or refused by name."""

from __future__ import annotations

import struct

import numpy as np
import PIL
import pytest
from made_files import sample
from PIL import Image

from framewake.errors import InputError
from framewake.media import profiles
from framewake.media.picture import load_picture

GREY = np.arange(8, dtype=np.uint8)[None].repeat(4, 0) * 30


def tiff(*pages):
    """A TIFF of uncompressed pages, each its bytes, its tags of short numbers, and into how many strips it is cut."""
    content = struct.pack("<2sHI", b"II", 42, 8)
    for number, (data, told, *strips) in enumerate(pages):
        tags = {256: 8, 257: 4, 258: 8, 259: 1, 262: 1, 277: 1, 278: 4, **told}
        start, length = len(content) + 2 + 12 * (len(tags) + 2) + 4, len(data) // (*strips, 1)[0]
        entries = {tag: ("H", np.atleast_1d(value).tolist()) for tag, value in tags.items()}
        entries[273] = "I", list(range(start, start + len(data), length))
        entries[279] = "I", [length] * len(entries[273][1])
        table, behind = b"", data
        for tag, (kind, values) in sorted(entries.items()):
            packed = struct.pack(f"<{len(values)}{kind}", *values)
            place = packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack("<I", start + len(behind))
            behind += packed if len(packed) > 4 else b""
            table += struct.pack("<HHI", tag, 3 if kind == "H" else 4, len(values)) + place
        after = start + len(behind) if number < len(pages) - 1 else 0
        content += struct.pack("<H", len(entries)) + table + struct.pack("<I", after) + behind
    return content


def read(path, content=None, **options):
    if content is not None:
        path.write_bytes(content)
    found = load_picture(path, **options)
    return np.asarray(found.image).astype(int), " ".join(found.notes)


@pytest.mark.parametrize("bits", [8, 16])
def test_white_may_be_zero(tmp_path, bits):
    values = GREY if bits == 8 else GREY.astype("<u2") * 257
    page = (((2**bits - 1) - values).astype(values.dtype).tobytes(), {258: bits, 262: 0})
    assert np.array_equal(read(tmp_path / "a.tif", tiff(page))[0][..., 0], GREY)


@pytest.mark.parametrize("kind", ["<i1", "<i2"])
def test_the_sign_takes_a_bit(tmp_path, kind):
    bits = 8 * np.dtype(kind).itemsize
    values = (GREY.astype(np.int64) * (2 ** (bits - 1) - 1) // 255).astype(kind)
    found, note = read(tmp_path / "a.tif", tiff((values.tobytes(), {258: bits, 339: 2})))
    assert np.abs(found[..., 0] - GREY).max() <= 2 and not note
    with pytest.raises(InputError, match="below zero"):
        read(tmp_path / "b.tif", tiff(((-1 - values).astype(kind).tobytes(), {258: bits, 339: 2})))


def test_planes_of_sixteen_bits_are_refused_and_not_misread(tmp_path):
    colours = np.stack([GREY, 255 - GREY, GREY // 2])
    tags = {262: 2, 277: 3, 284: 2}
    path = tmp_path / "a.tif"
    assert np.array_equal(
        read(path, tiff((colours.tobytes(), {**tags, 258: [8] * 3}, 3)))[0], np.moveaxis(colours, 0, -1)
    )
    with pytest.raises(InputError, match="a plane of its own, with 16 bits"):
        read(path, tiff(((colours.astype("<u2") * 257).tobytes(), {**tags, 258: [16] * 3}, 3)))


def test_a_small_version_before_the_picture_is_passed_over(tmp_path):
    small = (GREY[::2, ::2].tobytes(), {256: 4, 257: 2, 278: 2, 254: 1})
    found, note = read(tmp_path / "a.tif", tiff(small, small, (GREY.tobytes(), {254: 0})))
    assert np.array_equal(found[..., 0], GREY) and "number 3" in note
    found, note = read(tmp_path / "b.tif", tiff(small, small))
    assert found.shape[:2] == (2, 4) and "the first one is taken" in note
    with pytest.raises(InputError, match="too big"):
        read(tmp_path / "c.tif", tiff(small, (GREY.tobytes(), {256: 60_000, 257: 60_000})))


@pytest.mark.parametrize("opacity", [0, 128])
def test_a_fourth_byte_that_is_all_zero_is_no_transparency(tmp_path, opacity):
    pixels = np.dstack([np.asarray(sample())[::-1, :, ::-1], np.full((30, 40), opacity, np.uint8)]).tobytes()
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000).ljust(84, b"\0")
    header = struct.pack("<IiiHHIIiiII", 124, 40, 30, 1, 32, 3, len(pixels), 0, 0, 0, 0) + masks
    contents = {"a.bmp": struct.pack("<2sIHHI", b"BM", 138 + len(pixels), 0, 0, 138) + header + pixels}
    contents["a.tga"] = struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 0, 0, 0, 0, 0, 40, 30, 32, 8) + pixels
    for name, content in contents.items():
        found, note = read(tmp_path / name, content)
        assert ("transparent" in note) == (opacity > 0), name
        assert np.array_equal(found, np.asarray(sample())) == (opacity == 0), name


def test_nothing_to_be_seen_is_said(tmp_path):
    Image.new("RGBA", (8, 8), (9, 9, 9, 0)).save(tmp_path / "a.png")
    assert "transparent everywhere" in read(tmp_path / "a.png")[1]


def test_the_picture_in_place_of_a_moving_one_is_not_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (8, 8), (level, 0, 0)) for level in (50, 90)]
    Image.new("RGB", (8, 8), "blue").save(tmp_path / "a.png", save_all=True, append_images=frames, default_image=True)
    assert (read(tmp_path / "a.png", takes_first_frame=True)[0] == (50, 0, 0)).all()
    assert (read(tmp_path / "a.png")[0] == (90, 0, 0)).all()


@pytest.mark.skipif(PIL.__version__.startswith(("10.3.", "10.4.")), reason="this Pillow reads no such file at all")
@pytest.mark.parametrize("method", [2, 3])
def test_a_profile_in_a_jpeg_2000(tmp_path, method):
    icc = profiles.matrix_profile("Display P3", profiles.DISPLAY_P3).icc
    sample().save(tmp_path / "a.png", icc_profile=icc)
    path = tmp_path / "a.jp2"
    sample().save(path)
    content = path.read_bytes()
    place = content.index(b"colr") - 4
    (size,) = struct.unpack_from(">I", content, place)
    box = struct.pack(">I4sBBB", 11 + len(icc), b"colr", method, 0, 0) + icc
    head = content.index(b"jp2h") - 4
    whole = struct.unpack_from(">I", content, head)[0] + len(box) - size
    changed = content[:head] + struct.pack(">I", whole) + content[head + 4 : place] + box + content[place + size :]
    found, note = read(path, changed)
    assert np.array_equal(found, read(tmp_path / "a.png")[0]) and "Display P3" in note
    path.write_bytes(changed[: head + 30])
    with pytest.raises(InputError):
        load_picture(path)


@pytest.mark.parametrize("mode", ["L", "LA", "1"])
def test_grey_with_a_profile_of_colours(tmp_path, mode):
    adobe = profiles.matrix_profile("Adobe RGB", profiles.ADOBE_RGB, gamma=profiles.ADOBE_GAMMA).icc
    sample("L").convert(mode).save(tmp_path / "a.png", icc_profile=adobe)
    sample("L").convert(mode).convert("RGB").save(tmp_path / "b.png", icc_profile=adobe)
    found, note = read(tmp_path / "a.png")
    assert np.array_equal(found, read(tmp_path / "b.png")[0]) and "cannot be used" not in note
