"""Where a video goes: the ending decides the kind, and everything is checked before work starts."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.util
import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from framewake.errors import DiskFullError, EngineError, FramewakeError, InputError, UnwritableError, nearest
from framewake.shapes import PixelShape

OutputKind = Literal["mp4", "gif", "webp", "frames"]
ENDINGS: dict[str, OutputKind] = {".mp4": "mp4", ".gif": "gif", ".webp": "webp"}
MAX_GIF_FPS = 50  # players show a shorter delay than 20 ms as 100 ms

# Bytes per pixel and frame that a clip of photographs takes, roughly.
_BYTES_PER_PIXEL: dict[OutputKind, float] = {"mp4": 0.1, "gif": 0.7, "webp": 0.2, "frames": 1.5}
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_PROBE_BYTES = 4096
_PREFIX = ".framewake-"


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
    if "\0" in os.fspath(path):
        raise InputError("the output path holds a zero byte: remove it.")
    kind = output_kind(path)
    target = Path(path)
    folder = target.parent
    try:
        _check_place(target, folder, kind)
    except OSError as error:
        raise UnwritableError(f"{target}: cannot be used as output ({_reason(error)}). Choose another path.") from error
    if kind == "mp4" and importlib.util.find_spec("av") is None:
        raise EngineError(
            "an mp4 needs the package av: install it with `pip install av`, or choose a folder of PNG files "
            f"(-o {target.with_suffix('')}/)."
        )
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


def no_room(target: Path, bytes_needed: int) -> DiskFullError:
    """The error for a disk that is full."""
    try:
        bytes_free = shutil.disk_usage(target.parent).free
    except OSError:
        bytes_free = 0
    return DiskFullError(
        f"there is no room for {target}: up to {bytes_needed:,} bytes are needed, {bytes_free:,} are free in "
        f"{target.parent}. Free some space or choose another folder with -o.",
        bytes_needed=bytes_needed,
        bytes_free=bytes_free,
    )


def temporary_path(target: Path) -> Path:
    """A hidden name in the same folder; it does not grow with the target's name, which may be at its limit."""
    return target.parent / f"{_PREFIX}{process_space()}-{os.getpid()}-{secrets.token_hex(4)}.part"


def clear_abandoned(folder: Path) -> None:
    """Remove temporary files that a killed process of this machine has left."""
    for path in folder.glob(f"{_PREFIX}{process_space()}-*.part"):
        process = path.name.removeprefix(_PREFIX).split("-")[1]
        if process.isdecimal() and not _is_alive(int(process)):
            with contextlib.suppress(OSError), removed_at_end(path):
                pass


def process_space() -> str:
    """A short name for where process numbers mean the same: this boot of this machine, and this container in it."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):  # only Linux has these; machines and containers may share a host name
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        parts.append(str(os.stat("/proc/self/ns/pid").st_ino))
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:10]


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def publish(part: Path, target: Path) -> None:
    """Give a finished file or folder its name: from here on it is there, whole, also after a power cut.

    Both lie in one folder; a file, or an empty folder, of that name is replaced.
    """
    if part.is_dir():
        for folder, _, files in os.walk(part):
            for name in files:
                _sync(Path(folder, name))
            sync_folder(Path(folder))
        if target.is_dir():
            target.rmdir()
    else:
        _sync(part)
    os.replace(part, target)
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Put on the disk which names a folder holds."""
    if os.name == "posix":  # elsewhere a folder cannot be opened
        try:
            _sync(folder)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems know no such thing
                raise


def _sync(path: Path) -> None:
    # Windows syncs only what may be written.
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def written_whole(target: Path, bytes_needed: int = 0) -> Iterator[Path]:
    """A hidden place to write a file to, which gets the target's name at the end as ``publish`` gives it.

    Raises: UnwritableError for a place that cannot be written, DiskFullError.
    """
    with guarded(target, bytes_needed), removed_at_end(temporary_path(target)) as part:
        yield part
        publish(part, target)


@contextlib.contextmanager
def guarded(target: Path, bytes_needed: int) -> Iterator[None]:
    """Turns what the system says while writing into errors that a person can act on."""
    try:
        yield
    except FramewakeError:
        raise
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise no_room(target, bytes_needed) from error
        raise UnwritableError(
            f"{target} cannot be written ({_reason(error)}). Choose another folder with -o."
        ) from error


@contextlib.contextmanager
def removed_at_end(path: Path) -> Iterator[Path]:
    """Removes a temporary file or folder, whatever happens (also Ctrl-C); nothing if it was renamed."""
    try:
        yield path
    finally:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error)
