"""What was answered is on the disk: the service runs on one that forgets at a power cut what it was not told to keep.

The database's own syncs happen inside SQLite, where this cannot see them; that they are asked for is checked by its
setting, and in docs/measurements.md by what a traced server asks of the system.
"""

from __future__ import annotations

import sys

import pytest
from forgetful_disk import ForgetfulDisk
from test_api import post
from test_worker import submit, when, work_once

from framewake.media.video import read_video
from framewake.pipeline.latents import load_latents
from framewake.service.backup import back_up
from framewake.service.binding import DataPlace, open_place
from framewake.service.desk import Desk
from framewake.service.guard import Limits
from framewake.service.storage import CLIP, LATENTS, PICTURE, THUMBNAIL
from framewake.service.store import JobStore
from framewake.service.worker import WorkerSettings
from framewake.weights.checkpoint.load import open_checkpoint

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the disk is watched through /proc")
DATABASE = ("jobs.sqlite3", "jobs.sqlite3-wal", "jobs.sqlite3-shm")


@pytest.fixture
def disk(tmp_path, monkeypatch):
    (tmp_path / "disk").mkdir()
    disk = ForgetfulDisk(tmp_path / "disk", monkeypatch, DATABASE)
    yield disk
    disk.close()


@pytest.fixture
def desk(disk, toy):
    storage, database = open_place(disk.folder / "data")
    yield Desk(JobStore(database), storage, open_checkpoint(toy), limits=Limits())
    database.close()


@pytest.fixture
def left(disk, tmp_path, request):
    """What a start after the power cut finds."""
    opened = []

    def find(names):
        folder = disk.after_a_power_cut(tmp_path / f"left{len(opened)}", names)
        opened.append(open_place(folder / "data"))
        return opened[-1].storage, JobStore(opened[-1].database)

    yield find
    for place in opened:
        place.database.close()


WORLDS = ("synced", "all")


def test_an_answered_video_is_there(desk, client_of, picture, left):
    client = client_of(desk)
    jobs = [post(client, picture).json()["id"] for _ in range(3)]
    for names in WORLDS:
        storage, store = left(names)
        assert storage.ids() == sorted(jobs)
        for job in jobs:
            assert store.get(job).state == "queued"
            assert (storage.job(job) / PICTURE).read_bytes() == picture


def test_a_completed_clip_is_there(desk, worker_of, picture, left):
    job = submit(desk, picture)
    work_once(worker_of(desk))
    whole = (desk.storage.job(job) / CLIP).read_bytes()
    for names in WORLDS:
        storage, store = left(names)
        assert store.get(job).state == "completed"
        assert (storage.job(job) / CLIP).read_bytes() == whole and len(read_video(storage.job(job) / CLIP)[0]) == 5
        assert (storage.job(job) / THUMBNAIL).stat().st_size > 100


def test_what_was_given_back_goes_on_where_it_was(desk, worker_of, picture, left):
    job = submit(desk, picture, num_inference_steps=60)
    worker = worker_of(desk, WorkerSettings(save_every=5))
    watcher = when(desk, job, lambda row: row.step >= 6, worker.stop.set)
    work_once(worker)
    watcher.join()
    assert desk.store.get(job).state == "queued"
    for names in WORLDS:
        storage, _ = left(names)
        assert load_latents(storage.job(job) / LATENTS).step == load_latents(desk.storage.job(job) / LATENTS).step >= 6


def test_a_removed_video_is_gone(desk, picture, left):
    job, kept = submit(desk, picture), submit(desk, picture)
    desk.delete(job, "local")
    desk.delete(job, "local")
    for names in WORLDS:
        storage, store = left(names)
        assert store.counts() == {"queued": 1} and storage.ids() == [kept]


def test_what_was_put_aside_is_there(desk, picture, left):
    job = submit(desk, picture)
    with desk.store.database.writing() as connection:
        connection.exec_driver_sql("DELETE FROM jobs")
    desk.storage.put_aside(job)
    for names in WORLDS:
        storage, _ = left(names)
        assert (storage.stray(job) / PICTURE).read_bytes() == picture


def test_a_backup_that_was_told_of_is_there(desk, picture, disk, left, tmp_path):
    job = submit(desk, picture)
    back_up(DataPlace(desk.storage, desk.store.database), disk.folder / "backup")
    for names in WORLDS:
        folder = disk.after_a_power_cut(tmp_path / f"cut-{names}", names) / "backup"
        storage, database = open_place(folder)
        assert JobStore(database).get(job).state == "queued"
        assert (storage.job(job) / PICTURE).read_bytes() == picture
        database.close()


def test_every_promise_waits_for_the_disk(desk):
    """Also on a connection that has told a sign of life before, which does not."""
    database = desk.store.database
    for is_promise, setting in ((True, 2), (False, 1), (True, 2)):
        with database.writing(is_promise=is_promise) as connection:
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == setting
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
    with database.writing() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2
