"""Clocks that are set, in both directions: the queue keeps its order, nothing waits for ever, the living stay alive."""

from __future__ import annotations

import time

import pytest
from sqlalchemy import update
from test_worker import submit, work_once
from toy_jobs import new_job

from framewake.service.database import Database
from framewake.service.fetch import Guarded
from framewake.service.presence import Presence
from framewake.service.store import LONGEST_PAUSE, JobStore
from framewake.service.tables import jobs
from framewake.service.webhooks import Sender

STEPS = [-3600.0, 3600.0, -400 * 86400.0, 400 * 86400.0]


class Clock(Database):
    """A database whose clock can be set."""

    shift = 0.0

    def now(self, connection):
        return super().now(connection) + self.shift


@pytest.fixture
def clock(database_url):
    database = Clock(database_url)
    yield database
    database.close()


def hand_in(store, count=1):
    return [store.submit(new_job(), most_queued=1000).id for _ in range(count)]


@pytest.mark.parametrize("step", STEPS)
def test_what_waits_is_served_in_order(clock, step):
    store = JobStore(clock)
    before = hand_in(store, 2)
    clock.shift = step
    after = hand_in(store, 2)
    assert [store.position(store.get(job)) for job in before + after] == [1, 2, 3, 4]
    assert [store.claim("w", "toy")[0].job for _ in range(4)] == before + after


@pytest.mark.parametrize("step", STEPS)
def test_what_is_tried_again_goes_to_the_end(clock, step):
    store = JobStore(clock)
    first, second = hand_in(store, 2)
    store.cancel(first)
    clock.shift = step
    store.retry(first)
    third = hand_in(store)[0]
    assert [store.claim("w", "toy")[0].job for _ in range(3)] == [second, first, third]


@pytest.mark.parametrize("step", STEPS)
def test_what_was_given_back_keeps_its_place(clock, step):
    store = JobStore(clock)
    first, second = hand_in(store, 2)
    lease, _ = store.claim("w", "toy")
    clock.shift = step
    store.release(lease)
    assert [store.claim("w", "toy")[0].job for _ in range(2)] == [first, second]


@pytest.mark.parametrize("step", STEPS)
def test_a_pause_ends_whatever_happens_to_the_clock(clock, step):
    store = JobStore(clock)
    (job,) = hand_in(store)
    lease, _ = store.claim("w", "toy")
    store.release(lease, seconds=30)
    assert store.claim("w", "toy") is None
    clock.shift = step
    assert store.claim("w", "toy")[0].job == job


def test_no_pause_is_longer_than_the_longest(clock):
    store = JobStore(clock)
    hand_in(store)
    lease, _ = store.claim("w", "toy")
    store.release(lease, seconds=10**9)
    assert store.claim("w", "toy") is None
    clock.shift = LONGEST_PAUSE + 1
    assert store.claim("w", "toy") is not None


@pytest.mark.parametrize("step", STEPS)
def test_a_living_worker_keeps_its_job(clock, step):
    """It is heard again within two seconds; until then its silence says nothing."""
    store = JobStore(clock)
    (job,) = hand_in(store)
    other = Presence(store)
    lease, _ = store.claim("elsewhere:1:ab", "toy")
    assert other.bury() == 0
    clock.shift = step
    assert other.bury() == 0
    store.report(lease, {"step": 1})
    assert other.bury() == 0 and store.get(job).step == 1


@pytest.mark.parametrize("step", STEPS)
def test_a_dead_workers_job_is_taken_over_after_the_step(clock, step):
    store = JobStore(clock)
    (job,) = hand_in(store)
    other = Presence(store, dead_seconds=0.5)
    store.claim("elsewhere:1:ab", "toy")
    other.bury()
    clock.shift = step
    end = time.monotonic() + 30
    while store.get(job).state != "queued":
        assert time.monotonic() < end, "a job waits for a worker that is dead"
        other.bury()
        time.sleep(0.05)
    assert store.claim("w", "toy")[0].job == job


@pytest.mark.parametrize("step", STEPS)
def test_workers_are_seen_again(clock, step):
    presence = Presence(JobStore(clock))
    presence.beat("elsewhere:1:ab", model="toy", engine="torch:cpu")
    clock.shift = step
    presence.beat("elsewhere:1:ab", model="toy", engine="torch:cpu")
    assert [row.id for row in presence.alive()] == ["elsewhere:1:ab"]


def test_a_queue_of_an_older_version_goes_on(store):
    """There, places and due times were seconds since 1970."""
    old = hand_in(store, 2)
    with store.database.writing() as connection:
        for index, job in enumerate(old):
            values = {"queued": time.time() + index, "due": time.time() + 3600 * index}
            connection.execute(update(jobs).where(jobs.c.id == job).values(values))
    new = hand_in(store, 2)
    assert [store.position(store.get(job)) for job in old + new] == [1, 2, 3, 4]
    assert [store.claim("w", "toy")[0].job for _ in range(4)] == old + new


@pytest.mark.parametrize("step", STEPS)
def test_a_worker_makes_what_was_handed_in_before(desk, worker_of, picture, step):
    desk.store.database = Clock(str(desk.store.database.engine.url))
    first, second = (submit(desk, picture) for _ in range(2))
    desk.store.database.shift = step
    worker = worker_of(desk)
    for _ in range(2):
        work_once(worker)
    assert {desk.store.get(job).state for job in (first, second)} == {"completed"}
    desk.store.database.close()


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("attempts", [0, 2])
def test_a_message_is_sent_whatever_happens_to_the_clock(clock, step, attempts):
    """What was to be sent at once, and what waits to be tried again."""
    store = JobStore(clock)
    store.submit(new_job(callback="http://127.0.0.1:9/"), most_queued=10)
    lease, _ = store.claim("w", "toy")
    store.end(lease, "completed")
    sender = Sender(clock, "whsec_" + "x" * 44, Guarded(allows=lambda _: True), delays=(90.0,) * 4)
    for _ in range(attempts):
        delivery = sender._take()
        sender._settle(delivery, False)
        clock.shift += 91
    assert sender._take() is not None
    assert sender._take() is None, "somebody is at it"
    clock.shift += step
    assert sender._take() is not None
