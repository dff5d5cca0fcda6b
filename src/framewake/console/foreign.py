"""Errors of other libraries turned into ours, with their tracebacks in files."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

import framewake
from framewake.console.escape import one_line
from framewake.errors import DiskFullError, EngineError, FramewakeError, InputError, ResourceError
from framewake.packages import EXTRA, install_line

_MOST_KEPT = 20
_LONGEST = 300  # characters of a foreign message
_SECRET = {"--api-key", "--database"}
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_TOO_MANY = {errno.EMFILE, errno.ENFILE}
_PLACES = {
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "one of its folders is a file: check the path",
    errno.EISDIR: "name a file in it",
    errno.EACCES: "choose another place, or ask for the right to use it",
    errno.EPERM: "choose another place, or ask for the right to use it",
    errno.EROFS: "choose a place that can be written",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "its links lead in a circle: check the path",
}


def translated(error: BaseException) -> FramewakeError:
    """The error that a person is told instead, with the file that holds the traceback."""
    where = keep_traceback(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        advice = "close other programs, or take fewer frames or a lower --resolution"
        return ResourceError(f"memory ran out{_detail(error)}: {advice}. ({where}.)", bytes_needed=0, bytes_free=0)
    if isinstance(error, OSError):
        return _of_the_system(error, where)
    if isinstance(error, ImportError):
        return EngineError(f"{_import_advice(error)} ({where}.)")
    kind = type(error).__name__
    return FramewakeError(f"something failed that should not have: {kind}{_detail(error)}. ({where}.)")


def _of_the_system(error: OSError, where: str) -> FramewakeError:
    reason = error.strerror or f"{type(error).__name__}{_detail(error)}"
    file = os.fsdecode(error.filename) if isinstance(error.filename, bytes) else error.filename
    name = "" if file is None else f"{file}: "
    if error.errno in _NO_ROOM:
        return DiskFullError(f"{name}{reason}: free some space. ({where}.)", bytes_needed=0, bytes_free=0)
    if error.errno in _TOO_MANY:
        return ResourceError(
            f"{name}{reason}: allow more with `ulimit -n 4096`. ({where}.)", bytes_needed=0, bytes_free=0
        )
    if error.errno == errno.ENOMEM:
        return ResourceError(f"{name}{reason}: close other programs. ({where}.)", bytes_needed=0, bytes_free=0)
    if error.errno in _PLACES and name:
        return InputError(f"{name}{reason}: {_PLACES[error.errno]}. ({where}.)")
    return FramewakeError(f"{name}{reason}. ({where}.)")


def _import_advice(error: ImportError) -> str:
    package = (error.name or "").partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and package:
        return f"the package {package} is not installed. Run: {install_line(package)}"
    again = install_line(package) if package in EXTRA else f"pip install --force-reinstall {package}"
    advice = f" Install it again: {again}" if package and package != "framewake" else ""
    return f"{package or 'a package'} is installed but does not start{_detail(error)}.{advice}"


def _detail(error: BaseException) -> str:
    told = "".join(traceback.format_exception_only(type(error), error))  # also where its own str() fails
    text = one_line(told.partition(": ")[2]).rstrip(".")
    return f": {text[:_LONGEST]}" if text else ""


def keep_traceback(error: BaseException) -> str:
    """Write the traceback into a file that only this user can read; where it is, in words."""
    try:
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        head = f"framewake {framewake.__version__}, Python {platform.python_version()}, {platform.platform()}\n"
        head += f"{' '.join(_arguments(sys.argv))}\n\n"
        content = (head + text).encode("utf-8", "backslashreplace")
        for folder in _folders():
            with contextlib.suppress(OSError):
                return f"the traceback is in {_written(folder, content)}"
    except MemoryError:
        pass
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    place = "an unknown place" if last is None else f"{last.tb_frame.f_code.co_filename}, line {last.tb_lineno}"
    return f"the traceback could not be kept, it ends in {place}"


def _folders() -> Iterator[Path]:
    """Where programs of this user keep such files, and the temporary folder for a user who has no such place."""
    with contextlib.suppress(RuntimeError):  # a user without a home
        named = os.environ.get("LOCALAPPDATA" if os.name == "nt" else "XDG_STATE_HOME")
        yield (Path(named) if named else Path.home() / ".local" / "state") / "framewake"
    with contextlib.suppress(OSError):
        yield Path(tempfile.gettempdir())


def _written(folder: Path, content: bytes) -> Path:
    """The file; the oldest of many go.

    Raises: OSError.
    """
    if folder.name == "framewake":
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in sorted(folder.glob("error-*.txt"))[: 1 - _MOST_KEPT]:
            old.unlink(missing_ok=True)
    number, path = tempfile.mkstemp(".txt", time.strftime("error-%Y%m%d-%H%M%S-"), folder)
    try:
        with open(number, "wb") as file:
            file.write(content)
    except OSError:
        Path(path).unlink(missing_ok=True)
        raise
    return Path(path)


def _arguments(given: Sequence[str]) -> Iterator[str]:
    """A command line without keys and passwords."""
    for before, word in zip(["", *given], given, strict=False):
        name, _, value = word.partition("=")
        yield "..." if before in _SECRET else f"{name}=..." if name in _SECRET and value else word
