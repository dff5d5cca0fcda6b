"""Connections to the job database: SQLite in the data folder, or PostgreSQL for several machines."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError

from framewake.errors import EngineError, InputError
from framewake.service.tables import metadata

WAIT_SECONDS = 30  # for a writer before us
FILE = "jobs.sqlite3"


def default_url(folder: Path) -> str:
    """The address of the database in a data folder."""
    return f"sqlite:///{folder.resolve() / FILE}"


class Database:
    """Two ways in: ``reading`` never waits for a writer; ``writing`` is one transaction, whole or not at all."""

    def __init__(self, url: str) -> None:
        """Raises: InputError for an address that cannot be used, EngineError for a missing driver."""
        try:
            parsed = make_url(url)
        except ArgumentError as error:
            raise InputError(
                "the database's address is not understood: expected sqlite:///FILE or postgresql://USER@HOST/NAME."
            ) from error
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        if parsed.drivername in ("postgresql", "postgres"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        arguments: dict[str, Any] = {"timeout": WAIT_SECONDS} if self.is_sqlite else {}
        try:
            self.engine = create_engine(parsed, connect_args=arguments, pool_pre_ping=True, pool_size=10)
        except (NoSuchModuleError, ImportError) as error:
            raise EngineError(
                f"the database {parsed.get_backend_name()!r} needs a package ({error}): for PostgreSQL, "
                "`pip install psycopg[binary]`."
            ) from error
        if self.is_sqlite:
            _prepare_sqlite(self.engine)
        try:
            self._create()
        except OperationalError as error:
            reason = str(error.orig).strip().splitlines()[0]
            raise InputError(f"the database {parsed.render_as_string()} cannot be used ({reason}).") from error

    def _create(self) -> None:
        with self.writing() as connection:
            if not self.is_sqlite:  # two programs that start together must not both create
                connection.execute(text("SELECT pg_advisory_xact_lock(7165230)"))
            metadata.create_all(connection)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection that only looks."""
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction."""
        with self.engine.begin() as connection:
            yield connection

    def now(self, connection: Connection) -> float:
        """The database's clock: those of the machines differ."""
        if self.is_sqlite:
            return time.time()
        return float(connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())

    def close(self) -> None:
        """Give back every connection."""
        self.engine.dispose()


def _prepare_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # Python's driver must not begin transactions by itself
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.execute(f"PRAGMA busy_timeout={WAIT_SECONDS * 1000}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        # At once, so that two claims never read the same queue and then both write.
        if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
