"""Backups made while videos are handed in, made and removed; brought back, they replace and remove nothing."""

from __future__ import annotations

import os
import re
import shutil
import stat
import threading

import pytest
from service_process import command
from sqlalchemy import select
from toy_jobs import new_job

from framewake.errors import InputError
from framewake.service.backup import back_up, restore
from framewake.service.binding import open_place
from framewake.service.repeats import Once
from framewake.service.storage import CLIP, PICTURE
from framewake.service.store import JobStore
from framewake.service.strays import remove, strays, sweep
from framewake.service.tables import deliveries, jobs


def hand_in(place, text=b"picture", **values):
    """A job with a picture of its own."""
    new, store = new_job(**values), JobStore(place.database)
    folder = place.storage.accept(new.id, text + new.id.encode())
    store.submit(new, most_queued=10**6, before_end=lambda: place.storage.place(folder, new.id))
    return new.id


def complete(place):
    """The next job is made, as a worker makes it: the clip, then the word."""
    store = JobStore(place.database)
    lease, _ = store.claim("elsewhere:1:ab", "toy")
    (place.storage.job(lease.job) / CLIP).write_bytes(b"clip " + lease.job.encode())
    store.end(lease, "completed")
    return lease.job


def rows_of(place):
    with place.database.reading() as connection:
        return {row.id: row for row in connection.execute(select(jobs).order_by(jobs.c.number)).all()}


def files(place):
    """Every file of every job."""
    folder = place.storage.jobs
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def place(database_url, tmp_path):
    place = open_place(tmp_path / "data", database_url)
    yield place
    place.database.close()


@pytest.fixture
def opened():
    """Pairs that are closed at the end."""
    found = []

    def make(folder, url=None):
        found.append(open_place(folder, url))
        return found[-1]

    yield make
    for each in found:
        each.database.close()


