"""Super-resolution over the API: a field of a video, a stage of its own, and a stop in it costs nothing."""

from __future__ import annotations

import pytest
from engines_here import FIRST
from test_worker import at_stage, work_once
from toy15 import write_toy15

from framewake.media.video import read_video
from framewake.pipeline import Pipeline
from framewake.pipeline.latents import latents_path
from framewake.service.database import Database, default_url
from framewake.service.desk import Desk
from framewake.service.guard import Limits
from framewake.service.storage import CLIP, Storage
from framewake.service.store import JobStore

FIELDS = {"prompt": "a circle turns", "seed": "3", "super_resolution": "true"}


@pytest.fixture(scope="module")
def larger(tmp_path_factory):
    return Pipeline.load(write_toy15(tmp_path_factory.mktemp("larger"), enlarges=True), engine=FIRST)


@pytest.fixture
def desk15(larger, tmp_path):
    storage = Storage(tmp_path / "data")
    database = Database(default_url(storage.folder))
    yield Desk(JobStore(database), storage, larger.checkpoint, limits=Limits())
    database.close()


def post(client, picture, **changes):
    files = {"input_reference": ("a.png", picture, "image/png")}
    return client.post("/v1/videos", data=FIELDS | changes, files=files)


def test_a_larger_video_is_made_and_goes_on(desk15, client_of, worker_of, picture, larger):
    client = client_of(desk15)
    jobs = []
    for _ in range(2):
        answer = post(client, picture)
        assert answer.status_code == 200 and answer.json()["size"] == "160x112", answer.text
        jobs.append(answer.json()["id"])
    worker = worker_of(desk15, pipeline=larger)
    work_once(worker)
    row = desk15.store.get(jobs[0])
    assert (row.state, row.step, row.steps) == ("completed", 2, 2), "its steps are those that were asked for"
    watcher = at_stage(desk15, "enlarge", worker.stop.set)
    work_once(worker)
    watcher.join()
    place = desk15.storage.job(jobs[1]) / CLIP
    assert desk15.store.get(jobs[1]).state == "queued" and latents_path(place).is_file()
    work_once(worker_of(desk15, pipeline=larger))
    clips = [(desk15.storage.job(job) / CLIP).read_bytes() for job in jobs]
    assert clips[0] == clips[1] and read_video(place)[0].shape == (5, 112, 160, 3)
    assert not latents_path(place).exists()


def test_it_is_refused_where_it_is_not_there(client, picture):
    answer = post(client, picture, resolution="360p")
    assert answer.status_code == 422 and answer.json()["error"]["param"] == "super_resolution"
    assert "has no super-resolution" in answer.json()["error"]["message"]
