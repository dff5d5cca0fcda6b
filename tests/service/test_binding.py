"""A folder and a database that were not made together are never used together; nothing is lost by trying."""

from __future__ import annotations

import os
import threading
import time

import pytest
from service_process import command
from sqlalchemy import delete, select, text
from test_worker import submit, work_once
from toy_jobs import new_job

from framewake.errors import InputError
from framewake.service.binding import FILE, PENDING, bind_anew, open_place
from framewake.service.database import Database, default_url
from framewake.service.storage import CLIP
from framewake.service.store import MOST_DEATHS, JobStore
from framewake.service.strays import sweep
from framewake.service.tables import identity, jobs
from framewake.service.worker import WorkerSettings


def fill(place, count=2):
    """Jobs with files that look like clips."""
    store, ids = JobStore(place.database), []
    for _ in range(count):
        new = new_job()
        folder = place.storage.accept(new.id, b"picture")
        (folder / CLIP).write_bytes(b"clip")
        store.submit(
            new, most_queued=100, before_end=lambda folder=folder, job=new.id: place.storage.place(folder, job)
        )
        ids.append(new.id)
    return ids


def files(folder):
    """Every file of every job, wherever it lies."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*/video_*/*")}


def forget_ids(place):
    """As versions before the id left them."""
    (place.storage.folder / FILE).unlink()
    with place.database.writing() as connection:
        connection.execute(text("DROP TABLE framewake"))
    place.database.close()


@pytest.fixture
def url_of(request, tmp_path):
    """Addresses of databases by name."""
    return lambda name: f"sqlite:///{tmp_path / name}.sqlite3"


def refused(folder, url, words):
    before = files(folder)
    with pytest.raises(InputError, match=words) as raised:
        open_place(folder, url)
    assert "\n" not in str(raised.value) and "framewake jobs bind" in str(raised.value)
    assert files(folder) == before


def test_a_new_pair_is_bound_and_opens_again(database_url, tmp_path):
    place = open_place(tmp_path / "data", database_url)
    fill(place)
    place.database.close()
    open_place(tmp_path / "data", database_url).database.close()
    moved = (tmp_path / "data").rename(tmp_path / "elsewhere")
    (tmp_path / "link").symlink_to(moved)
    place = open_place(tmp_path / "link", database_url)
    assert len(place.storage.ids()) == 2
    place.database.close()


@pytest.mark.parametrize("is_there", [False, True])
def test_a_mistyped_database_is_refused_and_not_made(tmp_path, url_of, is_there):
    place = open_place(tmp_path / "data", url_of("right"))
    fill(place)
    place.database.close()
    if is_there:
        open_place(tmp_path / "other", url_of("typo")).database.close()
    refused(tmp_path / "data", url_of("typo"), "another folder" if is_there else "nothing in")
    assert (tmp_path / "typo.sqlite3").exists() == is_there
    open_place(tmp_path / "data", url_of("right")).database.close()


@pytest.mark.parametrize("how", ["removed", "emptied", "new tables"])
def test_an_emptied_database_is_refused(tmp_path, how):
    place = open_place(tmp_path / "data")
    ids = fill(place)
    place.database.close()
    file = tmp_path / "data" / "jobs.sqlite3"
    file.unlink()
    if how == "emptied":
        file.touch()
    elif how == "new tables":
        Database(default_url(tmp_path / "data")).close()
    refused(tmp_path / "data", None, "nothing in|no folder yet")
    assert set(place.storage.ids()) == set(ids)


def test_swapped_folders_are_refused(database_url, tmp_path, url_of):
    pairs = {"one": database_url, "two": url_of("two")}
    for name, url in pairs.items():
        place = open_place(tmp_path / name, url)
        fill(place)
        place.database.close()
    refused(tmp_path / "one", pairs["two"], "another folder")
    refused(tmp_path / "two", pairs["one"], "another folder")


def test_a_second_server_with_a_folder_of_its_own_is_refused(database_url, tmp_path):
    """It would take the first one's jobs and find no files for them; also while there is no job yet."""
    first = open_place(tmp_path / "one", database_url)
    refused(tmp_path / "two", database_url, "another folder")
    fill(first)
    refused(tmp_path / "two", database_url, "another folder")
    first.database.close()


def test_a_pair_of_an_older_version_is_bound(database_url, tmp_path):
    place = open_place(tmp_path / "data", database_url)
    ids = fill(place)
    forget_ids(place)
    place = open_place(tmp_path / "data", database_url)
    assert (tmp_path / "data" / FILE).exists() and set(place.storage.ids()) == set(ids)
    with place.database.reading() as connection:
        assert connection.execute(select(identity.c.version, identity.c.folder)).one()[1].startswith("data_")
    place.database.close()


def test_two_of_older_versions_that_do_not_fit_are_refused(tmp_path, url_of):
    for name in ("one", "two"):
        place = open_place(tmp_path / name, url_of(name))
        fill(place)
        forget_ids(place)
    refused(tmp_path / "one", url_of("two"), "none of them is the same")
    refused(tmp_path / "one", url_of("new"), "holds 2")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", url_of("two"), "knows 2")
    open_place(tmp_path / "one", url_of("one")).database.close()


