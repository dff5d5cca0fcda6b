"""Pictures in other colours than sRGB, transparent ones, and grey of many bits."""

from __future__ import annotations

import io
import struct
import zlib

import av
import numpy as np
import pytest
from made_files import png_chunk, sample, with_chunks, write_clip
from PIL import Image, ImageCms

from framewake.errors import InputError
from framewake.media import profiles
from framewake.media.clips import read_clip
from framewake.media.picture import load_picture
from framewake.media.profiles import matrix_profile

ADOBE = matrix_profile("Adobe RGB", profiles.ADOBE_RGB, gamma=profiles.ADOBE_GAMMA).icc
DISPLAY_P3 = matrix_profile("Display P3", profiles.DISPLAY_P3).icc
PROPHOTO = matrix_profile("ProPhoto", (0.7347, 0.2653, 0.1596, 0.8404, 0.0366, 0.0001, 0.3457, 0.3585), gamma=1.8).icc
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
COLOUR = (60, 160, 80)


def as_seen(image, icc, mode="RGB"):
    """What viewers show, by the library that they use."""
    opened = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    return ImageCms.profileToProfile(image.convert(mode), opened, ImageCms.createProfile("sRGB"), outputMode="RGB")


def read(path, **options):
    found = load_picture(path, **options)
    assert found.image.mode == "RGB"
    return np.asarray(found.image).astype(int), " ".join(found.notes)


def saved(path, image, **options):
    image.save(path, **options)
    return path


def largest(values, image):
    return np.abs(values - np.asarray(image).astype(int)).max()


# --- profiles


@pytest.mark.parametrize(("name", "icc"), [("Adobe RGB", ADOBE), ("Display P3", DISPLAY_P3), ("ProPhoto", PROPHOTO)])
@pytest.mark.parametrize("ending", ["png", "tiff", "webp"])
def test_a_profile_is_converted_and_named(tmp_path, name, icc, ending):
    options = {"lossless": True} if ending == "webp" else {}
    values, note = read(saved(tmp_path / f"a.{ending}", sample(), icc_profile=icc, **options))
    assert largest(values, as_seen(sample(), icc)) == 0 < largest(values, sample())
    assert f"'{name}' and were converted to sRGB" in note


def test_known_colours_of_adobe_rgb(tmp_path):
    for colour, seen in (((60, 160, 80), (0, 161, 73)), ((200, 80, 60), (230, 79, 56))):
        values, _ = read(saved(tmp_path / "a.png", Image.new("RGB", (8, 8), colour), icc_profile=ADOBE))
        assert np.abs(values[4, 4] - seen).max() <= 1


@pytest.mark.parametrize("icc", [SRGB, matrix_profile("own sRGB", profiles.SRGB).icc, None])
def test_srgb_keeps_every_bit(tmp_path, icc):
    values, note = read(saved(tmp_path / "a.png", sample(), icc_profile=icc))
    assert largest(values, sample()) == 0 and not note


@pytest.mark.parametrize("icc", [b"nonsense" * 30, b"x", DISPLAY_P3[:200], b""])
def test_a_broken_profile_is_left_aside(tmp_path, icc):
    values, note = read(saved(tmp_path / "a.png", sample(), icc_profile=icc))
    assert largest(values, sample()) == 0
    assert ("cannot be used" in note) == bool(icc)


def test_a_profile_for_other_colours_is_left_aside(tmp_path):
    values, note = read(saved(tmp_path / "a.tiff", sample("CMYK"), icc_profile=DISPLAY_P3))
    assert largest(values, sample("CMYK").convert("RGB")) == 0 and "cannot be used" in note


def grey_profile(gamma):
    """An ICC profile of one curve."""
    curve = b"curv" + struct.pack(">IIH", 0, 1, round(gamma * 256)) + b"\0\0"
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    table = struct.pack(">I", 2) + b"wtpt" + struct.pack(">II", 156, 20) + b"kTRC" + struct.pack(">II", 176, 14)
    head = struct.pack(">III", 192, 0, 0x02400000) + b"mntrGRAYXYZ " + bytes(12) + b"acsp" + bytes(28)
    return (head + struct.pack(">3i", 63190, 65536, 54061)).ljust(128, b"\0") + table + white + curve


@pytest.mark.parametrize("gamma", [1.0, 1.8])
def test_a_grey_profile(tmp_path, gamma):
    grey = sample("L")
    for mode, image in (("L", grey), ("LA", grey.convert("LA"))):
        values, note = read(saved(tmp_path / f"{mode}.png", image, icc_profile=grey_profile(gamma)))
        assert largest(values, as_seen(grey, grey_profile(gamma), "L")) == 0 and "converted" in note


def test_colours_that_photographs_have(tmp_path):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 2  # what cameras write that are set to Adobe RGB
    plain = Image.new("RGB", (16, 16), COLOUR)
    path = saved(tmp_path / "a.jpg", plain, exif=exif, quality=100, subsampling=0)
    if Image.open(path).getexif().get_ifd(0x8769).get(0xA001) != 2:
        pytest.skip("this Pillow does not write such EXIF")
    values, note = read(path)
    assert np.abs(values[8, 8] - (0, 161, 73)).max() <= 3 and "Adobe RGB, by EXIF" in note
    exif.get_ifd(0x8769)[0xA001] = 1
    values, note = read(saved(tmp_path / "b.jpg", plain, exif=exif, quality=100, subsampling=0))
    assert np.abs(values[8, 8] - COLOUR).max() <= 3 and not note


