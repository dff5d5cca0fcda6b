"""Webhooks: signed as the Standard Webhooks specification says, kept in the database until they are delivered."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
import os
import secrets
import threading
import time
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Row, and_, case, delete, exists, not_, or_, select, update
from sqlalchemy.exc import SQLAlchemyError

from framewake.errors import InputError
from framewake.service.database import Database, reason
from framewake.service.fetch import Guarded
from framewake.service.tables import deliveries

log = logging.getLogger("framewake.webhooks")

# Seconds until the next attempt; after the last one a delivery is given up.
DELAYS = (5, 30, 120, 600, 3600, 6 * 3600)
POLL_SECONDS, WARN_SECONDS = 1.0, 60.0
HOLD_SECONDS = 60  # another server may try a delivery again when this one died over it
PREFIX = "whsec_"
FILE, LEAST_BYTES = "webhook-secret", 24  # the latter as Standard Webhooks asks for
AT_ONCE, OF_ONE_RECEIVER = 16, 2  # messages under way


def read_secret(folder: Path) -> str:
    """The secret of this data folder; made on first use, readable by its owner only.

    Raises: InputError for a file without a secret: signed with nothing, anybody's message would look like ours.
    """
    path = folder / FILE
    try:
        return checked(path.read_bytes(), path)
    except FileNotFoundError:
        secret = PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()
    except OSError as error:
        raise InputError(f"{path}: the secret of webhooks cannot be read ({error.strerror}).") from error
    part = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secret)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(part, path)  # fails when another server was first
    except FileExistsError:
        return read_secret(folder)
    finally:
        part.unlink()
    return secret


def checked(content: bytes, path: Path) -> str:
    """The secret in a file's content.

    Raises: InputError when it is none, or one that could be guessed.
    """
    text = content.decode("utf-8-sig", "replace").strip()
    try:
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except ValueError:
        key = b""
    if len(key) < LEAST_BYTES or len(set(key)) == 1:
        raise InputError(
            f"{path} holds no secret that webhooks can be signed with: expected {PREFIX} and the base64 of "
            f"{LEAST_BYTES} bytes or more. Bring the file back, or remove it: a new secret is made, which receivers "
            "must be told."
        )
    return text


def sign(secret: str, identity: str, timestamp: int, body: str) -> dict[str, str]:
    """The headers that prove where a message comes from and that it is not an old one."""
    key = base64.b64decode(secret.removeprefix(PREFIX))
    digest = hmac.new(key, f"{identity}.{timestamp}.{body}".encode(), hashlib.sha256).digest()
    return {
        "content-type": "application/json",
        "webhook-id": identity,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


class Sender:
    """Sends what is due, from a thread of its own, several messages at once.

    A receiver that is slow or away holds up to ``OF_ONE_RECEIVER`` of them and none of the others'. The messages about
    one video go out in their order: a later one waits until the earlier one has arrived or was given up.
    """

    def __init__(self, database: Database, secret: str, guard: Guarded, *, delays: tuple[float, ...] = DELAYS) -> None:
        self.database = database
        self.secret = secret
        self.guard = guard
        self.delays = delays
        self._warned = -WARN_SECONDS
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True, name="webhooks")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; what was not delivered stays in the database."""
        self._stop.set()
        self._thread.join(timeout=2)

    def _warn_of(self, error: SQLAlchemyError) -> None:
        """Say now and then that the database does not answer."""
        if time.monotonic() - self._warned > WARN_SECONDS:
            self._warned = time.monotonic()
            log.warning("webhooks wait for the database: %s", reason(error))

    async def _run(self) -> None:
        under_way: dict[asyncio.Task[None], str] = {}  # and whom each is for
        while not self._stop.is_set():
            try:
                delivery = self._take(Counter(under_way.values())) if len(under_way) < AT_ONCE else None
            except SQLAlchemyError as error:
                self._warn_of(error)
                delivery = None
            if delivery is not None:
                under_way[asyncio.create_task(self._deliver(delivery))] = delivery.receiver or ""
                continue
            await _settled(under_way, POLL_SECONDS)
            under_way = {task: receiver for task, receiver in under_way.items() if not task.done()}
        for task in under_way:
            task.cancel()

    def _take(self, under_way: Mapping[str, int] | None = None) -> Row[Any] | None:
        """The next message whose receiver has not enough under way, and that no earlier one of its video waits for."""
        busy = [receiver for receiver, count in (under_way or {}).items() if receiver and count >= OF_ONE_RECEIVER]
        before = deliveries.alias()
        is_first = ~exists().where(before.c.job == deliveries.c.job, before.c.number < deliveries.c.number)
        with self.database.writing() as connection:
            now = self.database.now(connection)
            # A due time that is further away than its delay was set by a clock that has been put right since.
            longest = case(
                *(
                    (deliveries.c.attempt == number, max(delay, HOLD_SECONDS))
                    for number, delay in enumerate(self.delays, 1)
                ),
                else_=HOLD_SECONDS,
            )
            waits = and_(deliveries.c.due > now, deliveries.c.due <= now + longest)
            query = select(deliveries).where(not_(waits), is_first)
            if busy:
                query = query.where(or_(deliveries.c.receiver.is_(None), deliveries.c.receiver.not_in(busy)))
            # What fails again and again lets what is new pass.
            query = query.order_by(deliveries.c.attempt, deliveries.c.due).limit(1)
            found = connection.execute(query.with_for_update(skip_locked=True)).first()
            if found is not None:
                held = update(deliveries).where(deliveries.c.number == found.number)
                connection.execute(held.values(due=now + HOLD_SECONDS))
            return found

    async def _deliver(self, delivery: Row[Any]) -> None:
        try:
            self._settle(delivery, await self._send(delivery))
        except SQLAlchemyError as error:  # it is sent again when its time is over
            self._warn_of(error)

    async def _send(self, delivery: Row[Any]) -> bool:
        with self.database.reading() as connection:
            now = int(self.database.now(connection))
        try:
            headers = sign(self.secret, delivery.id, now, delivery.body)
            status = await self.guard.post(delivery.url, delivery.body.encode(), headers)
        except (InputError, AttributeError, TypeError) as error:  # the latter two for a damaged record
            log.warning("webhook %s was not delivered: %s", delivery.id, error)
            return False
        return 200 <= status < 300

    def _settle(self, delivery: Row[Any], is_done: bool) -> None:
        this = deliveries.c.number == delivery.number
        with self.database.writing() as connection:
            if is_done or delivery.attempt >= len(self.delays):
                connection.execute(delete(deliveries).where(this))
                return
            due = self.database.now(connection) + self.delays[delivery.attempt]
            connection.execute(update(deliveries).where(this).values(attempt=delivery.attempt + 1, due=due))


async def _settled(tasks: Collection[asyncio.Task[None]], seconds: float) -> None:
    """Until one of them has ended, and some seconds at most."""
    if tasks:
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    else:
        await asyncio.sleep(seconds)
