"""The body of ``POST /v1/videos``: JSON or a form, checked field by field, and the picture in it."""

from __future__ import annotations

from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from framewake.errors import InputError, nearest
from framewake.service.body import form_pairs, json_value
from framewake.service.fetch import Guarded, read_data_url
from framewake.service.fields import FormVideo, ImageReference, JsonVideo, VideoSettings
from framewake.service.refusals import TooLarge, WrongType
from framewake.setting import shown

# Both kinds of body, for the OpenAPI description.
BODY = {
    "required": True,
    "content": {
        "application/json": {"schema": {"$ref": "#/components/schemas/JsonVideo"}},
        "multipart/form-data": {"schema": {"$ref": "#/components/schemas/FormVideo"}},
    },
}


def read_fields(body: bytes, content_type: str) -> tuple[VideoSettings, Any]:
    """The fields, and what was given as ``input_reference``.

    Raises: InputError, Refused, pydantic.ValidationError.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/json":
        given = JsonVideo.model_validate(_known(json_value(body)), strict=True)
        return given, given.input_reference
    if kind == "multipart/form-data":
        fields = FormVideo.model_validate(_known(_form(body, content_type)))
        return fields, fields.input_reference
    raise WrongType("the body must be application/json or multipart/form-data.")


def _known(given: Any) -> Any:
    """The same, when it has no key but known ones: the first other one is enough to know."""
    if not isinstance(given, dict):
        raise InputError('the body must be a JSON object such as {"prompt": ..., "input_reference": ...}.')
    for name in given:
        if name not in JsonVideo.model_fields:
            raise InputError(f"there is no field {shown(name)}.{nearest(name[:80], JsonVideo.model_fields)}")
    return given


def _form(body: bytes, content_type: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in form_pairs(body, content_type):
        # OpenAI's clients spell nested fields in brackets: input_reference[image_url].
        name = key.removesuffix("[image_url]")
        if name in found:
            raise InputError(f"the field {shown(name)} was given twice.")
        if isinstance(value, UploadFile) and name != "input_reference":
            raise InputError(f"the field {shown(name)} must be text, not a file.")
        if value != "":
            found[name] = value
    if isinstance(found.get("lora"), str):
        try:
            found["lora"] = json_value(found["lora"].encode())
        except InputError as error:
            raise InputError('lora must be JSON such as [{"name": "style", "scale": 0.8}].') from error
    return found


async def read_picture(given: Any, fetcher: Guarded | None, *, most_bytes: int) -> bytes | None:
    """The picture's bytes, wherever they are. ``fetcher`` None allows no addresses.

    Raises: InputError, TooLarge.
    """
    if given is None:
        return None
    if isinstance(given, UploadFile):
        data = given.file.read(most_bytes + 1)  # from memory
        if len(data) > most_bytes:
            raise TooLarge(f"the picture has more than {most_bytes:,} bytes.")
        return data
    url = given.image_url if isinstance(given, ImageReference) else str(given)
    if url.startswith(("{", '"')):
        raise InputError("input_reference must be a picture file, an http(s) URL or a data URL.")
    if url[:5].lower() == "data:":
        return await run_in_threadpool(read_data_url, url, most_bytes=most_bytes)
    if fetcher is None:
        raise InputError("this server fetches no pictures from addresses: send the file itself or a data URL.")
    return await fetcher.get(url, most_bytes=most_bytes)
