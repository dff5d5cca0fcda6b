"""Connections to the job database: SQLite in the data folder, or PostgreSQL for several machines."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.engine.interfaces import ExceptionContext
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from framewake.errors import EngineError, FramewakeError, InputError
from framewake.packages import need
from framewake.service.schema import damaged, prepare

WAIT_SECONDS = 30  # for a writer before us
CONNECT_SECONDS = 10  # for a PostgreSQL server that does not answer at all
FILE = "jobs.sqlite3"
DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
# Numbers of PostgreSQL's advisory locks: the tables are made by one, and jobs come or go while nobody compares the
# folder with the database. SQLite has one writer at any time, and needs neither.
MAKING, COMPARING = 7165230, 7165231

# What will be no different in some seconds. SQLite says it in words, PostgreSQL in classes of states.
_MOVED = "its file was moved, removed or replaced while it was in use"
_BROKEN_WORDS = re.compile(
    "malformed|not a database|readonly|no such (table|column)|has no column|NOT NULL constraint|authorized|encrypted|"
    + _MOVED
)
_BROKEN_STATES = re.compile("(42|3D|3F|28|XX00[12]|23502)")


def default_url(folder: Path) -> str:
    """The address of the database in a data folder."""
    return f"sqlite:///{folder.resolve() / FILE}"


class DatabaseBroken(FramewakeError):
    """The database is damaged, was changed by somebody, or cannot be written: waiting does not help."""


def is_broken(error: SQLAlchemyError) -> bool:
    """Whether asking again is of no use."""
    cause = getattr(error, "orig", None)
    state = getattr(cause, "sqlstate", None)
    if state is not None:
        return _BROKEN_STATES.match(state) is not None
    return isinstance(cause, sqlite3.Error) and _BROKEN_WORDS.search(str(cause)) is not None


def reason(error: BaseException) -> str:
    """What the database said, in one line."""
    return (str(getattr(error, "orig", error)).strip().splitlines() or [type(error).__name__])[0]


class Database:
    """Two ways in: ``reading`` never waits for a writer; ``writing`` is one transaction, whole or not at all."""

    def __init__(self, url: str) -> None:
        """Raises: InputError for an address or a database that cannot be used, EngineError for a missing driver."""
        parsed = _parsed(url)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        self.shown = parsed.set(query={}).render_as_string()  # a password may stand behind the ? too
        arguments: dict[str, Any] = {"timeout": WAIT_SECONDS}
        if not self.is_sqlite:
            arguments = {} if "connect_timeout" in parsed.query else {"connect_timeout": CONNECT_SECONDS}
        try:
            # What people ask for is in the parameters, and no business of a log's.
            self.engine = create_engine(
                parsed, connect_args=arguments, pool_pre_ping=True, pool_size=10, hide_parameters=True
            )
        except (NoSuchModuleError, ImportError) as error:
            need(f"the database {parsed.get_backend_name()!r}", "psycopg")
            raise EngineError(f"the database {parsed.get_backend_name()!r} does not start ({error}).") from error
        event.listen(self.engine, "handle_error", _without_values)
        if self.is_sqlite:
            _make_private(file_of(url))
            _prepare_sqlite(self.engine)
        try:
            with self.writing(lock=MAKING) as connection:
                prepare(connection, self.shown)
        except SQLAlchemyError as error:
            self.close()
            raise InputError(_unusable(self.shown, error)) from error
        except InputError:
            self.close()
            raise
        if self.is_sqlite:
            _insist_on(self.engine, file_of(url))

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection that only looks."""
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            yield connection

    @contextlib.contextmanager
    def writing(
        self, *, lock: int | None = None, is_shared: bool = False, is_promise: bool = True
    ) -> Iterator[Connection]:
        """A transaction; with a lock, those with the same one wait for each other unless all of them share it.

        What is no promise, such as a sign of life, does not wait for the disk; the next promise takes it along.
        """
        with self.engine.connect().execution_options(is_promise=is_promise) as connection, connection.begin():
            if lock is not None and not self.is_sqlite:
                kind = "pg_advisory_xact_lock_shared" if is_shared else "pg_advisory_xact_lock"
                connection.execute(text(f"SELECT {kind}({lock})"))
            yield connection

    def now(self, connection: Connection) -> float:
        """The database's clock: those of the machines differ."""
        if self.is_sqlite:
            return time.time()
        return float(connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())

    def close(self) -> None:
        """Give back every connection; all of an SQLite database is in its one file then, if nobody else has it open."""
        if self.is_sqlite:
            with contextlib.suppress(SQLAlchemyError), self.reading() as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        self.engine.dispose()


