"""Where a clip goes: the ending decides the kind, and everything is checked before work starts."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Literal

from framewake.errors import InputError, UnwritableError, nearest
from framewake.lasting import guarded, no_room, reason, removed_at_end, temporary_path
from framewake.media.mp4 import import_av
from framewake.shapes import PixelShape

OutputKind = Literal["mp4", "gif", "webp", "frames"]
ENDINGS: dict[str, OutputKind] = {".mp4": "mp4", ".gif": "gif", ".webp": "webp"}
MAX_GIF_FPS = 50  # players show a shorter delay than 20 ms as 100 ms

# Bytes per pixel and frame that a clip of photographs takes, roughly.
_BYTES_PER_PIXEL: dict[OutputKind, float] = {"mp4": 0.1, "gif": 0.7, "webp": 0.2, "frames": 1.5}
_PROBE_BYTES = 4096


def output_kind(path: str | os.PathLike[str]) -> OutputKind:
    """What a path asks for: .mp4, .gif and .webp are files, no ending is a folder of PNG files.

    Raises: InputError for any other ending; a path that ends with a slash is always a folder.
    """
    text = os.fspath(path)
    ending = Path(text).suffix.lower()
    if ending in ENDINGS and not text.endswith(("/", os.sep)):
        return ENDINGS[ending]
    if not ending or text.endswith(("/", os.sep)) or Path(text).is_dir():
        return "frames"
    raise InputError(
        f"{text}: the ending {ending} is unknown. Choose {', '.join(ENDINGS)}, or end the path with / for a folder "
        f"of PNG files.{nearest(ending, ENDINGS)}"
    )


def check_output(
    path: str | os.PathLike[str], *, shape: PixelShape | None = None, fps: float | None = None
) -> OutputKind:
    """The kind of output, once it is known that it can be written there.

    Meant for the moment before models load: it looks for the folder, permission, room and packages.

    Raises: InputError, EngineError for a missing package, DiskFullError.
    """
    if not os.fspath(path):
        raise InputError("the output path is empty: name a file such as clip.mp4.")
    if os.fspath(path) == "-":
        raise InputError("a clip cannot go to standard output (-): name a file such as clip.mp4.")
    if "\0" in os.fspath(path):
        raise InputError("the output path holds a zero byte: remove it.")
    kind = output_kind(path)
    target = Path(path)
    folder = target.parent
    try:
        _check_place(target, folder, kind)
    except OSError as error:
        raise UnwritableError(f"{target}: cannot be used as output ({reason(error)}). Choose another path.") from error
    if kind == "mp4":
        import_av()  # one that is installed and does not start must not fail behind the work
    if kind == "gif" and fps is not None and fps > MAX_GIF_FPS:
        raise InputError(f"{target}: a GIF shows at most {MAX_GIF_FPS} frames per second, not {fps:g}. Use .mp4.")
    needed = max(_PROBE_BYTES, estimate_bytes(kind, shape) if shape else 0)
    _check_room(target, needed)
    return kind


def _check_place(target: Path, folder: Path, kind: OutputKind) -> None:
    if not folder.exists():
        raise UnwritableError(f"the folder {folder} does not exist. Make it first: mkdir -p {folder}")
    if not folder.is_dir():
        raise UnwritableError(f"{folder} is a file, so {target.name} cannot be put into it. Choose another folder.")
    if kind == "frames":
        if target.is_dir() and any(target.iterdir()):
            raise InputError(f"the folder {target} is not empty. Name a new folder, or a file such as clip.mp4.")
        if target.exists() and not target.is_dir():
            raise InputError(f"{target} is a file. Name a new folder, or a file that ends in {', '.join(ENDINGS)}.")
    elif target.exists() and not target.is_file():
        raise InputError(f"{target} exists and is not a file. Choose another name.")
    longest = os.pathconf(folder, "PC_NAME_MAX") if hasattr(os, "pathconf") else 255
    if len(os.fsencode(target.name)) > longest:
        raise InputError(f"the name of the output has {len(os.fsencode(target.name))} bytes; {longest} are possible.")


def _check_room(target: Path, bytes_needed: int) -> None:
    """Writes and removes a small file: permissions and quotas are only known by trying."""
    probe = temporary_path(target)
    with guarded(target, bytes_needed), removed_at_end(probe):
        probe.write_bytes(b"\0" * _PROBE_BYTES)
    if shutil.disk_usage(target.parent).free < bytes_needed:
        raise no_room(target, bytes_needed)


def estimate_bytes(kind: OutputKind, shape: PixelShape) -> int:
    """Roughly how big a video of this size becomes."""
    return int(_BYTES_PER_PIXEL[kind] * shape.frames * shape.height * shape.width) + _PROBE_BYTES
