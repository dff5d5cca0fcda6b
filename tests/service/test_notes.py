"""What the command line says reaches the API too, and the time that is left is never nothing while work goes on."""

from __future__ import annotations

import dataclasses

import pytest
from test_api import post
from test_worker import work_once

from framewake.demo import CHECKPOINT
from framewake.pipeline.events import STAGES, Note, StageFinished, StageStarted, Step, Tile, Written
from framewake.pipeline.forecast.probe import Rates, busy_note, rates_from_plain, rates_to_plain
from framewake.request import Request
from framewake.service.backup import back_up, restore
from framewake.service.binding import DataPlace, bind
from framewake.service.database import Database, default_url
from framewake.service.devices import device_facts
from framewake.service.progress import LEAST, SHARES, Remaining
from framewake.service.storage import Storage
from framewake.service.store import JobStore, NewJob, new_id
from framewake.weights.checkpoint.settings import read_settings

LONG = "the red circle moves left " * 200


def notes_of_the_pipeline(pipeline, picture, tmp_path, prompt):
    """What the command line shows for the same request."""
    path = tmp_path / "picture"
    path.write_bytes(picture)
    request = Request(prompt, image=str(path), resolution="360p", frames=5, steps=1)
    return [event.text for event in pipeline.run(request) if isinstance(event, Note)]


def test_notes_are_in_every_answer(client, desk, worker_of, pipeline, picture, tmp_path):
    said = notes_of_the_pipeline(pipeline, picture, tmp_path, LONG)
    assert any("tokens" in text for text in said)
    made = post(client, picture, prompt=LONG, num_frames=5, num_inference_steps=1).json()
    assert made["notes"] == said, "before it is made"
    work_once(worker_of(desk))
    body = client.get(f"/v1/videos/{made['id']}").json()
    assert (body["status"], body["notes"]) == ("completed", said), "a note that comes again is kept once"
    assert client.get("/v1/videos").json()["data"][0]["notes"] == said
    client.delete(f"/v1/videos/{made['id']}")
    assert post(client, picture).json()["notes"] == []


def test_the_demonstration_says_what_it_does_not_know(desk, client, picture, monkeypatch):
    monkeypatch.setattr(desk.checkpoint, "settings", read_settings(CHECKPOINT))
    (note,) = post(client, picture, prompt="She turns her head").json()["notes"]
    assert "look like what the demonstration checkpoint knows" in note


def test_a_note_of_the_run_itself_is_kept(store):
    new = NewJob(new_id("video"), "local", "toy", {"steps": 2}, 64, 64, notes=("one",))
    row = store.submit(new, most_queued=9)
    lease, _ = store.claim("w", "toy")
    for text in ("two", "one", "two"):
        store.note(lease, text)
    assert store.get(row.id).notes == '["one", "two"]'
    store.end(lease, "completed")
    store.remove(row.id)
    store.submit(dataclasses.replace(new, notes=()), most_queued=9)
    assert [each.notes for each in store.page(None, after=None, limit=9, order="asc")] == [None]


def test_a_backup_has_the_notes(tmp_path):
    place = DataPlace(Storage(tmp_path / "data"), Database(default_url(tmp_path / "data")))
    bind(*place)
    new = NewJob(new_id("video"), "local", "toy", {"steps": 2}, 64, 64, notes=("one",))
    JobStore(place.database).submit(new, most_queued=9)
    back_up(place, tmp_path / "backup")
    place.database.close()
    restore(tmp_path / "backup", tmp_path / "other")
    database = Database(default_url(tmp_path / "other"))
    assert JobStore(database).get(new.id).notes == '["one"]'
    database.close()


@pytest.fixture
def facts(pipeline):
    return device_facts(pipeline)


def test_a_waiting_video_says_how_long_it_takes_and_that_the_machine_is_busy(desk, client, picture, facts):
    facts["rates"] |= {"busy": 0.0, "busy_now": 0.59}
    desk.presence.beat("elsewhere:1:a", model="toy", engine="torch:cpu")
    desk.presence.describe("elsewhere:1:a", facts)
    body = post(client, picture, num_frames=9).json()
    assert body["seconds_left"] > 0
    assert body["notes"] == ["other programs take 59% of the processors now: it may take several times as long."]
    facts["rates"]["busy_now"] = 0.0
    desk.presence.describe("elsewhere:1:a", facts)
    assert post(client, picture, num_frames=9).json()["notes"] == []


def test_a_busy_machine_is_told_in_a_plan():
    rates = Rates(1e9, 1e9, 1e9)
    assert busy_note(rates) is None
    assert "59%" in busy_note(rates._replace(busy_now=0.59)) and "took 30%" in busy_note(rates._replace(busy=0.3))
    assert rates_from_plain(rates_to_plain(rates._replace(busy_now=0.59))).busy_now == 0.59


def test_a_worker_leaves_no_moment_without_time_left(desk, client, worker_of, picture, pipeline, facts, monkeypatch):
    job = post(client, picture, num_frames=9, num_inference_steps=4).json()["id"]
    worker = worker_of(desk)
    worker._facts = facts
    told = []
    report = desk.store.report
    monkeypatch.setattr(desk.store, "report", lambda lease, values: told.append(values) or report(lease, values))
    work_once(worker)
    lefts = [values["seconds_left"] for values in told if "seconds_left" in values]
    assert len(lefts) >= 10 and all(left is not None and left >= LEAST for left in lefts)
    assert client.get(f"/v1/videos/{job}").json()["seconds_left"] is None


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


FORECAST = {"encode text": 1.0, "encode image": 1.0, "denoise": 40.0, "decode": 15.0, "write": 3.0}


def test_time_left_follows_a_slow_machine():
    clock = Clock()
    left = Remaining(FORECAST, clock)
    assert left.seconds() is None
    left.follow(StageStarted("read image"))
    assert left.seconds() == 60.0
    left.follow(StageStarted("denoise"))
    clock.now += 30
    left.follow(Step(1, 10, 30.0, 270.0, None))  # 300 s instead of 40
    assert left.seconds() == pytest.approx(270 + 7.5 * 18)
    clock.now += 20
    assert left.seconds() == pytest.approx(250 + 7.5 * 18), "it goes on between two steps"
    clock.now += 9000
    assert left.seconds() == pytest.approx(27 + 7.5 * 18), "and never to nothing"
    left.follow(StageFinished("denoise", 300.0))
    left.follow(StageStarted("decode"))
    assert left.seconds() == pytest.approx(7.5 * 18)
    left.follow(Tile(1, 2, 20.0))
    left.follow(StageFinished("decode", 40.0))
    left.follow(StageStarted("write"))
    left.follow(Written(1.0, 0.0))
    assert left.seconds() == LEAST


def test_time_left_without_a_forecast_begins_with_the_first_step():
    clock = Clock()
    left = Remaining(None, clock)
    left.follow(StageStarted("encode text"))
    clock.now += 5
    left.follow(StageFinished("encode text", 5.0))
    assert left.seconds() is None
    left.follow(StageStarted("denoise"))
    clock.now += 1
    left.follow(Step(1, 10, 1.0, 9.0, None))
    assert 9 < left.seconds() < 12


def test_every_stage_has_a_share():
    assert tuple(SHARES) == STAGES and sum(SHARES.values()) == pytest.approx(1)
