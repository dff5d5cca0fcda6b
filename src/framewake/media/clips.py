"""The first frames of a clip from anywhere: a video file, an animation, or a folder of PNG files."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from framewake.errors import InputError
from framewake.media import mp4
from framewake.media.image import DAMAGE, bucket_pixels, clip_pixels
from framewake.media.video import read_video

VIDEOS = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi")
ANIMATIONS = (".gif", ".webp")
FAST_FPS = 50  # from here on every second frame is taken, as the original does


class Clip(NamedTuple):
    """Consecutive frames of one clip. Shapes: frames uint8 (F, H, W, 3)."""

    path: Path
    frames: np.ndarray


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
        found, step = _pictures(path, frames), 1
    elif path.suffix.lower() in ANIMATIONS:
        found, fps = read_video(path)  # which knows the frames that an encoder has joined
        step = _step(fps)
    else:
        found, step = _video(path, frames)
    taken = found[::step][:frames]
    if len(taken) < frames:
        every = " of which every second one is taken (50 a second or more)" if step > 1 else ""
        raise InputError(
            f"{path} has {len(found)} frames{every}, {frames} are needed: take it out of the folder, or train on "
            f"fewer with --frames {_fitting(len(taken))}."
        )
    return Clip(path, np.ascontiguousarray(taken))


def fitted(clip: Clip, height: int, width: int) -> np.ndarray:
    """Every frame resized and cropped as a picture is. Shapes: -> (F, height, width, 3) uint8."""
    return np.stack([bucket_pixels(Image.fromarray(frame), height, width) for frame in clip.frames])


def first_for_clip(clip: Clip, size: int, *, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """The whole first frame as LLaVA sees it at inference. Shapes: -> float32 (1, 3, S, S)."""
    return clip_pixels(Image.fromarray(clip.frames[0]), size, mean=mean, std=std)[None]


def black_for_clip(size: int, *, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """A black picture as LLaVA sees it. Shapes: -> float32 (1, 3, S, S)."""
    return clip_pixels(Image.new("RGB", (size, size)), size, mean=mean, std=std)[None]


def _step(fps: float) -> int:
    return 2 if int(fps) >= FAST_FPS else 1


def _fitting(count: int) -> int:
    """The largest length of 4 n + 1 that so many frames hold."""
    return max(count - 1, 0) // 4 * 4 + 1


def _video(path: Path, frames: int) -> tuple[np.ndarray, int]:
    found, fps = mp4.read_mp4(path, most=2 * frames)
    return found, _step(fps)


def _pictures(path: Path, frames: int) -> np.ndarray:
    found = []
    for file in sorted(path.glob("*.png"))[:frames]:
        try:
            with Image.open(file, formats=("PNG",)) as image:
                found.append(np.asarray(image.convert("RGB")))
        except (*DAMAGE, Image.DecompressionBombError) as error:
            raise InputError(f"{file}: the frame is damaged ({error}). Write it again as PNG.") from error
    if len({frame.shape for frame in found}) > 1:
        raise InputError(f"{path}: its frames differ in size: write them all in one.")
    return np.stack(found)
