"""The job store: every state change, also when many ask at once, on both databases."""

from __future__ import annotations

import os
import subprocess
import threading

import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import SQLAlchemyError
from toy_jobs import new_job

from framewake.errors import FramewakeError, InputError
from framewake.service.database import Database
from framewake.service.presence import Presence, is_gone, worker_name
from framewake.service.refusals import Conflict, NotFound, TooMany
from framewake.service.store import MOST_DEATHS, JobStore, LeaseLost
from framewake.service.tables import deliveries, jobs


def submit(store, count=1, **values):
    return [store.submit(new_job(**values), most_queued=1000).id for _ in range(count)]


def test_the_first_is_served_first(store):
    ids = submit(store, 3)
    assert [store.position(store.get(job)) for job in ids] == [1, 2, 3]
    claims = [store.claim("w", "toy")[0].job for _ in range(3)]
    assert claims == ids
    assert store.claim("w", "toy") is None
    assert {store.get(job).state for job in ids} == {"in_progress"}
    assert store.counts() == {"in_progress": 3}


def test_only_jobs_of_the_own_model_are_claimed(store):
    submit(store, model="another")
    assert store.claim("w", "toy") is None


def test_each_job_is_claimed_once(store, database_url):
    """Eight programs, each with connections of its own, share forty jobs."""
    ids = submit(store, 40)
    claims, failures = [], []

    def claim_all():
        own = JobStore(Database(database_url))
        try:
            while (taken := own.claim(threading.current_thread().name, "toy")) is not None:
                claims.append(taken[0].job)
                own.end(taken[0], "completed")
        except (FramewakeError, SQLAlchemyError) as error:
            failures.append(error)
        finally:
            own.database.close()

    threads = [threading.Thread(target=claim_all) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert not failures
    assert sorted(claims) == sorted(ids)
    assert store.counts() == {"completed": 40}


def test_a_lost_lease_cannot_write(store):
    (job,) = submit(store)
    old, _ = store.claim("first", "toy")
    store.take_over(jobs.c.id == job)
    new, _ = store.claim("second", "toy")
    for write in (
        lambda: store.report(old, {"step": 1}),
        lambda: store.end(old, "completed"),
        lambda: store.release(old),
    ):
        with pytest.raises(LeaseLost):
            write()
    store.report(new, {"step": 2})
    assert store.get(job).step == 2
    store.end(new, "completed")
    with pytest.raises(LeaseLost):
        store.end(new, "failed")
    assert store.get(job).state == "completed"


def test_cancelling(store):
    waiting, running = submit(store, 2)[::-1]
    lease, _ = store.claim("w", "toy")
    assert lease.job == running
    for job in (waiting, running):
        assert store.cancel(job).state == "cancelled"
        with pytest.raises(Conflict, match="cancelled already"):
            store.cancel(job)
    with pytest.raises(LeaseLost):
        store.report(lease, {"step": 1})
    assert store.claim("w", "toy") is None


def test_a_released_job_keeps_its_place(store):
    first, second = submit(store, 2)
    lease, _ = store.claim("w", "toy")
    store.release(lease)
    assert store.position(store.get(first)) == 1 and store.position(store.get(second)) == 2
    assert store.claim("w", "toy")[0].job == first


def test_a_paused_job_lets_others_pass(store):
    _, second = submit(store, 2)
    lease, _ = store.claim("w", "toy")
    store.release(lease, seconds=60)
    assert store.claim("w", "toy")[0].job == second
    assert store.claim("w", "toy") is None


def test_retrying_goes_to_the_end(store):
    first, second = submit(store, 2)
    lease, _ = store.claim("w", "toy")
    store.end(lease, "failed", code="numerics_error", error="NaN")
    row = store.retry(first)
    assert row.state == "queued" and row.error is None and row.ended is None
    assert store.position(row) == 2
    with pytest.raises(Conflict, match="queued"):
        store.retry(second)


def test_removing(store):
    (job,) = submit(store)
    with pytest.raises(Conflict, match="cancel it first"):
        store.remove(job)
    store.cancel(job)
    store.remove(job)
    with pytest.raises(NotFound):
        store.get(job)


def test_owners_do_not_meet(store):
    (mine,), (theirs,) = submit(store, owner="me"), submit(store, owner="them")
    assert [row.id for row in store.page("me", after=None, limit=10, order="desc")] == [mine]
    for ask in (store.get, store.cancel, store.remove):
        with pytest.raises(NotFound):
            ask(theirs, "me")
    assert store.get(theirs).state == "queued"


def test_pages(store):
    ids = submit(store, 5)
    assert [row.id for row in store.page(None, after=None, limit=2, order="desc")] == ids[:2:-1]
    assert [row.id for row in store.page(None, after=ids[3], limit=2, order="desc")] == [ids[2], ids[1]]
    assert [row.id for row in store.page(None, after=ids[3], limit=2, order="asc")] == [ids[4]]


def test_a_full_queue(store):
    for _ in range(2):
        store.submit(new_job(), most_queued=2)
    with pytest.raises(TooMany, match="2 videos are waiting"):
        store.submit(new_job(), most_queued=2)
    store.submit(new_job(owner="another"), most_queued=2)


def test_dead_workers_jobs_are_taken_over(store):
    first, second = submit(store, 2)
    presence = Presence(store)
    ended = subprocess.Popen(["true"])
    ended.wait()
    dead = worker_name().replace(f":{os.getpid()}:", f":{ended.pid}:")
    assert is_gone(dead) and not is_gone(worker_name()) and not is_gone(f"elsewhere:{ended.pid}:ab")
    store.claim(dead, "toy")
    store.claim("elsewhere:1:ab", "toy")
    assert presence.bury() == 1
    assert store.get(first).state == "queued" and store.get(second).state == "in_progress"
    with store.database.writing() as connection:
        connection.execute(update(jobs).where(jobs.c.id == second).values(heartbeat=jobs.c.heartbeat - 31))
    assert presence.bury() == 1
    assert store.get(second).state == "queued"


def test_a_job_that_kills_every_worker_fails(store):
    (job,) = submit(store, callback="http://example.com/")
    for _ in range(MOST_DEATHS):
        assert store.claim("w", "toy") is not None
        assert store.take_over(jobs.c.state == "in_progress") == 1
        with store.database.writing() as connection:  # its pause is over
            connection.execute(update(jobs).values(due=0))
    row = store.get(job)
    assert row.state == "failed" and row.error_code == "worker_died"


def test_after_a_second_death_the_jobs_behind_go_first(store):
    """The first may have been anybody's kill -9, and the job keeps its turn."""
    killing, behind = submit(store), submit(store)
    for _ in range(2):
        assert store.claim("w", "toy")[0].job == killing[0]
        store.take_over(jobs.c.state == "in_progress")
    assert store.claim("w", "toy")[0].job == behind[0]
    assert store.claim("w", "toy") is None


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled"])
def test_an_end_is_told_once(store, end):
    (job,) = submit(store, callback="http://example.com/hook")
    lease, _ = store.claim("w", "toy")
    if end == "cancelled":
        store.cancel(job)
    else:
        store.end(lease, end)
    with store.database.reading() as connection:
        (delivery,) = connection.execute(select(deliveries)).all()
    assert f'"type": "video.{end}"' in delivery.body and job in delivery.body


def test_presence(store):
    presence = Presence(store)
    name = worker_name()
    for _ in range(2):
        presence.beat(name, model="toy", engine="torch:cpu")
    assert [(row.id, row.engine) for row in presence.alive()] == [(name, "torch:cpu")]
    presence.leave(name)
    assert presence.alive() == []


@pytest.mark.parametrize("url", ["nonsense", "sqlite:////nowhere/at/all/x.db", "postgresql://u:secret@127.0.0.1:1/x"])
def test_a_database_that_cannot_be_had(url):
    with pytest.raises(InputError) as raised:
        Database(url)
    assert "secret" not in str(raised.value)
