"""The first frames of any clip: a video file, an animation, or a folder of PNG files."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from framewake.errors import InputError
from framewake.media.footage import Footage, read_frames
from framewake.media.image import bucket_pixels, clip_pixels
from framewake.media.kinds import HEAD_BYTES, kind_of
from framewake.media.parsers import parsing
from framewake.media.picture import finished
from framewake.media.video import animated

VIDEOS = (".mp4", ".mov", ".m4v", ".3gp", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".wmv",
          ".asf", ".flv", ".ogv")  # fmt: skip
ANIMATIONS = (".gif", ".webp")
FAST_FPS = 50  # from here on every second frame is taken, as the original does


class Clip(NamedTuple):
    """Consecutive frames of one clip, and what a person should know of them. Shapes: frames uint8 (F, H, W, 3)."""

    path: Path
    frames: np.ndarray
    notes: tuple[str, ...] = ()


def is_clip(path: Path) -> bool:
    """Whether a path looks like a clip: by its ending, or a folder with PNG files in it."""
    if path.is_dir():
        return next(path.glob("*.png"), None) is not None
    return path.suffix.lower() in VIDEOS + ANIMATIONS


def read_clip(path: Path, frames: int) -> Clip:
    """The first ``frames`` frames, every second one from 50 frames a second on; the rest is not decoded.

    Raises: InputError for a clip that cannot be read or is shorter.
    Source: specification, section 10.1.
    """
    if path.is_dir():
        found, fps, notes = _pictures(path, frames)
    elif _is_animation(path):
        found, fps, notes = animated(path, most=2 * frames)  # which knows the frames that an encoder has joined
    else:
        found, fps, notes = read_frames(path, most=2 * frames)
    step = 2 if int(fps) >= FAST_FPS else 1
    taken = found[::step][:frames]
    if len(taken) < frames:
        every = " of which every second one is taken (50 a second or more)" if step > 1 else ""
        raise InputError(
            f"{path} has {len(found)} frames{every}, {frames} are needed: take it out of the folder, or train on "
            f"fewer with --frames {_fitting(len(taken))}."
        )
    return Clip(path, np.ascontiguousarray(taken), notes)


def fitted(clip: Clip, height: int, width: int) -> np.ndarray:
    """Every frame resized and cropped as a picture is. Shapes: -> (F, height, width, 3) uint8."""
    return np.stack([bucket_pixels(Image.fromarray(frame), height, width) for frame in clip.frames])


def first_for_clip(clip: Clip, size: int, *, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """The whole first frame as LLaVA sees it at inference. Shapes: -> float32 (1, 3, S, S)."""
    return clip_pixels(Image.fromarray(clip.frames[0]), size, mean=mean, std=std)[None]


def black_for_clip(size: int, *, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """A black picture as LLaVA sees it. Shapes: -> float32 (1, 3, S, S)."""
    return clip_pixels(Image.new("RGB", (size, size)), size, mean=mean, std=std)[None]


def _is_animation(path: Path) -> bool:
    """By its first bytes, as messengers give an mp4 the name of the GIF that it was."""
    with parsing(f"{path}:", "the clip cannot be read"), path.open("rb") as stream:
        kind = kind_of(stream.read(HEAD_BYTES))
    return kind is not None and kind.name in ("GIF", "WebP")


def _fitting(count: int) -> int:
    """The largest length of 4 n + 1 that so many frames hold."""
    return max(count - 1, 0) // 4 * 4 + 1


def _pictures(path: Path, frames: int) -> Footage:
    found = []
    notes: dict[str, None] = {}
    for file in sorted(path.glob("*.png"))[:frames]:
        with parsing(f"{file}:", "the frame is damaged", advice="Write it again as PNG."), file.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
            stream.seek(0)
            with Image.open(stream, formats=("PNG",)) as image:
                image.load()
                frame = finished(image, str(file), head=head)
        found.append(np.asarray(frame.image))
        notes |= dict.fromkeys(frame.notes)
    if len({frame.shape for frame in found}) > 1:
        raise InputError(f"{path}: its frames differ in size: write them all in one.")
    return Footage(np.stack(found), 0, tuple(notes))
