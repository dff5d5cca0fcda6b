"""Server-sent events of one video: every change, with a preview, until it has ended."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator

from starlette.concurrency import run_in_threadpool

from framewake.service.desk import Desk
from framewake.service.refusals import NotFound
from framewake.service.storage import PREVIEW
from framewake.service.tables import FINAL
from framewake.service.views import video

POLL_SECONDS = 0.3
QUIET_SECONDS = 15  # a comment after so long, or proxies close the connection


async def events(desk: Desk, job: str, owner: str | None) -> AsyncIterator[str]:
    """Events "status" (the video as JSON), "preview" (a data URL), and "end" last of all."""
    last, shown, said = "", 0.0, time.monotonic()
    while True:
        try:
            row, position = await run_in_threadpool(desk.store.look, job, owner)
        except NotFound:
            yield "event: end\ndata: {}\n\n"
            return
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
        await asyncio.sleep(POLL_SECONDS)


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
