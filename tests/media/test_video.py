from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from framewake.errors import InputError, NumericsError
from framewake.media.animation import delays
from framewake.media.mp4 import to_yuv420
from framewake.media.video import read_metadata, read_video, to_uint8, write_video, writing_video

METADATA = {
    "request": {"prompt": 'a "red" ball\nrolls, \u732b \U0001f600', "seed": 2**63},
    "seconds": 1.25,
    "none": None,
}
COLOURS = np.array(
    [[255 * (index >> bit & 1) for bit in range(3)] for index in range(8)]
    + np.random.default_rng(1).integers(0, 256, (24, 3)).tolist(),
    dtype=np.uint8,
)


def chart(count=9, cell=32):
    """Frames of 4 x 8 flat cells, with one small square that moves over the first of them."""
    picture = np.kron(COLOURS.reshape(4, 8, 3), np.ones((cell, cell, 1), np.uint8))
    frames = np.stack([picture] * count)
    for index in range(count):
        frames[index, 4:12, 2 + index : 10 + index] = (250, 200, 40)
    return frames


def moving(count=9, height=48, width=64):
    y, x = np.mgrid[0:height, 0:width]
    frames = [np.stack([x * 3 + index * 5, y * 4, 200 - x], -1).clip(0, 255) for index in range(count)]
    return np.stack(frames).astype(np.uint8)


def names(folder):
    return sorted(entry.name for entry in Path(folder).iterdir())


# --- on the way


def test_an_mp4_tells_how_far_it_is(tmp_path):
    frames = moving(75)  # more than the encoder keeps back
    shares = list(writing_video(tmp_path / "told.mp4", frames, fps=12, metadata=None))
    assert shares == sorted(shares) and 0 < shares[0] < 0.01 and shares[-1] == 1
    assert len(shares) > 75 and max(np.diff(shares)) < 0.02, "some frames came all at once"
    write_video(tmp_path / "whole.mp4", frames, fps=12, metadata=None)
    assert (tmp_path / "told.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


@pytest.mark.parametrize(("share", "begun"), [(0.1, 0), (0.9, 1)])  # the file is opened for the first frame out
def test_an_mp4_that_is_stopped_leaves_nothing(tmp_path, share, begun):
    work = writing_video(tmp_path / "x.mp4", moving(75), fps=12, metadata=None)
    next(now for now in work if now > share)
    assert len(names(tmp_path)) == begun and all(name.endswith(".part") for name in names(tmp_path))
    work.close()
    assert names(tmp_path) == []


# --- values


def test_to_uint8_truncates_as_the_original_does():
    values = np.array([-1.0, 0.0, 0.5, 0.999, 1.0, 7.0, 254.99 / 255], np.float32)
    assert to_uint8(values).tolist() == [0, 0, 127, 254, 255, 255, 254]
    with pytest.raises(NumericsError, match="NaN"):
        to_uint8(np.array([0.5, np.nan], np.float32))


def test_yuv_of_known_colours():
    # White, black, red, green and blue of BT.709 in limited range.
    known = {(255, 255, 255): (235, 128, 128), (0, 0, 0): (16, 128, 128), (255, 0, 0): (63, 102, 240)}
    known |= {(0, 255, 0): (173, 42, 26), (0, 0, 255): (32, 240, 118)}
    for colour, expected in known.items():
        planes = to_yuv420(np.full((2, 2, 3), colour, np.uint8)).ravel()
        assert (planes[0], planes[4], planes[5]) == expected


@pytest.mark.parametrize("fps", [1, 12, 23.976, 24, 29.97, 50])
@pytest.mark.parametrize("tick", [1, 10])
def test_delays_add_up_to_the_length_of_the_clip(fps, tick):
    spans = delays(129, fps, tick)
    assert len(spans) == 129
    assert all(span > 0 and span % tick == 0 for span in spans)
    assert abs(sum(spans) - 129_000 / fps) <= tick


# --- mp4


def test_mp4_keeps_flat_colours(tmp_path):
    frames = chart()
    decoded, fps = read_video(write_video(tmp_path / "a.mp4", frames, fps=24, metadata=None))
    assert decoded.shape == frames.shape
    assert fps == 24
    inner = np.zeros(frames.shape[1:3], bool)
    for row in range(4):
        for column in range(8):
            inner[row * 32 + 8 : row * 32 + 24, column * 32 + 8 : column * 32 + 24] = row > 0 or column > 0
    largest = np.abs(decoded.astype(int) - frames)[:, inner].max()
    assert largest <= 3, largest


def test_mp4_keeps_motion(tmp_path):
    frames = moving()
    decoded, _ = read_video(write_video(tmp_path / "a.mp4", frames, fps=24, metadata=None))
    largest = np.abs(decoded.astype(int) - frames).max()
    assert largest <= 24, largest
    # A wrong order of frames would show: neighbours differ by 5 levels of red everywhere.
    steps = (decoded[1:, :, :30, 0].astype(int) - decoded[:-1, :, :30, 0]).mean(axis=(1, 2))
    assert np.abs(steps - 5).max() < 1.5


def test_mp4_is_tagged_h264_yuv420p_bt709(tmp_path):
    path = write_video(tmp_path / "a.mp4", moving(), fps=24, metadata=METADATA)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)
        assert (stream.frames, stream.average_rate) == (9, 24)
        assert stream.duration * stream.time_base == Fraction(9, 24)
        assert len(container.streams) == 1
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat"), "the index must come first for streaming"


