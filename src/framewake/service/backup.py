"""A consistent copy of a database and its folder, made while both are in use, and how it is restored.

A backup is a data folder of its own, with an SQLite database whatever the original has. Bringing it back adds what is
missing: no record and no file that is there is replaced or removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Row, delete, func, insert, select
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from framewake.errors import DiskFullError, InputError, UnwritableError
from framewake.lasting import NO_ROOM, clear_abandoned, publish, removed_at_end, temporary_path
from framewake.service import binding
from framewake.service.binding import DataPlace, bind, bind_anew, is_bound
from framewake.service.database import FILE, Database, default_url, reason
from framewake.service.records import WHOLE, Beside, enter
from framewake.service.storage import Storage, is_id
from framewake.service.store import JobStore
from framewake.service.tables import FINAL, deliveries, jobs, repeats

SECRET = "webhook-secret"


class Restored(NamedTuple):
    """How many videos came back, how many were there already, and how many folders without a record came along."""

    added: int
    kept: int
    strays: int


def back_up(place: DataPlace, target: Path) -> int:
    """Copy all videos with their records into a new folder, which appears when it is complete. Returns how many.

    Raises: InputError for a folder that is not empty, UnwritableError, DiskFullError.
    """
    target = target.resolve()  # a link stays one
    if target.is_dir() and any(target.iterdir()):
        raise InputError(f"{target} is not empty: name a new folder for the backup.")
    if target.exists() and not target.is_dir():
        raise InputError(f"{target} is a file: name a new folder for the backup.")
    clear_abandoned(target.parent)
    with _told(target), removed_at_end(temporary_path(target)) as part:
        part.mkdir(mode=0o700)
        count = _copy(place, part)
        publish(part, target)
    return count


def _copy(place: DataPlace, part: Path) -> int:
    rows, messages, keys = _snapshot(place.database)
    copy = Storage(part)
    database = Database(default_url(part))
    try:
        bind(copy, database)
        with database.writing() as connection:
            for row in rows:
                enter(connection, row._asdict())
            if messages:
                connection.execute(insert(deliveries), [row._asdict() for row in messages])
            if keys:
                connection.execute(insert(repeats), [row._asdict() for row in keys])
        for row in rows:
            if is_id(row.id):
                _copy_files(place.storage.job(row.id), copy.job(row.id))
        with JobStore(place.database).comparing([row.id for row in rows]) as known:
            gone = [row.id for row in rows if row.id not in known]  # removed meanwhile
        with database.writing() as connection:
            for job in gone:
                connection.execute(delete(jobs).where(jobs.c.id == job))
                if is_id(job):
                    shutil.rmtree(copy.job(job), ignore_errors=True)
    finally:
        database.close()
    for job in place.storage.aside_ids():
        _copy_files(place.storage.stray(job), copy.accept_aside(job))
    _copy_secret(place.storage.folder, part)
    return len(rows) - len(gone)


class Records(NamedTuple):
    """What a database holds of jobs: all of them, what is still to be told of those that have ended, and their
    Idempotency-Keys."""

    rows: Sequence[Row[Any]]
    messages: Sequence[Row[Any]]
    keys: Sequence[Row[Any]]

    def about(self, job: str) -> list[Beside]:
        """What belongs to one job."""
        messages = [Beside(deliveries, _values(row), by=("id",)) for row in self.messages if _meant(row) == job]
        return messages + [Beside(repeats, _values(row), by=("owner", "key")) for row in self.keys if row.job == job]


def _snapshot(database: Database) -> Records:
    """Everything as it is at one moment.

    Files are copied after this: a picture lies there before its job is recorded, a clip before it is called complete.
    """
    with database.writing() as connection:
        rows = connection.execute(WHOLE.order_by(jobs.c.number)).all()
        messages = connection.execute(select(deliveries).order_by(deliveries.c.number)).all()
        keys = connection.execute(select(repeats)).all()
    ended = {row.id for row in rows if row.state in FINAL}
    return Records(rows, [message for message in messages if _meant(message) in ended], keys)


def _meant(message: Row[Any]) -> str | None:
    """The job of a webhook's message."""
    try:
        return json.loads(message.body)["data"]["id"]
    except (ValueError, TypeError, LookupError):
        return None


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if is_id(path.name)) if folder.is_dir() else []


