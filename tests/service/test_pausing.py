"""Pausing: a job looks early, waits for a decision without a device, and becomes the clip that it would have been."""

from __future__ import annotations

import json
import sqlite3

import pytest
import sqlalchemy
from test_worker import submit, when, work_once
from toy_jobs import new_job

from framewake.app.jobs import change_job
from framewake.errors import InputError
from framewake.pipeline.drafts import draft_path
from framewake.pipeline.events import STAGES
from framewake.pipeline.story import read_story
from framewake.service.database import Database, default_url
from framewake.service.pausing import NOW
from framewake.service.refusals import Conflict, TooMany
from framewake.service.storage import CLIP
from framewake.service.tables import deliveries, jobs

STEPS = 8


def test_a_waiting_job_pauses_at_once_and_keeps_its_place(store):
    first, second = (store.submit(new_job(), most_queued=2).id for _ in range(2))
    assert store.pause(first).state == store.pause(first).state == "paused"
    assert store.claim("w", "toy")[0].job == second and store.claim("w", "toy") is None
    third = store.submit(new_job(), most_queued=2).id
    row = store.go_on(first)
    assert (row.state, store.position(row), store.position(store.get(third))) == ("queued", 1, 2)


def test_paused_jobs_count_among_those_that_wait(store):
    for _ in range(2):
        store.pause(store.submit(new_job(), most_queued=2).id)
    with pytest.raises(TooMany, match="2 videos are waiting already"):
        store.submit(new_job(), most_queued=2)


def test_what_cannot_pause_or_go_on(store):
    job = store.submit(new_job(), most_queued=1).id
    with pytest.raises(Conflict, match="queued: only a paused one"):
        store.go_on(job)
    lease, _ = store.claim("w", "toy")
    with pytest.raises(Conflict, match="in_progress: only a paused one"):
        store.go_on(job)
    assert store.report(lease, {"stage": "denoise", "step": 1}) is False
    assert store.pause(job).draft == NOW and store.report(lease, {}) is True
    assert store.go_on(job).draft is None and store.report(lease, {}) is False
    store.report(lease, {"stage": "decode"})
    with pytest.raises(Conflict, match="the last step that a video can pause behind is done"):
        store.pause(job)
    store.end(lease, "completed")
    for change in (store.pause, store.go_on):
        with pytest.raises(Conflict, match="completed"):
            change(job)


def test_a_draft_that_nobody_wants_any_more_pauses_nothing(store):
    job = store.submit(new_job(callback="http://receiver/"), most_queued=1).id
    lease, _ = store.claim("w", "toy")
    for wish, state in ((store.go_on, "queued"), (None, "paused")):
        store.pause(job)
        if wish is not None:
            wish(job)
        store.hold(lease, 1)
        row = store.get(job)
        assert (row.state, row.drafted, row.step, row.draft, row.worker) == (state, 1, 1, None, None)
        if state == "queued":
            lease, _ = store.claim("w", "toy")
    with store.database.reading() as connection:
        told = [json.loads(body)["type"] for body in connection.execute(sqlalchemy.select(deliveries.c.body)).scalars()]
    assert told == ["video.paused"]


def test_look_decide_and_go_on(desk, client_of, worker_of, picture):
    client, worker = client_of(desk), worker_of(desk)
    whole, job = (submit(desk, picture, num_inference_steps=STEPS, draft=draft) for draft in (None, 3))
    assert client.get(f"/v1/videos/{job}").json()["pauses_after"] == 3
    work_once(worker)
    place, folder = f"/v1/videos/{job}", desk.storage.job(job)
    assert client.get(f"{place}/content?variant=draft").status_code == 409
    work_once(worker)
    shown = client.get(place).json()
    assert (shown["status"], shown["step"], shown["draft"], shown["pauses_after"]) == ("paused", 3, 3, None)
    assert desk.store.claim("w", desk.model) is None and worker.pipeline.parts.lead.is_alone
    draft = client.get(f"{place}/content?variant=draft")
    assert draft.content == draft_path(folder / CLIP, 3).read_bytes() and draft.headers["content-type"] == "video/mp4"
    assert client.get(f"{place}/content").status_code == 409
    assert client.get(f"{place}/content?variant=preview").status_code == 200
    assert client.post(f"{place}/resume").json()["status"] == "queued"
    assert client.post(f"{place}/resume").status_code == 409
    work_once(worker)
    assert client.get(place).json()["status"] == "completed"
    assert (folder / CLIP).read_bytes() == (desk.storage.job(whole) / CLIP).read_bytes()
    assert client.get(f"{place}/content?variant=draft").content == draft.content
    story = client.get(f"{place}/content?variant=story").json()
    assert (story["devices"], story["drafts"], story["pauses"]) == ([1, 1], [3], 1)
    assert set(story["seconds"]) == set(STAGES) - {"enlarge"} and read_story(folder / CLIP) == story


