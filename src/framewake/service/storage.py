"""The data folder: one folder per job, named by its id; a file in it is complete or absent."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from framewake.errors import DiskFullError, InputError, UnwritableError
from framewake.lasting import (
    NO_ROOM,
    clear_abandoned,
    guarded,
    is_running,
    process_space,
    publish,
    removed_at_end,
    sync_folder,
    temporary_path,
    written_whole,
)
from framewake.pipeline.latents import latents_path, old_latents_path
from framewake.pipeline.story import story_path

PICTURE, CLIP, THUMBNAIL, PREVIEW = "picture", "clip.mp4", "thumbnail.jpg", "preview.png"
LATENTS = latents_path(Path(CLIP)).name
SAVED = (LATENTS, old_latents_path(Path(CLIP)).name)
STORY = story_path(Path(CLIP)).name
# Bytes that a new job, or one that begins or goes on, wants to see on the disk; and what running ones leave alone, so
# that the database and the latents of what stops can still be written. Between the two, nothing begins or ends.
LEAST_FREE, RESERVE = 256 * 2**20, 96 * 2**20

# What lies in a data folder; strays were put aside, because the database did not know them.
OURS = {
    "jobs",
    "strays",
    "page",
    "jobs.sqlite3",
    "jobs.sqlite3-wal",
    "jobs.sqlite3-shm",
    "webhook-secret",
    "framewake-id",
}
OLD_SECONDS = 24 * 3600
_NEW, _GONE = ".new-", ".gone-"
_TRIED_BYTES = 4096
_ID = re.compile(r"video_[0-9a-f]{32}")


class Storage:
    """Files of jobs. Raises: UnwritableError when the folder cannot be made or used, DiskFullError."""

    def __init__(self, folder: Path, *, least_free: int = LEAST_FREE, reserve: int = RESERVE) -> None:
        try:
            self.folder = folder.resolve()
        except (OSError, RuntimeError) as error:  # a link that leads to itself
            raise UnwritableError(f"{folder} cannot be used for data ({error}): name another folder.") from error
        self.jobs = self.folder / "jobs"
        self.aside = self.folder / "strays"
        self.least_free = least_free
        self.reserve = reserve
        try:
            for place in (self.folder, self.jobs):
                _make_private(place, has_others=place == self.folder)
                _try_writing(place)
        except OSError as error:
            if error.errno in NO_ROOM:
                raise DiskFullError(
                    f"nothing can be written to {place}: the disk, or its table of files, is full. Make room first.",
                    bytes_needed=_TRIED_BYTES,
                    bytes_free=self.free(),
                ) from error
            raise UnwritableError(
                f"{place} cannot be used for data ({error.strerror}): make it a folder that this user may write to, or "
                "name another folder."
            ) from error

    def job(self, job: str) -> Path:
        """The folder of a job; an id is never anything but an id."""
        return self.jobs / _checked(job)

    def stray(self, job: str) -> Path:
        """Where a folder lies that the database does not know."""
        return self.aside / _checked(job)

    def accept(self, job: str, picture: bytes | None) -> Path:
        """Make a folder for a job that is being handed in, and put its picture there; ``place`` gives it its name.

        Raises: DiskFullError, UnwritableError.
        """
        self.check_room(0 if picture is None else len(picture))
        folder = self.jobs / f"{_NEW}{process_space()}-{os.getpid()}-{_checked(job)}"
        try:
            with guarded(folder, 0):
                folder.mkdir(mode=0o700)
            if picture is not None:
                write_whole(folder / PICTURE, picture, is_lasting=False)  # place() waits for the disk
        except DiskFullError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise self._full(error.bytes_needed) from error
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return folder

    def place(self, folder: Path, job: str) -> None:
        """Give the folder of a new or adopted job its name.

        Raises: DiskFullError, UnwritableError.
        """
        with guarded(folder, 0):
            publish(folder, self.job(job))

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
        """Bytes that may still be written.

        Raises: UnwritableError for a folder that has gone.
        """
        with guarded(self.folder, 0):
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

    def hide(self, job: str) -> None:
        """Take a job's folder away from its name, before its record goes: ``erase`` does the rest.

        Raises: UnwritableError, DiskFullError.
        """
        self.erase(job)  # what an interrupted removal has left
        with guarded(self.job(job), 0):
            with contextlib.suppress(FileNotFoundError):
                os.replace(self.job(job), self._gone(job))
            sync_folder(self.jobs)  # fails where a disk was taken away: the files are still there, and so is the job

    def unhide(self, job: str) -> None:
        """Take that back."""
        with contextlib.suppress(OSError):
            os.replace(self._gone(job), self.job(job))

    def erase(self, job: str) -> None:
        """Remove the files of a job whose folder was hidden."""
        gone = self._gone(job)
        if gone.is_symlink():
            gone.unlink(missing_ok=True)
        else:
            shutil.rmtree(gone, ignore_errors=True)

    def _gone(self, job: str) -> Path:
        return self.jobs / f"{_GONE}{_checked(job)}"

    def hidden(self) -> list[str]:
        """Ids of jobs whose removal was begun."""
        names = (path.name for path in self.jobs.glob(f"{_GONE}*"))
        return [name.removeprefix(_GONE) for name in names if _ID.fullmatch(name.removeprefix(_GONE))]

    def clear(self, job: str) -> None:
        """Remove what a cancelled job leaves half done, but not its picture, latents and story: it may go on."""
        for path in self.job(job).glob("*"):
            if path.name not in (PICTURE, STORY, *SAVED) and (path.is_symlink() or not path.is_dir()):
                path.unlink(missing_ok=True)

    def clear_unfinished(self) -> None:
        """Remove what killed servers have left of jobs that were never handed in, and of what they just wrote."""
        clear_abandoned(self.folder)
        clear_abandoned(self.jobs)
        for path in self.jobs.glob(f"{_NEW}*"):
            space, _, process = path.name.removeprefix(_NEW).rpartition("-")[0].partition("-")
            is_here = space == process_space()
            if is_running(int(process)) if is_here and process.isdecimal() else _age(path) < OLD_SECONDS:
                continue
            shutil.rmtree(path, ignore_errors=True)

    def ids(self) -> list[str]:
        """Ids of all folders."""
        return sorted(path.name for path in self.jobs.iterdir() if _ID.fullmatch(path.name))

    def aside_ids(self) -> list[str]:
        """Ids of the folders that were put aside."""
        if not self.aside.is_dir():
            return []
        return sorted(path.name for path in self.aside.iterdir() if _ID.fullmatch(path.name))

    def old(self, jobs: Iterable[str], *, older_than: float) -> list[str]:
        """Which of these folders were not changed lately."""
        return [job for job in jobs if _age(self.job(job)) > older_than]

    def put_aside(self, job: str) -> None:
        """Move a folder that the database does not know out of the way. Nothing of it is touched, nothing removed.

        Raises: OSError.
        """
        _make_private(self.aside, has_others=False)
        if self.stray(job).exists():
            raise FileExistsError(errno.EEXIST, "a folder of that name was put aside before", str(self.stray(job)))
        os.rename(self.job(job), self.stray(job))
        sync_folder(self.aside)
        sync_folder(self.jobs)

    def accept_aside(self, job: str) -> Path:
        """Make a folder among those that are put aside."""
        folder = self.stray(job)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def take_in(self, job: str) -> None:
        """Move a folder back that was put aside.

        Raises: OSError.
        """
        os.rename(self.stray(job), self.job(job))
        sync_folder(self.jobs)
        sync_folder(self.aside)


def digest_of(picture: bytes) -> str:
    """What tells a picture's file from any other."""
    return hashlib.sha256(picture).hexdigest()


