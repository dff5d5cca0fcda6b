"""Server-sent events of one video: every change, with a preview, until it has ended."""

from __future__ import annotations

import asyncio
import base64
import time
from collections import Counter
from collections.abc import AsyncIterator

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from framewake.service.desk import Desk
from framewake.service.guard import Receive, Scope, Send
from framewake.service.refusals import NotFound, TooMany
from framewake.service.storage import PREVIEW
from framewake.service.tables import FINAL
from framewake.service.views import video

POLL_SECONDS, LOOKS_A_SECOND = 0.3, 60  # each stream looks as often, and all of them together
MOST_OF_ONE, MOST = 32, 256  # streams of one key, and of all
AWAY_SECONDS = 5.0
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # the latter for nginx, which would keep events back
QUIET_SECONDS = 15  # a comment after so long, or proxies close the connection


class Streams:
    """How many streams are open, by key; owners are keys of the server's, so this stays small."""

    def __init__(self) -> None:
        self.open: Counter[str] = Counter()

    def take(self, owner: str) -> None:
        """Count one more.

        Raises: TooMany.
        """
        if self.open[owner] >= MOST_OF_ONE or self.open.total() >= MOST:
            raise TooMany(
                f"{self.open[owner]} streams of this key are open: ask GET /v1/videos/ID now and then instead.",
                retry_after=10,
            )
        self.open[owner] += 1

    def give_back(self, owner: str) -> None:
        """Count one less."""
        self.open[owner] -= 1

    def pause(self) -> float:
        """Seconds between two looks of one stream."""
        return max(POLL_SECONDS, self.open.total() / LOOKS_A_SECOND)


class EventStream(StreamingResponse):
    """Events "status" (the video as JSON), "preview" (a data URL), and "end" last of all."""

    def __init__(self, desk: Desk, job: str, owner: str, *, streams: Streams) -> None:
        super().__init__(_events(desk, job, owner, streams), media_type="text/event-stream", headers=HEADERS)
        self._owner = owner
        self._streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send, counted among the streams of its key."""
        self._streams.take(self._owner)
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._streams.give_back(self._owner)


async def _events(desk: Desk, job: str, owner: str, streams: Streams) -> AsyncIterator[str]:
    last, shown, said = "", 0.0, time.monotonic()
    while True:
        try:
            row, position = await run_in_threadpool(desk.store.look, job, owner)
        except NotFound:
            yield "event: end\ndata: {}\n\n"
            return
        except SQLAlchemyError:  # the database is away: what it would say comes later
            yield ": the database does not answer\n\n"
            await asyncio.sleep(AWAY_SECONDS)
            continue
        text = video(row, position).model_dump_json()
        if text != last:
            yield f"event: status\ndata: {text}\n\n"
            last, said = text, time.monotonic()
        if row.state == "in_progress":
            picture, shown = await run_in_threadpool(_preview, desk, job, shown)
            if picture is not None:
                yield f"event: preview\ndata: {picture}\n\n"
        if row.state in FINAL:
            yield f"event: end\ndata: {text}\n\n"
            return
        if time.monotonic() - said > QUIET_SECONDS:
            yield ": still here\n\n"
            said = time.monotonic()
        await asyncio.sleep(streams.pause())


def _preview(desk: Desk, job: str, shown: float) -> tuple[str | None, float]:
    """The newest preview when it is newer than what was shown."""
    path = desk.storage.job(job) / PREVIEW
    try:
        changed = path.stat().st_mtime
        if changed == shown:
            return None, shown
        return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode(), changed
    except OSError:
        return None, shown
