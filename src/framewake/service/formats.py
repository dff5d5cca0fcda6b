"""A finished clip as GIF or WebP: made from its mp4 when it is first asked for, and kept beside it."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from framewake.media.footage import header_size, read_frames
from framewake.media.mp4 import count_frames
from framewake.media.video import read_metadata, write_video
from framewake.service.refusals import TooMany
from framewake.service.storage import CLIP, Storage

Format = Literal["mp4", "gif", "webp"]
MEDIA = {"mp4": "video/mp4", "gif": "image/gif", "webp": "image/webp"}
MOST_PX = 640  # the longer side; larger ones are shrunk
MOST_PIXELS = 48_000_000  # of all frames together: a long clip is shrunk further, to 144 MB in memory
MOST_WAITING = 4  # requests that wait for one that is being made; each holds one of the server's threads


class Formats:
    """Makes one at a time, so that neither memory nor processors are taken from those who make clips."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._turn = threading.Lock()
        self._waiting = threading.BoundedSemaphore(MOST_WAITING)

    def file(self, folder: Path, kind: Format) -> Path:
        """Where the clip of a job's folder lies in a format, made if need be and if there is a clip.

        Raises: TooMany, DiskFullError, InputError.
        """
        clip = folder / CLIP
        path = clip.with_suffix(f".{kind}")
        if path.exists() or not clip.exists():
            return path
        with self._queue():
            if not path.exists():
                self._make(clip, path)
        return path

    def _make(self, clip: Path, path: Path) -> None:
        with clip.open("rb") as file:
            side = longest_px(count_frames(clip), header_size(file, clip.name))
        found = read_frames(clip, longest_px=side)
        self._storage.check_room(found.frames.nbytes)
        write_video(path, found.frames, fps=found.fps, metadata=read_metadata(clip))

    @contextlib.contextmanager
    def _queue(self) -> Iterator[None]:
        if not self._waiting.acquire(blocking=False):
            raise TooMany("other clips are being turned into GIF or WebP: ask again in some seconds.", retry_after=5)
        try:
            with self._turn:
                yield
        finally:
            self._waiting.release()


def longest_px(frames: int, size: tuple[int, int]) -> int:
    """The longer side that a clip of this width and height is given; never more than it has."""
    width, height = size
    fitting = math.floor(max(size) * math.sqrt(MOST_PIXELS / (frames * width * height)))
    return max(1, min(MOST_PX, max(size), fitting))
