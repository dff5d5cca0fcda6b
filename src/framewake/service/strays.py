"""Folders without a job: put aside, listed, and taken back. Nothing is removed because the database is silent."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy.exc import IntegrityError

from framewake.config import DROPPED_FRAMES
from framewake.errors import FramewakeError, InputError
from framewake.media.video import read_metadata, read_video
from framewake.pipeline.jobs import request_from
from framewake.pipeline.latents import load_latents
from framewake.request import from_dict
from framewake.service.refusals import Conflict
from framewake.service.storage import CLIP, PICTURE, SAVED, Storage
from framewake.service.store import JobStore, NewJob

log = logging.getLogger("framewake.storage")

OLD_SECONDS = 3600.0  # since a folder was changed; until then another version's server may be handing it in
NAMED = 5  # ids in one line of the log


class Stray(NamedTuple):
    """A folder that the database does not know. Units: ``changed`` in seconds since 1970."""

    id: str
    path: Path
    holds: tuple[str, ...]
    size_bytes: int
    changed: float
    prompt: str | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        changed = datetime.fromtimestamp(self.changed, timezone.utc).isoformat(timespec="seconds")
        return {**self._asdict(), "path": str(self.path), "holds": list(self.holds), "changed": changed}


def remove(store: JobStore, storage: Storage, job: str, *, owner: str | None = None) -> None:
    """Remove a job that has ended, with its files: all of it, or after a crash nothing.

    Raises: NotFound, Conflict when it has not ended, UnwritableError.
    """
    store.remove(job, owner, before_end=lambda: storage.hide(job))
    storage.erase(job)


def sweep(storage: Storage, store: JobStore) -> None:
    """Finish interrupted removals and hand-ins, and put aside old folders that no job belongs to."""
    storage.clear_unfinished()
    hidden, folders = storage.hidden(), storage.ids()
    moved: list[str] = []
    with store.comparing([*hidden, *folders]) as known:
        for job in known & set(hidden):  # its record did not go
            storage.unhide(job)
        for job in storage.old(sorted(set(folders) - known), older_than=OLD_SECONDS):
            try:
                storage.put_aside(job)
                moved.append(job)
            except OSError as error:
                log.warning("%s: no video of that name is known, and it cannot be put aside (%s)", job, error.strerror)
        removed = set(hidden) - known
    for job in removed:
        storage.erase(job)
    if moved:
        named = ", ".join(moved[:NAMED]) + (", ..." if len(moved) > NAMED else "")
        log.warning(
            "%d folders of videos that the database does not know were put aside in %s (%s); nothing was removed. "
            "`framewake jobs strays` lists them, `framewake jobs adopt` takes them in.",
            len(moved), storage.aside, named,
        )  # fmt: skip


def strays(storage: Storage, store: JobStore) -> list[Stray]:
    """Every folder that the database does not know, put aside or not yet; the oldest first."""
    folders = storage.ids()
    with store.comparing(folders) as known:
        loose = [storage.job(job) for job in folders if job not in known]
    found = [_look(path) for path in [*loose, *(storage.stray(job) for job in storage.aside_ids())]]
    return sorted(found, key=lambda stray: stray.changed)


def adopt(storage: Storage, store: JobStore, job: str, *, owner: str) -> str:
    """Take a stray in again, and return its state: a clip's own metadata says how it was made.

    Raises: InputError for a folder from which nothing can be told, Conflict when the job is known.
    """
    place, name = storage.stray(job), storage.job(job)
    source = name if name.is_dir() and not place.is_dir() else place
    if not source.is_dir():
        raise InputError(f"{job}: there is no such stray. `framewake jobs strays` lists them.")
    with store.comparing([job]) as known:
        if known:
            raise Conflict(f"{job}: the database knows a video of that name; it is left as it is.")
    new, ended = _told(job, source, owner)

    def move() -> None:
        if source != name:
            storage.take_in(job)

    try:
        return store.adopt(new, ended=ended, before_end=move).state
    except (OSError, IntegrityError) as error:
        raise Conflict(f"{job}: it cannot be taken in now ({getattr(error, 'strerror', 'it is known')}).") from error


def whole_clip(path: Path) -> Mapping[str, Any]:
    """The metadata of a clip that can be played from its first to its last frame.

    Raises: InputError.
    """
    metadata = read_metadata(path)
    request = request_from(metadata)
    frames, _ = read_video(path)
    count = request.get("frames")
    if not isinstance(count, int) or len(frames) not in (count, count - DROPPED_FRAMES):
        raise InputError(f"{path} has {len(frames)} frames and says that it has {count}.")
    return metadata


def _told(job: str, folder: Path, owner: str) -> tuple[NewJob, float | None]:
    """What a folder says of its job, and when that ended; None for one that goes on."""
    clip, saved = folder / CLIP, next((folder / name for name in SAVED if (folder / name).is_file()), None)
    if clip.is_file() and clip.stat().st_size:
        metadata, ended = whole_clip(clip), clip.stat().st_mtime
    elif saved is not None:
        metadata, ended = load_latents(saved).metadata, None
    else:
        raise InputError(f"{job}: its folder holds no clip and no saved latents, so nothing says how it is made.")
    request = from_dict(request_from(metadata)).to_dict()
    size = metadata.get("size")
    if not (isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) and side > 0 for side in size)):
        raise InputError(f"{job}: its size is not told.")
    if ended is None and request["image"] is not None and not (folder / PICTURE).is_file():
        raise InputError(f"{job}: its picture is missing, and it was not finished.")
    model = metadata.get("checkpoint")
    if not isinstance(model, str):
        raise InputError(f"{job}: its checkpoint is not told.")
    image = None if request["image"] is None else PICTURE
    return NewJob(job, owner, model, request | {"image": image}, *size), ended


def _look(path: Path) -> Stray:
    holds, size, prompt, times = [], 0, None, []
    with contextlib.suppress(OSError):
        for entry in sorted(path.iterdir()):
            if entry.is_file() and not entry.is_symlink():
                size += entry.stat().st_size
                if entry.name in (PICTURE, CLIP, *SAVED):
                    holds.append(entry.name)
                    times.append(entry.stat().st_mtime)
    for name in (CLIP, *SAVED):
        if name in holds and prompt is None:
            with contextlib.suppress(FramewakeError):
                told = read_metadata(path / name) if name == CLIP else load_latents(path / name).metadata
                found = request_from(told).get("prompt")
                prompt = found if isinstance(found, str) else None
    return Stray(path.name, path, tuple(holds), size, max(times, default=path.lstat().st_mtime), prompt)
