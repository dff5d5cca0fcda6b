"""Files as answers: ranges of them, and nothing at all for a client that already has them."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, MutableMapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from starlette.responses import FileResponse, Response

from framewake.service.answers import answer
from framewake.service.guard import Receive, Scope, Send
from framewake.service.refusals import Changed, NotFound


def file_answer(asked: Mapping[str, str], path: Path, *, media: str, name: str) -> Response:
    """A file under a name. ``asked``: the request's headers, of which ranges and conditions are understood.

    Raises: NotFound, Changed.
    """
    try:
        state = path.stat()
    except OSError as error:
        raise NotFound("there is no such file of this video.") from error
    if not stat.S_ISREG(state.st_mode):
        raise NotFound("there is no such file of this video.")
    kept = {"Cache-Control": "private, no-cache"}  # a cache of this user's may keep it, and asks before it uses it
    found = Ranged(
        path, media_type=media, filename=name, headers=kept, stat_result=state, content_disposition_type="inline"
    )
    tag = found.headers["etag"]
    if "if-match" in asked and not _names(asked["if-match"], tag):
        raise Changed("the file is not the one that you have a part of: fetch it from the beginning.")
    if _has_it(asked, tag, state.st_mtime):
        return Response(status_code=304, headers={**kept, "ETag": tag, "Last-Modified": found.headers["last-modified"]})
    return found


def _has_it(asked: Mapping[str, str], tag: str, changed: float) -> bool:
    if "if-none-match" in asked:
        return _names(asked["if-none-match"], tag)
    try:
        return int(changed) <= parsedate_to_datetime(asked["if-modified-since"]).timestamp()
    except (KeyError, ValueError, TypeError, OverflowError):  # none, or none that is a date
        return False


def _names(tags: str, tag: str) -> bool:
    return any(each.strip().removeprefix("W/") in (tag, "*") for each in tags.split(","))


class Ranged(FileResponse):
    """A file whose refusals have the form of every error; Starlette's own are plain text."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file, the part that was asked for, or why there is none."""
        refused = False

        async def told(message: MutableMapping[str, Any]) -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and message["status"] in (400, 416):
                refused = True
                size = os.stat(self.path).st_size
                text = f"the Range header cannot be used: the file has {size} bytes; ask for bytes=0-99, for example."
                instead = answer(message["status"], "bad_range", text, param="Range")
                if message["status"] == 416:
                    instead.headers["Content-Range"] = f"bytes */{size}"
                await instead(scope, receive, send)
            elif not refused:
                await send(message)

        await super().__call__(scope, receive, told)
