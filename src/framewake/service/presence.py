"""Workers' signs of life, and what happens to those that stop."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, delete, false, insert, not_, or_, select, update

from framewake.lasting import process_space
from framewake.service.store import JobStore
from framewake.service.tables import devices, jobs, workers

DEAD_SECONDS = 30  # without a heartbeat
SET_SECONDS = 5  # a clock that gains or loses so much between two looks was set


def worker_name() -> str:
    """Machine, where its process numbers hold, process, and a random word: numbers are used again."""
    return f"{_place()}:{os.getpid()}:{secrets.token_hex(4)}"


def _place() -> str:
    return f"{socket.gethostname()[:40]}-{process_space()}"


def is_gone(worker: str) -> bool:
    """Whether a worker of this machine has no process any more; False for other machines' workers."""
    host, _, rest = worker.rpartition(":")[0].rpartition(":")
    if host != _place() or not rest.isdecimal():
        return False
    try:
        os.kill(int(rest), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


class Presence:
    """The list of workers in the database."""

    def __init__(self, store: JobStore, *, dead_seconds: float = DEAD_SECONDS) -> None:
        self.store = store
        self.dead_seconds = dead_seconds
        self._offset: float | None = None  # of the database's clock against one that nobody sets
        self._calm_until = 0.0

    def beat(self, worker: str, *, model: str, engine: str) -> None:
        """Say that a worker lives."""
        database = self.store.database
        with database.writing(is_promise=False) as connection:
            now = database.now(connection)
            alive = update(workers).where(workers.c.id == worker).values(heartbeat=now)
            if connection.execute(alive).rowcount == 0:
                values = {"id": worker, "model": model, "engine": engine, "started": now, "heartbeat": now}
                connection.execute(insert(workers).values(values))
            connection.execute(delete(workers).where(workers.c.heartbeat < now - 24 * 3600))

    def describe(self, worker: str, facts: Mapping[str, Any]) -> None:
        """Say what a worker's device is like; what vanished workers said is forgotten."""
        with self.store.database.writing() as connection:
            known = select(workers.c.id)
            connection.execute(delete(devices).where(or_(devices.c.worker == worker, devices.c.worker.not_in(known))))
            connection.execute(insert(devices).values(worker=worker, facts=json.dumps(facts)))

    def device(self, model: str) -> dict[str, Any] | None:
        """What a living worker for a model says of its device."""
        return next(iter(self._told([row.id for row in self.alive() if row.model == model])), None)

    def device_count(self, alive: Sequence[Row[Any]]) -> int:
        """How many devices living workers have, as far as they say so: one each at the least."""
        more = [facts.get("devices") for facts in self._told([row.id for row in alive])]
        return len(alive) + sum(count - 1 for count in more if isinstance(count, int) and count > 1)

    def _told(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """What workers say of their devices."""
        with self.store.database.reading() as connection:
            query = select(devices.c.facts).where(devices.c.worker.in_(names)).order_by(devices.c.worker)
            told = connection.execute(query).scalars().all()
        found = []
        for facts in told:
            with contextlib.suppress(ValueError, TypeError):  # one damaged row
                found.append(json.loads(facts))
        return [facts for facts in found if isinstance(facts, dict)]

    def leave(self, worker: str) -> None:
        """A worker goes in peace."""
        with self.store.database.writing() as connection:
            connection.execute(delete(workers).where(workers.c.id == worker))

    def alive(self) -> Sequence[Row[Any]]:
        """Workers that were heard lately."""
        database = self.store.database
        with database.reading() as connection:
            now = database.now(connection)
            lately = workers.c.heartbeat.between(now - self.dead_seconds, now + self.dead_seconds)
            rows = connection.execute(select(workers).where(lately)).all()
        return [row for row in rows if not is_gone(row.id)]

    def bury(self) -> int:
        """Give the jobs of dead workers back to the queue. Returns how many."""
        database = self.store.database
        with database.reading() as connection:
            now = database.now(connection)
            silent = or_(
                jobs.c.heartbeat.is_(None),
                not_(jobs.c.heartbeat.between(now - self.dead_seconds, now + self.dead_seconds)),
            )
            silent = false() if self._was_set(now) else silent
            running = select(jobs.c.worker).where(jobs.c.state == "in_progress")
            named = connection.execute(running).scalars().all()
            overdue = connection.execute(running.where(silent)).first()
        gone = [worker for worker in named if worker is not None and is_gone(worker)]
        if not gone and overdue is None:
            return 0
        return self.store.take_over(or_(silent, jobs.c.worker.in_(gone)))

    def _was_set(self, now: float) -> bool:
        """Whether the clock was set a moment ago: silence says nothing until everybody can have been heard again."""
        steady = time.monotonic()
        offset = now - steady
        if self._offset is not None and abs(offset - self._offset) > SET_SECONDS:
            self._calm_until = steady + self.dead_seconds
        self._offset = offset
        return steady < self._calm_until
