"""Bytes of a file straight into an array.

Mapping a file and copying from it costs twice the processor time, for all the pages in between, and the pages count
as memory of the process while they are mapped.
"""

from __future__ import annotations

import os
import sys
import weakref
from pathlib import Path

import numpy as np

from framewake.errors import CheckpointError

READ = 16 << 20  # bytes at a time
CAN_READ = hasattr(os, "preadv") and sys.byteorder == "little"


class DirectFile:
    """A file that stays open: it is the same one at every read, whatever has its name by then."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._number = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._number)

    def fill(self, out: np.ndarray, start: int) -> None:
        """The bytes from a place on into a contiguous array; may be called from several threads.

        Raises: CheckpointError when the file has become shorter.
        """
        if not out.size:
            return
        held = out.reshape(-1).data.cast("B")
        at = 0
        while at < len(held):
            count = os.preadv(self._number, [held[at : at + READ]], start + at)
            if not count:
                raise CheckpointError(f"{self.path} was cut off at {start + at} bytes while it was read: start again.")
            at += count
