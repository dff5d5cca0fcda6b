"""The server's forecast, made from what a worker tells, is the worker's own."""

from __future__ import annotations

import json

import pytest
from toy_checkpoint import write_picture, write_toy

from framewake.pipeline import Pipeline
from framewake.pipeline.forecast import Links
from framewake.pipeline.jobs import Job, plan_job
from framewake.request import Request
from framewake.service.database import Database, default_url
from framewake.service.devices import Forecaster, device_facts
from framewake.service.presence import Presence
from framewake.service.store import JobStore


def test_a_forecast_without_a_framework_is_the_same(tmp_path, engine):
    pipeline = Pipeline.load(write_toy(tmp_path / "toy"), engine=engine)
    picture = write_picture(tmp_path / "picture.png")
    job = Job(Request("the red circle moves left", image=str(picture), resolution="360p", frames=5, steps=3))
    facts = json.loads(json.dumps(device_facts(pipeline)))  # as it goes through the database
    plan = plan_job(job, pipeline.checkpoint)
    ours, theirs = Forecaster(pipeline.checkpoint).forecast(plan, facts), pipeline.forecast(job)
    assert ours.placements.keys() == theirs.placements.keys()
    # Memory that the process uses besides grows while it works.
    assert ours.device_peak == pytest.approx(theirs.device_peak, rel=0.1)
    assert ours.host_peak == pytest.approx(theirs.host_peak, rel=0.1)
    assert ours.seconds > 0 and ours.step_seconds > 0 and ours.links is None
    before = Forecaster(pipeline.checkpoint).forecast(plan, facts | {"devices": 2})
    linked = Forecaster(pipeline.checkpoint).forecast(plan, facts | {"devices": 2, "links": [1e3, 5.0]})
    assert linked.links == Links(1e3, 5.0) and linked.step_seconds > before.step_seconds + 1


def test_what_dead_workers_said_is_forgotten(tmp_path):
    presence = Presence(JobStore(Database(default_url(tmp_path))))
    assert presence.device("toy") is None
    presence.beat("elsewhere:1:a", model="toy", engine="x")
    presence.describe("elsewhere:1:a", {"name": "one"})
    assert presence.device("toy") == {"name": "one"} and presence.device("other") is None
    presence.leave("elsewhere:1:a")
    assert presence.device("toy") is None
    presence.beat("elsewhere:1:b", model="toy", engine="x")
    presence.describe("elsewhere:1:b", {"name": "two"})
    presence.describe("elsewhere:1:b", {"name": "three"})
    assert presence.device("toy") == {"name": "three"}
    presence.store.database.close()
