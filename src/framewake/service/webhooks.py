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
from pathlib import Path
from typing import Any

from sqlalchemy import Row, and_, case, delete, not_, select, update
from sqlalchemy.exc import SQLAlchemyError

from framewake.errors import InputError
from framewake.service.database import Database
from framewake.service.fetch import Guarded
from framewake.service.tables import deliveries

log = logging.getLogger("framewake.webhooks")

# Seconds until the next attempt; after the last one a delivery is given up.
DELAYS = (5, 30, 120, 600, 3600, 6 * 3600)
POLL_SECONDS = 1.0
HOLD_SECONDS = 60  # another server may try a delivery again when this one died over it
PREFIX = "whsec_"


def read_secret(folder: Path) -> str:
    """The secret of this data folder; made on first use, readable by its owner only."""
    path = folder / "webhook-secret"
    try:
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        secret = PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()
    part = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secret)
    try:
        os.link(part, path)  # fails when another server was first
    except FileExistsError:
        return read_secret(folder)
    finally:
        part.unlink()
    return secret


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
    """Sends what is due, from a thread of its own."""

    def __init__(self, database: Database, secret: str, guard: Guarded, *, delays: tuple[float, ...] = DELAYS) -> None:
        self.database = database
        self.secret = secret
        self.guard = guard
        self.delays = delays
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="webhooks")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; what was not delivered stays in the database."""
        self._stop.set()
        self._thread.join(timeout=2)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                delivery = self._take()
                if delivery is not None:
                    self._settle(delivery, asyncio.run(self._send(delivery)))
                    continue
            except SQLAlchemyError as error:
                log.warning("webhooks wait for the database: %s", error)
            self._stop.wait(POLL_SECONDS)

    def _take(self) -> Row[Any] | None:
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
            query = select(deliveries).where(not_(waits)).order_by(deliveries.c.due).limit(1)
            found = connection.execute(query.with_for_update(skip_locked=True)).first()
            if found is not None:
                held = update(deliveries).where(deliveries.c.number == found.number)
                connection.execute(held.values(due=now + HOLD_SECONDS))
            return found

    async def _send(self, delivery: Row[Any]) -> bool:
        with self.database.reading() as connection:
            now = int(self.database.now(connection))
        headers = sign(self.secret, delivery.id, now, delivery.body)
        try:
            status = await self.guard.post(delivery.url, delivery.body.encode(), headers)
        except InputError as error:
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
