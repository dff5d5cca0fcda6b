"""What HTTP itself requires, before anything is counted or remembered: known methods, short headers, plain paths.

Every answer gets the headers that keep browsers from guessing, framing and telling on.
"""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import MutableHeaders

from framewake.service.answers import answer_error
from framewake.service.guard import App, Receive, Scope, Send
from framewake.service.refusals import BadRequest, LongAddress, LongHeader, Refused, UnknownMethod
from framewake.service.sessions import COOKIE, LANGUAGE_COOKIE
from framewake.service.site import Site, hostname

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
MOST_ADDRESS, MOST_HEADERS, MOST_HEADER_BYTES = 8192, 100, 32 * 1024
# Given twice, each of these could mean one thing to a proxy and another one here.
ONCE = frozenset(
    b"host authorization x-api-key origin content-type content-encoding idempotency-key range sec-fetch-site".split()
)
_OURS = re.compile(rf"\s*((?:{COOKIE}|{LANGUAGE_COOKIE})=[\w.]*)\s*", re.ASCII)


class Plain:
    """An ASGI middleware; the path without the site's root is in ``scope["inner"]`` from here on."""

    def __init__(self, app: App, *, site: Site) -> None:
        self.app = app
        self.site = site
        self.answered = safe_headers(site)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or hand on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def safe(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self.answered.items():
                    headers.setdefault(name, value)
                if headers.get("content-type", "").startswith("application/json"):
                    headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            _check(scope)
        except Refused as error:
            await answer_error(error)(scope, receive, safe)
            return
        inner = self.site.inner(scope["path"])
        # Other programs on the same host leave their cookies too, and taking those apart can be made to cost much.
        headers = [(name, _ours(value) if name == b"cookie" else value) for name, value in scope["headers"]]
        seen = {"inner": inner, "path": self.site.root + inner, "root_path": self.site.root, "headers": headers}
        await self.app({**scope, **seen}, receive, safe)


def safe_headers(site: Site) -> dict[str, str]:
    """Headers of every answer that has no others of the same names. Pages that may use the API may frame the page."""
    around = [origin for origin in site.origins if origin.startswith("http")]
    found = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin"}
    if around:
        return found | {"Content-Security-Policy": f"frame-ancestors 'self' {' '.join(around)}"}
    return found | {"Content-Security-Policy": "frame-ancestors 'none'", "X-Frame-Options": "DENY"}


def _check(scope: Scope) -> None:
    """Whether a request is one that this server can understand.

    Raises: Refused.
    """
    if scope["method"] not in METHODS:
        raise UnknownMethod("the method is unknown: GET, HEAD, POST, DELETE and OPTIONS are used here.")
    if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > MOST_ADDRESS:
        raise LongAddress(f"the address has more than {MOST_ADDRESS:,} characters.")
    headers = scope["headers"]
    if len(headers) > MOST_HEADERS or sum(len(name) + len(value) for name, value in headers) > MOST_HEADER_BYTES:
        raise LongHeader(f"the request has more than {MOST_HEADERS} headers or {MOST_HEADER_BYTES:,} bytes of them.")
    names = [name.lower() for name, _ in headers]
    twice = next((name for name in names if name in ONCE and names.count(name) > 1), None)
    if twice is not None:
        raise BadRequest(f"the header {twice.decode()} was sent more than once.")
    hostname(next((value.decode("latin-1") for name, value in headers if name.lower() == b"host"), ""))


def _ours(cookies: bytes) -> bytes:
    parts = cookies.decode("latin-1").split(";")
    return "; ".join(found[1] for found in map(_OURS.fullmatch, parts) if found).encode()
