"""The body of ``POST /v1/videos``: JSON or a form, checked field by field, and the picture in it."""

from __future__ import annotations

from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from framewake.config import DiTConfig
from framewake.errors import InputError, about
from framewake.service.body import form_pairs, json_value
from framewake.service.dialects import PICTURE, translated, unfolded
from framewake.service.fetch import Guarded, read_data_url
from framewake.service.fields import FormVideo, JsonVideo, VideoSettings, fields_in
from framewake.service.refusals import TooLarge, WrongType
from framewake.service.storage import is_id

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


def read_extension(body: bytes, content_type: str, job: str | None) -> tuple[str, dict[str, Any]]:
    """The id of the video that is to go on, from the address or as OpenAI's client sends it, and the other fields.

    Raises: InputError, Refused.
    """
    kind = content_type.partition(";")[0].strip().lower()
    given = json_value(body) if kind == "application/json" else unfolded(form_pairs(body, content_type))
    if not isinstance(given, dict):
        raise InputError('the body must be a JSON object such as {"prompt": ...}.')
    named = given.pop("video", None)
    found = named.get("id") if isinstance(named, dict) else named
    if not is_id(job or found):
        raise InputError("video is missing: send the id of a completed video of this server.", about="video")
    fields = translated(given, JsonVideo.model_fields)
    if "input_reference" in fields:
        raise InputError("input_reference is not for a video that goes on: leave it out.", about="input_reference")
    return str(job or found), fields


def continued(fields: dict[str, Any], before: dict[str, Any]) -> FormVideo:
    """The fields of a video that goes on, with those of the one before where they say nothing.

    Raises: InputError.
    """
    instead = {"seconds": "num_frames", "size": "resolution"}
    gone = {other for name, other in instead.items() if name in fields}
    return fields_in({name: value for name, value in before.items() if name not in gone} | fields, FormVideo)


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
