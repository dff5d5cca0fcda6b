"""Bytes of a file straight into an array.

Mapping a file and copying from it costs twice the processor time, for all the pages in between, and the pages count
as memory of the process while they are mapped.

Of a file that is larger than memory, the system's file cache keeps nothing that would be asked for again: it only
takes processor time. Around it, a disk writes into the array itself, where the array lies as the bytes do in the file.
"""

from __future__ import annotations

import contextlib
import os
import sys
import weakref
from pathlib import Path

import numpy as np

from framewake.errors import CheckpointError

READ = 16 << 20  # bytes at a time
CAN_READ = hasattr(os, "preadv") and sys.byteorder == "little"
BLOCK = 4096  # bytes: what disks, file systems and their drivers ask at most that places are multiples of
LEAST = 1 << 20  # bytes, below which the two ends would cost more than is saved

# Of this machine's memory. What is read in turns and is larger than the cache is never found in it again.
KEPT = 0.75


def is_kept(size: int) -> bool:
    """Whether the system's file cache can hold so many bytes until they are asked for again."""
    try:
        return size <= KEPT * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # a system that does not tell
        return True


def lies_as_file(out: np.ndarray, start: int) -> bool:
    """Whether an array's memory begins at the same place of a block as the bytes from ``start`` on."""
    return out.nbytes >= LEAST and (out.ctypes.data - start) % BLOCK == 0


class DirectFile:
    """A file that stays open: it is the same one at every read, whatever has its name by then."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._number = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._number)
        self._around: int | None = None
        with contextlib.suppress(OSError, AttributeError):  # a file system or a system that has no such way
            self._around = os.open(f"/proc/self/fd/{self._number}", os.O_RDONLY | os.O_DIRECT)
            weakref.finalize(self, os.close, self._around)

    def fill(self, out: np.ndarray, start: int) -> None:
        """The bytes from a place on into a contiguous array; may be called from several threads.

        An array that ``lies_as_file`` is filled around the system's file cache where that can be done.
        Raises: CheckpointError when the file has become shorter.
        """
        if not out.size:
            return
        held = out.reshape(-1).data.cast("B")
        at = 0
        if self._around is not None and lies_as_file(out, start):
            at = -start % BLOCK
            self._read(held[:at], start)
            at += self._read_around(self._around, held[at:], start + at)
        self._read(held[at:], start + at)

    def _read_around(self, number: int, held: memoryview, start: int) -> int:
        """Whole blocks around the cache, as many as come; the number of bytes."""
        at, end = 0, len(held) // BLOCK * BLOCK
        while at < end:
            try:
                count = os.preadv(number, [held[at : min(at + READ, end)]], start + at)
            except OSError:  # refused, or broken: reading it the usual way will tell
                return at
            at += count
            if not count or count % BLOCK:  # the end of a file that was cut off
                return at
        return at

    def _read(self, held: memoryview, start: int) -> None:
        at = 0
        while at < len(held):
            count = os.preadv(self._number, [held[at : at + READ]], start + at)
            if not count:
                raise CheckpointError(f"{self.path} was cut off at {start + at} bytes while it was read: start again.")
            at += count
