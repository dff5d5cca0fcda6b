"""Jobs as the database holds them: how one is entered and found, and how far it is from its turn."""

from __future__ import annotations

import json
import secrets
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Table, and_, func, insert, or_, select

from framewake.service.refusals import NoSuchVideo
from framewake.service.tables import jobs, notes


@dataclass(frozen=True)
class NewJob:
    """What is handed in. Units: sizes in pixels; ``seconds`` is how long it is expected to take.

    ``picture`` is the SHA-256 of the picture's file; ``draft`` the step behind which the job pauses with a draft;
    ``extends`` the job whose clip is the picture, and goes on.
    """

    id: str
    owner: str
    model: str
    request: Mapping[str, Any]
    width: int
    height: int
    callback: str | None = None
    notes: Sequence[str] = ()
    seconds: float | None = None
    picture: str | None = None
    draft: int | None = None
    draft_size: str | None = None
    extends: str | None = None


def new_id(kind: str) -> str:
    """A name that nobody can guess, such as "video_...": people's words never become names."""
    return f"{kind}_{secrets.token_hex(16)}"


def receiver_of(url: str) -> str:
    """Host and port of an address: whoever is slow there is slow for all of its addresses."""
    return urllib.parse.urlsplit(url).netloc.lower()[:300]


# A job with its notes, in one question.
_NOTES = select(notes.c.texts).where(notes.c.job == jobs.c.id).scalar_subquery().label("notes")
WHOLE = select(jobs, _NOTES)


def row_of(connection: Connection, job: str, owner: str | None, *, is_locked: bool = False) -> Row[Any]:
    """A job with its notes.

    Raises: NoSuchVideo.
    """
    query = WHOLE.where(jobs.c.id == job)
    if owner is not None:
        query = query.where(jobs.c.owner == owner)
    found = connection.execute(query.with_for_update() if is_locked else query).first()
    if found is None:
        raise NoSuchVideo
    return found


def first_values(connection: Connection, new: NewJob, created: float) -> dict[str, Any]:
    """The record of a job at the end of the queue."""
    return {
        "id": new.id,
        "owner": new.owner,
        "state": "queued",
        "model": new.model,
        "request": json.dumps(new.request),
        "width": new.width,
        "height": new.height,
        "callback": new.callback,
        "created": created,
        "queued": last_place(connection),
        **{name: 0 for name in ("due", "step", "lease", "deaths")},
        "steps": new.request["steps"],
        "seconds_left": new.seconds,
        "picture": new.picture,
        "draft": new.draft,
        "draft_size": new.draft_size,
        "extends": new.extends,
        "notes": json.dumps(list(new.notes)) if new.notes else None,
    }


def enter(connection: Connection, values: Mapping[str, Any]) -> None:
    """Record a job and its notes, as ``WHOLE`` gives them."""
    texts = values.get("notes")
    connection.execute(insert(jobs).values({name: value for name, value in values.items() if name != "notes"}))
    if texts:
        connection.execute(insert(notes).values(job=values["id"], texts=texts))


class Beside(NamedTuple):
    """A record that belongs to a job, and the columns that tell it from others of its table."""

    table: Table
    values: Mapping[str, Any]
    by: Sequence[str]


def enter_missing(connection: Connection, beside: Beside) -> None:
    """Record what is not there yet."""
    table, values, by = beside
    if connection.execute(select(1).where(*(table.c[name] == values[name] for name in by))).first() is None:
        connection.execute(insert(table).values(values))


def last_place(connection: Connection) -> Any:
    """The place behind everything that waits or may come back to wait."""
    # What was damaged into a text, or into a number that cannot grow, is left out.
    counted = and_(jobs.c.state.in_(("queued", "paused", "in_progress")), jobs.c.queued < 1e15)
    return (connection.execute(select(func.max(jobs.c.queued)).where(counted)).scalar() or 0) + 1


def position_of(connection: Connection, row: Row[Any]) -> int | None:
    """The place in the queue of a job that waits."""
    if row.state != "queued":
        return None
    before = or_(jobs.c.queued < row.queued, and_(jobs.c.queued == row.queued, jobs.c.number < row.number))
    query = select(func.count()).where(jobs.c.state == "queued", jobs.c.model == row.model, before)
    return connection.execute(query).scalar_one() + 1