def file_of(url: str) -> Path | None:
    """The file behind an address of SQLite; None for PostgreSQL, and where only SQLite can tell."""
    parsed = _parsed(url)
    database = parsed.database
    if parsed.get_backend_name() != "sqlite" or database is None or database.startswith("file:"):
        return None
    return Path(database)


def _parsed(url: str) -> URL:
    expected = "expected sqlite:///FILE or postgresql://USER@HOST/NAME."
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:  # the latter for a port that is none
        raise InputError(f"the database's address is not understood: {expected}") from error
    name = parsed.get_backend_name()
    if name not in DRIVERS:
        raise InputError(f"the database {name!r} is not one that can be used: {expected}")
    if name == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise InputError(f"a database in memory would be lost with the process: {expected}")
    return parsed.set(drivername=DRIVERS[name])


def _unusable(shown: str, error: SQLAlchemyError) -> str:
    if isinstance(error, DBAPIError) and is_broken(error) and _is_damage(error):
        return damaged(shown, reason(error))
    return f"the database {shown} cannot be used ({reason(error)})."


def _is_damage(error: DBAPIError) -> bool:
    return re.search("malformed|not a database|XX00", f"{error.orig} {getattr(error.orig, 'sqlstate', '')}") is not None


def _without_values(context: ExceptionContext) -> None:
    """Only the first line of what PostgreSQL says: the others show the row, with what people asked for."""
    first = reason(context.original_exception)
    context.original_exception.args = (first,)
    if isinstance(context.sqlalchemy_exception, DBAPIError):
        kind = type(context.original_exception)
        context.sqlalchemy_exception.args = (f"({kind.__module__}.{kind.__qualname__}) {first}",)


def _make_private(file: Path | None) -> None:
    """SQLite gives the files beside a database the mode of the database."""
    if file is None:
        return
    with contextlib.suppress(OSError):  # opening the database says what is wrong
        # Only a new file is opened: closing one that SQLite has open in this process would drop SQLite's locks on it.
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    with contextlib.suppress(OSError):
        if file.is_file():  # a folder that was named by mistake would be closed to everybody
            os.chmod(file, 0o600)


def _insist_on(engine: Engine, file: Path | None) -> None:
    """Refuse to go on in a file that has lost its name: what is written there, nobody finds again."""
    if file is None:
        return
    ours = _identity(file)

    @event.listens_for(engine, "begin")
    def begun(_connection: Connection) -> None:
        if _identity(file) != ours:
            raise DatabaseError(None, None, sqlite3.DatabaseError(f"{_MOVED}: {file}"))


def _identity(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _prepare_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # Python's driver must not begin transactions by itself
        # One damaged text must not make a whole list unreadable.
        connection.text_factory = lambda data: data.decode("utf-8", "replace")
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={WAIT_SECONDS * 1000}")
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        options = connection.get_execution_options()
        if options.get("isolation_level") != "AUTOCOMMIT":
            # What was answered outlives a power cut.
            connection.exec_driver_sql(f"PRAGMA synchronous={'FULL' if options.get('is_promise', True) else 'NORMAL'}")
            # At once, so that two claims never read the same queue and then both write.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
