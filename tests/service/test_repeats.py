"""A request that is sent again, because its answer was lost on the way, makes one video and not two."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import create_engine, inspect
from test_api import FIELDS, data_url
from test_safety import KEY, OTHER, bearer
from toy_jobs import new_job

from framewake.service.api import Access, create_app
from framewake.service.database import Database, default_url
from framewake.service.refusals import KeyUsed
from framewake.service.repeats import Once
from framewake.service.site import Site
from framewake.service.store import JobStore

AGAIN = {"Idempotency-Key": "8e03978e-40d5-43e8-bc93-6894a57f9324"}


def as_form(client, picture, headers=AGAIN, **fields):
    files = {"input_reference": ("x.png", picture)}
    return client.post("/v1/videos", data=FIELDS | fields, files=files, headers=headers)


def as_json(client, picture, headers=AGAIN, **fields):
    body = FIELDS | fields | {"input_reference": data_url(picture)}
    return client.post("/v1/videos", json=body, headers=headers)


@pytest.mark.parametrize("send", [as_form, as_json])
def test_sent_again_it_is_the_same_video(client, desk, picture, send):
    first = send(client, picture)
    again = send(client, picture)
    assert first.status_code == again.status_code == 200
    assert again.json()["id"] == first.json()["id"]
    assert "idempotent-replayed" not in first.headers and again.headers["idempotent-replayed"] == "true"
    assert [path.name for path in (desk.storage.folder / "jobs").iterdir()] == [first.json()["id"]]
    assert send(client, picture, headers={"Idempotency-Key": "another"}).json()["id"] != first.json()["id"]
    assert send(client, picture, headers={}).json()["id"] != send(client, picture, headers={}).json()["id"]


def test_the_key_for_another_video_is_refused(client, picture):
    first = as_json(client, picture)
    for other in (as_json(client, picture, prompt="another"), as_json(client, picture, seed=4)):
        assert other.status_code == 422 and other.json()["error"]["code"] == "idempotency_key_used"
    with_less = as_json(client, picture[:-1])
    assert with_less.status_code == 422 and as_json(client, picture).json()["id"] == first.json()["id"]


def test_what_was_refused_may_be_put_right(client, picture):
    assert as_json(client, picture, num_frames=6).status_code == 422
    assert as_json(client, picture, num_frames=5).status_code == 200


@pytest.mark.parametrize("key", ["", " ", "a" * 256, "é", "a\tb"])
def test_keys_that_are_none(client, picture, key):
    answer = as_json(client, picture, headers={"Idempotency-Key": key.encode("latin-1")})
    assert answer.status_code == 400 and "Idempotency-Key" in answer.json()["error"]["message"]


def test_each_api_key_has_its_own(desk, client_of, picture):
    client = client_of(desk, Access(keys=[KEY, OTHER], site=Site(is_open=True)))
    mine, others = (as_json(client, picture, headers=AGAIN | bearer(key)).json()["id"] for key in (KEY, OTHER))
    assert mine != others


def test_after_a_restart_and_after_a_removal(desk_of, picture):
    ids = []
    for is_last in (False, True):
        desk = desk_of()
        with TestClient(create_app(desk, Access()), base_url="http://localhost") as client:
            ids.append(as_json(client, picture).json()["id"])
            if is_last:
                for _ in range(2):  # cancelled, then removed
                    client.delete(f"/v1/videos/{ids[0]}")
                ids.append(as_json(client, picture).json()["id"])
    assert ids[0] == ids[1] != ids[2]


def test_sent_many_times_at_once(store):
    """On both databases; every one but the first finds what the first has made."""

    def submit(number):
        return store.submit(new_job(), most_queued=99, once=Once("k" * 64, "a" * 64)).id

    with ThreadPoolExecutor(8) as threads:
        ids = set(threads.map(submit, range(24)))
    assert len(ids) == 1 and store.counts() == {"queued": 1}
    with pytest.raises(KeyUsed):
        store.submit(new_job(), most_queued=99, once=Once("k" * 64, "b" * 64))
    full = [store.submit(new_job(), most_queued=1, once=Once("k" * 64, "a" * 64)).id]
    assert set(full) == ids, "a repeated request wants no place in the queue"


def test_sent_many_times_at_once_over_http(desk_of, client_of, picture):
    desk = desk_of()
    client = client_of(desk)
    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(lambda _: as_form(client, picture), range(12)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(list((desk.storage.folder / "jobs").iterdir())) == 1
    assert len(client.get("/v1/videos").json()["data"]) == 1


def test_older_databases_learn_it(tmp_path):
    """A database of the first version, with a delivery in it: the columns come, the delivery stays."""
    url = default_url(tmp_path)
    database = Database(url)
    job = JobStore(database).submit(new_job(callback="http://127.0.0.1:1/"), most_queued=9).id
    JobStore(database).cancel(job)
    database.close()
    old = create_engine(url)
    with old.begin() as connection:
        for statement in (
            "ALTER TABLE deliveries DROP COLUMN job",
            "ALTER TABLE deliveries DROP COLUMN receiver",
            "ALTER TABLE jobs DROP COLUMN picture",
            "DROP TABLE repeats",
            "DROP TABLE framewake",
        ):
            connection.exec_driver_sql(statement)
    old.dispose()
    database = Database(url)
    looked = inspect(database.engine)
    assert {"job", "receiver"} <= {column["name"] for column in looked.get_columns("deliveries")}
    assert "picture" in {column["name"] for column in looked.get_columns("jobs")}
    assert "repeats" in looked.get_table_names()
    with database.reading() as connection:
        body = connection.exec_driver_sql("SELECT body FROM deliveries").scalar_one()
    assert json.loads(body)["data"] == {"id": job}
    database.close()
