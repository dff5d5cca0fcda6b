"""Every error that framewake raises on purpose.

    FramewakeError
    |-- InputError        a person can fix it: a bad image, prompt, option or path
    |   `-- UnwritableError  a place that nothing can be written to; in a server not the client's fault
    |-- CheckpointError   a weight file is missing, damaged, hostile or of another model
    |-- EngineError       a framework or a device is missing or cannot do what was asked
    |   `-- PeerError     another process of a group is gone: what that one says is the cause
    |-- ResourceError     not enough memory or disk: the bytes needed and free are in it
    |   `-- DiskFullError  not enough disk: what waits for room can go on
    |-- NumericsError     NaN or infinity appeared: the run stops instead of making a black clip
    `-- Cancelled         somebody asked the run to stop

A message says what was received, what was expected and what to do.  ``EXIT_CODE`` and
``HTTP_STATUS`` are the only tables that translate an error for a shell or a client.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator


class FramewakeError(Exception):
    """Root of every error that framewake raises on purpose; ``about`` is the setting or field that is wrong, if one."""

    about: str | None = None


class InputError(FramewakeError):
    """What a person handed in cannot be used; the message says what can."""

    def __init__(self, *message: object, about: str | None = None) -> None:
        super().__init__(*message)
        self.about = about


class UnwritableError(InputError):
    """A file or folder cannot be written where somebody wanted it; a server's own folders are no client's fault."""


class CheckpointError(FramewakeError):
    """A checkpoint is missing, damaged, hostile, or belongs to another model."""


class EngineError(FramewakeError):
    """A framework or device is missing, or cannot do what was asked of it."""


class PeerError(EngineError):
    """Another process of a group has ended or is silent: an echo, to be told only when nobody tells a cause.

    ``advice`` is how to go on from what is saved, where that is known.
    """

    advice = ""


class ResourceError(FramewakeError):
    """Memory or disk does not suffice.

    Units: ``bytes_needed`` and ``bytes_free`` are bytes.
    """

    def __init__(self, message: str, *, bytes_needed: int, bytes_free: int) -> None:
        super().__init__(message)
        self.bytes_needed = bytes_needed
        self.bytes_free = bytes_free


class DiskFullError(ResourceError):
    """The disk has no room; when somebody has made some, the same work succeeds."""


class NumericsError(FramewakeError):
    """NaN or infinity appeared in the latents or the frames."""


class Cancelled(FramewakeError):
    """The run was stopped on request; nothing already written is lost. ``advice`` is how to go on, where known."""

    advice = ""


SAID = 160  # letters of another library's message that ours repeats

# The first matching class in this order decides.
EXIT_CODE: dict[type[BaseException], int] = {
    InputError: 2,
    CheckpointError: 3,
    EngineError: 4,
    ResourceError: 5,
    NumericsError: 6,
    Cancelled: 130,
    FramewakeError: 1,
}

HTTP_STATUS: dict[type[BaseException], int] = {
    InputError: 422,
    CheckpointError: 500,
    EngineError: 503,
    ResourceError: 507,
    NumericsError: 500,
    Cancelled: 409,
    FramewakeError: 500,
}


def exit_code(error: BaseException) -> int:
    """The process exit code for an error, 1 for anything not in the table."""
    return next((code for kind, code in EXIT_CODE.items() if isinstance(error, kind)), 1)


@contextlib.contextmanager
def about(name: str) -> Iterator[None]:
    """Say of every error inside which setting or field it is about, for doors that show it there."""
    try:
        yield
    except FramewakeError as error:
        error.about = error.about or name
        raise


@contextlib.contextmanager
def parsing(kind: type[FramewakeError], what: str, advice: str) -> Iterator[None]:
    """Whatever a parser of another library makes of a file's content, as one error of ours.

    ``what`` says which file cannot be used, ``advice`` is a sentence that says what to do. Only calls of the parser
    belong inside: a mistake of ours would be told as the file's.
    Raises: ``kind``; errors of ours pass as they are.
    """
    try:
        yield
    except (FramewakeError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    # A parser in Rust panics with a BaseException, others raise what their own errors are: this is the one place
    # that takes everything, so that no content of a file ends more than the use of that file.
    except BaseException as error:
        raise kind(f"{what} ({said(error)}). {advice}".rstrip()) from error


def said(error: BaseException) -> str:
    """What another library says of an error: one short line without a full stop at its end."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in str(text)).split())
    return (line if len(line) <= SAID else line[: SAID - 3] + "...").rstrip(".")


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint such as " Did you mean 'mindspore:cpu'?", or "" when nothing is close."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
