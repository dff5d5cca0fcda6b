"""What a person should know of a picture and a prompt before the click; nothing is submitted."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import FastAPI, Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from framewake.errors import InputError
from framewake.lasting import removed_at_end, temporary_path
from framewake.pipeline.jobs import open_picture
from framewake.request import Request as VideoRequest
from framewake.service.body import check_coding, form_pairs, received
from framewake.service.desk import Desk
from framewake.service.pictures import check_pixels
from framewake.service.storage import PICTURE, write_whole

LOOKED_AT_ONCE = 2
EMPTY = "?"  # stands for a prompt that nobody has written yet, of which nothing is said


def add_advice(app: FastAPI, desk: Desk) -> None:
    """A route of the page's own, beside the API's."""
    gate = asyncio.Semaphore(LOOKED_AT_ONCE)

    @app.post("/page/notes", include_in_schema=False)
    async def notes(request: Request) -> dict[str, Any]:
        check_coding(request)
        content_type = request.headers.get("content-type", "")
        file = await received(request, desk.storage.folder)
        with file:
            async with gate:
                return await run_in_threadpool(lambda: _notes(desk, file.read(), content_type))


def _notes(desk: Desk, body: bytes, content_type: str) -> dict[str, Any]:
    """Notes on the picture itself, and on the request.

    Raises: InputError, Refused.
    """
    given = dict(form_pairs(body, content_type))
    prompt, picture = given.get("prompt", ""), given.get("input_reference")
    if not isinstance(prompt, str):
        raise InputError("the field 'prompt' must be text, not a file.", about="prompt")
    request = VideoRequest(prompt if prompt.strip() else EMPTY)
    loaded = None
    if isinstance(picture, UploadFile):
        data = picture.file.read(desk.limits.upload_bytes + 1)
        check_pixels(data, desk.limits.pixels)
        with removed_at_end(temporary_path(desk.storage.folder / PICTURE)) as folder:  # swept, should this be killed
            folder.mkdir(mode=0o700)
            path = folder / PICTURE
            write_whole(path, data, is_lasting=False)
            loaded = open_picture(str(path), request)
    of_picture = () if loaded is None else loaded.notes
    if request.prompt == EMPTY:
        return {"picture": of_picture, "request": ()}
    bare = None if loaded is None else loaded._replace(notes=())
    return {"picture": of_picture, "request": desk.advisor.notes(request, bare)}
