"""A clip as a file: mp4, GIF, WebP or a folder of PNG files, with the settings that made it inside."""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from framewake.errors import InputError, NumericsError
from framewake.lasting import written_whole
from framewake.media import animation, mp4
from framewake.media.footage import Footage, read_frames
from framewake.media.output import ENDINGS, OutputKind, check_output

__all__ = ["check_crf", "check_output", "read_metadata", "read_video", "to_uint8", "write_video", "writing_video"]

KEY = "framewake"  # tells our JSON from any other comment
MAX_CRF = 51

NAN_IN_FRAMES = "the decoded frames hold NaN: run again with --precision float32."


def to_uint8(frames: np.ndarray) -> np.ndarray:
    """Brightness of 0 to 1 as 0 to 255, cut and not rounded, as in the original.

    Shapes: any -> the same, uint8.
    Raises: NumericsError when a value is NaN.
    Source: specification, section 1.3.
    """
    values = np.asarray(frames, dtype=np.float32)
    if np.isnan(values).any():
        raise NumericsError(NAN_IN_FRAMES)
    return (np.clip(values, 0.0, 1.0) * np.float32(255)).astype(np.uint8)


def write_video(
    path: str | os.PathLike[str],
    frames: np.ndarray,
    *,
    fps: float,
    metadata: Mapping[str, Any] | None,
    crf: int = 18,
) -> Path:
    """Writes a video as its ending says and returns its path; ``writing_video`` at one go."""
    work = writing_video(path, frames, fps=fps, metadata=metadata, crf=crf)
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


def writing_video(
    path: str | os.PathLike[str],
    frames: np.ndarray,
    *,
    fps: float,
    metadata: Mapping[str, Any] | None,
    crf: int = 18,
) -> Generator[float, None, Path]:
    """Writes a video as its ending says, tells what share of it is done where that is known, and returns its path.

    The file appears under its name only when it is complete and on the disk; one of that name is replaced.  Closed
    on the way, this leaves nothing behind.  An odd side of an mp4 grows by one repeated row or column.  ``metadata``
    None writes no settings.

    Shapes: frames (F, H, W, 3) uint8.
    Units: ``crf`` is x264's quality from 0 to 51, lower is better; only mp4 uses it.
    Raises: InputError for a place that cannot be written, ResourceError when the disk is full.
    Source: specification, section 1.3; CRF 18 instead of 23 by decision.
    """
    _check_frames(frames, fps, crf)
    kind = check_output(path, fps=fps)
    target = Path(path)
    record: dict[str, Any] = {"frames": len(frames), "fps": float(fps)}
    if metadata is not None:
        record[KEY] = dict(metadata)
    # Raw size: what a clip of pure noise would take at most.
    with written_whole(target, frames.nbytes) as part:
        yield from _write(kind, part, frames, record, crf)
    return target


def _check_frames(frames: np.ndarray, fps: float, crf: int) -> None:
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise InputError(
            f"frames are {frames.dtype} of shape {frames.shape}: expected uint8 (frames, height, width, 3)."
        )
    if not 0 < fps < float("inf"):
        raise InputError(f"{fps} frames per second are impossible: expected a number above 0, such as 24.")
    check_crf(crf)


def check_crf(crf: int) -> None:
    """Whether x264 has this quality.

    Raises: InputError when it has not.
    """
    if not 0 <= crf <= MAX_CRF:
        raise InputError(f"crf is {crf}: expected a number from 0 (best) to {MAX_CRF}; 18 looks like the original.")


def _write(
    kind: OutputKind, part: Path, frames: np.ndarray, record: dict[str, Any], crf: int
) -> Generator[float, None, None]:
    if kind == "frames":
        animation.write_folder(part, frames, record)
        return
    # ASCII only: a GIF comment and an EXIF text hold nothing else.
    comment = json.dumps(record, ensure_ascii=True, allow_nan=False) if KEY in record else None
    if kind == "gif":
        animation.write_gif(part, frames, fps=record["fps"], comment=comment)
    elif kind == "webp":
        animation.write_webp(part, frames, fps=record["fps"], comment=comment)
    else:
        yield from mp4.write_mp4(part, frames, fps=record["fps"], comment=comment, crf=crf)


def read_video(path: str | os.PathLike[str]) -> tuple[np.ndarray, float]:
    """Frames and frames per second of a video that ``write_video`` could have made.

    Shapes: -> (F, H, W, 3) uint8.
    Raises: InputError for a file that is missing, damaged or of another kind.
    """
    file, kind = _existing(path)
    if kind == "frames":
        return animation.read_folder(file)
    if kind == "mp4":
        return read_frames(file)[:2]
    return animated(file)[:2]


def animated(path: Path, *, most: int | None = None) -> Footage:
    """The frames of a GIF or WebP, those that an encoder has joined too where it was made here.

    Raises: InputError for a damaged file.
    """
    return animation.read_animation(path, _timing(_record(path, "gif")), most=most)


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The settings inside a video, as they were handed to ``write_video``.

    Raises: InputError for a file without settings, or one that is missing or damaged.
    """
    file, kind = _existing(path)
    metadata = _record(file, kind).get(KEY)
    if not isinstance(metadata, dict):
        raise InputError(f"{file} holds no settings of framewake: it was made elsewhere, or with --no-metadata.")
    return metadata


def _existing(path: str | os.PathLike[str]) -> tuple[Path, OutputKind]:
    file = Path(path)
    if not file.exists():
        raise InputError(f"{file}: there is no such video. Check the path.")
    if file.is_dir():
        return file, "frames"
    kind = ENDINGS.get(file.suffix.lower())
    if kind is None:
        raise InputError(f"{file} is no video: expected a file ending in .mp4, .gif or .webp, or a folder of frames.")
    return file, kind


def _record(file: Path, kind: OutputKind) -> dict[str, Any]:
    """What ``write_video`` embedded; empty for a file that was made elsewhere."""
    if kind == "frames":
        return animation.read_folder_record(file)
    comment = mp4.read_mp4_comment(file) if kind == "mp4" else animation.read_animation_comment(file)
    try:
        record = json.loads(comment or "null")
    except (ValueError, TypeError, RecursionError):
        return {}
    return record if isinstance(record, dict) and KEY in record else {}


def _timing(record: dict[str, Any]) -> tuple[float, int] | None:
    """Frames per second and number of frames that a record tells, if they can be believed."""
    fps, count = record.get("fps"), record.get("frames")
    if isinstance(fps, int | float) and isinstance(count, int) and 0 < fps < float("inf"):
        return fps, count
    return None
