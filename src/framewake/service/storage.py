"""The data folder: one folder a job, named by its id; a file in it is whole or not there."""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path

from framewake.errors import InputError, ResourceError
from framewake.media.output import guarded, removed_at_end, temporary_path

PICTURE, CLIP, THUMBNAIL, PREVIEW = "picture", "clip.mp4", "thumbnail.jpg", "preview.png"
LEAST_FREE = 64 * 2**20  # bytes that a new job wants to see on the disk

_ID = re.compile(r"video_[0-9a-f]{32}")


class Storage:
    """Files of jobs. Raises: InputError when the folder cannot be made."""

    def __init__(self, folder: Path, *, least_free: int = LEAST_FREE) -> None:
        self.folder = folder.resolve()
        self.least_free = least_free
        try:
            (self.folder / "jobs").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder} cannot be used for data ({error.strerror}): name another folder.") from error

    def job(self, job: str) -> Path:
        """The folder of a job; an id is never anything but an id."""
        if not _ID.fullmatch(job):
            raise InputError("this is no id of a video.")
        return self.folder / "jobs" / job

    def accept(self, job: str, picture: bytes | None) -> Path:
        """Make a job's folder and put its picture there.

        Raises: ResourceError when the disk is full.
        """
        self.check_room(0 if picture is None else len(picture))
        folder = self.job(job)
        folder.mkdir()
        if picture is not None:
            write_whole(folder / PICTURE, picture)
        return folder

    def check_room(self, needed: int = 0) -> None:
        """Whether the disk has room for a job.

        Raises: ResourceError.
        """
        free = shutil.disk_usage(self.folder).free
        if free < needed + self.least_free:
            raise ResourceError(
                f"the server's disk is full ({free // 2**20} MiB free): no new videos are taken until there is room.",
                bytes_needed=needed + self.least_free,
                bytes_free=free,
            )

    def has_room(self) -> bool:
        """Whether work may begin."""
        return shutil.disk_usage(self.folder).free >= self.least_free

    def drop(self, job: str) -> None:
        """Remove a job's files; the folder vanishes at once."""
        gone = self.folder / "jobs" / f".gone-{job}"
        try:
            os.replace(self.job(job), gone)
        except OSError:
            return
        shutil.rmtree(gone, ignore_errors=True)

    def clear(self, job: str) -> None:
        """Remove what a cancelled job had begun, but not its picture: it may be tried again."""
        for path in self.job(job).glob("*"):
            if path.name not in (PICTURE, THUMBNAIL):
                path.unlink(missing_ok=True)

    def strays(self, *, older_than: float = 3600) -> list[str]:
        """Ids of old folders: those without a job were left by a crash while a job was handed in."""
        limit = time.time() - older_than
        found = (path for path in (self.folder / "jobs").iterdir() if _ID.fullmatch(path.name))
        return [path.name for path in found if path.stat().st_mtime < limit]


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that appears complete."""
    with guarded(path, len(data)), removed_at_end(temporary_path(path)) as part:
        part.write_bytes(data)
        os.replace(part, path)