def _copy_files(source: Path, target: Path) -> None:
    """Copy what is in a job's folder; files that vanish meanwhile were temporary, or are gone with their job."""
    try:
        entries = sorted(os.scandir(source), key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    target.mkdir(mode=0o700, exist_ok=True)
    for entry in entries:
        copied = target / entry.name
        with contextlib.suppress(FileNotFoundError):
            if entry.is_symlink():
                copied.symlink_to(os.readlink(entry.path))
            elif entry.is_file() and not entry.name.endswith(".part"):
                shutil.copy2(entry.path, copied)
                copied.chmod(0o600)


def _copy_secret(source: Path, target: Path) -> None:
    if (source / SECRET).is_file() and not (target / SECRET).exists():
        shutil.copy2(source / SECRET, target / SECRET)
        (target / SECRET).chmod(0o600)


def restore(backup: Path, folder: Path, *, url: str | None = None) -> Restored:
    """Bring back from a backup what a data folder and its database do not have.

    Raises: InputError for something that is no backup, or a database that belongs to another folder.
    """
    if not (backup / FILE).is_file() or not (backup / "jobs").is_dir():
        raise InputError(f"{backup} is no backup: name a folder that `framewake backup` made.")
    if backup.resolve() == folder.resolve():
        raise InputError(f"{backup} is the data folder itself: name another folder with --data.")
    storage = Storage(folder)
    with _told(folder):
        records = _read(backup, storage.folder)
    rows = records.rows
    database = Database(url or default_url(storage.folder))
    place = DataPlace(storage, database)
    try:
        with _told(folder):
            _bind(place)
            added = sum(_bring_back(row, records.about(row.id), backup, place) for row in rows)
            strays = 0
            for place_of, job in _unknown(backup, {row.id for row in rows}):
                if not (storage.job(job).exists() or storage.stray(job).exists()):
                    _copy_files(place_of / job, storage.accept_aside(job))
                    strays += 1
            _copy_secret(backup, storage.folder)
    finally:
        database.close()
    return Restored(added, len(rows) - added, strays)


def _unknown(backup: Path, known: set[str]) -> list[tuple[Path, str]]:
    """Folders that the backup's database does not know: strays, and what was copied by other means without it."""
    found = [(backup / "strays", job) for job in _names(backup / "strays")]
    return found + [(backup / "jobs", job) for job in _names(backup / "jobs") if job not in known]


def _read(backup: Path, folder: Path) -> Records:
    """What a backup records, from a copy: it may lie where nothing can be written, or be of an older version."""
    with removed_at_end(temporary_path(folder / FILE)) as scratch:
        scratch.mkdir(mode=0o700)
        for name in (FILE, f"{FILE}-wal"):
            if (backup / name).is_file():
                shutil.copy(backup / name, scratch)
        database = None
        try:
            database = Database(default_url(scratch))
            return _snapshot(database)
        except (InputError, SQLAlchemyError) as error:
            why = str(error) if isinstance(error, InputError) else reason(error)
            raise InputError(f"{backup} cannot be brought back: {why.replace(str(scratch), str(backup))}") from error
        finally:
            if database is not None:
                database.close()


def _bind(place: DataPlace) -> None:
    """A database that knows no video is the one that is to be filled; any other must be the folder's own."""
    with place.database.reading() as connection:
        is_empty = connection.execute(select(func.count()).select_from(jobs)).scalar_one() == 0
    if is_empty and not ((place.storage.folder / binding.FILE).exists() and is_bound(*place)):
        bind_anew(*place)
    else:
        bind(*place)


def _values(row: Row[Any]) -> dict[str, Any]:
    return {name: value for name, value in row._asdict().items() if name != "number"}


def _bring_back(row: Row[Any], beside: Sequence[Beside], backup: Path, place: DataPlace) -> bool:
    """One job with its files, unless it is there; files that are there already are newer, and stay."""
    store, storage = JobStore(place.database), place.storage
    with store.comparing([row.id]) as known:
        if known:
            return False
    values = _values(row)
    if row.state == "in_progress":
        values |= {"state": "queued", "worker": None, "heartbeat": None, "seconds_left": None}
    hidden = None
    if not storage.job(row.id).exists() and not storage.stray(row.id).exists():
        hidden = storage.accept(row.id, None)
        _copy_files(backup / "jobs" / row.id, hidden)

    def place_files() -> None:
        if hidden is not None:
            storage.place(hidden, row.id)
        elif not storage.job(row.id).exists():
            storage.take_in(row.id)

    try:
        store.restore(values, beside=beside, before_end=place_files)
    except IntegrityError:  # another program was first
        return False
    finally:
        if hidden is not None:
            shutil.rmtree(hidden, ignore_errors=True)
    return True


@contextlib.contextmanager
def _told(target: Path) -> Iterator[None]:
    """What the system says while files are copied, for a person."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            free = shutil.disk_usage(target.parent).free
            raise DiskFullError(
                f"there is no room for {target} ({free // 2**20} MiB are free): make some, and begin again.",
                bytes_needed=0,
                bytes_free=free,
            ) from error
        raise UnwritableError(f"{target} cannot be written ({error.strerror}): name another folder.") from error
