"""Clips as people see them: upright, with square pixels, in sRGB; and a clip as the picture."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
from made_files import TURNS, moving, turn_clip, write_clip, write_sound
from PIL import Image

from framewake.errors import InputError
from framewake.media import footage
from framewake.media.clips import is_clip, read_clip
from framewake.media.footage import read_frames
from framewake.media.picture import load_picture
from framewake.media.video import read_video, write_video

BT2020_TAGS = {"color_primaries": 9, "colorspace": 9}


def last(path, **options):
    return np.asarray(load_picture(path, **options).image).astype(int)


@pytest.mark.parametrize("turn", TURNS)
def test_a_turned_clip_is_read_upright(tmp_path, turn):
    matrix, as_seen = TURNS[turn]
    path = write_clip(tmp_path / "a.mp4", moving())
    flat = read_frames(path)
    turned = read_frames(turn_clip(path, matrix))
    assert np.array_equal(turned.frames, np.stack([as_seen(frame) for frame in flat.frames]))
    assert any("turned upright" in note for note in turned.notes) and not flat.notes
    assert np.array_equal(read_clip(path, 5).frames, turned.frames[:5])
    assert np.array_equal(read_video(path)[0], turned.frames)
    assert np.array_equal(last(path), turned.frames[-1])


def test_an_angle_that_is_no_quarter_is_left_aside(tmp_path):
    path = turn_clip(write_clip(tmp_path / "a.mp4", moving()), (46341, 46341, 0, -46341, 46341, 0, 0, 0, 1 << 30))
    assert read_frames(path).frames.shape == (9, 48, 64, 3)


@pytest.mark.parametrize(
    ("ratio", "size"), [((4, 3), (48, 85)), ((1, 2), (96, 64)), ((1, 1), (48, 64)), ((100, 1), (48, 64))]
)
def test_pixels_become_square(tmp_path, ratio, size):
    path = write_clip(tmp_path / "a.mp4", moving(), context={"sample_aspect_ratio": Fraction(*ratio)})
    found = read_frames(path)
    assert found.frames.shape == (9, *size, 3)
    assert any("not square" in note for note in found.notes) == (size != (48, 64))
    quarter = found.frames[0, 2, : size[1] // 4 - 4]
    assert quarter.min() > 220, "the white corner is as wide as it was, in shares of the width"
    turned = read_frames(turn_clip(path, TURNS["clockwise"][0]))
    assert turned.frames.shape == (9, *size[::-1], 3)


@pytest.mark.parametrize(
    ("ending", "options"),
    [
        ("mp4", {}),
        ("mov", {"kind": "mov"}),
        ("webm", {"kind": "webm", "codec": "libvpx", "options": {"deadline": "realtime", "cpu-used": "8"}}),
        ("mkv", {"kind": "matroska"}),
        ("avi", {"kind": "avi", "codec": "mpeg4"}),
        ("ts", {"kind": "mpegts"}),
        ("mpg", {"kind": "mpeg", "codec": "mpeg2video"}),
        ("wmv", {"kind": "asf", "codec": "wmv2"}),
        ("flv", {"kind": "flv", "codec": "flv"}),
    ],
)
def test_a_clip_gives_its_last_frame_as_the_picture(tmp_path, ending, options):
    frames = moving(40)
    path = write_clip(tmp_path / f"a.{ending}", frames, **options)
    found = load_picture(path)
    assert np.abs(np.asarray(found.image).astype(int) - frames[-1])[20:, 20:].max() < 16
    assert any("last frame is taken" in note for note in found.notes)
    first = load_picture(path, takes_first_frame=True)
    assert np.abs(np.asarray(first.image).astype(int) - frames[0])[20:, 20:].max() < 16
    assert any("first frame is taken" in note for note in first.notes)
    path.rename(tmp_path / "picture")  # the service stores it without an ending
    assert np.array_equal(last(tmp_path / "picture"), np.asarray(found.image))


@pytest.mark.parametrize("ending", ["gif", "webp", "png", "avif"])
def test_a_moving_picture_gives_its_last_frame(tmp_path, ending):
    if f".{ending}" not in Image.registered_extensions():
        pytest.skip("this Pillow cannot write the format")
    pictures = [Image.fromarray(frame) for frame in moving(5)]
    path = tmp_path / f"a.{ending}"
    pictures[0].save(path, save_all=True, append_images=pictures[1:])
    assert np.abs(last(path) - moving(5)[-1])[20:, 20:].max() < 16
    assert np.abs(last(path, takes_first_frame=True) - moving(5)[0])[20:, 20:].max() < 16


def test_a_clip_that_cannot_be_sought_in_gives_its_last_frame(tmp_path):
    path = write_clip(tmp_path / "a.mkv", moving(100), kind="matroska", options={"x264-params": "keyint=10"})
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])  # no index, and a length that is not there
    whole = read_frames(path).frames
    assert 30 < len(whole) < 100
    assert np.array_equal(last(path), whole[-1])


def test_only_the_end_of_a_long_clip_is_decoded(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "a.mp4", moving(90), options={"x264-params": "keyint=30:scenecut=0"})
    monkeypatch.setattr(footage, "MOST_TO_THE_END", 31)  # more than this many frames would be refused
    assert abs(last(path)[30, 30, 0] - 200) < 16
    write_clip(path, moving(90), options={"x264-params": "keyint=300:scenecut=0"})
    with pytest.raises(InputError, match="--first-frame"):
        load_picture(path)
    assert load_picture(path, takes_first_frame=True).image.size == (64, 48)


def test_our_own_clips_keep_their_numbers(tmp_path):
    path = write_video(tmp_path / "a.mp4", moving(), fps=24, metadata=None)
    with av.open(str(path)) as container:
        stored = [
            frame.reformat(
                format="rgb24", src_colorspace="ITU709", src_color_range="MPEG", dst_color_range="JPEG"
            ).to_ndarray()
            for frame in container.decode(video=0)
        ]
    found = read_frames(path)
    assert np.array_equal(found.frames, np.stack(stored)) and not found.notes


@pytest.mark.parametrize(
    ("options", "limit"),
    [
        ({"pixels": "yuv420p10le"}, 8),
        ({"pixels": "yuvj420p", "context": {"color_range": 2}}, 8),
        ({"kind": "matroska", "codec": "libx264rgb", "pixels": "rgb24"}, 4),
        ({"kind": "matroska", "codec": "ffv1", "pixels": "yuv444p"}, 4),
        ({"kind": "mov", "codec": "qtrle", "pixels": "argb"}, 0),
    ],
)
def test_depths_and_ranges(tmp_path, options, limit):
    flat = np.full((5, 47, 63, 3), (200, 80, 60), np.uint8)
    if options["pixels"] in ("yuv420p10le", "yuvj420p"):
        flat = flat[:, :46, :62]
    path = write_clip(tmp_path / "a.mkv", flat, **options)
    assert np.abs(last(path) - (200, 80, 60)).max() <= limit


def test_wide_colours_become_srgb(tmp_path):
    grey = np.full((5, 48, 64, 3), 148, np.uint8)
    flat = np.full((5, 48, 64, 3), (200, 80, 60), np.uint8)
    tags = {"color_primaries": 12, "colorspace": 1, "color_trc": 1}
    plain = last(write_clip(tmp_path / "a.mp4", flat, context=tags | {"color_primaries": 1}))[20, 20]
    found = load_picture(write_clip(tmp_path / "b.mp4", flat, context=tags))
    red, green, blue = np.asarray(found.image)[20, 20].astype(int) - plain
    assert red > 8 and green < -4 and blue < -4, "Display P3's red lies outside sRGB's"
    assert any("Display P3" in note for note in found.notes)
    path = write_clip(tmp_path / "c.mp4", grey, pixels="yuv420p10le", context=BT2020_TAGS | {"color_trc": 1})
    assert np.abs(last(path) - 148).max() <= 2, "grey is grey in all of them"


@pytest.mark.parametrize(("curve", "name", "code", "expected"), [(16, "PQ", 148, 244), (18, "HLG", 191, 244)])
def test_hdr_is_brought_to_the_usual_range(tmp_path, curve, name, code, expected):
    """White paper, 203 nits: 58 % of PQ's codes and 75 % of HLG's; it stays just below white."""
    frames = np.full((5, 48, 64, 3), code, np.uint8)
    path = write_clip(tmp_path / "a.mp4", frames, pixels="yuv420p10le", context=BT2020_TAGS | {"color_trc": curve})
    found = load_picture(path)
    pixel = np.asarray(found.image)[20, 20].astype(int)
    assert np.abs(pixel - expected).max() <= 3
    assert any(f"HDR ({name})" in note for note in found.notes)


def test_what_is_no_moving_picture(tmp_path):
    sound = write_sound(tmp_path / "a.mp4")
    with pytest.raises(InputError, match="holds no video"):
        load_picture(sound)
    (tmp_path / "b.mp4").write_bytes(b"#EXTM3U\n#EXTINF:1,\n/etc/hostname\n")
    with pytest.raises(InputError, match="is no video but text"):
        read_frames(tmp_path / "b.mp4")


def test_a_clip_like_a_needle_is_refused(tmp_path):
    frames = np.zeros((3, 4, 408, 3), np.uint8)
    with pytest.raises(InputError, match="at most 100 times"):
        load_picture(write_clip(tmp_path / "a.mkv", frames, kind="matroska", codec="ffv1", pixels="yuv444p"))


def test_a_clip_without_frames(tmp_path):
    content = write_clip(tmp_path / "a.mkv", moving(), kind="matroska").read_bytes()
    (tmp_path / "a.mkv").write_bytes(content[: content.index(b"\x1f\x43\xb6\x75")])  # all before the first cluster
    for read in (load_picture, read_frames):
        with pytest.raises(InputError, match=r"holds no video frames|damaged"):
            read(tmp_path / "a.mkv")


@pytest.mark.parametrize(
    ("codec", "options"), [("libvpx-vp9", {"crf": "4", "b": "0"}), ("libvpx", {"crf": "4", "b": "8M"})]
)
def test_transparency_beside_the_packets_of_a_webm(tmp_path, codec, options):
    path, frames = tmp_path / "a.webm", moving(6)
    alpha = np.full((*frames.shape[:3], 1), 255, np.uint8)
    alpha[:, :, 32:] = 0
    with av.open(str(path), "w", format="webm") as container:
        stream = container.add_stream(codec, rate=24, options={**options, "auto-alt-ref": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuva420p"
        for frame in np.concatenate([frames, alpha], axis=-1):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgba")))
        container.mux(stream.encode())
    for first in (False, True):
        seen = last(path, background="#102030", takes_first_frame=first)
        assert np.abs(seen[:, 36:] - (16, 32, 48)).max() <= 4
        assert np.abs(seen - frames[0 if first else -1])[20:, :28].max() <= 10
    assert "transparent" in load_picture(path).notes[1]
    assert read_clip(path, 5).frames[:, :, 36:].min() >= 251


@pytest.mark.parametrize(("number", "name"), [(1, "ITU709"), (4, "FCC"), (6, "ITU601"), (7, "SMPTE240M")])
def test_the_matrix_that_a_clip_names(tmp_path, number, name):
    frame = np.full((48, 64, 3), (200, 60, 90), np.uint8)
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv444p"
        stream.codec_context.colorspace = number
        picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
        container.mux(stream.encode(picture.reformat(format="yuv444p", dst_colorspace=name, dst_color_range="MPEG")))
        container.mux(stream.encode())
    assert np.abs(last(tmp_path / "a.mp4") - frame).max() <= 3


@pytest.mark.parametrize(("width", "height", "name"), [(64, 48, "ITU601"), (64, 720, "ITU709"), (1280, 48, "ITU709")])
def test_a_clip_that_names_no_matrix(tmp_path, width, height, name):
    frame = np.full((height, width, 3), (200, 60, 90), np.uint8)
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv444p"
        picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
        container.mux(stream.encode(picture.reformat(format="yuv444p", dst_colorspace=name, dst_color_range="MPEG")))
        container.mux(stream.encode())
    assert np.abs(last(tmp_path / "a.mp4") - frame).max() <= 3


def test_training_asks_the_bytes_and_not_the_name(tmp_path):
    write_clip(tmp_path / "a.mp4", moving()).rename(tmp_path / "a.gif")
    first, *others = map(Image.fromarray, moving())
    first.save(tmp_path / "b.mp4", "GIF", save_all=True, append_images=others)
    write_clip(tmp_path / "c.ts", moving(), kind="mpegts")
    for name in ("a.gif", "b.mp4", "c.ts"):
        assert is_clip(tmp_path / name)
        assert np.abs(read_clip(tmp_path / name, 5).frames.astype(int) - moving()[:5])[:, 20:, 20:].max() < 16