@pytest.mark.parametrize("fps", [12.5, 23.976, 30000 / 1001, 120, 1])
def test_mp4_takes_fractional_rates(tmp_path, fps):
    _, read = read_video(write_video(tmp_path / "a.mp4", moving(), fps=fps, metadata=None))
    assert abs(read - fps) < 1e-3


@pytest.mark.parametrize(("height", "width"), [(47, 64), (48, 63), (33, 35), (1, 1)])
def test_odd_sides_grow_by_a_repeated_line(tmp_path, height, width):
    frames = moving(5, height, width)
    decoded, _ = read_video(write_video(tmp_path / "a.mp4", frames, fps=24, metadata=None, crf=4))
    assert decoded.shape == (5, height + height % 2, width + width % 2, 3)
    # Chroma is shared by 2 x 2 pixels, so brightness is what can be compared at the edge.
    brightness = decoded.astype(float) @ [0.2126, 0.7152, 0.0722]
    given = frames.astype(float) @ [0.2126, 0.7152, 0.0722]
    grown = np.pad(given, ((0, 0), (0, height % 2), (0, width % 2)), mode="edge")
    assert np.abs(brightness - grown).max() < 8


def test_equal_frames_give_equal_bytes(tmp_path):
    for ending in ("mp4", "gif", "webp"):
        first = write_video(tmp_path / f"a.{ending}", chart(), fps=24, metadata=METADATA).read_bytes()
        second = write_video(tmp_path / f"b.{ending}", chart(), fps=24, metadata=METADATA).read_bytes()
        assert first == second, ending


