"""What every request passes before it reaches an endpoint."""

from __future__ import annotations

import hashlib
import hmac
import threading
import time
import urllib.parse
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from framewake.service import sessions
from framewake.service.refusals import Forbidden, Refused, TooLarge, TooMany, Unauthorised

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOGIN = "/login"
OPEN_PATHS = {"/health", LOGIN}
SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
NOBODY = "local"  # who asks when there are no keys
LOOPBACK_NAMES = {"localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True)
class Limits:
    """What one request and one key may use. Units: bytes, pixels, videos waiting, videos a minute."""

    upload_bytes: int = 20 * 2**20
    pixels: int = 40_000_000
    queued: int = 1000
    per_minute: int = 600


@dataclass
class Rate:
    """A bucket of tokens for each key: so many at once, refilled over a minute."""

    per_minute: int
    _left: dict[str, tuple[float, float]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, owner: str) -> None:
        """Use one. Raises: TooMany when there is none left."""
        with self._lock:
            now = time.monotonic()
            left, before = self._left.get(owner, (float(self.per_minute), now))
            left = min(float(self.per_minute), left + (now - before) * self.per_minute / 60)
            if left < 1:
                wait = int((1 - left) * 60 / self.per_minute) + 1
                raise TooMany(f"more than {self.per_minute} videos a minute: wait {wait} s.", retry_after=wait)
            self._left[owner] = (left - 1, now)


def owner_of(key: str) -> str:
    """How a key is called in the database, which never holds the key itself."""
    return hashlib.sha256(key.encode()).hexdigest()[:32]


class Guard:
    """An ASGI middleware: keys, hosts, origins and sizes. The owner of a request is in ``scope["owner"]``."""

    def __init__(
        self, app: App, *, keys: Sequence[str], is_local: bool, limits: Limits, has_page: bool = False
    ) -> None:
        self.app = app
        self.has_page = has_page
        self.keys = [key.encode() for key in keys]
        self.is_local = is_local
        self.limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check, count the body's bytes, and hand on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # nothing here speaks over websockets
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            self._check_site(scope, headers)
            scope["owner"] = self._owner(scope, headers)
            self._check_length(headers)
        except Unauthorised as error:
            is_page = self.has_page and scope["method"] == "GET" and "text/html" in headers.get("accept", "")
            await (_to_login if is_page else _refuse)(error, scope, receive, send)
            return
        except Refused as error:
            await _refuse(error, scope, receive, send)
            return
        await self.app(scope, self._counted(receive), send)

    def _check_site(self, scope: Scope, headers: dict[str, str]) -> None:
        """A page in the user's browser must not reach a server on the user's machine."""
        host = headers.get("host", "")
        if self.is_local and _hostname(host) not in LOOPBACK_NAMES:
            raise Forbidden("this server answers to localhost only.")
        origin = headers.get("origin")
        if origin is not None and scope["method"] not in SAFE_METHODS and urllib.parse.urlsplit(origin).netloc != host:
            raise Forbidden("this request comes from a page of another site.")

    def _owner(self, scope: Scope, headers: dict[str, str]) -> str:
        if not self.keys:
            return NOBODY
        kind, _, given = headers.get("authorization", "").partition(" ")
        key = given.strip() if kind.lower() == "bearer" else headers.get("x-api-key", "")
        # Every key is compared, each in constant time, so that nothing can be learnt from how long it takes.
        matches = [hmac.compare_digest(known, key.encode()) for known in self.keys]
        if any(matches):
            return owner_of(key)
        session = sessions.key_of(headers.get("cookie", ""), self.keys)
        if session is not None:
            return owner_of(session)
        if scope["path"] in OPEN_PATHS:
            return NOBODY
        raise Unauthorised("a valid API key is needed: send it as Authorization: Bearer KEY.")

    def _check_length(self, headers: dict[str, str]) -> None:
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > self._most_bytes():
            raise self._too_large()

    def _counted(self, receive: Receive) -> Receive:
        size = 0

        async def counted() -> MutableMapping[str, Any]:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._most_bytes():
                raise self._too_large()
            return message

        return counted

    def _most_bytes(self) -> int:
        # Base64 in JSON is a third larger than the picture; the other fields are small.
        return self.limits.upload_bytes * 4 // 3 + 2**20

    def _too_large(self) -> TooLarge:
        return TooLarge(f"the request is too large: a picture may have {self.limits.upload_bytes:,} bytes.")


def _hostname(host: str) -> str:
    try:
        return urllib.parse.urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


async def _to_login(_error: Refused, scope: Scope, receive: Receive, send: Send) -> None:
    from starlette.responses import RedirectResponse

    await RedirectResponse(LOGIN, status_code=303)(scope, receive, send)


async def _refuse(error: Refused, scope: Scope, receive: Receive, send: Send) -> None:
    from framewake.service.answers import answer_error

    await answer_error(error)(scope, receive, send)
