"""Databases that are damaged, another program's, older or newer; records that are; and what the log keeps to itself."""

from __future__ import annotations

import dataclasses
import json
import logging
import sqlite3

import pytest
from service_process import command, start
from sqlalchemy import create_engine, insert, text, update
from sqlalchemy.exc import SQLAlchemyError
from test_api import post
from test_worker import submit, work_once
from toy_jobs import new_job

from framewake.app.jobs import _told
from framewake.errors import EngineError, InputError
from framewake.request import Request
from framewake.service import schema
from framewake.service.binding import open_place
from framewake.service.database import Database, DatabaseBroken, default_url, is_broken
from framewake.service.refusals import http_status
from framewake.service.store import JobStore
from framewake.service.tables import jobs
from framewake.service.views import video

SECRET = "a prompt that is nobody's business"


def made(folder, count=30):
    """A data folder with enough jobs for several pages."""
    place = open_place(folder)
    store = JobStore(place.database)
    for _ in range(count):
        new = new_job()
        picture = place.storage.accept(new.id, b"picture")
        store.submit(new, most_queued=1000, before_end=lambda p=picture, j=new.id: place.storage.place(p, j))
    place.database.close()
    return folder / "jobs.sqlite3"


def spoil(file, how):
    data = bytearray(file.read_bytes())
    if how == "header":
        data[:100] = bytes(100)
    elif how == "text":
        data = bytearray(b"this is a letter and no database\n" * 300)
    elif how == "cut":
        data = data[: len(data) // 2]
    elif how == "pages":
        for begin in range(4096, len(data), 4096):
            data[begin : begin + 600] = b"\xa5" * 600
    file.write_bytes(data)


@pytest.mark.parametrize("how", ["header", "text", "cut", "pages"])
def test_a_damaged_file_is_told_by_every_program(toy, tmp_path, command_here, how):
    file = made(tmp_path / "data")
    spoil(file, how)
    before, folder = file.read_bytes(), str(tmp_path / "data")
    told = [command_here("jobs", "list", "--data", folder)]
    if how == "pages":  # all of them open it in one way
        told.append(command("worker", "--storage", folder, "--checkpoint", str(toy)))
        told.append(command("serve", "--no-page", "--port", "0", "--data", folder, "--checkpoint", str(toy)))
    for done in told:
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
        assert "is damaged" in done.stderr and "framewake restore" in done.stderr
    assert file.read_bytes() == before and len(list((tmp_path / "data" / "jobs").iterdir())) == 30


def change(file, *statements):
    with sqlite3.connect(file) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


@pytest.mark.parametrize(
    ("statements", "words"),
    [
        (["ALTER TABLE jobs DROP COLUMN deaths"], "no column 'deaths'"),
        (["ALTER TABLE jobs ADD COLUMN priority INTEGER NOT NULL DEFAULT 3"], None),
        (["DROP TABLE jobs", "CREATE TABLE jobs (number INTEGER, priority INTEGER NOT NULL)"], "another version"),
        (["UPDATE framewake SET version = 99"], "newer framewake"),
        (["DROP TABLE jobs"], "no table jobs"),
        (["DROP TABLE jobs", "CREATE VIEW jobs AS SELECT 1"], "no table jobs"),
        (["DROP TABLE devices"], None),
        (["ALTER TABLE deliveries ADD COLUMN must TEXT NOT NULL DEFAULT ''"], None),
    ],
)
def test_another_versions_tables(tmp_path, command_here, statements, words):
    file = made(tmp_path / "data", count=2)
    change(file, *statements)
    if words is None:
        open_place(tmp_path / "data").database.close()
        return
    with pytest.raises(InputError, match=words):
        open_place(tmp_path / "data")
    assert command_here("jobs", "list", "--data", str(tmp_path / "data")).returncode == 2


def test_a_column_that_must_be_filled_and_is_unknown(tmp_path):
    """As a newer version could have it that raised no number."""
    url = default_url(tmp_path)
    Database(url).close()
    change(tmp_path / "jobs.sqlite3", "DROP TABLE devices",
           "CREATE TABLE devices (worker TEXT, facts TEXT NOT NULL, place TEXT NOT NULL)")  # fmt: skip
    with pytest.raises(InputError, match="a column 'place' that this version cannot fill"):
        Database(url)


def test_another_programs_database_is_left_alone(tmp_path):
    change(tmp_path / "bookmarks.sqlite", "CREATE TABLE bookmarks (url TEXT)")
    before = (tmp_path / "bookmarks.sqlite").read_bytes()
    with pytest.raises(InputError, match="another program \\(it holds bookmarks"):
        Database(f"sqlite:///{tmp_path / 'bookmarks.sqlite'}")
    with sqlite3.connect(tmp_path / "bookmarks.sqlite") as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("bookmarks",)]
    assert before