def test_cmyk_without_a_profile_says_that_it_is_guessed(tmp_path):
    values, note = read(saved(tmp_path / "a.tiff", sample("CMYK")))
    assert largest(values, sample("CMYK").convert("RGB")) == 0 and "CMYK without a colour profile" in note


def test_lab(tmp_path):
    ends = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    lab = ImageCms.profileToProfile(sample(), *ends, outputMode="LAB")
    back = ImageCms.profileToProfile(lab, *reversed(ends), outputMode="RGB")
    values, _ = read(saved(tmp_path / "a.tiff", lab))
    assert largest(values, back) <= 1


GAMMA = {"usual": 45455, "linear": 100000}
CORNERS = {
    "srgb": (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000),
    "adobe": (31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000),
    "nonsense": (0,) * 8,
}


@pytest.mark.parametrize(
    ("gamma", "corners", "expected"),
    [
        ("usual", "srgb", COLOUR),
        ("usual", "adobe", (0, 161, 73)),
        ("linear", "srgb", (132, 206, 151)),
        ("usual", "nonsense", COLOUR),
    ],
)
def test_colours_that_a_png_tells_in_chunks(tmp_path, gamma, corners, expected):
    path = saved(tmp_path / "a.png", Image.new("RGB", (8, 8), COLOUR))
    chunks = (b"gAMA", struct.pack(">I", GAMMA[gamma])), (b"cHRM", struct.pack(">8I", *CORNERS[corners]))
    values, note = read(with_chunks(path, *chunks))
    assert np.abs(values[4, 4] - expected).max() <= 2
    assert bool(note) == (expected != COLOUR)
    path = with_chunks(saved(path, Image.new("RGB", (8, 8), COLOUR)), *chunks, (b"sRGB", b"\0"))
    assert np.array_equal(read(path)[0][4, 4], COLOUR), "sRGB counts more than both"


def test_colours_by_number_in_a_png(tmp_path):
    path = saved(tmp_path / "a.png", Image.new("RGB", (8, 8), (200, 80, 60)))
    values, note = read(with_chunks(path, (b"cICP", bytes((12, 13, 0, 1)))))
    seen = as_seen(Image.new("RGB", (8, 8), (200, 80, 60)), DISPLAY_P3)
    assert largest(values, seen) <= 1
    assert "Display P3" in note
    path = saved(tmp_path / "b.png", Image.new("RGB", (8, 8), (148, 148, 148)))
    values, note = read(with_chunks(path, (b"cICP", bytes((9, 16, 0, 1)))))
    assert np.abs(values[4, 4] - 244).max() <= 2 and "HDR (PQ)" in note


def test_frames_for_training_are_converted_too(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(5):
        saved(folder / f"{number}.png", sample(), icc_profile=ADOBE)
    found = read_clip(folder, 5)
    assert largest(found.frames[3].astype(int), as_seen(sample(), ADOBE)) == 0
    assert len(found.notes) == 1 and "converted" in found.notes[0]


# --- transparency

SOFT = np.linspace(0, 255, 16).astype(np.uint8)


def soft(mode):
    values = np.zeros((4, 16, 4), np.uint8)
    values[..., :3] = (200, 40, 90)
    values[..., 3] = SOFT
    return Image.fromarray(values).convert(mode)


@pytest.mark.parametrize(("ending", "mode"), [("png", "RGBA"), ("png", "LA"), ("tiff", "RGBA"), ("webp", "RGBA")])
@pytest.mark.parametrize(("background", "under"), [("white", (255, 255, 255)), ("#0080ff", (0, 128, 255))])
def test_soft_edges_are_mixed_with_what_lies_under_them(tmp_path, ending, mode, background, under):
    options = {"lossless": True, "exact": True} if ending == "webp" else {}
    values, note = read(saved(tmp_path / f"a.{ending}", soft(mode), **options), background=background)
    over = np.asarray(soft(mode).convert("RGB")).astype(float)
    share = SOFT[None, :, None] / 255
    assert np.abs(values - (over * share + np.array(under) * (1 - share))).max() <= 1
    assert "transparent in places" in note


def test_the_one_colour_that_is_transparent(tmp_path):
    image = Image.new("RGB", (8, 8), COLOUR)
    image.paste((9, 9, 9), (0, 0, 4, 8))
    deep = Image.fromarray(np.where(np.arange(8) < 4, 9000, 50000).astype(np.uint16)[None].repeat(8, 0))
    bits = Image.fromarray((np.arange(8) >= 4)[None].repeat(8, 0))
    for name, picture, key in (
        ("rgb", image, (9, 9, 9)),
        ("grey", image.convert("L"), 9),
        ("palette", image.quantize(2), image.quantize(2).getpixel((0, 0))),
        ("one", bits, 0),
    ):
        values, note = read(saved(tmp_path / f"{name}.png", picture, transparency=key))
        assert (values[:, :4] == 255).all() and "transparent" in note, name
        assert np.array_equal(values[:, 4:], np.asarray(picture.convert("RGB")).astype(int)[:, 4:]), name
    path = with_chunks(saved(tmp_path / "deep.png", deep), (b"tRNS", struct.pack(">H", 9000)))
    values, _ = read(path)
    assert (values[:, :4] == 255).all() and (values[:, 4:] == 50000 >> 8).all()


@pytest.mark.parametrize("bits", [2, 4])
def test_the_transparent_level_of_few_bits(tmp_path, bits):
    path = saved(tmp_path / "a.png", Image.new("L", (8, 8)))
    row = bytes([0]) + bytes([0x11 if bits == 4 else 0b01_01_01_01]) * bits
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, bits, 0, 0, 0, 0))
    body = png_chunk(b"tRNS", struct.pack(">H", 1)) + png_chunk(b"IDAT", zlib.compress(row * 8))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + body + png_chunk(b"IEND", b""))
    values, note = read(path)
    assert (values == 255).all() and "transparent" in note


