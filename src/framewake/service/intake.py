"""The body of ``POST /v1/videos``: JSON or a form, checked field by field, and the picture in it."""

from __future__ import annotations

from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from framewake.config import DiTConfig
from framewake.errors import InputError, about
from framewake.service.body import form_pairs, json_value
from framewake.service.dialects import PICTURE, unfolded
from framewake.service.fetch import Guarded, read_data_url
from framewake.service.fields import FormVideo, JsonVideo, VideoSettings, fields_in
from framewake.service.refusals import TooLarge, WrongType

# Both kinds of body, for the OpenAPI description.
BODY = {
    "required": True,
    "content": {
        "application/json": {"schema": {"$ref": "#/components/schemas/JsonVideo"}},
        "multipart/form-data": {"schema": {"$ref": "#/components/schemas/FormVideo"}},
    },
}


def read_fields(body: bytes, content_type: str) -> tuple[VideoSettings, Any]:
    """The fields, and what was given as ``input_reference``: a file or an address.

    Raises: InputError, Refused.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/json":
        given = json_value(body)
        if not isinstance(given, dict):
            raise InputError('the body must be a JSON object such as {"prompt": ..., "input_reference": ...}.')
        video = fields_in(given, JsonVideo, is_strict=True)
        return video, video.input_reference
    if kind == "multipart/form-data":
        form = fields_in(unfolded(form_pairs(body, content_type)), FormVideo)
        return form, form.input_reference
    raise WrongType("the body must be application/json or multipart/form-data.")


async def read_picture(given: Any, fetcher: Guarded | None, *, most_bytes: int) -> bytes | None:
    """The picture's bytes, wherever they are. ``fetcher`` None allows no addresses.

    Raises: InputError, TooLarge.
    """
    if given is None:
        return None
    if isinstance(given, UploadFile):
        data = given.file.read(most_bytes + 1)  # from memory
        if len(data) > most_bytes:
            with about(PICTURE):
                raise TooLarge(f"the picture has more than {most_bytes:,} bytes.")
        return data
    url = str(given)
    with about(PICTURE):
        if url[:5].lower() == "data:":
            return await run_in_threadpool(read_data_url, url, most_bytes=most_bytes)
        if fetcher is None:
            raise InputError("this server fetches no pictures from addresses: send the file itself or a data URL.")
        return await fetcher.get(url, most_bytes=most_bytes)


def check_there(picture: bytes | None, dit: DiTConfig) -> None:
    """Whether the picture that a checkpoint needs has come.

    Raises: InputError.
    """
    if picture is None and dit.needs_picture:
        text = (
            "input_reference is missing: this checkpoint animates a picture, so send one as a file, a data URL or an "
        )
        raise InputError(text + "address.", about=PICTURE)
    if picture == b"":
        raise InputError("input_reference is empty (0 bytes): send a PNG, JPEG or WebP file.", about=PICTURE)