def test_a_step_brings_an_older_database_up_to_date(database_url, monkeypatch):
    """Each step runs once, from the version that the database has."""
    Database(database_url).close()
    monkeypatch.setattr(schema, "VERSION", schema.VERSION + 2)
    done, newest = [], [schema.VERSION - 2, schema.VERSION - 1]
    monkeypatch.setattr(schema, "STEPS", {n: lambda _c, n=n: done.append(n) for n in range(1, schema.VERSION)})
    for _ in range(2):
        Database(database_url).close()
    assert done == newest


@pytest.mark.parametrize(
    "url",
    ["sqlite://", "sqlite:///:memory:", "mysql://h/x", "postgresql://h:port/x", "sqlite:////proc/x", "sqlite:////etc",
     "postgresql://u@127.0.0.1:1/x?password=secret"],
)  # fmt: skip
def test_addresses_that_cannot_be_used(url):
    with pytest.raises(InputError) as raised:
        Database(url)
    assert "secret" not in str(raised.value) and "\n" not in str(raised.value)


def test_what_postgresql_lacks_is_told(cluster, postgres_url):
    for url, words in (
        (postgres_url + "x", "does not exist"),
        (postgres_url.replace("framewake@", "nobody@"), "nobody"),
    ):
        with pytest.raises(InputError, match=words):
            Database(url)
    Database(postgres_url).close()
    admin = create_engine(postgres_url.replace("postgresql:", "postgresql+psycopg:"))
    with admin.begin() as connection:
        connection.execute(text("ALTER TABLE jobs DROP COLUMN deaths"))
    admin.dispose()
    with pytest.raises(InputError, match="no column 'deaths'"):
        Database(postgres_url)


def test_what_breaks_while_it_runs_is_no_passing_trouble(desk_of, client_of, worker_of, database_url, picture, caplog):
    """A table that is gone is not back in some seconds: the API says so, and the worker ends with a sentence."""
    desk = desk_of(database_url)
    client = client_of(desk, raise_server_exceptions=False)
    post(client, picture, prompt=SECRET)
    with desk.store.database.writing() as connection:
        connection.execute(text("ALTER TABLE jobs RENAME TO elsewhere"))
    answers = [client.get("/v1/videos"), post(client, picture, prompt=SECRET, callback_url="http://1.1.1.1/token")]
    for answer in answers:
        assert answer.status_code == 500 and "retry-after" not in answer.headers
        assert "operator has to mend it" in answer.json()["error"]["message"]
    with pytest.raises(DatabaseBroken, match=r"cannot be used any more \("):
        worker_of(desk).run()
    assert SECRET not in caplog.text and "token" not in caplog.text and "elsewhere" not in answers[0].text


def test_the_log_keeps_what_people_asked_for_to_itself(desk_of, database_url, caplog):
    """Also where PostgreSQL would show the whole row."""
    database = desk_of(database_url).store.database
    values = {"id": "video_1", "owner": "o", "state": "queued", "model": "m", "request": SECRET, "width": None}
    with caplog.at_level(logging.ERROR), pytest.raises(SQLAlchemyError) as raised, database.writing() as connection:
        connection.execute(insert(jobs).values(values))
    logging.getLogger("test").error("request failed", exc_info=raised.value)
    assert "NULL" in caplog.text.upper() and SECRET not in caplog.text and SECRET not in str(raised.value)
    assert is_broken(raised.value) and http_status(raised.value) == 500


def test_a_database_that_fails_in_the_middle_of_a_command(desk):
    for statement, words in (
        ("SELECT x FROM nowhere", "cannot be used any more"),
        ("SELECT abs(-9223372036854775808)", "try again"),
    ):
        with pytest.raises(EngineError, match=words), _told(), desk.store.database.reading() as connection:
            connection.exec_driver_sql(statement)


def test_a_lock_is_a_passing_trouble(desk):
    error = SQLAlchemyError("x")
    assert not is_broken(error) and http_status(error) == 503


def whole_job():
    request = Request(prompt="the red circle moves left", frames=5, fps=12.0, steps=2, seed=3, flow_shift=7.0)
    request = dataclasses.replace(request, embedded_guidance=6.0, guidance_scale=1.0, resolution="360p")
    return dataclasses.replace(new_job(), request=dataclasses.replace(request, is_stable=True).to_dict())


