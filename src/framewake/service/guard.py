"""What every request passes before it reaches an endpoint."""

from __future__ import annotations

import hashlib
import hmac
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from framewake.service import sessions
from framewake.service.brake import Brake
from framewake.service.refusals import Refused, TooLarge, TooMany, Unauthorised
from framewake.service.site import Site

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOGIN = "/login"
OPEN_PATHS = {"/health", LOGIN}
NOBODY = "local"  # who asks when there are no keys
UPLOADS = {"/v1/videos", "/page/settings"}  # the only bodies that may be large
SMALL_BODY = 512 * 1024


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
        self, app: App, *, keys: Sequence[str], site: Site, limits: Limits, brake: Brake, has_page: bool = False
    ) -> None:
        self.app = app
        self.has_page = has_page
        self.keys = [key.encode() for key in keys]
        self.site = site
        self.limits = limits
        self.brake = brake

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check, count the body's bytes, and hand on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # nothing here speaks over websockets
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        most = self._most_bytes(scope)
        try:
            self.site.check_host(headers.get("host"))
            self.site.check_origin(scope["method"], headers)
            scope["owner"] = await self._owner(scope, headers)
            length = headers.get("content-length", "")
            if length.isdecimal() and int(length[:20]) > most:
                raise self._too_large(most)
        except Unauthorised as error:
            is_page = self.has_page and scope["method"] == "GET" and "text/html" in headers.get("accept", "")
            await (_to_login if is_page else _refuse)(error, scope, receive, send)
            return
        except Refused as error:
            await _refuse(error, scope, receive, send)
            return
        await self.app(scope, self._counted(receive, most), send)

    async def _owner(self, scope: Scope, headers: dict[str, str]) -> str:
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
        if scope.get("inner", scope["path"]) in OPEN_PATHS:
            return NOBODY
        seconds = await self.brake.wrong(client_of(scope)) if key else 0
        if seconds:
            raise TooMany("too many wrong API keys came from your address: check yours.", retry_after=seconds)
        raise Unauthorised("a valid API key is needed: send it as Authorization: Bearer KEY.")

    def _counted(self, receive: Receive, most: int) -> Receive:
        size = 0

        async def counted() -> MutableMapping[str, Any]:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > most:
                raise self._too_large(most)
            return message

        return counted

    def _most_bytes(self, scope: Scope) -> int:
        if scope["method"] != "POST" or scope.get("inner", scope["path"]) not in UPLOADS:
            return SMALL_BODY
        # Base64 in JSON is a third larger than the picture; the other fields are small.
        return self.limits.upload_bytes * 4 // 3 + 2**20

    def _too_large(self, most: int) -> TooLarge:
        if most == SMALL_BODY:
            return TooLarge(f"the request is too large: here it may have {most:,} bytes.")
        return TooLarge(f"the request is too large: a picture may have {self.limits.upload_bytes:,} bytes.")


def client_of(scope: Scope) -> str:
    """The address that a request came from; behind a trusted proxy, the one that the proxy tells."""
    client = scope.get("client")
    return str(client[0]) if client else ""


async def _to_login(_error: Refused, scope: Scope, receive: Receive, send: Send) -> None:
    from starlette.responses import RedirectResponse

    await RedirectResponse(scope.get("root_path", "") + LOGIN, status_code=303)(scope, receive, send)


async def _refuse(error: Refused, scope: Scope, receive: Receive, send: Send) -> None:
    from framewake.service.answers import answer_error

    await answer_error(error)(scope, receive, send)
