"""The tables of a database: complete, ours, and of a known version, or refused in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Column, Connection, insert, inspect, select, update

from framewake.errors import InputError
from framewake.service.tables import deliveries, identity, jobs, metadata

# Version 1 had no table `framewake`, and its deliveries did not say whom they are for. Version 2 did not know whether a
# picture is still the one that was handed in. Version 3 knew no drafts, version 4 no clips that go on.
VERSION = 5


def _add(connection: Connection, *columns: Column[Any]) -> None:
    looked = inspect(connection)
    for column in columns:
        table = column.table.name
        if looked.has_table(table) and column.name not in {found["name"] for found in looked.get_columns(table)}:
            kind = column.type.compile(connection.dialect)
            connection.exec_driver_sql(f"ALTER TABLE {table} ADD COLUMN {column.name} {kind}")


# From a version to the next one; each runs in the transaction of the start. New tables need no step.
STEPS: dict[int, Callable[[Connection], None]] = {
    1: lambda connection: _add(connection, deliveries.c.job, deliveries.c.receiver),
    2: lambda connection: _add(connection, jobs.c.picture),
    3: lambda connection: _add(connection, jobs.c.draft, jobs.c.draft_size, jobs.c.drafted),
    4: lambda connection: _add(connection, jobs.c.extends),
}


def prepare(connection: Connection, shown: str) -> None:
    """Make the tables, bring older ones up to date, refuse what is damaged, foreign or newer.

    Raises: InputError.
    """
    if connection.dialect.name == "sqlite":
        _check_whole(connection, shown)
    there = set(inspect(connection).get_table_names())
    ours = there & set(metadata.tables)
    if there and not ours and connection.dialect.name == "sqlite":
        raise InputError(
            f"the database {shown} belongs to another program (it holds {', '.join(sorted(there)[:3])}): name another "
            "file with --database."
        )
    version = _version(connection, there)
    if version > VERSION:
        raise InputError(
            f"the database {shown} was made by a newer framewake (its tables are version {version}, this one knows "
            f"{VERSION}): update framewake."
        )
    if ours and jobs.name not in there:
        raise InputError(damaged(shown, f"it has no table {jobs.name}"))
    if ours:
        for step in range(version, VERSION):
            STEPS[step](connection)
    metadata.create_all(connection)
    _check_columns(connection, shown)
    if connection.execute(select(identity.c.number)).first() is None:
        connection.execute(insert(identity).values(number=1, version=VERSION))
    elif version < VERSION:
        connection.execute(update(identity).values(version=VERSION))


def _check_whole(connection: Connection, shown: str) -> None:
    found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
    if found != "ok":
        raise InputError(damaged(shown, str(found).splitlines()[-1]))


def _version(connection: Connection, there: set[str]) -> int:
    if identity.name not in there:
        return 1
    columns = {column["name"] for column in inspect(connection).get_columns(identity.name)}
    if "version" not in columns:  # told as missing later
        return VERSION
    found: Any = connection.execute(select(identity.c.version)).scalar()
    return found if isinstance(found, int) else VERSION


def _check_columns(connection: Connection, shown: str) -> None:
    """Every column that is needed, and none that must be filled in and is unknown."""
    looked = inspect(connection)
    for table in metadata.sorted_tables:
        found = {column["name"]: column for column in looked.get_columns(table.name)}
        missing = [column.name for column in table.columns if column.name not in found]
        unknown = [
            name
            for name, column in found.items()
            if name not in table.columns and not column["nullable"] and column["default"] is None
        ]
        if missing or unknown:
            what = f"no column {missing[0]!r}" if missing else f"a column {unknown[0]!r} that this version cannot fill"
            raise InputError(
                f"the database {shown} is of another version or program (its table {table.name} has {what}): use the "
                "framewake that made it, or name another database with --database."
            )


def damaged(shown: str, why: str) -> str:
    """What to do about a database that is not whole."""
    return (
        f"the database {shown} is damaged ({why}): move it aside and bring a backup back with `framewake restore`; "
        "without one, `framewake jobs bind` and then `framewake jobs adopt --all` take in the videos of the folder."
    )
