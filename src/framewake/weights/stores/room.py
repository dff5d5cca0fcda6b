"""Memory for streamed blocks, reused as soon as nothing refers to its content.

A thread that reads gets its large arrays from the system, page by page and emptied, and gives them back: for every
block anew. On a virtual machine whose host has taken back what was free, that takes longer than reading.
"""

from __future__ import annotations

import ctypes
import math
import threading
import weakref
from collections.abc import Iterable

import numpy as np

from framewake.weights.reading.direct import BLOCK, LEAST


class Room:
    """Hands out arrays; the memory of one that nobody holds any more, nor any view of it, goes to the next.

    It keeps as much as two of the largest blocks that were announced. With ``lies_as_file`` a large array's memory
    begins where its bytes do in a block of the file, so that they can be read around the system's file cache.
    """

    def __init__(self, *, lies_as_file: bool = False) -> None:
        self._lies_as_file = lies_as_file
        self._spare: dict[int, list[np.ndarray]] = {}  # by size
        self._taken = self._limit = 0
        # The last reference may go anywhere, inside of this class too.
        self._lock = threading.RLock()

    def announce(self, sizes: Iterable[int]) -> None:
        """A block has arrays of so many bytes."""
        self._limit = max(self._limit, 2 * sum(size + self._slack(size) for size in sizes))

    def empty(self, shape: tuple[int, ...], dtype: np.dtype, *, start: int = 0) -> np.ndarray:
        """As ``numpy.empty``, for what begins at a byte of a file."""
        kind = np.dtype(dtype)
        size = math.prod(shape) * kind.itemsize
        if not size:
            return np.empty(shape, kind)
        slack = self._slack(size)
        memory = self._take(size + slack)
        skipped = (start - memory.ctypes.data) % BLOCK if slack else 0
        # Arrays refer to the array that owns the memory, tensors to an array: this object lives as long as any of them.
        loan = (ctypes.c_char * size).from_buffer(memory.data, skipped)
        weakref.finalize(loan, self._give, memory.nbytes, memory).atexit = False
        return np.frombuffer(memoryview(loan), kind).reshape(shape)

    def close(self) -> None:
        """Give back everything, what is still in use as soon as it is not."""
        with self._lock:
            self._limit = 0
            self._drop(0)

    def held(self) -> int:
        """Bytes in use and spare."""
        return self._taken

    def _slack(self, size: int) -> int:
        return BLOCK if self._lies_as_file and size >= LEAST else 0

    def _take(self, size: int) -> np.ndarray:
        with self._lock:
            spare = self._spare.get(size)
            if spare:
                return spare.pop()
            self._drop(self._limit - size)
            self._taken += size
        return np.empty(size, np.uint8)  # which asks the system for large pages

    def _give(self, size: int, memory: np.ndarray) -> None:
        with self._lock:
            self._spare.setdefault(size, []).append(memory)
            if not self._limit:
                self._drop(0)

    def _drop(self, limit: int) -> None:
        """Let go of spare memory until no more than the limit is taken."""
        for size in list(self._spare):
            while self._spare[size] and self._taken > limit:
                self._spare[size].pop()
                self._taken -= size
