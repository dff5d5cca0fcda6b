"""The picture of a request, in any form that clients send: file, address, data URL, base64, shipped, object, list."""

from __future__ import annotations

import base64
import re
from typing import Any

from starlette.datastructures import UploadFile

from framewake.demo import PICTURES, shipped_names
from framewake.errors import InputError
from framewake.service.body import json_value
from framewake.setting import shown

# Where an object has its picture, and what else may stand in it.
HOLDERS = ("image_url", "url", "b64_json", "data", "base64", "image", "bytesBase64Encoded")
BESIDE = ("type", "detail", "file_id", "mimeType", "mime_type", "media_type")
# How base64 of a PNG, JPEG, WebP, GIF, BMP, TIFF, HEIC or AVIF file begins; of these, some are refused later by name.
BASE64 = ("iVBORw0KGgo", "/9j/", "UklGR", "R0lGOD", "Qk", "SUkq", "TU0A", "AAAA")
MOST_DEPTH = 4
HOW = "send a picture file, an http(s) URL, a data URL, or the file in base64."


def picture_in(name: str, value: Any, *, depth: int = 0) -> UploadFile | str:
    """A file, or the address of a picture: http(s) or data.

    Raises: InputError that is about ``name``.
    """
    if isinstance(value, UploadFile):
        return value
    if depth >= MOST_DEPTH:
        raise InputError(f"{name} holds no picture: {HOW}", about=name)
    if isinstance(value, list):
        if len(value) != 1:
            raise InputError(
                f"{name} holds {len(value)} pictures, and a video starts from one: send that alone.", about=name
            )
        return picture_in(name, value[0], depth=depth + 1)
    if isinstance(value, dict):
        return picture_in(name, _held(name, value), depth=depth + 1)
    if not isinstance(value, str):
        raise InputError(f"{name} is {shown(value)}: {HOW}", about=name)
    return _address(name, value.strip(), depth=depth)


def _held(name: str, value: dict[str, Any]) -> Any:
    found = [key for key in HOLDERS if value.get(key)]
    odd = [key for key in value if key not in HOLDERS and key not in BESIDE]
    if odd:
        raise InputError(f"{name} holds {shown(odd[0])}, which is not known: {HOW}", about=name)
    if not found and value.get("file_id"):
        raise InputError(f"{name} names a file_id, but no files are kept here: {HOW}", about=name)
    if len(found) != 1:
        raise InputError(
            f'{name} is an object: expected {{"image_url": "..."}} with an http(s) or data URL.', about=name
        )
    return value[found[0]]


def _address(name: str, text: str, *, depth: int) -> UploadFile | str:
    if text[:1] in ("{", "[", '"'):  # an object or a list, as forms hold it
        try:
            inner = json_value(text.encode(errors="replace"))
        except InputError as error:
            raise InputError(f"{name} is neither JSON nor an address: {HOW}", about=name) from error
        return picture_in(name, inner, depth=depth + 1)
    if text in shipped_names(PICTURES):
        content = (PICTURES / f"{text.partition('/')[2]}.png").read_bytes()
        return "data:image/png;base64," + base64.b64encode(content).decode()
    scheme = text[:8].lower()
    if scheme.startswith(("http://", "https://", "data:")):
        return text
    if text.startswith(BASE64) and re.fullmatch(r"[A-Za-z0-9+/=\s]{64,}", text):
        return "data:;base64," + "".join(text.split())
    raise InputError(f"{name} is {shown(text)}: {HOW} A path on your machine means nothing to the server.", about=name)
