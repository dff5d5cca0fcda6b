"""Which folder belongs to which database: both carry an id, and nothing is done where the two differ.

A database that knows nothing of a folder looks like a folder full of rubbish. So no program of the service works on a
pair that was not made together.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection, func, select, update

from framewake.errors import InputError
from framewake.lasting import sync_folder
from framewake.service.database import COMPARING, Database, default_url, file_of
from framewake.service.presence import Presence
from framewake.service.storage import Storage, write_whole
from framewake.service.store import JobStore
from framewake.service.tables import identity, jobs

FILE = "framewake-id"
# Written before the database is told, renamed afterwards: an end in between leaves no folder without its database.
PENDING = "framewake-id.new"
_ID = re.compile(r"data_[0-9a-f]{32}")


class DataPlace(NamedTuple):
    """A data folder and its database."""

    storage: Storage
    database: Database


def open_place(folder: Path, url: str | None = None) -> DataPlace:
    """Open a data folder with its database; a new pair, or one of an older version, is bound.

    Raises: InputError for two that do not belong together.
    """
    storage = Storage(folder)
    address = url or default_url(storage.folder)
    file = file_of(address)
    is_new = file is not None and (not file.exists() or file.stat().st_size == 0)
    if is_new and _read(storage.folder / FILE) is not None:  # and before a file is made by a mistyped name
        raise InputError(_apart(storage, f"there is nothing in {file}"))
    database = Database(address)
    try:
        bind(storage, database)
    except InputError:
        database.close()
        raise
    return DataPlace(storage, database)


def bind(storage: Storage, database: Database) -> None:
    """Check that a folder and a database belong together.

    Raises: InputError.
    """
    mine, pending = storage.folder / FILE, storage.folder / PENDING
    with database.writing(lock=COMPARING) as connection:
        here, there = _read(mine), connection.execute(select(identity.c.folder)).scalar()
        if here is not None and here == there:
            return
        if here is None and there is not None and _read(pending) == there:
            _finish(storage)
            return
        if here is not None or there is not None:
            what = "it belongs to another folder" if there is not None else "it belongs to no folder yet"
            what += f", or this one has lost its file {FILE}" if here is None else ""
            raise InputError(_apart(storage, f"the database {database.shown} is not that of this folder ({what})"))
        _check_old(storage, database, connection)
        new = _new_id(storage)
        connection.execute(update(identity).values(folder=new))
    _finish(storage)


def is_bound(storage: Storage, database: Database) -> bool:
    """Whether a folder is still what it was: a disk that was unmounted leaves an empty one."""
    with database.reading() as connection:
        there = connection.execute(select(identity.c.folder)).scalar()
    try:
        return _read(storage.folder / FILE) == there
    except InputError:
        return False


def bind_anew(storage: Storage, database: Database) -> None:
    """A person says that these two belong together.

    Raises: InputError while workers are at it.
    """
    alive = len(Presence(JobStore(database)).alive())
    if alive:
        raise InputError(f"{alive} workers use the database {database.shown}: end the server and its workers first.")
    with database.writing(lock=COMPARING) as connection:
        new = _new_id(storage)
        connection.execute(update(identity).values(folder=new))
    _finish(storage)


def _finish(storage: Storage) -> None:
    with contextlib.suppress(FileNotFoundError):  # another program that started at the same time was first
        os.replace(storage.folder / PENDING, storage.folder / FILE)
    sync_folder(storage.folder)


def _new_id(storage: Storage) -> str:
    new = f"data_{secrets.token_hex(16)}"
    write_whole(storage.folder / PENDING, f"{new}\n".encode())
    return new


def _read(path: Path) -> str | None:
    """The id in a file; None where there is no file.

    Raises: InputError for a file that holds something else.
    """
    try:
        found = path.read_bytes()[:200].decode("ascii", "replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): it must belong to this user.") from error
    if not _ID.fullmatch(found):
        if path.name == PENDING:
            return None
        raise InputError(
            f"{path} is damaged: bring it back from a backup, or say with `framewake jobs bind` that this folder and "
            "its database belong together."
        )
    return found


def _check_old(storage: Storage, database: Database, connection: Connection) -> None:
    """Whether two that carry no id, both new or both made by an older version, can belong together."""
    folders = set(storage.ids()) | set(storage.aside_ids())
    known = connection.execute(select(func.count()).select_from(jobs)).scalar_one()
    if not folders and not known:
        return
    ours = folders & set(connection.execute(select(jobs.c.id)).scalars()) if folders and known else set()
    if not ours:
        counted = f"it knows {known} videos, the folder holds {len(folders)}, and none of them is the same"
        raise InputError(_apart(storage, f"the database {database.shown} is not that of this folder ({counted})"))


def _apart(storage: Storage, why: str) -> str:
    return (
        f"{storage.folder}: {why}; nothing was changed. Name the right --data and --database, bring a backup back with "
        "`framewake restore`, or say with `framewake jobs bind` and the same options that these two belong together."
    )