def test_many_programs_that_start_together_agree(database_url, tmp_path):
    (tmp_path / "data").mkdir()
    failures = []

    def start():
        try:
            open_place(tmp_path / "data", database_url).database.close()
        except InputError as error:
            failures.append(error)

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not failures
    open_place(tmp_path / "data", database_url).database.close()


@pytest.mark.parametrize("is_told", [False, True])
def test_an_end_while_the_two_are_bound_costs_nothing(database_url, tmp_path, is_told):
    """The id is in the folder under another name first; the database may have been told."""
    place = open_place(tmp_path / "data", database_url)
    (tmp_path / "data" / FILE).rename(tmp_path / "data" / PENDING)
    if not is_told:
        with place.database.writing() as connection:
            connection.execute(identity.update().values(folder=None))
    place.database.close()
    for _ in range(2):
        open_place(tmp_path / "data", database_url).database.close()
    assert not (tmp_path / "data" / PENDING).exists()


def test_a_damaged_id_is_told(tmp_path):
    place = open_place(tmp_path / "data")
    fill(place)
    place.database.close()
    (tmp_path / "data" / FILE).write_bytes(b"\x00\xff nothing")
    refused(tmp_path / "data", None, "framewake-id is damaged")


def test_binding_anew(tmp_path, url_of):
    place = open_place(tmp_path / "data", url_of("old"))
    ids = fill(place)
    place.database.close()
    database = Database(url_of("new"))
    bind_anew(place.storage, database)
    database.close()
    open_place(tmp_path / "data", url_of("new")).database.close()
    refused(tmp_path / "data", url_of("old"), "another folder")
    assert set(place.storage.ids()) == set(ids)


def test_a_database_that_lost_its_records_costs_no_file(database_url, tmp_path):
    """The ids fit, so only the folders can tell: they are put aside, and all is still there."""
    place = open_place(tmp_path / "data", database_url)
    ids = fill(place, 3)
    before = sorted(files(tmp_path / "data").values())
    with place.database.writing() as connection:
        connection.execute(delete(jobs))
    for job in ids[:2]:
        os.utime(place.storage.job(job), (1, 1))
    for _ in range(2):
        sweep(place.storage, JobStore(place.database))
    assert set(place.storage.aside_ids()) == set(ids[:2]) and place.storage.ids() == [ids[2]]
    assert sorted(files(tmp_path / "data").values()) == before
    place.database.close()


def test_the_programs_refuse_in_one_sentence(toy, tmp_path, url_of, command_here):
    place = open_place(tmp_path / "data", url_of("right"))
    (job, _) = fill(place)
    place.database.close()
    wrong = ["--database", url_of("wrong")]
    open_place(tmp_path / "other", url_of("wrong")).database.close()
    before = files(tmp_path / "data")
    data = str(tmp_path / "data")
    for arguments in (
        ["serve", "--no-page", "--port", "0", "--data", data, "--checkpoint", str(toy)],
        ["worker", "--storage", data, "--checkpoint", str(toy)],
        ["jobs", "list", "--data", data],
        ["jobs", "rm", job, "--data", data],
        ["jobs", "strays", "--data", data],
        ["backup", str(tmp_path / "backup"), "--data", data],
    ):
        done = (command_here if arguments[0] == "jobs" else command)(*arguments, *wrong)
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
        assert "another folder" in done.stderr and done.stdout == ""
    assert files(tmp_path / "data") == before
    assert not (tmp_path / "backup").exists()


def test_a_job_whose_folder_is_elsewhere_waits(desk_of, worker_of, picture, tmp_path):
    """A copied folder has the same id: its worker must not fail what it cannot see. A folder that is gone for good ends
    as a failure, and a disk that is not mounted costs nothing."""
    desk = desk_of()
    open_place(desk.storage.folder).database.close()
    job, other = submit(desk, picture), submit(desk, picture)
    hidden = desk.storage.job(job).rename(tmp_path / "hidden")
    worker = worker_of(desk, WorkerSettings(pause_seconds=0.01))
    work_once(worker)
    row = desk.store.get(job)
    assert (row.state, row.deaths, row.error) == ("queued", 1, None)
    hidden.rename(desk.storage.job(job))
    time.sleep(0.05)  # its pause
    work_once(worker)
    assert desk.store.get(job).state == "completed"
    desk.storage.job(other).rename(tmp_path / "hidden")
    (desk.storage.folder / FILE).rename(tmp_path / FILE)  # as below a disk that is not mounted
    for _ in range(MOST_DEATHS + 1):
        work_once(worker)
        time.sleep(0.05)
    assert (desk.store.get(other).state, desk.store.get(other).deaths) == ("queued", 0)
    (tmp_path / FILE).rename(desk.storage.folder / FILE)
    for _ in range(MOST_DEATHS):
        work_once(worker)
        time.sleep(0.05)
    row = desk.store.get(other)
    assert row.state == "failed" and "log says why" in row.error
