"""A disk that really is full: new videos are refused, running ones wait and go on, and nothing breaks."""

from __future__ import annotations

import contextlib
import json
import threading
import time

import pytest
from small_disk import MIB, mounted
from test_api import post
from test_worker import submit, work_once

from framewake.errors import DiskFullError
from framewake.media.video import read_video
from framewake.pipeline.latents import latents_path, load_latents
from framewake.service.database import Database, default_url
from framewake.service.desk import Desk
from framewake.service.guard import Limits
from framewake.service.storage import CLIP, PICTURE, PREVIEW, STORY, THUMBNAIL, Storage
from framewake.service.store import JobStore
from framewake.service.worker import WorkerSettings
from framewake.weights.checkpoint.load import open_checkpoint

LEAST, RESERVE = 6 * MIB, 3 * MIB


@pytest.fixture
def disk(tmp_path):
    with mounted(tmp_path / "disk", 16 * MIB) as disk:
        yield disk


@pytest.fixture
def desk_at(toy, disk):
    """A desk whose files lie on the small disk; its database lies where the test says."""
    opened = []

    def make(folder):
        opened.append(Database(default_url(folder)))
        storage = Storage(disk.folder / "data", least_free=LEAST, reserve=RESERVE)
        return Desk(JobStore(opened[-1]), storage, open_checkpoint(toy), limits=Limits())

    yield make
    for database in opened:
        database.close()


@pytest.fixture
def full_desk(desk_at, disk):
    return desk_at(disk.folder)


def until(condition, seconds=400):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"nothing happened for {seconds} s"
        time.sleep(0.02)


@contextlib.contextmanager
def working(worker):
    """A worker in a thread of this process."""
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield
    finally:
        worker.stop.set()
        thread.join(timeout=60)
        assert not thread.is_alive()


@pytest.mark.parametrize("left", [LEAST - MIB, 0])
def test_new_videos_are_refused(full_desk, client_of, disk, picture, left):
    client = client_of(full_desk, raise_server_exceptions=False)
    before = post(client, picture).json()["id"]
    disk.fill(left)
    answer = post(client, picture)
    assert answer.status_code == 507 and "disk is full" in answer.json()["error"]["message"]
    assert str(disk.folder) not in answer.text
    assert [path.name for path in (full_desk.storage.folder / "jobs").iterdir()] == [before]
    assert client.get(f"/v1/videos/{before}").json()["status"] == "queued"
    assert client.get("/metrics").status_code == client.get("/v1/videos").status_code == 200
    disk.clear()
    assert post(client, picture).status_code == 200


def test_a_picture_that_no_longer_fits_leaves_nothing(full_desk, disk, picture):
    """The room was there when it was looked at."""
    full_desk.storage.least_free = 0
    disk.fill()
    with pytest.raises(DiskFullError, match="disk is full"):
        submit(full_desk, picture)
    assert list((full_desk.storage.folder / "jobs").iterdir()) == []


@pytest.mark.parametrize("left", [RESERVE - MIB, 0])
def test_a_running_video_waits_and_goes_on(full_desk, worker_of, disk, picture, left):
    steps = 150  # more than can be done before the disk is full
    whole, parts = (submit(full_desk, picture, num_inference_steps=steps) for _ in range(2))
    work_once(worker_of(full_desk))
    want = (full_desk.storage.job(whole) / CLIP).read_bytes()
    worker = worker_of(full_desk, WorkerSettings(save_every=2, beat_seconds=0.1, pause_seconds=0.3))
    with working(worker):
        until(lambda: full_desk.store.get(parts).step >= 4)
        disk.fill(left)
        if left:
            until(lambda: full_desk.store.get(parts).state == "queued")
        time.sleep(2)  # longer than the pause: it must not begin again by itself
        row = full_desk.store.get(parts)
        assert row.step < steps and row.error is None and not (full_desk.storage.job(parts) / CLIP).exists()
        # On a disk without a byte, the database beside the videos may not be able to tell.
        assert row.state == "queued" or (row.state == "in_progress" and not left)
        assert load_latents(latents_path(full_desk.storage.job(parts) / CLIP)).step >= (4 if left else 2)
        disk.clear()
        until(lambda: full_desk.store.get(parts).state not in ("queued", "in_progress"))
    row = full_desk.store.get(parts)
    assert (row.state, row.deaths, row.error) == ("completed", 0, None)
    folder = full_desk.storage.job(parts)
    assert (folder / CLIP).read_bytes() == want
    assert {path.name for path in folder.iterdir()} <= {PICTURE, CLIP, THUMBNAIL, PREVIEW, STORY}


def test_a_clip_that_does_not_fit_is_made_later(desk_at, worker_of, disk, picture, tmp_path):
    """The disk fills up between the last step and the file; the database is on another one."""
    desk = desk_at(tmp_path)
    job = submit(desk, picture)
    worker = worker_of(desk, WorkerSettings(save_every=0, pause_seconds=0.1))
    desk.storage.reserve = 0
    disk.fill(left=8192)
    work_once(worker)
    row = desk.store.get(job)
    assert row.state == "queued" and row.error is None
    assert not (desk.storage.job(job) / CLIP).exists()
    disk.clear()
    time.sleep(0.2)
    work_once(worker)
    assert desk.store.get(job).state == "completed"
    assert len(read_video(desk.storage.job(job) / CLIP)[0]) == 5


def test_the_database_is_whole_afterwards(full_desk, client_of, disk, picture):
    """Every write that a full disk refused is refused as a whole."""
    client = client_of(full_desk, raise_server_exceptions=False)
    jobs = [post(client, picture).json()["id"] for _ in range(3)]
    full_desk.storage.least_free = 0
    disk.fill()
    statuses = [client.delete(f"/v1/videos/{jobs[0]}").status_code]
    statuses += [client.post("/v1/videos", json={"prompt": "x" * 9000}).status_code for _ in range(50)]
    assert set(statuses) <= {200, 422, 503, 507}, statuses
    disk.clear()
    with full_desk.store.database.reading() as connection:
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar_one() == "ok"
    listed = client.get("/v1/videos").json()["data"]
    assert {entry["id"] for entry in listed} == set(jobs)
    assert json.dumps(listed).count('"failed"') == 0
