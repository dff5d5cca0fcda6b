"""The API as a client asks it, over HTTP or within this process: answers are values, refusals are errors."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from framewake.errors import EngineError, FramewakeError, InputError
from framewake.network import proxy_for, through
from framewake.setting import shown

SECONDS = 60.0


class Calls:
    """A server under the name ``where``; ``app`` is one in this process, None one that ``where`` is the address of."""

    def __init__(self, where: str, *, key: str | None = None, app: Any = None) -> None:
        self.where = where.rstrip("/")
        self.proxy = None if app is not None else proxy_for(self.where)
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        options: dict[str, Any] = {"headers": headers, "timeout": SECONDS, "trust_env": False}
        if app is not None:
            options |= {"transport": httpx.ASGITransport(app=app), "base_url": "http://localhost"}
        else:
            # The context reads SSL_CERT_FILE; proxies have been looked for already.
            options |= {"verify": httpx.create_ssl_context(), "proxy": self.proxy, "base_url": self.where}
        try:
            self.client = httpx.AsyncClient(**options)
        except (httpx.InvalidURL, ValueError) as error:
            raise InputError(f"--server {where} is no address of a server ({error}).") from error

    async def ask(self, method: str, path: str, *, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What the server answers; ``given`` is the query of a GET, and the body of anything else.

        Raises: InputError for what it refuses, EngineError where it fails or is away.
        """
        response = await self._send(method, path, given)
        return answered(response, self.where)

    async def file(self, path: str, query: Mapping[str, Any] | None = None) -> bytes:
        """A file of the server. Raises: as ``ask``."""
        response = await self._send("GET", path, query)
        if response.is_error or response.is_redirect:
            answered(response, self.where)
        return response.content

    async def _send(self, method: str, path: str, given: Mapping[str, Any] | None) -> httpx.Response:
        try:
            if method == "GET":
                return await self.client.get(path, params=given)
            return await self.client.request(method, path, json=given)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            reason = str(error) or type(error).__name__
            raise EngineError(
                f"{self.where} does not answer as a framewake server does{through(self.proxy)} ({reason})."
            ) from error


def answered(response: httpx.Response, where: str) -> dict[str, Any]:
    """The value in an answer.

    Raises: InputError for a refusal in the server's own words, EngineError for a failure or another kind of server.
    """
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict) or (response.is_redirect and "error" not in body):
        raise EngineError(f"{where} does not answer as a framewake server does (status {response.status_code}).")
    if response.status_code >= 400:
        kind: Callable[[str], FramewakeError] = InputError if response.status_code < 500 else EngineError
        told = body.get("error")
        message = told.get("message") if isinstance(told, dict) else None
        raise kind(str(message or f"{where} answers with status {response.status_code}."))
    return body


def place_of(video: Any) -> str:
    """The path of a video.

    Raises: InputError for what cannot be the id of one.
    """
    if not isinstance(video, str) or re.fullmatch(r"[A-Za-z0-9_-]{1,64}", video) is None:
        raise InputError(f"id is {shown(video)}: expected the id of a clip, as make_clip gave it.")
    return f"/v1/videos/{video}"
