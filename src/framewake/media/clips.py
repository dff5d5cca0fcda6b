"""Frames of any clip: a video file, an animation, a folder of PNG files, or a picture, which is one frame."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from framewake.errors import InputError
from framewake.media.footage import NO_FRAMES, Footage, read_frames
from framewake.media.framing import Colours, Framed
from framewake.media.image import bucket_pixels
from framewake.media.kinds import HEAD_BYTES, kind_of
from framewake.media.parsers import parsing
from framewake.media.picture import finished, load_picture
from framewake.media.video import animated

VIDEOS = (".mp4", ".mov", ".m4v", ".3gp", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".wmv",
          ".asf", ".flv", ".ogv")  # fmt: skip
ANIMATIONS = (".gif", ".webp")
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif")


class Clip(NamedTuple):
    """Frames of one clip, and what a person should know of them. Shapes: frames uint8 (F, H, W, 3)."""

    path: Path
    frames: np.ndarray
    notes: tuple[str, ...] = ()


class Extent(NamedTuple):
    """What a clip is, without its frames. Units: ``height`` and ``width`` in pixels, ``fps`` in frames a second."""

    frames: int
    height: int
    width: int
    fps: float


def is_clip(path: Path) -> bool:
    """Whether a path looks like a clip: by its ending, or a folder with PNG files in it."""
    if path.is_dir():
        return next(path.glob("*.png"), None) is not None
    return path.suffix.lower() in VIDEOS + ANIMATIONS


def is_picture(path: Path) -> bool:
    """Whether a path looks like a picture."""
    return path.suffix.lower() in PICTURES and path.is_file()


def look_at(path: Path, *, most: int | None = None) -> Extent:
    """What a clip is, every frame of it decoded, or the first ``most``; it takes the memory of one.

    Raises: InputError for a clip that cannot be read.
    """
    found = _footage(path, (0,), most)
    return Extent(found.decoded, found.frames.shape[1], found.frames.shape[2], found.fps)


def read_clip(path: Path, frames: int, *, start: int = 0, rate: float = 1.0) -> Clip:
    """Some frames of a clip; what lies behind them is not decoded.

    ``rate`` is how many of its frames pass for each that is taken, ``start`` how many would have been taken before.
    Raises: InputError for a clip that cannot be read or is shorter.
    """
    places = [place_of(start + number, rate) for number in range(frames)]
    found = _footage(path, places, places[-1] + 1)
    if len(found.frames) < frames:
        raise InputError(f"{path} has {found.decoded} frames, {places[-1] + 1} are needed.")
    return Clip(path, np.ascontiguousarray(found.frames), found.notes)


def place_of(number: int, rate: float) -> int:
    """Which of a clip's frames is the one of a number, where ``rate`` of them pass for each."""
    return math.ceil(number * rate - 1e-9)


def count_at(frames: int, rate: float) -> int:
    """How many frames are taken of so many."""
    return int((frames - 1) / rate + 1e-9) + 1 if frames else 0


def fitted(clip: Clip, height: int, width: int, *, crop: Callable[..., np.ndarray] = bucket_pixels) -> np.ndarray:
    """Every frame resized and cropped as a picture is. Shapes: -> (F, height, width, 3) uint8."""
    return np.stack([crop(Image.fromarray(frame), height, width) for frame in clip.frames])


def first_seen(
    clip: Clip, height: int, width: int, framed: Framed, size: int, mean: Colours, std: Colours
) -> tuple[np.ndarray, np.ndarray]:
    """What the vision tower sees of a clip's first frame, and what it sees where that is left out.

    Shapes: -> float32 (1, 3, S, S) each.
    """
    image = Image.fromarray(clip.frames[0])
    return framed.seen(image, framed.crop(image, height, width), size, mean, std)


def _footage(path: Path, kept: Sequence[int], most: int | None) -> Footage:
    """The frames of some numbers, of the first ``most`` or of all."""
    if path.is_dir():
        return _pictures(path, kept, most)
    if is_picture(path):
        loaded = load_picture(path, takes_first_frame=True)
        return Footage(np.asarray(loaded.image)[None], 0, loaded.notes, 1)
    if not _is_animation(path):
        return read_frames(path, most=most, kept=kept)
    found = animated(path, most=most)  # which knows the frames that an encoder has joined
    return found._replace(frames=found.frames[[number for number in kept if number < found.decoded]])


def _is_animation(path: Path) -> bool:
    """By its first bytes, as messengers give an mp4 the name of the GIF that it was."""
    with parsing(f"{path}:", "the clip cannot be read"), path.open("rb") as stream:
        kind = kind_of(stream.read(HEAD_BYTES))
    return kind is not None and kind.name in ("GIF", "WebP")


def _pictures(path: Path, kept: Sequence[int], most: int | None) -> Footage:
    found: list[np.ndarray] = []
    sizes: set[tuple[int, ...]] = set()
    notes: dict[str, None] = {}
    files = sorted(path.glob("*.png"))[:most]
    for number, file in enumerate(files):
        with parsing(f"{file}:", "the frame is damaged", advice="Write it again as PNG."), file.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
            stream.seek(0)
            with Image.open(stream, formats=("PNG",)) as image:
                image.load()
                frame = finished(image, str(file), head=head)
        sizes.add(frame.image.size)
        if number in kept:
            found.append(np.asarray(frame.image))
            notes |= dict.fromkeys(frame.notes)
    if len(sizes) > 1:
        raise InputError(f"{path}: its frames differ in size: write them all in one.")
    return Footage(np.stack(found) if found else NO_FRAMES, 0, tuple(notes), len(files))
