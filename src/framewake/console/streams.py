"""Standard streams that outlive their readers: output that cannot be written must not stop the work."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import sys
from typing import Any

from framewake.console.escape import ERRORS, escaped

# Nobody is there to read any more, which is the reader's right. Anything else has lost what somebody waits for.
_GONE = {errno.EPIPE, errno.EIO, errno.EBADF, errno.ENXIO, errno.ENODEV, errno.ECONNRESET, errno.ENOTCONN, errno.EINVAL}


class Lasting(io.RawIOBase):
    """A stream in front of another one: a write always succeeds, and ``lost`` holds what went wrong first."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self.lost: OSError | None = None

    def write(self, data: Any) -> int:
        """All bytes, or none any more."""
        rest = memoryview(data).cast("B")
        count = len(rest)
        try:
            while len(rest):
                written = self._raw.write(rest)
                if written is None:  # a pipe that does not block, as some parents hand down
                    select.select([], [self._raw], [])
                rest = rest[written or 0 :]
        except OSError as error:
            self.lost = self.lost or error
        except ValueError:  # somebody has closed it
            pass
        return count

    def writable(self) -> bool:
        """Yes."""
        return True

    def isatty(self) -> bool:
        """Whether a terminal is behind it."""
        try:
            return bool(self._raw.isatty())
        except (OSError, ValueError):
            return False

    def fileno(self) -> int:
        """The descriptor behind it."""
        return int(self._raw.fileno())

    @property
    def name(self) -> Any:
        return getattr(self._raw, "name", None)


class Answers(io.TextIOWrapper):
    """stdout: only ours writes to it, and nothing of ours means to steer a terminal there."""

    def write(self, text: str) -> int:
        """Write a text without what could rewrite the screen."""
        return super().write(escaped(text))


def prepare() -> None:
    """Put lasting streams in the place of stdout and stderr, also where there are none.

    Streams that somebody has put there, such as a test, stay.
    """
    _plug()
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is not getattr(sys, f"__{name}__") or _lasting_under(stream) is not None:
            continue
        kind = Answers if name == "stdout" else io.TextIOWrapper
        made = _lasting(kind, io.FileIO(number, "w", closefd=False) if stream is None else stream)
        setattr(sys, name, made)
        setattr(sys, f"__{name}__", made)


def _plug() -> None:
    """Without this, the first file that is opened becomes stdout, and what a library prints lands in a clip."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def _lasting(kind: type[io.TextIOWrapper], stream: Any) -> io.TextIOWrapper:
    if isinstance(stream, io.RawIOBase):
        return kind(io.BufferedWriter(Lasting(stream)), encoding="utf-8", errors=ERRORS)
    with contextlib.suppress(OSError, ValueError):
        stream.flush()
    lasting = Lasting(getattr(stream.buffer, "raw", stream.buffer))  # python -u has no buffer in between
    # The old stream would close what it shares with this one, once nobody holds it.
    lasting.before = stream  # type: ignore[attr-defined]
    return kind(
        lasting if stream.write_through else io.BufferedWriter(lasting),  # type: ignore[arg-type]
        encoding=stream.encoding,
        errors=ERRORS,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _lasting_under(stream: Any) -> Lasting | None:
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)
    return raw if isinstance(raw, Lasting) else None


def are_prepared() -> bool:
    """Whether this process is a program of ours, and not a test or another program that calls it."""
    return _lasting_under(sys.stdout) is not None


def lost_answer() -> OSError | None:
    """Why stdout has not taken everything; None where it has, or where nobody was there to read."""
    under = _lasting_under(sys.stdout)
    if under is None:
        return None
    sys.stdout.flush()
    return None if under.lost is None or under.lost.errno in _GONE else under.lost


def tell_start(text: str) -> None:
    """A first line for somebody who waits at a terminal: large libraries take seconds to load."""
    if sys.stderr is not None and sys.stderr.isatty():
        sys.stderr.write(f"{text} ...\n")
        sys.stderr.flush()