def test_crf_trades_size_for_quality(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    sizes = [
        write_video(tmp_path / "a.mp4", noise, fps=24, metadata=None, crf=crf).stat().st_size for crf in (10, 18, 40)
    ]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > 2 * sizes[2]


# --- the other kinds


@pytest.mark.parametrize("fps", [24, 12.5, 23.976])
@pytest.mark.parametrize(("name", "limit"), [("a.gif", 40), ("a.webp", 40), ("a", 0)])
def test_other_kinds_come_back(tmp_path, name, limit, fps):
    frames = moving()
    frames[5] = frames[4]  # encoders join equal frames
    frames[8] = frames[7]
    decoded, read = read_video(write_video(tmp_path / name, frames, fps=fps, metadata=METADATA))
    assert decoded.shape == frames.shape
    assert read == fps
    largest = np.abs(decoded.astype(int) - frames).max()
    assert largest <= limit, largest


def test_gif_is_exact_with_few_colours(tmp_path):
    decoded, _ = read_video(write_video(tmp_path / "a.gif", chart(), fps=24, metadata=METADATA))
    assert np.array_equal(decoded, chart())


def test_webp_keeps_flat_colours(tmp_path):
    frames = chart()
    decoded, _ = read_video(write_video(tmp_path / "a.webp", frames, fps=24, metadata=METADATA))
    cell = np.abs(decoded.astype(int) - frames)[:, 40:56, 8:24].max()
    assert cell <= 3, cell


def test_animations_repeat_forever_and_keep_their_length(tmp_path):
    for name in ("a.gif", "a.webp"):
        with Image.open(write_video(tmp_path / name, moving(), fps=24, metadata=None)) as image:
            assert image.info["loop"] == 0
            assert image.n_frames == 9
            length = 0
            for index in range(9):
                image.seek(index)
                image.load()
                length += image.info["duration"]
            assert abs(length - 375) <= 10


def test_a_still_clip_keeps_its_frames(tmp_path):
    frames = np.full((13, 32, 32, 3), 90, np.uint8)
    for name in ("a.gif", "a.webp", "a.mp4", "a"):
        decoded, fps = read_video(write_video(tmp_path / name, frames, fps=24, metadata=METADATA))
        assert (decoded.shape, fps) == (frames.shape, 24), name


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.mp4", "a"])
def test_a_single_frame(tmp_path, name):
    decoded, fps = read_video(write_video(tmp_path / name, moving(1), fps=24, metadata=METADATA))
    assert (decoded.shape, fps) == ((1, 48, 64, 3), 24)


def test_folder_has_numbered_png_files(tmp_path):
    path = write_video(f"{tmp_path}/out.v2/", moving(5), fps=12, metadata=None)
    assert names(path) == [*(f"frame_{index:05d}.png" for index in range(5)), "metadata.json"]
    assert json.loads((path / "metadata.json").read_text()) == {"frames": 5, "fps": 12.0}


# --- metadata


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.webp", "a"])
def test_metadata_survives(tmp_path, name):
    path = write_video(tmp_path / name, moving(), fps=24, metadata=METADATA)
    assert read_metadata(path) == METADATA
    long = {"text": "x" * 100_000}
    if name != "a":
        assert read_metadata(write_video(path, moving(), fps=24, metadata=long)) == long


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.webp", "a"])
def test_without_metadata_nothing_is_told(tmp_path, name):
    path = write_video(tmp_path / name, moving(), fps=24, metadata=None)
    with pytest.raises(InputError, match="holds no settings"):
        read_metadata(path)
    files = path.iterdir() if path.is_dir() else [path]
    assert not any(b"framewake" in file.read_bytes() for file in files)


def test_a_comment_that_is_no_text_is_no_reason_to_refuse_a_clip(tmp_path):
    path = write_video(tmp_path / "a.mp4", moving(), fps=24, metadata=METADATA)
    path.write_bytes(path.read_bytes().replace(b'"framewake"', b'"frame\xffake"'))
    assert read_video(path)[0].shape == (9, 48, 64, 3)
    with pytest.raises(InputError, match="holds no settings"):
        read_metadata(path)


def test_a_folder_may_have_a_colon_in_its_name(tmp_path, monkeypatch):
    (tmp_path / "clips:new").mkdir()
    monkeypatch.chdir(tmp_path)
    path = write_video(Path("clips:new/a.mp4"), moving(), fps=24, metadata=METADATA)
    assert read_video(path)[0].shape == (9, 48, 64, 3)
    assert read_metadata(path) == METADATA


def test_foreign_comments_are_not_ours(tmp_path):
    for index, text in enumerate(("hello", '{"framewake": 3}', "[1]", "[" * 3000, "")):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{index}.gif", comment=text.encode())
        with pytest.raises(InputError, match="holds no settings"):
            read_metadata(tmp_path / f"{index}.gif")
        assert read_video(tmp_path / f"{index}.gif")[0].shape == (1, 8, 8, 3)


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.webp"])
def test_damaged_videos_are_refused(tmp_path, name):
    path = tmp_path / name
    for content in (b"", b"hello", b"GIF89a", b"\0\0\0\x18ftypmp42" + b"\0" * 30):
        path.write_bytes(content)
        for read in (read_metadata, read_video):
            with pytest.raises(InputError, match=r"damaged|no video"):
                read(path)


def test_what_is_no_video_is_refused(tmp_path):
    (tmp_path / "notes").write_text("hello")
    Image.new("RGB", (8, 8)).save(tmp_path / "still.png")
    for path, words in (
        ("no.mp4", "there is no such video"),
        ("notes", "no video"),
        ("still.png", "no video: expected"),
        ("", "has no metadata.json"),
    ):
        with pytest.raises(InputError, match=words):
            read_metadata(tmp_path / path)


def test_a_folder_with_a_lost_or_damaged_frame(tmp_path):
    path = write_video(tmp_path / "a", moving(5), fps=24, metadata=METADATA)
    (path / "frame_00002.png").write_bytes(b"x")
    with pytest.raises(InputError, match="a frame is damaged"):
        read_video(path)
    (path / "frame_00002.png").unlink()
    with pytest.raises(InputError, match=r"holds 4 frames, but metadata\.json says 5"):
        read_video(path)


# --- what cannot be written


@pytest.mark.parametrize(
    ("frames", "options", "words"),
    [
        (moving().astype(np.float32), {}, "expected uint8"),
        (moving()[0], {}, "expected uint8"),
        (moving()[:0], {}, "expected uint8"),
        (moving()[..., :1], {}, "expected uint8"),
        (moving(), {"fps": 0}, "above 0"),
        (moving(), {"fps": float("nan")}, "above 0"),
        (moving(), {"fps": float("inf")}, "above 0"),
        (moving(), {"crf": 52}, "from 0 .best. to 51"),
    ],
)
def test_frames_that_cannot_be_written(tmp_path, frames, options, words):
    with pytest.raises(InputError, match=words):
        write_video(tmp_path / "a.mp4", frames, **{"fps": 24, "metadata": None, **options})
    assert names(tmp_path) == []


WITHOUT_AV = """
import sys, numpy
sys.modules["av"] = None
from framewake.errors import EngineError
from framewake.media.video import read_metadata, read_video, write_video
frames = numpy.zeros((5, 16, 16, 3), numpy.uint8)
for name in ("a", "a.gif", "a.webp"):
    write_video(f"{sys.argv[1]}/{name}", frames, fps=12, metadata={"a": 1})
    assert read_metadata(f"{sys.argv[1]}/{name}") == {"a": 1}
write = lambda: write_video(f"{sys.argv[1]}/a.mp4", frames, fps=12, metadata=None)
for use in (write, lambda: read_video(sys.argv[2])):
    try:
        use()
    except EngineError as error:
        print(error)
"""


def test_everything_but_mp4_works_without_av(tmp_path):
    existing = write_video(tmp_path / "old.mp4", moving(), fps=24, metadata=None)
    command = [sys.executable, "-c", WITHOUT_AV, str(tmp_path), str(existing)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.count("pip install av") == 2
    assert names(tmp_path) == ["a", "a.gif", "a.webp", "old.mp4"]


def test_importing_does_not_import_av():
    code = "import sys, framewake.media.video, framewake.request; sys.exit('av' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