def is_id(name: Any) -> bool:
    """Whether this is the id of a job, whatever a damaged record holds in its place."""
    return isinstance(name, str) and _ID.fullmatch(name) is not None


def _checked(job: str) -> str:
    if not is_id(job):
        raise InputError("this is no id of a video.")
    return job


def _age(path: Path) -> float:
    """Seconds since a folder was changed; 0 for one that is not there."""
    try:
        return time.time() - path.lstat().st_mtime
    except OSError:
        return 0.0


def _make_private(folder: Path, *, has_others: bool) -> None:
    """A folder for its owner only. One that holds other things too (``has_others``) is not ours to close.

    Raises: OSError.
    """
    if not folder.is_dir():
        made = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in made:
            sync_folder(path.parent)
        return
    found = folder.stat()
    if os.name != "posix" or found.st_uid != os.geteuid() or not found.st_mode & 0o077:
        return
    if has_others:
        if set(os.listdir(folder)) <= OURS:
            folder.chmod(0o700)
        return
    for path in folder.rglob("*"):  # made by an older version
        if not path.is_symlink():
            with contextlib.suppress(OSError):
                path.chmod(0o700 if path.is_dir() else 0o600)
    folder.chmod(0o700)


def _try_writing(folder: Path) -> None:
    """Permissions, quotas and free entries of a disk are known by trying only. Raises: OSError."""
    with removed_at_end(temporary_path(folder / "x")) as probe:
        probe.write_bytes(b"\0" * _TRIED_BYTES)


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
