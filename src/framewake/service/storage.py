"""The data folder: one folder a job, named by its id; a file in it is whole or not there."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from pathlib import Path

from framewake.errors import DiskFullError, InputError
from framewake.lasting import guarded, removed_at_end, temporary_path, written_whole
from framewake.pipeline.latents import latents_path

PICTURE, CLIP, THUMBNAIL, PREVIEW = "picture", "clip.mp4", "thumbnail.jpg", "preview.png"
LATENTS = latents_path(Path(CLIP)).name
# Bytes that a new job, or one that begins or goes on, wants to see on the disk; and what running ones leave alone, so
# that the database and the latents of what stops can still be written. Between the two, nothing begins or ends.
LEAST_FREE, RESERVE = 256 * 2**20, 96 * 2**20

_ID = re.compile(r"video_[0-9a-f]{32}")


class Storage:
    """Files of jobs. Raises: InputError when the folder cannot be made."""

    def __init__(self, folder: Path, *, least_free: int = LEAST_FREE, reserve: int = RESERVE) -> None:
        self.folder = folder.resolve()
        self.least_free = least_free
        self.reserve = reserve
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

        Raises: DiskFullError.
        """
        self.check_room(0 if picture is None else len(picture))
        folder = self.job(job)
        try:
            with guarded(folder, 0):
                folder.mkdir()
            if picture is not None:
                write_whole(folder / PICTURE, picture)
        except DiskFullError as error:
            self.drop(job)
            raise self._full(error.bytes_needed) from error
        return folder

    def check_room(self, needed: int = 0) -> None:
        """Whether the disk has room for a job.

        Raises: DiskFullError.
        """
        if self.free() < needed + self.least_free:
            raise self._full(needed + self.least_free)

    def _full(self, needed: int) -> DiskFullError:
        free = self.free()
        return DiskFullError(
            f"the server's disk is full ({free // 2**20} MiB free): no new videos are taken until there is room.",
            bytes_needed=needed,
            bytes_free=free,
        )

    def free(self) -> int:
        """Bytes that may still be written."""
        return shutil.disk_usage(self.folder).free

    def has_room(self) -> bool:
        """Whether work may begin."""
        return self.free() >= self.least_free

    def check_reserve(self) -> None:
        """Whether work may go on.

        Raises: DiskFullError.
        """
        if self.free() < self.reserve:
            raise self._full(self.reserve)

    def drop(self, job: str) -> None:
        """Remove a job's files; the folder vanishes at once."""
        gone = self.folder / "jobs" / f".gone-{job}"
        try:
            os.replace(self.job(job), gone)
        except OSError:
            return
        shutil.rmtree(gone, ignore_errors=True)

    def clear(self, job: str) -> None:
        """Remove what a cancelled job leaves half done, but not its picture and its latents: it may go on."""
        for path in self.job(job).glob("*"):
            if path.name not in (PICTURE, LATENTS):
                path.unlink(missing_ok=True)

    def strays(self, *, older_than: float = 3600) -> list[str]:
        """Ids of old folders: those without a job were left by a crash while a job was handed in."""
        limit = time.time() - older_than
        found = (path for path in (self.folder / "jobs").iterdir() if _ID.fullmatch(path.name))
        return [path.name for path in found if path.stat().st_mtime < limit]


def write_whole(path: Path, data: bytes, *, is_lasting: bool = True) -> None:
    """Write a file that appears complete, for its owner only; one that does not last is not waited for on the disk."""
    with contextlib.ExitStack() as stack:
        if is_lasting:
            part = stack.enter_context(written_whole(path, len(data)))
        else:
            stack.enter_context(guarded(path, len(data)))
            part = stack.enter_context(removed_at_end(temporary_path(path)))
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
        if not is_lasting:
            os.replace(part, path)
