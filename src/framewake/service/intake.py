"""The body of ``POST /v1/videos``: JSON or a form, checked field by field, and the picture in it."""

from __future__ import annotations

import json
from typing import Any

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from framewake.errors import InputError
from framewake.service.fetch import Guarded, read_data_url
from framewake.service.fields import FormVideo, ImageReference, JsonVideo, VideoSettings
from framewake.service.refusals import TooLarge, WrongType

# Both kinds of body, for the OpenAPI description.
BODY = {
    "required": True,
    "content": {
        "application/json": {"schema": {"$ref": "#/components/schemas/JsonVideo"}},
        "multipart/form-data": {"schema": {"$ref": "#/components/schemas/FormVideo"}},
    },
}


async def read_fields(request: Request) -> tuple[VideoSettings, Any]:
    """The fields, and what was given as ``input_reference``.

    Raises: InputError, WrongType, pydantic.ValidationError.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        given = JsonVideo.model_validate(await _json(request), strict=True)
        return given, given.input_reference
    if kind == "multipart/form-data":
        form = await _form(request)
        fields = FormVideo.model_validate(form)
        return fields, fields.input_reference
    raise WrongType("the body must be application/json or multipart/form-data.")


async def _json(request: Request) -> Any:
    try:
        return json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise InputError("the body is not valid JSON.") from error


async def _form(request: Request) -> dict[str, Any]:
    try:
        form = await request.form(max_files=1, max_fields=40)
    except HTTPException as error:
        raise InputError(f"the form is not valid: {error.detail}") from error
    found: dict[str, Any] = {}
    for key, value in form.multi_items():
        # OpenAI's clients spell nested fields in brackets: input_reference[image_url].
        name = key.removesuffix("[image_url]")
        if name in found:
            raise InputError(f"the field {name[:40]!r} was given twice.")
        if isinstance(value, UploadFile) and name != "input_reference":
            raise InputError(f"the field {name[:40]!r} must be text, not a file.")
        if value != "":
            found[name] = value
    if isinstance(found.get("lora"), str):
        try:
            found["lora"] = json.loads(found["lora"])
        except (ValueError, RecursionError) as error:
            raise InputError('lora must be JSON such as [{"name": "style", "scale": 0.8}].') from error
    return found


async def read_picture(given: Any, fetcher: Guarded | None, *, most_bytes: int) -> bytes | None:
    """The picture's bytes, wherever they are. ``fetcher`` None allows no addresses.

    Raises: InputError, TooLarge.
    """
    if given is None:
        return None
    if isinstance(given, UploadFile):
        data = await given.read(most_bytes + 1)
        if len(data) > most_bytes:
            raise TooLarge(f"the picture has more than {most_bytes:,} bytes.")
        return data
    url = given.image_url if isinstance(given, ImageReference) else str(given)
    if url.startswith(("{", '"')):
        raise InputError("input_reference must be a picture file, an http(s) URL or a data URL.")
    if url[:5].lower() == "data:":
        return read_data_url(url, most_bytes=most_bytes)
    if fetcher is None:
        raise InputError("this server fetches no pictures from addresses: send the file itself or a data URL.")
    return await fetcher.get(url, most_bytes=most_bytes)