def test_a_running_job_pauses_behind_its_next_step(desk, worker_of, picture):
    whole, job = (submit(desk, picture, num_inference_steps=40, draft_size="small") for _ in range(2))
    worker = worker_of(desk)
    work_once(worker)
    asked = []
    watcher = when(desk, job, lambda row: row.step >= 3, lambda: asked.append(desk.store.pause(job).step))
    work_once(worker)
    watcher.join()
    row = desk.store.get(job)
    assert row.state == "paused" and asked[0] <= row.step <= asked[0] + 1
    assert draft_path(desk.storage.job(job) / CLIP, row.step).is_file()
    desk.store.go_on(job)
    work_once(worker)
    assert (desk.storage.job(job) / CLIP).read_bytes() == (desk.storage.job(whole) / CLIP).read_bytes()


@pytest.mark.parametrize("is_there", [True, False])
def test_a_worker_that_dies_behind_the_draft(desk, worker_of, picture, is_there):
    """The draft and its latents are there, and the word of it is not: it is not made twice; lost, it is made again."""
    job = submit(desk, picture, num_inference_steps=STEPS, draft=3)
    worker = worker_of(desk)
    work_once(worker)
    draft = draft_path(desk.storage.job(job) / CLIP, 3)
    made = draft.stat().st_mtime_ns
    with desk.store.database.writing() as connection:
        connection.execute(sqlalchemy.update(jobs).values(state="queued", draft=3, drafted=None))
    if not is_there:
        draft.unlink()
    work_once(worker)
    row = desk.store.get(job)
    assert (row.state, row.drafted) == ("paused", 3 if is_there else 4)
    assert not is_there or draft.stat().st_mtime_ns == made


def test_a_paused_job_is_dropped(desk, client, worker_of, picture):
    job = submit(desk, picture, num_inference_steps=STEPS, draft=3)
    work_once(worker_of(desk))
    assert client.delete(f"/v1/videos/{job}").json()["status"] == "cancelled"
    assert not draft_path(desk.storage.job(job) / CLIP, 3).exists()
    assert client.get(f"/v1/videos/{job}/content?variant=draft").status_code == 409
    assert client.delete(f"/v1/videos/{job}").json()["deleted"] is True


def test_a_draft_beyond_the_steps_is_refused(client, desk, picture):
    with pytest.raises(InputError, match="has 8 steps, and a draft comes after step 1 to 7") as raised:
        submit(desk, picture, num_inference_steps=STEPS, draft=STEPS)
    assert raised.value.about == "draft" and desk.store.counts() == {}


def test_the_commands_pause_and_resume(desk, picture, capsys):
    job = submit(desk, picture)
    given = {"job": job, "data": str(desk.storage.folder), "database": None, "server": None, "api_key": None}
    for what in ("pause", "resume"):
        change_job(given, what)
    assert capsys.readouterr().out.splitlines() == [f"{job}: paused", f"{job}: queued"]
    desk.store.claim("w", desk.model)
    change_job(given, "pause")
    assert capsys.readouterr().out == f"{job}: pausing behind its next step\n"


def test_a_database_of_the_version_before(tmp_path):
    """Its jobs have no drafts, and wait as they did."""
    url = default_url(tmp_path)
    database = Database(url)
    database.close()
    with sqlite3.connect(tmp_path / "jobs.sqlite3") as connection:
        for name in ("draft", "draft_size", "drafted"):
            connection.execute(f"ALTER TABLE jobs DROP COLUMN {name}")
        connection.execute("UPDATE framewake SET version = 3")
    reopened = Database(url)
    columns = {column["name"] for column in sqlalchemy.inspect(reopened.engine).get_columns("jobs")}
    reopened.close()
    assert {"draft", "draft_size", "drafted"} <= columns
