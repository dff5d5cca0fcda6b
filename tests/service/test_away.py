"""A database that goes away while a video is made, and comes back."""

from __future__ import annotations

import time

import pytest
from sqlalchemy.exc import SQLAlchemyError
from test_api import post
from test_disk import until, working
from test_worker import submit, work_once

from framewake.service.storage import CLIP
from framewake.service.worker import WorkerSettings


def test_work_goes_on_without_its_database(desk_of, worker_of, cluster, postgres_url, picture):
    desk = desk_of(postgres_url)
    whole, parts = (submit(desk, picture, num_inference_steps=150) for _ in range(2))
    work_once(worker_of(desk))
    worker = worker_of(desk, WorkerSettings(save_every=10, beat_seconds=0.1))
    with working(worker):
        until(lambda: desk.store.get(parts).step >= 3)
        cluster.stop()
        try:
            with pytest.raises(SQLAlchemyError):
                desk.store.get(parts)
            # The clip is made all the same, only nobody can be told.
            until((desk.storage.job(parts) / CLIP).exists)
            time.sleep(1)
        finally:
            cluster.start()
        until(lambda: desk.store.get(parts).state != "in_progress")
        following = submit(desk, picture)
        until(lambda: desk.store.get(following).state == "completed")
    row = desk.store.get(parts)
    assert (row.state, row.lease, row.deaths) == ("completed", 1, 0)
    assert (desk.storage.job(parts) / CLIP).read_bytes() == (desk.storage.job(whole) / CLIP).read_bytes()


def test_the_api_says_that_its_database_is_away(desk_of, client_of, cluster, postgres_url, picture):
    desk = desk_of(postgres_url)
    client = client_of(desk)
    job = post(client, picture).json()["id"]
    cluster.stop()
    try:
        answers = [client.get(f"/v1/videos/{job}"), post(client, picture)]
    finally:
        cluster.start()
    for answer in answers:
        assert answer.status_code == 503 and answer.headers["retry-after"] == "5"
        assert "database does not answer" in answer.json()["error"]["message"] and "127.0.0.1" not in answer.text
    assert [path.name for path in (desk.storage.folder / "jobs").iterdir()] == [job]
    assert client.get(f"/v1/videos/{job}").json()["status"] == "queued"
