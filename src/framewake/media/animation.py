"""Animated GIF and WebP, and folders of PNG files: all through Pillow."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageSequence

from framewake.errors import InputError
from framewake.media.footage import Footage
from framewake.media.parsers import parsing
from framewake.media.picture import check_size, finished

IMAGE_DESCRIPTION = 0x010E  # EXIF tag for text
FRAME_NAME = "frame_{:05d}.png"
FOLDER_FILE = "metadata.json"
DAMAGED = "the animation is damaged or of another kind"
MAX_FRAMES = 100_000  # a file from anywhere must not make us repeat a frame for ever


def delays(count: int, fps: float, tick_ms: int) -> list[int]:
    """Delay of each frame in whole ticks, so spread that the whole clip keeps its length.

    Units: milliseconds; a tick is 10 for GIF and 1 for WebP.
    """
    times = [round(index * 1000 / (fps * tick_ms)) * tick_ms for index in range(count + 1)]
    return [after - before for before, after in itertools.pairwise(times)]


def write_gif(path: Path, frames: np.ndarray, *, fps: float, comment: str | None) -> None:
    """Writes an endless GIF with 256 colours chosen anew for every frame.

    Shapes: frames (F, H, W, 3) uint8.
    """
    pictures = (Image.fromarray(frame).quantize(256, method=Image.Quantize.MEDIANCUT) for frame in frames)
    options: dict[str, Any] = {} if comment is None else {"comment": comment.encode("ascii")}
    first = next(pictures)
    first.save(
        path,
        format="GIF",
        save_all=True,
        append_images=pictures,
        duration=delays(len(frames), fps, 10),
        loop=0,
        **options,
    )


def write_webp(path: Path, frames: np.ndarray, *, fps: float, comment: str | None) -> None:
    """Writes an endless animated WebP of high quality.

    Shapes: frames (F, H, W, 3) uint8.
    """
    options: dict[str, Any] = {}
    if comment is not None:
        exif = Image.Exif()
        exif[IMAGE_DESCRIPTION] = comment
        options["exif"] = exif
    pictures = (Image.fromarray(frame) for frame in frames)
    first = next(pictures)
    first.save(
        path,
        format="WEBP",
        save_all=True,
        append_images=pictures,
        duration=delays(len(frames), fps, 1),
        loop=0,
        quality=90,
        **options,
    )


def write_folder(path: Path, frames: np.ndarray, record: dict[str, Any]) -> None:
    """Writes frame_00000.png, ... and metadata.json, which holds ``record``, into a new folder.

    Shapes: frames (F, H, W, 3) uint8.
    """
    path.mkdir()
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(path / FRAME_NAME.format(index), format="PNG")
    text = json.dumps(record, indent=2, allow_nan=False)
    (path / FOLDER_FILE).write_text(text + "\n", encoding="utf-8")


def read_animation(path: Path, timing: tuple[float, int] | None, *, most: int | None = None) -> Footage:
    """The frames of a GIF or WebP; with ``most``, no more of them are decoded.

    Encoders join equal frames into one that stays longer; with ``timing``, the (fps, frames) that were
    written, they come back one by one.

    Raises: InputError for a damaged file.
    """
    notes: dict[str, None] = {}
    frames, times = [], [0.0]
    with parsing(f"{path}:", DAMAGED), Image.open(path, formats=("GIF", "WEBP")) as image:
        check_size(image.size, str(path))
        for picture in itertools.islice(ImageSequence.Iterator(image), None if timing else most):
            picture.load()
            shown = finished(picture, str(path))
            frames.append(np.asarray(shown.image))
            notes |= dict.fromkeys(shown.notes)
            times.append(times[-1] + picture.info.get("duration", 0) / 1000)
    if len({frame.shape for frame in frames}) != 1:
        raise InputError(f"{path}: {DAMAGED} (its frames differ in size).")
    if timing is None:
        fps = len(frames) / times[-1] if times[-1] > 0 else 1.0
        return Footage(np.stack(frames), fps, tuple(notes), len(frames))
    fps, count = timing
    if not len(frames) <= count <= MAX_FRAMES:
        raise InputError(f"{path} holds {len(frames)} frames, but its settings say {count}.")
    starts = np.minimum(np.rint(np.array(times[:-1]) * fps).astype(int), count - 1)
    shown_at = np.searchsorted(starts, np.arange(count), side="right") - 1
    return Footage(np.stack(frames)[shown_at], fps, tuple(notes), count)


def read_animation_comment(path: Path) -> str | None:
    """The text that ``write_gif`` or ``write_webp`` embedded, None when there is none.

    Raises: InputError for a damaged file.
    """
    with parsing(f"{path}:", DAMAGED), Image.open(path, formats=("GIF", "WEBP")) as image:
        if image.format == "GIF":
            comment = image.info.get("comment")
            return None if comment is None else comment.decode("utf-8", "replace")
        return image.getexif().get(IMAGE_DESCRIPTION)


def read_folder(path: Path) -> tuple[np.ndarray, float]:
    """Frames and frames per second of a folder that ``write_folder`` made.

    Shapes: -> (F, H, W, 3) uint8.
    Raises: InputError when the folder holds no such frames, or not all of them.
    """
    record = read_folder_record(path)
    names = sorted(name for name in os.listdir(path) if name.startswith("frame_") and name.endswith(".png"))
    expected = record.get("frames")
    if not names or len(names) != expected:
        raise InputError(f"{path} holds {len(names)} frames, but {FOLDER_FILE} says {expected}.")
    frames = []
    with parsing(f"{path}:", "a frame is damaged"):
        for name in names:
            with Image.open(path / name, formats=("PNG",)) as image:
                frames.append(np.asarray(image.convert("RGB")))
        return np.stack(frames), float(record["fps"])


def read_folder_record(path: Path) -> dict[str, Any]:
    """What stands in the folder's metadata.json.

    Raises: InputError when it is missing or damaged.
    """
    file = path / FOLDER_FILE
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path} is no folder of frames made here: it has no {FOLDER_FILE}.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file} cannot be read ({error}).") from error
    if not isinstance(record, dict):
        raise InputError(f"{file} holds no settings.")
    return record
