"""Super-resolution over the API: a field of a video, a stage of its own, and a stop in it costs nothing."""

from __future__ import annotations

import pytest
from engines_here import FIRST
from sqlalchemy import update
from test_worker import at_stage, work_once
from toy15 import write_toy15

from framewake.media.video import read_video
from framewake.pipeline import Job, Pipeline
from framewake.pipeline.latents import latents_path
from framewake.request import Request
from framewake.service.database import Database, default_url
from framewake.service.desk import Desk
from framewake.service.guard import Limits
from framewake.service.progress import without_done
from framewake.service.storage import CLIP, Storage
from framewake.service.store import JobStore
from framewake.service.tables import jobs

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


def test_another_size_than_the_checkpoints_is_refused(desk15, client_of, picture):
    answer = post(client_of(desk15), picture, resolution="720p")
    assert answer.status_code == 422 and answer.json()["error"]["param"] == "resolution", answer.text
    assert "take 480p, or a checkpoint for 720p" in answer.json()["error"]["message"]
    own = post(client_of(desk15), picture).json()
    assert (own["resolution"], own["true_cfg_scale"], own["flow_shift"]) == ("480p", 6.0, 5.0)


def test_a_larger_video_is_made_and_goes_on(desk15, client_of, worker_of, picture, larger):
    client = client_of(desk15)
    videos = []
    for _ in range(2):
        answer = post(client, picture)
        assert answer.status_code == 200 and answer.json()["size"] == "160x112", answer.text
        videos.append(answer.json()["id"])
    worker = worker_of(desk15, pipeline=larger)
    work_once(worker)
    ended = client.get(f"/v1/videos/{videos[0]}").json()
    told = (ended["status"], ended["step"], ended["num_inference_steps"])
    assert told == ("completed", 2, 2), "its steps are those that were asked for"
    watcher = at_stage(desk15, "enlarge", worker.stop.set)
    work_once(worker)
    watcher.join()
    place = desk15.storage.job(videos[1]) / CLIP
    assert desk15.store.get(videos[1]).state == "queued" and latents_path(place).is_file()
    work_once(worker_of(desk15, pipeline=larger))
    clips = [(desk15.storage.job(job) / CLIP).read_bytes() for job in videos]
    assert clips[0] == clips[1] and read_video(place)[0].shape == (5, 112, 160, 3)
    assert not latents_path(place).exists()


def test_steps_in_which_a_video_is_enlarged_count_as_the_others(
    desk15, client_of, worker_of, picture, larger, monkeypatch
):
    client = client_of(desk15)
    job = post(client, picture).json()["id"]
    with desk15.store.database.writing() as connection:  # a worker died in the second of four such steps
        row = {"stage": "enlarge", "step": 3, "deaths": 3}
        connection.execute(update(jobs).where(jobs.c.id == job).values(row))
    seen, report = [], desk15.store.report

    def watched(lease, values):
        found = report(lease, values)
        seen.append((values, client.get(f"/v1/videos/{job}").json()))
        return found

    monkeypatch.setattr(desk15.store, "report", watched)
    work_once(worker_of(desk15, pipeline=larger))
    assert [values["step"] for values, _ in seen if "step" in values] == [0, 1, 2, 3, 4, 5, 6, 2]
    assert [values["step"] for values, _ in seen if values.get("deaths") == 0 and "step" in values] == [4, 5, 6]
    shown = [video["progress"] for _, video in seen]
    assert shown == sorted(shown) and {15, 30, 45, 60, 75, 90} <= set(shown)
    assert {video["num_inference_steps"] for _, video in seen} == {2} and max(v["step"] for _, v in seen) == 2


def test_a_video_that_is_enlarged_pauses_no_more(desk15, client_of, picture):
    client = client_of(desk15)
    job = post(client, picture).json()["id"]
    with desk15.store.database.writing() as connection:
        connection.execute(update(jobs).where(jobs.c.id == job).values({"state": "in_progress", "stage": "enlarge"}))
    answer = client.post(f"/v1/videos/{job}/pause")
    assert answer.status_code == 409 and "the last step that a video can pause behind" in answer.text


def test_what_is_done_takes_no_time_any_more(larger, picture, tmp_path):
    path = tmp_path / "picture"
    path.write_bytes(picture)
    request = Request("a circle turns", image=str(path), seed=3, super_resolution=True)
    plan = larger.plan(Job(request))
    stages = {"encode image": 1.0, "denoise": 8.0, "enlarge": 12.0, "decode": 5.0}
    for step, denoise, enlarge in [(0, 8.0, 12.0), (1, 4.0, 12.0), (2, 0.0, 12.0), (3, 0.0, 9.0), (6, 0.0, 0.0)]:
        assert without_done(stages, plan, step) == {**stages, "denoise": denoise, "enlarge": enlarge}


def test_it_is_refused_where_it_is_not_there(client, picture):
    answer = post(client, picture, resolution="360p")
    assert answer.status_code == 422 and answer.json()["error"]["param"] == "super_resolution"
    assert "has no super-resolution" in answer.json()["error"]["message"]
