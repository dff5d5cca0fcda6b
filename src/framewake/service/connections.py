"""Connections: how long a client may keep the server waiting, and how many connections there may be.

uvicorn limits the time between requests and nothing else. Here the header of a request, its body, the rest of a body
that was answered already, and the reading of an answer have limits too. When there are too many connections, the client
that has kept the server waiting for longest makes room; one that the server works for is never cut.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from framewake.service.guard import App, Receive, Scope, Send

log = logging.getLogger("framewake.serve")

HEADER_SECONDS = 10.0
BODY_SECONDS, LEAST_RATE = 30.0, 5000  # and what a body may take: so long, and more for each byte that has come
AFTERWARDS_SECONDS = 5.0  # for the rest of a body after the answer
READ_SECONDS = 30.0  # without a byte of the answer being taken
IDLE_SECONDS = 75  # between two requests: longer than a proxy keeps a connection, so that it never meets a closed one
TICK_SECONDS = 0.5
PIECE = 16 * 1024  # of what is read while a header comes: h11 limits headers that do not end within one piece
NEVER = 1e6
QUIET_SECONDS = 60.0  # between two words about the same trouble
SPARE_FILES = 64
TIMED_OUT = (
    b'{"error":{"message":"the request came too slowly.","type":"invalid_request_error","code":"timeout","param":null}}'
)
NOT_HTTP = (
    b'{"error":{"message":"this is no valid HTTP request.","type":"invalid_request_error","code":"bad_request",'
    b'"param":null}}'
)
FULL = (
    b'{"error":{"message":"the server has too many connections: try again in some seconds.",'
    b'"type":"server_error","code":"unavailable","param":null}}'
)


class Connections:
    """All connections of a server. Give ``make`` to uvicorn as its ``http``: it calls that for each one."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.open: dict[Connection, None] = {}  # the oldest first
        self._said: dict[str, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def make(self, config: Any, server_state: Any, app_state: Any, *, _loop: Any = None) -> Connection:
        """A protocol for one connection."""
        return Connection(self, config=config, server_state=server_state, app_state=app_state, _loop=_loop)

    def add(self, connection: Connection) -> None:
        """Take one more, in the place of the one that has waited for its client longest, or not at all."""
        if len(self.open) >= self.most:
            self.say("full", "%d connections are open: those that keep the server waiting make room", self.most)
            slowest = max(self.open, key=Connection.kept_waiting)
            if slowest.kept_waiting() < 0:
                connection.refuse(503, b"Service Unavailable", FULL)
                return
            slowest.transport.abort()
            del self.open[slowest]
        self.open[connection] = None
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)

    def _tick(self) -> None:
        for connection in list(self.open):
            connection.check()
        again = asyncio.get_running_loop().call_later
        self._timer = again(TICK_SECONDS, self._tick) if self.open else None

    def watching(self, app: App) -> App:
        """The same application. From its start on it is told once a minute that the system has no more descriptors,
        instead of with a traceback for each of them."""

        async def watched(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "lifespan":
                asyncio.get_running_loop().set_exception_handler(self._complain)
            await app(scope, receive, send)

        return watched

    def _complain(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
            words = "no more connections can be taken (%s): raise the limit of open files (ulimit -n); %d are open"
            self.say("files", words, error.strerror, len(self.open))
            return
        loop.default_exception_handler(context)

    def say(self, what: str, text: str, *values: object) -> None:
        """A warning, once a minute for each trouble."""
        now = time.monotonic()
        if now - self._said.get(what, -QUIET_SECONDS) >= QUIET_SECONDS:
            self._said[what] = now
            log.warning(text, *values)


class Connection(H11Protocol):
    """One connection, with limits to the time that its client takes."""

    def __init__(
        self, all_of_them: Connections, *, config: Any, server_state: Any, app_state: Any, _loop: Any = None
    ) -> None:
        super().__init__(config=config, server_state=server_state, app_state=app_state, _loop=_loop)
        self.all = all_of_them
        self._phase: tuple[str, object] = ("", None)
        self._since = time.monotonic()  # when the client's turn began
        self._looked = self._since
        self._waited = 0.0  # seconds of a body's time that the client has used
        self._received = 0  # bytes of it
        self._buffered, self._stuck = 0, 0.0  # bytes that the client has not taken, and seconds since it took one

    # --- what uvicorn calls

    def connection_made(self, transport: Any) -> None:
        """Take part, or be refused."""
        super().connection_made(transport)
        self.all.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave."""
        self.all.open.pop(self, None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Hand on, a header in pieces that can be limited."""
        self._received += len(data)
        size = PIECE if self.conn.their_state is h11.IDLE else len(data)
        for begin in range(0, len(data), size):
            if not self.transport.is_closing():
                super().data_received(data[begin : begin + size])

    def resume_writing(self) -> None:
        """The client takes its answer."""
        self._stuck = 0.0
        super().resume_writing()

    # --- time

    def turn(self) -> str:
        """What the server waits for: "header", "body", "rest" of an answered body, or "" when it works itself."""
        theirs = self.conn.their_state
        if theirs is h11.IDLE:
            is_begun = self.cycle is None or bool(self.conn.trailing_data[0])
            return "header" if is_begun else "idle"
        if theirs is h11.SEND_BODY:
            return "body" if self.conn.our_state in (h11.SEND_RESPONSE, h11.SEND_BODY) else "rest"
        return ""

    def kept_waiting(self) -> float:
        """Seconds since the client's turn began, below 0 when it is the server's. Who never asked anything is first."""
        if self.turn() == "":
            return self._stuck or -1.0
        return time.monotonic() - self._since + (NEVER if self.cycle is None else 0.0)

    def check(self) -> None:
        """Cut the connection when its client has used up its time."""
        now = time.monotonic()
        passed, self._looked = now - self._looked, now
        self._check_reading(passed)
        phase = (self.turn(), self.cycle)
        if phase != self._phase:
            self._phase, self._since, self._waited, self._received = phase, now, 0.0, 0
            return
        what = phase[0]
        if what == "header" and now - self._since > HEADER_SECONDS:
            self._time_out()
        elif what == "rest" and now - self._since > AFTERWARDS_SECONDS:
            self.transport.abort()
        elif what == "body" and not self.flow.read_paused and not self.cycle.body:
            self._waited += passed
            if self._waited > BODY_SECONDS + self._received / LEAST_RATE:
                self._time_out()

    def _check_reading(self, passed: float) -> None:
        size = self.transport.get_write_buffer_size()
        is_moving = size == 0 or size < self._buffered
        self._stuck = 0.0 if is_moving else self._stuck + passed
        self._buffered = size
        if self._stuck > READ_SECONDS:
            self.transport.abort()

    def _time_out(self) -> None:
        self.all.say("slow", "a request came too slowly and was given up (others like it are not told for a minute)")
        self._give_up(408, b"Request Timeout", TIMED_OUT)

    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls where something is not HTTP, also in the middle of a body."""
        self._give_up(400, b"Bad Request", NOT_HTTP)

    def _give_up(self, status: int, reason: bytes, body: bytes) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            is_begun = self.cycle.response_started
            self.cycle.disconnected = True  # whoever reads the body is told
            self.cycle.message_event.set()
            if is_begun:
                self.transport.abort()
                return
        self.refuse(status, reason, body)

    def refuse(self, status: int, reason: bytes, body: bytes) -> None:
        """Answer beside uvicorn, and close."""
        head = b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n" % (
            status,
            reason,
            len(body),
        )
        retry = b"retry-after: 5\r\n" if status == 503 else b""
        self.transport.write(head + retry + b"connection: close\r\n\r\n" + body)
        self.transport.close()


def most_connections() -> int:
    """How many there may be; each may want a file for its video too. Raises the limit of open files where it may."""
    try:
        import resource
    except ImportError:  # Windows counts differently
        return 500
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 4096:
        wanted = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return max(16, min(1000, (soft - SPARE_FILES) // 2))
