"""Damaged files of every kind open, or are refused in our words: nothing of a foreign parser comes through."""

from __future__ import annotations

import numpy as np
import pytest
from made_files import moving, sample, tiff_pages, turn_clip, write_clip, write_sound
from PIL import Image

from framewake.errors import InputError
from framewake.media.clips import read_clip
from framewake.media.picture import header_size, load_picture
from framewake.media.video import read_metadata, read_video, write_video

ROUNDS = 40
KINDS = ("png", "jpg", "webp", "gif", "avif", "tiff", "heic", "apng", "mp4", "mkv", "avi", "ts", "mov")


def made(folder, kind):
    """A good file of a kind, small."""
    path = folder / f"whole.{kind}"
    frames = moving(5, 32, 32)
    pictures = [Image.fromarray(frame) for frame in frames]
    if kind in ("webp", "gif", "avif"):
        pictures[0].save(path, save_all=True, append_images=pictures[1:])
    elif kind == "apng":
        pictures[0].save(path, "PNG", save_all=True, append_images=pictures[1:])
    elif kind == "tiff":
        path.write_bytes(tiff_pages(3))
    elif kind == "heic":
        pytest.importorskip("pillow_heif").from_pillow(sample()).save(path)
    elif kind == "mp4":
        turn_clip(write_video(path, frames, fps=24, metadata={"a": 1}), (0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30))
    elif kind in ("mkv", "avi", "ts", "mov"):
        codec = {"avi": "mpeg4", "mov": "qtrle"}.get(kind, "libx264")
        forms = {"mkv": "matroska", "ts": "mpegts"}
        pixels = "argb" if kind == "mov" else "yuv420p"
        write_clip(path, frames, kind=forms.get(kind, kind), codec=codec, pixels=pixels)
    else:
        exif = Image.Exif()
        exif[0x0112] = 6
        sample().save(path, exif=exif, icc_profile=b"x" * 200)
    return path


def damaged(content, random):
    """One copy with flipped bytes, one cut off, one with a hole."""
    values = np.frombuffer(content, np.uint8).copy()
    where = random.integers(0, min(len(values), 600), 4)
    values[where] = random.integers(0, 256, 4)
    yield values.tobytes()
    values = np.frombuffer(content, np.uint8).copy()
    values[random.integers(12, len(values), 4)] ^= 255
    yield values.tobytes()
    yield content[: random.integers(1, len(content))]
    hole = int(random.integers(0, len(content)))
    yield content[:hole] + content[hole + int(random.integers(1, 50)) :]


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_open_or_are_refused(tmp_path, kind):
    if kind in ("avif",) and f".{kind}" not in Image.registered_extensions():
        pytest.skip("this Pillow cannot write the format")
    content = made(tmp_path, kind).read_bytes()
    random = np.random.default_rng(7)
    path = tmp_path / f"a.{ {'apng': 'png'}.get(kind, kind) }"
    reads = [load_picture, lambda file: load_picture(file, takes_first_frame=True)]
    reads += [lambda file: header_size(file.read_bytes(), "it"), read_video, read_metadata, lambda f: read_clip(f, 1)]
    refused = 0
    for number in range(ROUNDS):
        for change in damaged(content, random):
            path.write_bytes(change)
            try:
                reads[number % len(reads)](path)
            except InputError as error:
                refused += 1
                assert "\n" not in str(error) and len(str(error)) < 700
    assert refused


def test_what_is_refused_stays_refused(tmp_path):
    """What a fuzzer found once: frames of two sizes in one animation, sound with a cover."""
    frames = [Image.new("RGB", (8, 8), (9, 9, 9)), Image.new("RGB", (8, 8), (90, 9, 9))]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    content = bytearray((tmp_path / "a.gif").read_bytes())
    content[content.rindex(b"\x2c") + 5] = 200  # the second frame is wider than the picture
    (tmp_path / "a.gif").write_bytes(content)
    for read in (load_picture, read_video, lambda file: read_clip(file, 1)):
        try:
            read(tmp_path / "a.gif")
        except InputError as error:
            assert "damaged" in str(error)
    with pytest.raises(InputError, match="holds no video"):
        read_clip(write_sound(tmp_path / "b.mp4"), 1)
