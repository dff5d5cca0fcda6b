"""Settings and pictures of earlier videos, to fill the form with again."""

from __future__ import annotations

import json
import os
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse
from sqlalchemy import Row
from starlette.concurrency import run_in_threadpool

from framewake.errors import InputError
from framewake.lasting import removed_at_end, temporary_path
from framewake.media.video import read_metadata
from framewake.pipeline.jobs import request_from
from framewake.service.desk import Desk
from framewake.service.refusals import NotFound, TooLarge
from framewake.service.routes import VideoId
from framewake.service.storage import PICTURE, write_whole
from framewake.service.views import settings_of

SEARCHED = 500  # newest videos among which a clip's own is looked for
# What a clip may say otherwise than its request: the picture's place, and the precision that "auto" became.
OPEN = ("image", "precision", "loras")


def add_memory(app: FastAPI, desk: Desk) -> None:
    """Routes of the page's own, beside the API's."""

    @app.get("/page/videos/{video_id}/settings", include_in_schema=False)
    def stored_settings(request: Request, video_id: VideoId) -> dict[str, Any]:
        row = desk.store.get(video_id, request.scope["owner"])
        return {"settings": row.request, "picture_of": video_id if _has_picture(desk, row) else None}

    @app.get("/page/videos/{video_id}/picture", include_in_schema=False)
    def stored_picture(request: Request, video_id: VideoId) -> FileResponse:
        desk.store.get(video_id, request.scope["owner"])
        path = desk.storage.job(video_id) / PICTURE
        if not path.is_file():
            raise NotFound("there is no picture of this video.")
        # People's bytes: a browser must take them for a file and never for a page.
        headers = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox"}
        return FileResponse(path, media_type="application/octet-stream", filename=PICTURE, headers=headers)

    @app.post("/page/settings", include_in_schema=False)
    async def clip_settings(request: Request) -> dict[str, Any]:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > desk.limits.upload_bytes:
                raise TooLarge(f"the clip has more than {desk.limits.upload_bytes:,} bytes.")
        owner = request.scope["owner"]

        def look() -> dict[str, Any]:
            found = _settings_in(body, desk)
            # As text: a browser's numbers end at 2^53, a seed does not.
            return {"settings": json.dumps(found), "picture_of": _same_video(desk, owner, found)}

        return await run_in_threadpool(look)


def _settings_in(clip: bytes, desk: Desk) -> dict[str, Any]:
    """The settings inside an mp4.

    Raises: InputError when there are none.
    """
    desk.storage.check_room(len(clip))
    with removed_at_end(temporary_path(desk.storage.folder / "clip")) as folder:  # swept, should this be killed
        folder.mkdir(mode=0o700)
        path = folder / "clip.mp4"
        write_whole(path, clip, is_lasting=False)
        try:
            return request_from(read_metadata(path))
        except InputError as error:
            raise InputError(str(error).replace(os.fspath(path), "this file")) from error


def _has_picture(desk: Desk, row: Row[Any]) -> bool:
    """Whether a video began with a picture that is still there; one that goes on from another began with a clip."""
    return row.extends is None and (desk.storage.job(row.id) / PICTURE).is_file()


def _same_video(desk: Desk, owner: str, found: dict[str, Any]) -> str | None:
    """One of the owner's videos with the same settings, whose picture is then the clip's."""
    wanted = {name: value for name, value in found.items() if name not in OPEN}
    for row in desk.store.page(owner, after=None, limit=SEARCHED, order="desc"):
        stored = settings_of(row)
        same = all(stored.get(name) == value for name, value in wanted.items())
        if same and _has_picture(desk, row):
            return str(row.id)
    return None
