"""Stores on both databases, and everything that stands on them, at toy size."""

from __future__ import annotations

import dataclasses
import itertools
import os
import subprocess
import tempfile
from pathlib import Path

import postgres
import pytest
from engines_here import FIRST
from fastapi.testclient import TestClient
from sqlalchemy import create_engine, text
from toy_checkpoint import write_picture, write_toy

from framewake.app import cli
from framewake.pipeline import Pipeline
from framewake.service.api import Access, create_app
from framewake.service.database import Database, default_url
from framewake.service.desk import Desk
from framewake.service.guard import Limits
from framewake.service.storage import Storage
from framewake.service.store import JobStore
from framewake.service.worker import Worker
from framewake.weights.checkpoint.load import open_checkpoint

_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    return write_toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="session")
def picture(tmp_path_factory):
    return write_picture(tmp_path_factory.mktemp("pictures") / "picture.png").read_bytes()


@pytest.fixture(scope="session")
def cluster():
    if postgres.programs() is None and not os.environ.get("CI"):  # there it must never be left out
        pytest.skip(postgres.MISSING)
    # Not in pytest's own folder: each run of pytest closes that to the user whom the server runs as.
    with tempfile.TemporaryDirectory(prefix="framewake-") as folder, postgres.running(Path(folder)) as server:
        yield server


@pytest.fixture
def postgres_url(cluster):
    """An empty database of the test's own."""
    name = f"test{next(_NUMBERS)}"
    admin = create_engine(cluster.url.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    admin.dispose()
    return cluster.url.rpartition("/")[0] + f"/{name}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request, tmp_path):
    if request.param == "sqlite":
        return default_url(tmp_path)
    return request.getfixturevalue("postgres_url")


@pytest.fixture
def store(database_url):
    database = Database(database_url)
    yield JobStore(database)
    database.close()


@pytest.fixture
def desk_of(toy, tmp_path):
    """A desk on SQLite; limits can be changed by name."""
    opened = []

    def make(url=None, loras=None, **limits):
        storage = Storage(tmp_path / "data")
        database = Database(url or default_url(storage.folder))
        opened.append(database)
        changed = dataclasses.replace(Limits(), **limits)
        return Desk(JobStore(database), storage, open_checkpoint(toy), limits=changed, loras=loras)

    yield make
    for database in opened:
        database.close()


@pytest.fixture
def desk(desk_of):
    return desk_of()


@pytest.fixture
def client_of():
    """A client of an application in this process."""
    clients = []

    def make(desk, access=None, **options):
        client = TestClient(create_app(desk, access or Access()), base_url="http://localhost", **options)
        clients.append(client)
        return client.__enter__()

    yield make
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def client(desk, client_of):
    return client_of(desk)


@pytest.fixture
def command_here(capsys):
    """Run a command in this process: to start another takes longer than what it does, and is looked at elsewhere."""

    def run(*arguments):
        mask = os.umask(0o077)
        try:
            with pytest.raises(SystemExit) as left:
                cli.main(arguments)
        finally:
            os.umask(mask)  # commands change it
        said = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, left.value.code, said.out, said.err)

    return run


@pytest.fixture(scope="session")
def pipeline(toy):
    return Pipeline.load(toy, engine=FIRST)


@pytest.fixture
def worker_of(pipeline, monkeypatch, tmp_path):
    """A worker in this process; the working folder is put back afterwards."""
    monkeypatch.chdir(tmp_path)

    def make(desk, settings=None, pipeline=pipeline):
        return Worker(desk.store, desk.storage, pipeline, settings)

    return make
