"""A request sent again because its answer was lost makes no second video: the header Idempotency-Key.

What a key stood for is remembered for as long as its video is there, for each API key by itself.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, insert, select
from starlette.datastructures import UploadFile

from framewake.service.fields import VideoSettings
from framewake.service.refusals import BadRequest, KeyUsed
from framewake.service.tables import jobs, repeats

HEADER = "Idempotency-Key"


class Once(NamedTuple):
    """Digests of a client's key and of what was asked for with it."""

    key: str
    asked: str


def once_of(key: str | None, given: VideoSettings, reference: Any) -> Once | None:
    """What makes a request the same as an earlier one; how its body is written makes no difference.

    Raises: BadRequest for a key that is none.
    """
    if key is None:
        return None
    if not re.fullmatch(r"[!-~](?:[ -~]{0,253}[!-~])?", key):
        raise BadRequest(f"{HEADER} must be 1 to 255 ASCII characters: send a new random one for each video.")
    # What says nothing is left out where an earlier version had no such field: its keys are still good.
    silent = {name for name in ("draft", "draft_size") if getattr(given, name) is None}
    asked = hashlib.sha256(given.model_dump_json(exclude={"input_reference", *silent}).encode())
    picture = reference.file.read() if isinstance(reference, UploadFile) else str(reference).encode()
    if isinstance(reference, UploadFile):
        reference.file.seek(0)
    asked.update(hashlib.sha256(picture).digest())
    return Once(hashlib.sha256(key.encode()).hexdigest(), asked.hexdigest())


def earlier(connection: Connection, owner: str, once: Once) -> str | None:
    """The id of the job that this key made.

    Raises: KeyUsed when it was for something else.
    """
    query = select(repeats.c.asked, repeats.c.job).join_from(repeats, jobs, repeats.c.job == jobs.c.id)
    found = connection.execute(query.where(repeats.c.owner == owner, repeats.c.key == once.key)).first()
    if found is not None and found.asked != once.asked:
        raise KeyUsed(f"this {HEADER} was used for another video: send a new one for each video.")
    return None if found is None else found.job


def remember(connection: Connection, owner: str, once: Once, *, job: str) -> None:
    """Note which job a key makes. A second one at the same moment waits here, and fails when the first has ended."""
    gone = delete(repeats).where(repeats.c.owner == owner, repeats.c.key == once.key)
    connection.execute(gone.where(repeats.c.job.not_in(select(jobs.c.id))))
    connection.execute(insert(repeats).values(owner=owner, key=once.key, asked=once.asked, job=job))


def forget(connection: Connection, job: str) -> None:
    """The job is gone, and with it what made it."""
    connection.execute(delete(repeats).where(repeats.c.job == job))