def test_opaque_alpha_changes_nothing_and_says_nothing(tmp_path):
    for mode in ("RGBA", "LA"):
        values, note = read(saved(tmp_path / f"{mode}.png", sample().convert(mode)))
        assert largest(values, sample().convert(mode).convert("RGB")) == 0 and not note


def test_moving_pictures_and_clips_are_transparent_too(tmp_path):
    pictures = [Image.new("RGBA", (8, 8), (10, 200, level, 0)) for level in (0, 90)]
    for ending in ("gif", "webp", "png"):
        path = tmp_path / f"a.{ending}"
        pictures[0].save(path, save_all=True, append_images=pictures[1:])
        assert (read(path)[0] == 255).all(), ending
    assert (read_clip(tmp_path / "a.webp", 1).frames == 255).all()
    with av.open(str(tmp_path / "a.mov"), "w", format="mov") as container:
        stream = container.add_stream("qtrle", rate=24)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "argb"
        frame = np.zeros((16, 16, 4), np.uint8)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgba").reformat(format="argb")))
        container.mux(stream.encode())
    values, note = read(tmp_path / "a.mov", background="#102030")
    assert (values == (16, 32, 48)).all() and "transparent" in note
    assert (read_clip(tmp_path / "a.mov", 1).frames == 255).all()


@pytest.mark.parametrize("text", ["", "whiteish", "#12", "rgb(1,2)", "#ffffff80", "12", "hsl(400)"])
def test_a_background_that_is_no_colour(tmp_path, text):
    with pytest.raises(InputError, match="background is"):
        load_picture(saved(tmp_path / "a.png", sample()), background=text)


# --- many bits


def deep(path, values, **options):
    Image.fromarray(values).save(path, **options)
    return read(path)


@pytest.mark.parametrize(
    ("value", "kind", "expected", "is_told"),
    [
        (200, np.int32, 200, True),
        (51_200, np.int32, 200, True),
        (2**31 - 1, np.int32, 255, False),
        (51_200, np.uint16, 200, False),
        (200, np.uint16, 200, True),
        (3200, np.uint16, 200, True),
        (0, np.uint16, 0, False),
        (0, np.int32, 0, False),
    ],
)
@pytest.mark.parametrize("ending", ["png", "tiff"])
def test_whole_numbers_are_never_shifted_to_black(tmp_path, value, kind, expected, is_told, ending):
    if ending == "png" and kind == np.int32:
        pytest.skip("a PNG has no 32 bits")
    values, note = deep(tmp_path / f"a.{ending}", np.full((8, 9), value, kind))
    assert (values == expected).all()
    assert ("bits" in note) == is_told


def test_the_other_order_of_bytes(tmp_path):
    grey = np.full((8, 9), 51_200, np.uint16)
    Image.fromarray(grey).save(tmp_path / "a.tiff")
    fields = [(256, 9), (257, 8), (258, 16), (259, 1), (262, 1), (273, 122), (277, 1), (278, 8), (279, 144)]
    entries = b"".join(struct.pack(">HHIHH", tag, 3, 1, value, 0) for tag, value in fields)
    content = struct.pack(">2sHIH", b"MM", 42, 8, len(fields)) + entries + bytes(4)
    (tmp_path / "b.tiff").write_bytes(content + grey.astype(">u2").tobytes())
    for name in ("a.tiff", "b.tiff"):
        assert (read(tmp_path / name)[0] == 200).all(), name


def test_numbers_of_unknown_range_are_refused(tmp_path):
    for values in (np.full((8, 9), -5, np.int32), np.full((8, 9), 0.5, np.float32)):
        with pytest.raises(InputError, match="whose range is unknown"):
            deep(tmp_path / "a.tiff", values)


def test_a_clip_has_no_profile_and_no_alpha(tmp_path):
    path = write_clip(tmp_path / "a.mp4", np.full((5, 32, 32, 3), 90, np.uint8))
    assert len(load_picture(path).notes) == 1
