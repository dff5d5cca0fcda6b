"""``POST /v1/videos``, in turns: neither many clients nor slow ones delay those who ask for a status."""

from __future__ import annotations

import asyncio
import functools
from typing import IO, Any

from fastapi import Request, Response
from sqlalchemy import Row
from starlette.concurrency import run_in_threadpool

from framewake.errors import about
from framewake.service.body import check_coding, received
from framewake.service.desk import Desk
from framewake.service.fetch import Guarded
from framewake.service.fields import VideoSettings
from framewake.service.intake import check_there, continued, read_extension, read_fields, read_picture
from framewake.service.repeats import HEADER, Once, once_of
from framewake.service.store import new_id
from framewake.service.views import Video, video

COMPUTED_AT_ONCE = 2  # bodies that are read, pictures that are looked at
# Of one key: bodies that are being sent, which wait on the disk, and those that are in memory.
SENT_AT_ONCE, HANDED_IN_AT_ONCE = 64, 4


class Turns:
    """So many at once for each key; the others wait for their turn."""

    def __init__(self, at_once: int) -> None:
        self.at_once = at_once
        self._of: dict[str, asyncio.Semaphore] = {}  # owners are keys of the server's, and no others

    def of(self, owner: str) -> asyncio.Semaphore:
        """The turns of one key."""
        return self._of.setdefault(owner, asyncio.Semaphore(self.at_once))


class Creation:
    """Takes videos in. ``fetcher`` None: no pictures are fetched from addresses."""

    def __init__(self, desk: Desk, fetcher: Guarded | None, callbacks: Guarded) -> None:
        self.desk = desk
        self.fetcher = fetcher
        self.callbacks = callbacks
        self._gate = asyncio.Semaphore(COMPUTED_AT_ONCE)
        self._sending = Turns(SENT_AT_ONCE)
        self._working = Turns(HANDED_IN_AT_ONCE)

    async def create(self, request: Request, response: Response) -> Video:
        """Read a request and put its video into the queue, or find the one that it made before.

        Raises: InputError, Refused, ResourceError.
        """
        owner = request.scope["owner"]
        self.desk.rate.take(owner)
        check_coding(request)
        async with self._sending.of(owner):
            file = await received(request, self.desk.storage.folder)
        with file:
            async with self._working.of(owner):
                return await self._work(request, response, file)

    async def extend(self, request: Request, response: Response, *, job: str | None) -> Video:
        """Read a request and put a video into the queue that goes on from a finished one.

        Raises: InputError, Refused, ResourceError.
        """
        owner, kind, key = request.scope["owner"], request.headers.get("content-type", ""), request.headers.get(HEADER)
        self.desk.rate.take(owner)
        check_coding(request)

        def submit(body: bytes) -> tuple[Row[Any], bool]:
            before, fields = read_extension(body, kind, job)
            known, clip = self.desk.ended_clip(before, owner)
            given, new = continued(fields, known), new_id("video")
            once = once_of(key, given, before)
            row = self.desk.submit(
                given, owner, picture=clip, callback=given.callback_url, once=once, job=new, extends=before
            )
            return row, row.id != new

        async with self._sending.of(owner):
            file = await received(request, self.desk.storage.folder)
        with file:
            async with self._working.of(owner), self._gate:
                row, is_repeated = await run_in_threadpool(submit, file.read())
        if is_repeated:
            response.headers["Idempotent-Replayed"] = "true"
        return await run_in_threadpool(self._shown, row)

    async def _work(self, request: Request, response: Response, file: IO[bytes]) -> Video:
        owner, kind, key = request.scope["owner"], request.headers.get("content-type", ""), request.headers.get(HEADER)

        def read() -> tuple[VideoSettings, Any, Once | None, Row[Any] | None]:
            given, reference = read_fields(file.read(), kind)
            once = once_of(key, given, reference)
            return given, reference, once, None if once is None else self.desk.store.repeated(owner, once)

        async with self._gate:
            given, reference, once, row = await run_in_threadpool(read)
        job = new_id("video")
        if row is None:
            if given.callback_url is not None:
                with about("callback_url"):
                    await self.callbacks.check(given.callback_url)
            picture = await read_picture(reference, self.fetcher, most_bytes=self.desk.limits.upload_bytes)
            check_there(picture, self.desk.checkpoint.dit)
            submit = functools.partial(
                self.desk.submit, given, owner, picture=picture, callback=given.callback_url, once=once, job=job
            )
            async with self._gate:
                row = await run_in_threadpool(submit)
        if row.id != job:
            response.headers["Idempotent-Replayed"] = "true"
        return await run_in_threadpool(self._shown, row)

    def _shown(self, row: Row[Any]) -> Video:
        made, busy = video(row, self.desk.store.position(row)), self.desk.advisor.busy()
        # It belongs to this forecast; later answers follow the real pace.
        return made if busy is None else made.model_copy(update={"notes": [*made.notes, busy]})