def test_a_backup_is_a_data_folder(place, opened, tmp_path):
    """Also of PostgreSQL: it can be served, or brought back into any database."""
    ids = [hand_in(place) for _ in range(3)]
    done = complete(place)
    JobStore(place.database).claim("elsewhere:1:ab", "toy")
    (place.storage.folder / "webhook-secret").write_text("whsec_x")
    assert back_up(place, tmp_path / "backup") == 3
    copy = opened(tmp_path / "backup")
    assert rows_of(copy).keys() == rows_of(place).keys() == set(ids)
    assert [tuple(row) for row in rows_of(copy).values()] == [tuple(row) for row in rows_of(place).values()]
    assert files(copy) == files(place) and f"{done}/{CLIP}" in files(copy)
    for path in (tmp_path / "backup", *(tmp_path / "backup").rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    copy.database.close()
    back = restore(tmp_path / "backup", tmp_path / "new")
    assert back == (3, 0, 0)
    again = opened(tmp_path / "new")
    assert files(again) == files(place) and rows_of(again).keys() == rows_of(place).keys()
    states = [row.state for row in rows_of(again).values()]
    assert states == ["completed", "queued", "queued"], "what ran is to be gone on with"
    assert (tmp_path / "new" / "webhook-secret").read_text() == "whsec_x"


def test_backups_while_jobs_come_and_go(place, opened, tmp_path):
    """Each backup is whole: no record without its files, no file without its record, every clip that was promised."""
    stop, failures, threads = threading.Event(), [], []

    def go_on(action):
        def run():
            while not stop.is_set():
                try:
                    action()
                except Exception as error:  # noqa: BLE001 - told below, whatever it was
                    failures.append(error)
                    return

        threads.append(threading.Thread(target=run))

    def hand_in_one():
        if len(rows_of(place)) < 12:  # however slow a backup is, the next has no more to copy
            hand_in(place)

    def remove_one():
        ended = [job for job, row in rows_of(place).items() if row.state == "completed"]
        if len(ended) > 3:
            remove(JobStore(place.database), place.storage, ended[0])

    def make_one():
        if any(row.state == "queued" for row in rows_of(place).values()):
            complete(place)

    go_on(hand_in_one)
    go_on(make_one)
    go_on(remove_one)
    for thread in threads:
        thread.start()
    try:
        for number in range(15):
            back_up(place, tmp_path / f"backup{number}")
    finally:
        stop.set()
        for thread in threads:
            thread.join(timeout=60)
    assert not failures and not any(thread.is_alive() for thread in threads)
    for number in range(15):
        copy = opened(tmp_path / f"backup{number}")
        rows = rows_of(copy)
        assert set(copy.storage.ids()) == set(rows)
        for job, row in rows.items():
            found = files(copy)
            assert found[f"{job}/{PICTURE}"] == b"picture" + job.encode()
            if row.state == "completed":
                assert found[f"{job}/{CLIP}"] == b"clip " + job.encode()
        assert strays(*_pair(copy)) == []


def _pair(place):
    return place.storage, JobStore(place.database)


def test_an_older_backup_removes_nothing_that_came_later(place, tmp_path):
    old, kept = hand_in(place), hand_in(place)
    assert complete(place) == old
    back_up(place, tmp_path / "backup")
    assert complete(place) == kept
    new = hand_in(place)
    remove(JobStore(place.database), place.storage, old)
    before, rows = files(place), rows_of(place)
    assert restore(tmp_path / "backup", place.storage.folder, url=_url(place)) == (1, 1, 0)
    after = files(place)
    assert {name: after[name] for name in before} == before
    assert {name.split("/")[0] for name in set(after) - set(before)} == {old}
    assert {job: rows_of(place)[job] for job in (kept, new)} == {job: rows[job] for job in (kept, new)}
    assert rows_of(place)[old].state == "completed"
    assert restore(tmp_path / "backup", place.storage.folder, url=_url(place)) == (0, 2, 0)


def _url(place):
    return place.database.engine.url.render_as_string(hide_password=False)


def test_a_lost_database_comes_back_from_a_backup(opened, tmp_path):
    """And the videos that came after the backup are strays, with all their files."""
    place = opened(tmp_path / "data")
    old = hand_in(place)
    back_up(place, tmp_path / "backup")
    complete(place)
    new = hand_in(place)
    place.database.close()
    before = files(place)
    (tmp_path / "data" / "jobs.sqlite3").unlink()
    assert restore(tmp_path / "backup", tmp_path / "data") == (1, 0, 0)
    place = opened(tmp_path / "data")
    assert files(place) == before and set(rows_of(place)) == {old}
    os.utime(place.storage.job(new), (1, 1))
    sweep(*_pair(place))
    assert [stray.id for stray in strays(*_pair(place))] == [new]
    assert (place.storage.stray(new) / PICTURE).read_bytes() == before[f"{new}/{PICTURE}"]


def test_strays_and_messages_are_part_of_a_backup(place, opened, tmp_path):
    ended, gone = hand_in(place, callback="http://example.com/"), hand_in(place)
    assert complete(place) == ended
    with place.database.writing() as connection:
        connection.execute(jobs.delete().where(jobs.c.id == gone))
    place.storage.put_aside(gone)
    back_up(place, tmp_path / "backup")
    restore(tmp_path / "backup", tmp_path / "new")
    again = opened(tmp_path / "new")
    assert again.storage.aside_ids() == [gone]
    with again.database.reading() as connection:
        assert ended in connection.execute(select(deliveries.c.body)).scalar_one()


def test_what_is_refused(place, opened, tmp_path):
    hand_in(place)
    back_up(place, tmp_path / "backup")
    with pytest.raises(InputError, match="not empty"):
        back_up(place, tmp_path / "backup")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        back_up(place, tmp_path / "file")
    with pytest.raises(InputError, match="cannot be written"):
        back_up(place, tmp_path / "nowhere" / "backup")
    with pytest.raises(InputError, match="no backup"):
        restore(tmp_path / "nothing", tmp_path / "new")
    with pytest.raises(InputError, match="data folder itself"):
        restore(tmp_path / "backup", tmp_path / "backup")
    other = opened(tmp_path / "other")
    hand_in(other)
    with pytest.raises(InputError, match="another folder"):
        restore(tmp_path / "backup", tmp_path / "third", url=_url(other))
    assert len(rows_of(other)) == 1


def test_a_request_that_was_sent_before_the_backup_makes_no_second_video(place, opened, tmp_path):
    """Also where the job went and its key or its message stayed, or came again."""
    jobs_of = JobStore(place.database)
    once = [Once(str(index) * 64, "asked") for index in range(2)]
    for each in once:
        jobs_of.submit(new_job(owner="me", callback="https://example.com/"), most_queued=9, once=each)
    first, second = (jobs_of.repeated("me", each).id for each in once)
    jobs_of.cancel(first)
    back_up(place, tmp_path / "backup")
    restore(tmp_path / "backup", tmp_path / "new")
    again = JobStore(opened(tmp_path / "new").database)
    assert [again.repeated("me", each).id for each in once] == [first, second]
    jobs_of.remove(first)
    anew = jobs_of.submit(new_job(owner="me"), most_queued=9, once=once[0]).id
    assert restore(tmp_path / "backup", place.storage.folder, url=_url(place)) == (1, 1, 0)
    assert jobs_of.repeated("me", once[0]).id == anew and set(rows_of(place)) == {first, second, anew}
    with place.database.reading() as connection:
        assert len(connection.execute(select(deliveries)).all()) == 1


@pytest.mark.parametrize("how", ["empty", "cut", "foreign"])
def test_a_backup_whose_database_is_of_no_use(opened, tmp_path, how):
    """Folders that no record tells of come along as strays; a damaged database is told by the backup's name."""
    backup = tmp_path / "backup"
    job = hand_in(opened(tmp_path / "data"))
    back_up(opened(tmp_path / "data"), backup)
    file = backup / "jobs.sqlite3"
    content = file.read_bytes()
    file.write_bytes({"empty": b"", "cut": content[:5000], "foreign": b"hello" * 1000}[how])
    if how == "empty":
        assert restore(backup, tmp_path / "new") == (0, 0, 1)
        assert opened(tmp_path / "new").storage.aside_ids() == [job]
        return
    with pytest.raises(InputError, match=f"{re.escape(str(backup))} cannot be brought back: .* is damaged") as told:
        restore(backup, tmp_path / "new")
    assert ".part" not in str(told.value) and not (tmp_path / "new" / "jobs.sqlite3").exists()


def test_a_link_to_where_a_backup_shall_be(place, tmp_path):
    hand_in(place)
    (tmp_path / "empty").mkdir()
    for name in ("empty", "new"):
        (tmp_path / f"link-{name}").symlink_to(tmp_path / name)
        assert back_up(place, tmp_path / f"link-{name}") == 1
        assert (tmp_path / name / "jobs").is_dir() and (tmp_path / f"link-{name}").is_symlink()


def test_an_interrupted_backup_is_not_there(place, tmp_path, monkeypatch):
    hand_in(place)

    def fail(*_arguments, **_named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copy2", fail)
    with pytest.raises(Exception, match="no room"):
        back_up(place, tmp_path / "backup")
    assert [path.name for path in tmp_path.iterdir() if "backup" in path.name or "part" in path.name] == []


def test_the_commands(tmp_path, opened):
    place = opened(tmp_path / "data")
    job = hand_in(place)
    data, backup, new = (str(tmp_path / name) for name in ("data", "backup", "new"))
    assert command("backup", backup, "--data", data).stdout == f"{backup}: 1 videos\n"
    assert command("restore", backup, "--data", new).stdout == f"{new}: 1 videos brought back, 0 were there\n"
    again = opened(tmp_path / "new")
    assert list(rows_of(again)) == [job]
    done = command("restore", data + "x", "--data", new)
    assert done.returncode == 2 and "no backup" in done.stderr