DAMAGE = {
    "request": ["", "{", "[]", "null", '{"prompt": 3}', '{"prompt": "\\ud800"}', "[" * 100_000, b"\xff\xfe"],
    "state": ["banana", None],
    "created": ["x", 1e300, float("inf")],
    "ended": ["x", 1e300],
    "started": ["x"],
    "step": ["x", -1, 1e300],
    "steps": ["x", 0],
    "width": ["x"],
    "model": [b"\xff", 3],
    "lease": ["x"],
    "deaths": ["x"],
    "queued": ["x", float("inf"), -1e300],
    "due": ["x", float("inf")],
    "seconds_left": ["x", float("inf")],
    "heartbeat": ["x"],
    "worker": [b"\xff\x00", "x:y"],
    "error": [b"\xff"],
    "stage": [7],
    "callback": [b"\xff"],
    "picture": ["", 5, b"\xff"],
}


@pytest.mark.parametrize("column", DAMAGE)
@pytest.mark.parametrize("state", ["queued", "in_progress", "completed"])
def test_one_damaged_record_is_nobody_elses(desk, client, column, state):
    """Lists, queue, sweep, figures and the next worker go on."""
    store = desk.store
    store.database.close()
    file = desk.storage.folder / "jobs.sqlite3"
    change(file, "PRAGMA writable_schema=ON",
           "UPDATE sqlite_master SET sql = replace(sql, 'NOT NULL', '') WHERE name = 'jobs'")  # fmt: skip
    for value in DAMAGE[column]:
        bad, good = (store.submit(whole_job(), most_queued=10**6).id for _ in range(2))
        if state != "queued":
            lease, _ = store.claim("elsewhere:1:ab", "toy")
            assert lease.job == bad
            if state == "completed":
                store.end(lease, "completed")
        store.database.close()
        with sqlite3.connect(file) as connection:
            new = "CAST(? AS TEXT)" if isinstance(value, bytes) else "?"
            connection.execute(f"UPDATE jobs SET {column} = {new} WHERE id = ?", (value, bad))
        connection.close()
        listed = client.get("/v1/videos?limit=100")
        assert listed.status_code == 200, (value, listed.text)
        shown = {entry["id"]: entry for entry in listed.json()["data"]}
        assert shown[bad]["id"] == bad and shown[good]["status"] == "queued" and shown[good]["error"] is None
        json.dumps(shown, allow_nan=False)
        for path in ("/metrics", "/health", f"/v1/videos/{bad}", f"/v1/videos/{good}"):
            assert client.get(path).status_code in ((200, 503) if path == "/health" else (200,)), path
        desk.sweep()
        desk.presence.bury()
        store.submit(new_job(), most_queued=10**6)
        for _ in range(4):
            taken = store.claim("elsewhere:1:ab", "toy")
            if taken is None:
                break
            store.end(taken[0], "completed")
        assert store.get(good).state == "completed"
        with store.database.writing() as connection:
            connection.execute(jobs.delete())


def test_a_worker_goes_on_after_a_damaged_record(desk, worker_of, picture):
    bad, good = submit(desk, picture), submit(desk, picture)
    with desk.store.database.writing() as connection:
        connection.execute(update(jobs).where(jobs.c.id == bad).values(request="{"))
    worker = worker_of(desk)
    work_once(worker)
    work_once(worker)
    assert desk.store.get(bad).state == "failed" and desk.store.get(good).state == "completed"
    assert video(desk.store.get(bad), None).error.code == "damaged_record"


def test_nothing_is_left_in_the_log_of_the_database(toy, picture, tmp_path):
    """After a polite end, one file is the whole database: it can be copied alone."""
    import time

    import httpx

    server = start(tmp_path, toy, "--no-worker")
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            httpx.get(f"{server.url}/health")
            break
        except httpx.TransportError:
            time.sleep(0.1)
    data = {"prompt": "the red circle moves left", "resolution": "360p"}
    httpx.post(f"{server.url}/v1/videos", data=data, files={"input_reference": ("x.png", picture)}).raise_for_status()
    server.process.terminate()
    server.process.wait(timeout=60)
    left = {path.name for path in (tmp_path / "data").iterdir()}
    assert {"jobs.sqlite3-wal", "jobs.sqlite3-shm"} & left == set()
    with sqlite3.connect(tmp_path / "data" / "jobs.sqlite3") as connection:
        assert connection.execute("SELECT count(*) FROM jobs").fetchone() == (1,)
