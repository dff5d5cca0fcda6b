"""Request bodies as plain values, at a cost that depends on what a video needs, not on what was sent.

Only one thing in a body may be large: the picture. Everything else has a small limit, which is enforced while reading,
so that nobody can make the server work on millions of keys, parts or digits.
"""

from __future__ import annotations

import codecs
import io
import json
import re
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from fastapi import Request
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile

from framewake.errors import InputError
from framewake.service.refusals import TooLarge, WrongType

# Two prompts of 10,000 characters, each written as \u1234\u5678, are 240 kB.
MOST_BESIDE = 256 * 1024
LARGE = 128 * 1024  # a longer string in JSON can only be the picture
MOST_KEYS, MOST_DIGITS = 64, 40  # of one object, of one whole number
MOST_PARTS, MOST_HEADER = 64, 4096  # of a form, and bytes before each part
IN_MEMORY = 2**20  # what a client has sent so far waits on the disk beyond that
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_BESIDE = f"beside the picture, a request may have {MOST_BESIDE:,} bytes."


def check_coding(request: Request) -> None:
    """Refuse a body that is packed: a small one could unfold into a huge one.

    Raises: WrongType.
    """
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        raise WrongType("the body has a Content-Encoding, which is not taken: send it as it is.")


async def received(request: Request, folder: Path) -> IO[bytes]:
    """The whole body in a nameless file, so that a hundred slow clients cost no memory."""
    file: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY, dir=str(folder))  # noqa: SIM115 - the caller closes it
    try:
        async for chunk in request.stream():
            file.write(chunk)
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return file


def json_value(body: bytes) -> Any:
    """JSON, strictly: no key twice, no NaN, and one large string at most.

    Raises: InputError, TooLarge.
    """
    token, large = "", ""
    if len(body) > MOST_BESIDE:
        token = secrets.token_hex(16)
        body, large = _without_large(body, token)

    def pairs(given: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(given) > MOST_KEYS:
            raise InputError(f"the body has an object with more than {MOST_KEYS} keys, which no request needs.")
        found = {key: large if token and value == token else value for key, value in given}
        if len(found) < len(given):
            raise InputError("the body has a key twice in one object: send each field once.")
        return found

    try:
        return json.loads(body, object_pairs_hook=pairs, parse_int=_whole, parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        raise InputError("the body is not valid JSON.") from error


def _whole(digits: str) -> int:
    if len(digits) > MOST_DIGITS:  # reading it takes time that grows with the square of its length
        raise InputError(f"the body has a number of more than {MOST_DIGITS} digits.")
    return int(digits)


def _constant(name: str) -> Any:
    raise InputError(f"the body is not valid JSON: {name} is no number there.")


def _without_large(body: bytes, token: str) -> tuple[bytes, str]:
    """The body with a token in the place of its one large string, and that string.

    Raises: InputError, TooLarge.
    """
    parts, large, done, at = [], None, 0, 0
    while (begin := body.find(b'"', at)) >= 0:
        end = body.find(b'"', begin + 1)
        if end - begin > LARGE:
            if large is not None:
                raise TooLarge("the body has more than one large text: send one picture.")
            large = _picture_text(body[begin + 1 : end])
            parts += [body[done:begin], b'"', token.encode(), b'"']
            done = at = end + 1
        else:
            found = _STRING.match(body, begin, begin + MOST_BESIDE)
            if found is None:
                raise InputError("the body is not valid JSON: a text in it does not end.")
            at = found.end()
        if at - done + sum(map(len, parts)) > MOST_BESIDE:
            raise TooLarge(_BESIDE)
    if large is None or len(body) - done > MOST_BESIDE:
        raise TooLarge(_BESIDE)
    return b"".join([*parts, body[done:]]), large


def _picture_text(text: bytes) -> str:
    text = text.replace(b"\\/", b"/")  # as some languages write every slash
    text = text.replace(b"\\n", b"").replace(b"\\r", b"")  # as some programs break lines
    if b"\\" in text or not text.isascii():
        raise InputError("the large text in the body is no base64: send the picture as a data URL or in a form.")
    return text.decode("ascii")


def form_pairs(body: bytes, content_type: str) -> list[tuple[str, str | UploadFile]]:
    """The fields of a multipart form in their order, a picture among them at most.

    Raises: InputError, TooLarge.
    """
    options = parse_options_header(content_type)[1]
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= 200:
        raise InputError("the form is not valid: its Content-Type names no boundary.")
    charset = _charset(options.get(b"charset", b"utf-8"))
    found: list[tuple[str, str | UploadFile]] = []
    beside, files = 0, 0
    for header, content in _parts(body, b"--" + boundary):
        given = parse_options_header(header.decode("latin-1"))[1]
        if b"name" not in given:
            raise InputError("the form is not valid: a part has no name.")
        name = _text(given[b"name"], charset)
        if b"filename" in given:
            files += 1
            found.append((name, UploadFile(io.BytesIO(content), size=len(content))))
        else:
            beside += len(content)
            if beside > MOST_BESIDE:
                raise TooLarge(_BESIDE)
            found.append((name, _text(content, charset)))
    if files > 1:
        raise InputError("the form is not valid: it has more than one file.")
    return found


def _parts(body: bytes, delimiter: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The Content-Disposition of each part, and its content."""
    at = body.find(delimiter, 0, MOST_HEADER)
    for _ in range(MOST_PARTS + 1):
        if at < 0:
            raise InputError("the form is not valid: it does not end as its Content-Type says.")
        at += len(delimiter)
        if body.startswith(b"--", at):
            return
        begin = body.find(b"\r\n\r\n", at, at + MOST_HEADER)
        if begin < 0:
            raise InputError(f"the form is not valid: a part has no header, or one of more than {MOST_HEADER} bytes.")
        lines = body[at:begin].split(b"\r\n")
        header = next((line for line in lines if line.lower().startswith(b"content-disposition:")), b"")
        at = body.find(b"\r\n" + delimiter, begin + 2)
        yield header.partition(b":")[2].strip(), body[begin + 4 : at] if at >= 0 else b""
        at = at + 2 if at >= 0 else at
    raise InputError(f"the form is not valid: it has more than {MOST_PARTS} parts.")


def _charset(name: bytes) -> str:
    # Not every codec of Python's is an alphabet: some pack, some raise what no reader expects.
    try:
        found = codecs.lookup(name.decode("latin-1")).name
    except (LookupError, ValueError):
        found = ""
    return found if found in ("utf-8", "ascii", "iso8859-1", "cp1252") else "utf-8"


def _text(content: bytes, charset: str) -> str:
    try:
        return content.decode(charset)
    except UnicodeDecodeError as error:
        raise InputError("the form is not valid: a field is no text in UTF-8.") from error
