"""Videos that go on from a finished one, as our own clients and OpenAI's ask for them."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import update
from test_worker import submit, when, work_once

from framewake.media.video import read_metadata, read_video
from framewake.pipeline.drafts import draft_path
from framewake.service.storage import CLIP, PICTURE
from framewake.service.tables import jobs

WISH = {"prompt": "it grows"}


def test_a_video_goes_on_with_its_settings(desk, client_of, worker_of, picture):
    client, worker = client_of(desk), worker_of(desk)
    first = submit(desk, picture, num_inference_steps=3, fps=7)
    early = client.post(f"/v1/videos/{first}/extensions", json=WISH)
    assert early.status_code == 409 and "only a completed one can go on" in early.text
    work_once(worker)
    asked = [
        client.post(f"/v1/videos/{first}/extensions", json=WISH),
        client.post("/v1/videos/extensions", json=WISH | {"video": {"id": first}}),
        client.post("/v1/videos/extensions", files={"prompt": (None, "it grows"), "video[id]": (None, first)}),
    ]
    made = [answer.json() for answer in asked]
    told = [(one["remixed_from_video_id"], one["seed"], one["num_inference_steps"]) for one in made]
    assert told == [(first, 4, 3)] * 3
    for _ in made:
        work_once(worker)
    clips = {(desk.storage.job(one["id"]) / CLIP).read_bytes() for one in made}
    frames, fps = read_video(desk.storage.job(made[0]["id"]) / CLIP)
    assert len(clips) == 1 and len(frames) == 5 + 4 and fps == 7
    inside = read_metadata(desk.storage.job(made[0]["id"]) / CLIP)
    assert inside["before"]["clip"] == PICTURE and len(inside["segments"]) == 1
    again = client.post(f"/v1/videos/{made[0]['id']}/extensions", json=WISH | {"seed": 9, "steps": 2}).json()
    work_once(worker)
    assert (again["seed"], again["num_inference_steps"]) == (9, 2)
    assert len(read_video(desk.storage.job(again["id"]) / CLIP)[0]) == 5 + 4 + 4


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"prompt": " "}, "prompt is empty"),
        (WISH | {"draft": 999}, "a draft comes after step 1 to"),
        (WISH | {"input_reference": "demo/red-circle"}, "input_reference is not for"),
        (WISH | {"num_frame": 5}, "num_frames"),
    ],
)
def test_what_cannot_be_asked_for(client, desk, worker_of, picture, fields, words):
    first = submit(desk, picture)
    work_once(worker_of(desk))
    answer = client.post(f"/v1/videos/{first}/extensions", json=fields)
    assert answer.status_code == 422 and words in answer.text, answer.text
    assert client.post("/v1/videos/extensions", json=WISH).status_code == 422


def test_a_stopped_extension_goes_on_and_is_the_same(desk, client_of, worker_of, picture):
    client, worker = client_of(desk), worker_of(desk)
    first = submit(desk, picture)
    work_once(worker)
    place, fields = f"/v1/videos/{first}/extensions", WISH | {"num_inference_steps": 40}
    whole, parts = (client.post(place, json=fields).json()["id"] for _ in range(2))
    work_once(worker)
    watcher = when(desk, parts, lambda row: row.step >= 7, worker.stop.set)
    work_once(worker)
    watcher.join()
    assert desk.store.get(parts).state == "queued"
    worker = worker_of(desk)
    lease, row = worker.store.claim(worker.name, worker.model)
    worker.work(lease, row)
    clips = [(desk.storage.job(job) / CLIP).read_bytes() for job in (whole, parts)]
    assert clips[0] == clips[1] and json.loads(row.request)["steps"] == 40
    assert not (desk.storage.job(parts) / f"{CLIP}.segments").exists()


def test_an_extension_pauses_and_is_the_same(desk, client_of, worker_of, picture):
    """With a draft that was asked for, and with one behind its next step; a draft shows what is new."""
    client, worker = client_of(desk), worker_of(desk)
    first = submit(desk, picture)
    work_once(worker)
    place, fields = f"/v1/videos/{first}/extensions", WISH | {"num_inference_steps": 40}
    asked = (fields, fields | {"draft": 3}, fields | {"draft_size": "small"})
    whole, planned, paused = (client.post(place, json=each).json()["id"] for each in asked)
    work_once(worker)
    work_once(worker)
    watcher = when(desk, paused, lambda row: row.step >= 3, lambda: desk.store.pause(paused))
    work_once(worker)
    watcher.join()
    for job, shape in ((planned, (5, 64, 64)), (paused, (2, 32, 32))):
        row = desk.store.get(job)
        assert row.state == "paused" and row.drafted >= 3 and (job == paused or row.drafted == 3)
        assert client.get(f"/v1/videos/{job}/content?variant=draft").status_code == 200
        draft = draft_path(desk.storage.job(job) / CLIP, row.drafted)
        assert read_video(draft)[0].shape[:3] == shape
        with desk.store.database.writing() as connection:  # as if the worker had died before it could say so
            connection.execute(update(jobs).where(jobs.c.id == job).values(state="queued", draft=3, drafted=None))
        made = draft.stat().st_mtime_ns
        work_once(worker)
        assert desk.store.get(job).state == "paused" and draft.stat().st_mtime_ns == made
        assert client.post(f"/v1/videos/{job}/resume").json()["status"] == "queued"
        work_once(worker)
        assert desk.store.get(job).state == "completed"
        assert (desk.storage.job(job) / CLIP).read_bytes() == (desk.storage.job(whole) / CLIP).read_bytes()
