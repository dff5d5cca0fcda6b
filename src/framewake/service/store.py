"""The job store: every change of a job's state is one transaction here and nowhere else."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, Row, and_, delete, func, insert, not_, or_, select, update
from sqlalchemy.exc import IntegrityError

from framewake.errors import Cancelled
from framewake.service.database import COMPARING, Database
from framewake.service.pausing import NOW, going_on, held, pausing
from framewake.service.records import (
    WHOLE,
    Beside,
    NewJob,
    enter,
    enter_missing,
    first_values,
    last_place,
    new_id,
    position_of,
    receiver_of,
    row_of,
)
from framewake.service.refusals import Conflict, TooMany
from framewake.service.repeats import Once, earlier, forget, remember
from framewake.service.tables import FINAL, WAITING, deliveries, jobs, notes

LONGEST_PAUSE = 120.0  # seconds; no job is told to wait longer
MOST_DEATHS = 6  # workers that may die over one job without its coming any further
DEATH_PAUSE = 10.0  # seconds after the second death, and twice as long after each: the jobs behind go first
DIED = "the worker died again and again over this video; its log says more."


class Lease(NamedTuple):
    """The right to work on a job, until somebody else has it."""

    job: str
    worker: str
    number: int


class LeaseLost(Cancelled):
    """The job was cancelled, removed, or taken over."""


class JobStore:
    """Jobs in a database. Every method is safe to call from any process."""

    def __init__(self, database: Database) -> None:
        self.database = database

    # --- people

    def submit(
        self,
        new: NewJob,
        *,
        most_queued: int,
        once: Once | None = None,
        before_end: Callable[[], None] | None = None,
    ) -> Row[Any]:
        """Put a job at the end of the queue, or find the one that the same request made before.

        ``before_end`` is called when all else is done, and may still refuse.
        Raises: TooMany when its owner has too many waiting, KeyUsed.
        """
        try:
            return self._submit(new, most_queued, once=once, before_end=before_end)
        except IntegrityError:  # the same request, handed in at the same moment, was first
            found = None if once is None else self.repeated(new.owner, once)
            if found is None:
                raise
            return found

    def _submit(
        self, new: NewJob, most_queued: int, *, once: Once | None, before_end: Callable[[], None] | None
    ) -> Row[Any]:
        with self.database.writing(lock=COMPARING, is_shared=True) as connection:
            if once is not None:
                found = earlier(connection, new.owner, once)
                if found is not None:
                    return row_of(connection, found, None)
                remember(connection, new.owner, once, job=new.id)
            waiting = and_(jobs.c.owner == new.owner, jobs.c.state.in_(WAITING))
            count = connection.execute(select(func.count()).where(waiting)).scalar_one()
            if count >= most_queued:
                raise TooMany(f"{count} videos are waiting already, {most_queued} may: try later.", retry_after=60)
            values = first_values(connection, new, self.database.now(connection))
            enter(connection, values)
            row = row_of(connection, new.id, None)
            if before_end is not None:
                before_end()
            return row

    def repeated(self, owner: str, once: Once) -> Row[Any] | None:
        """The job that the same request made before.

        Raises: KeyUsed when its key was for another one.
        """
        with self.database.reading() as connection:
            found = earlier(connection, owner, once)
            return None if found is None else row_of(connection, found, None)

    def adopt(self, new: NewJob, *, ended: float | None, before_end: Callable[[], None]) -> Row[Any]:
        """Enter a job whose files are there already: completed at a time, or, with None, waiting to go on."""
        with self.database.writing(lock=COMPARING, is_shared=True) as connection:
            values = first_values(connection, new, ended or self.database.now(connection))
            if ended is not None:
                values |= {"state": "completed", "step": values["steps"], "started": ended, "ended": ended}
            enter(connection, values)
            before_end()
            return row_of(connection, new.id, None)

    def restore(self, values: Mapping[str, Any], *, beside: Sequence[Beside], before_end: Callable[[], None]) -> None:
        """Enter a job as another database had it, with what belongs to it."""
        with self.database.writing(lock=COMPARING, is_shared=True) as connection:
            enter(connection, values)
            for each in beside:
                enter_missing(connection, each)
            before_end()

    def get(self, job: str, owner: str | None = None) -> Row[Any]:
        """One job; ``owner`` None sees everybody's.

        Raises: NotFound.
        """
        with self.database.reading() as connection:
            return row_of(connection, job, owner)

    def page(
        self, owner: str | None, *, after: str | None, limit: int, order: Literal["asc", "desc"]
    ) -> Sequence[Row[Any]]:
        """Up to ``limit`` jobs after one of them.

        Raises: NotFound when ``after`` is unknown.
        """
        is_up = order == "asc"
        query = WHOLE.order_by(jobs.c.number if is_up else jobs.c.number.desc()).limit(limit)
        if owner is not None:
            query = query.where(jobs.c.owner == owner)
        with self.database.reading() as connection:
            if after is not None:
                number = row_of(connection, after, owner).number
                query = query.where(jobs.c.number > number if is_up else jobs.c.number < number)
            return connection.execute(query).all()

    def look(self, job: str, owner: str | None = None) -> tuple[Row[Any], int | None]:
        """One job with its place in the queue: what people ask for all the time, over one connection.

        Raises: NotFound.
        """
        with self.database.reading() as connection:
            row = row_of(connection, job, owner)
            return row, position_of(connection, row)

    def positions(self, rows: Sequence[Row[Any]]) -> list[int | None]:
        """Places in the queue, the next one is 1; None for a job that does not wait."""
        with self.database.reading() as connection:
            return [position_of(connection, row) for row in rows]

    def position(self, row: Row[Any]) -> int | None:
        """Place of one job in the queue."""
        return self.positions([row])[0]

    def counts(self) -> dict[str, int]:
        """Jobs by state."""
        with self.database.reading() as connection:
            rows = connection.execute(select(jobs.c.state, func.count()).group_by(jobs.c.state)).all()
        return {row[0]: row[1] for row in rows}

    def ended(self, *, but: int) -> Sequence[str]:
        """Ids of the jobs that have ended, without the newest ``but`` of them."""
        query = select(jobs.c.id).where(jobs.c.state.in_(FINAL)).order_by(jobs.c.number.desc())
        with self.database.reading() as connection:
            return connection.execute(query.offset(but)).scalars().all()

    def cancel(self, job: str, owner: str | None = None) -> Row[Any]:
        """A waiting or running job is cancelled from now on; its worker stops within a step.

        Raises: NotFound, Conflict when it has ended.
        """
        with self.database.writing() as connection:
            row = row_of(connection, job, owner, is_locked=True)
            if row.state in FINAL:
                raise Conflict(f"the video is {row.state} already.")
            self._end(connection, row, "cancelled", {"drafted": None})
            return row_of(connection, job, owner)

    def pause(self, job: str, owner: str | None = None) -> Row[Any]:
        """A job pauses: at once, or with a draft behind its next step.

        Raises: NotFound, Conflict.
        """
        return self._change(job, owner, pausing)

    def go_on(self, job: str, owner: str | None = None) -> Row[Any]:
        """A paused job goes on.

        Raises: NotFound, Conflict.
        """
        return self._change(job, owner, going_on)

    def _change(self, job: str, owner: str | None, change: Callable[[Row[Any]], dict[str, Any]]) -> Row[Any]:
        with self.database.writing() as connection:
            values = change(row_of(connection, job, owner, is_locked=True))
            connection.execute(update(jobs).where(jobs.c.id == job).values(values))
            return row_of(connection, job, owner)

    def retry(self, job: str) -> Row[Any]:
        """A failed or cancelled job goes to the end of the queue; saved latents are used.

        Raises: NotFound, Conflict for any other state.
        """
        with self.database.writing() as connection:
            row = row_of(connection, job, None, is_locked=True)
            if row.state not in ("failed", "cancelled"):
                raise Conflict(f"the video is {row.state}: only a failed or cancelled one can be tried again.")
            cleared = {name: None for name in ("error", "error_code", "worker", "ended", "stage", "seconds_left")}
            values = {"state": "queued", "queued": last_place(connection), "due": 0, "deaths": 0, **cleared}
            connection.execute(update(jobs).where(jobs.c.id == job).values(values))
            return row_of(connection, job, None)

    def remove(self, job: str, owner: str | None = None, *, before_end: Callable[[], None] | None = None) -> None:
        """Forget an ended job; ``before_end`` as in ``submit``.

        Raises: NotFound, Conflict when it has not ended.
        """
        with self.database.writing(lock=COMPARING, is_shared=True) as connection:
            row = row_of(connection, job, owner, is_locked=True)
            if row.state not in FINAL:
                raise Conflict(f"the video is {row.state}: cancel it first.")
            connection.execute(delete(jobs).where(jobs.c.id == job))
            connection.execute(delete(notes).where(notes.c.job == job))
            forget(connection, job)
            if before_end is not None:
                before_end()

    @contextlib.contextmanager
    def comparing(self, ids: Sequence[str]) -> Iterator[set[str]]:
        """Which of these jobs exist; while this is open, none comes and none goes."""
        with self.database.writing(lock=COMPARING) as connection:
            found: set[str] = set()
            for begin in range(0, len(ids), 500):
                some = ids[begin : begin + 500]
                found |= set(connection.execute(select(jobs.c.id).where(jobs.c.id.in_(some))).scalars())
            yield found

    # --- workers

    def claim(self, worker: str, model: str) -> tuple[Lease, Row[Any]] | None:
        """The next job for a worker, if there is one; no other worker gets it."""
        with self.database.writing() as connection:
            now = self.database.now(connection)
            # A due time that is further away than any pause was set by a clock that has been put right since.
            waits = and_(jobs.c.due > now, jobs.c.due <= now + LONGEST_PAUSE)
            query = (
                select(jobs.c.number)
                .where(jobs.c.state == "queued", jobs.c.model == model, or_(jobs.c.due.is_(None), not_(waits)))
                .order_by(jobs.c.queued, jobs.c.number)
                .limit(1)
                .with_for_update(skip_locked=True)
            )
            found = connection.execute(query).scalar()
            if found is None:
                return None
            values = {
                "state": "in_progress",
                "worker": worker,
                "lease": func.coalesce(jobs.c.lease, 0)
                + 1,  # by the database, which makes a number of what was damaged too
                "heartbeat": now,
                "started": func.coalesce(jobs.c.started, now),
            }
            connection.execute(update(jobs).where(jobs.c.number == found).values(values))
            row = connection.execute(select(jobs).where(jobs.c.number == found)).one()
            return Lease(row.id, worker, row.lease), row

    def report(self, lease: Lease, values: Mapping[str, Any]) -> bool:
        """Progress of a job, and a sign of life; whether the job is to pause behind its next step.

        Raises: LeaseLost when the worker must stop.
        """
        with self.database.writing(is_promise=False) as connection:
            now = self.database.now(connection)
            _held(connection, lease, {"heartbeat": now, **values})
            return connection.execute(select(jobs.c.draft).where(jobs.c.id == lease.job)).scalar() == NOW

    def hold(self, lease: Lease, step: int) -> None:
        """A job has its draft after a step and waits for a decision, told to its callback in the same transaction.

        Raises: LeaseLost.
        """
        with self.database.writing() as connection:
            _held(connection, lease, {})
            row = row_of(connection, lease.job, None, is_locked=True)
            values = held(row, step)
            connection.execute(update(jobs).where(jobs.c.number == row.number).values(values))
            if values["state"] == "paused":
                self._tell(connection, row, "paused")

    def note(self, lease: Lease, text: str) -> None:
        """A sentence that a person should read; a run that begins anew says it again, and it is kept once.

        Raises: LeaseLost.
        """
        with self.database.writing() as connection:
            _held(connection, lease, {})
            found = connection.execute(select(notes.c.texts).where(notes.c.job == lease.job)).scalar()
            known = [] if found is None else json.loads(found)
            if text in known:
                return
            texts = json.dumps([*known, text])
            if found is None:
                connection.execute(insert(notes).values(job=lease.job, texts=texts))
            else:
                connection.execute(update(notes).where(notes.c.job == lease.job).values(texts=texts))

    def release(self, lease: Lease, *, seconds: float = 0, deaths: int | None = None) -> None:
        """Give a job back unfinished: it keeps its place, and waits ``seconds`` at least, ``LONGEST_PAUSE`` at most.

        ``deaths`` is written down where the attempt counts as one.

        Raises: LeaseLost.
        """
        with self.database.writing() as connection:
            due = self.database.now(connection) + min(seconds, LONGEST_PAUSE) if seconds > 0 else 0
            counted = {} if deaths is None else {"deaths": deaths}
            _held(connection, lease, {"state": "queued", "worker": None, "due": due, "seconds_left": None, **counted})

    def end(
        self, lease: Lease, state: Literal["completed", "failed"], *, code: str | None = None, error: str | None = None
    ) -> None:
        """The end of a job, told to its callback in the same transaction.

        Raises: LeaseLost.
        """
        with self.database.writing() as connection:
            _held(connection, lease, {})
            row = row_of(connection, lease.job, None, is_locked=True)
            told = None if error is None else error.replace("\0", " ")  # PostgreSQL has no text with a zero byte
            self._end(connection, row, state, {"error_code": code, "error": told})

    def take_over(self, condition: Any) -> int:
        """Put back the running jobs of dead workers; those that killed too many fail. Returns how many."""
        with self.database.writing() as connection:
            query = select(jobs).where(jobs.c.state == "in_progress", condition).with_for_update(skip_locked=True)
            rows = connection.execute(query).all()
            now = self.database.now(connection)
            for row in rows:
                deaths = 1 + (row.deaths if isinstance(row.deaths, int) else 0)
                if deaths >= MOST_DEATHS:
                    self._end(connection, row, "failed", {"error_code": "worker_died", "error": DIED})
                    continue
                values = {
                    "state": "queued",
                    "worker": None,
                    "deaths": deaths,
                    # The first death may be anybody's kill: the job keeps its turn.
                    "due": 0 if deaths == 1 else now + min(DEATH_PAUSE * 2 ** (deaths - 2), LONGEST_PAUSE),
                    "seconds_left": None,
                }
                connection.execute(update(jobs).where(jobs.c.number == row.number).values(values))
        return len(rows)

    def _end(self, connection: Connection, row: Row[Any], state: str, values: Mapping[str, Any]) -> None:
        now = self.database.now(connection)
        done = {"state": state, "ended": now, "seconds_left": None, "worker": None, "draft": None, **values}
        connection.execute(update(jobs).where(jobs.c.number == row.number).values(done))
        self._tell(connection, row, state)

    def _tell(self, connection: Connection, row: Row[Any], state: str) -> None:
        if row.callback is None:
            return
        now = self.database.now(connection)
        event, receiver = new_id("evt"), receiver_of(row.callback)
        kind = f"video.{state}"
        body = {"id": event, "object": "event", "type": kind, "created_at": int(now), "data": {"id": row.id}}
        connection.execute(
            insert(deliveries).values(
                id=event, url=row.callback, body=json.dumps(body), attempt=0, due=now, job=row.id, receiver=receiver
            )
        )


def _held(connection: Connection, lease: Lease, values: Mapping[str, Any]) -> None:
    """Write to a job that the worker still has."""
    mine = (
        jobs.c.id == lease.job,
        jobs.c.lease == lease.number,
        jobs.c.worker == lease.worker,
        jobs.c.state == "in_progress",
    )
    changed = connection.execute(update(jobs).where(*mine).values({"lease": lease.number, **values}))
    if changed.rowcount != 1:
        raise LeaseLost("the job was cancelled, removed or taken over.")
