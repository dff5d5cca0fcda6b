"""Files that are complete or absent, even after a power cut, and temporary files that never stay behind."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from framewake.errors import DiskFullError, FramewakeError, InputError, UnwritableError

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_PREFIX = ".framewake-"


def no_room(target: Path, bytes_needed: int) -> DiskFullError:
    """The error for a disk that is full; 0 bytes where the writer cannot tell."""
    try:
        bytes_free = shutil.disk_usage(target.parent).free
    except OSError:
        bytes_free = 0
    needed = f"up to {bytes_needed:,} bytes are needed, " if bytes_needed else ""
    return DiskFullError(
        f"there is no room for {target}: {needed}{bytes_free:,} bytes are free in "
        f"{target.parent}. Free some space or choose another folder.",
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
        if process.isdecimal() and not is_running(int(process)):
            with contextlib.suppress(OSError), removed_at_end(path):
                pass


def process_space() -> str:
    """A short name for where process numbers mean the same: this boot of this machine, and this container in it."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):  # only Linux has these; machines and containers may share a host name
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        parts.append(str(os.stat("/proc/self/ns/pid").st_ino))
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:10]


def is_running(process: int) -> bool:
    """Whether a process of this machine, or of this container, has that number."""
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
        if error.errno in NO_ROOM:
            raise no_room(target, bytes_needed) from error
        raise UnwritableError(f"{target} cannot be written ({reason(error)}). Choose another folder.") from error


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


def reason(error: BaseException) -> str:
    """What went wrong with a file, without its name and number."""
    return getattr(error, "strerror", None) or str(error)


def write_record(path: Path, value: Any) -> None:
    """Keep a value for ``read_record``, under a checksum.

    Raises: UnwritableError, DiskFullError.
    """
    text = json.dumps(value, indent=1)
    with written_whole(path, len(text)) as part:
        part.write_text(_sealed(text), encoding="ascii")


def read_record(path: Path) -> Any:
    """What ``write_record`` kept, believed whole or not at all.

    Raises: InputError when it is missing, damaged or something else.
    """
    try:
        content = path.read_text(encoding="ascii")
        text = content.partition("\n")[2].removesuffix("\n")
        if content != _sealed(text):
            raise InputError(f"{path} is damaged: its checksum is wrong.")
        return json.loads(text)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({reason(error)}).") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged: it is not what was written there.") from error


def _sealed(text: str) -> str:
    return f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}\n"
