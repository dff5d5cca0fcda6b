"""Clients that take their time, over real sockets: none of them keeps others out, and none stays for ever."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
import time

import pytest
import uvicorn

from framewake.app.serve import run_server
from framewake.console.logs import MOST_A_MINUTE, MOST_LETTERS, Flood, LogFormat
from framewake.service import connections
from framewake.service.connections import Connections

LIMITS = {
    "HEADER_SECONDS": 0.4,
    "BODY_SECONDS": 0.4,
    "AFTERWARDS_SECONDS": 0.4,
    "READ_SECONDS": 0.6,
    "TICK_SECONDS": 0.05,
}
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
LARGE = 64 * 2**20


async def application(scope, receive, send):
    """Reads a body when there is one, and answers with its size; "/large" and "/refused" say what they do."""
    if scope["type"] == "lifespan":
        for kind in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{kind}.complete"})
        return
    size, is_more = 0, scope["method"] == "POST" and scope["path"] != "/refused"
    while is_more:
        message = await receive()
        if message["type"] == "http.disconnect":
            application.gone += 1
            return
        size += len(message["body"])
        is_more = message["more_body"]
    body = bytes(LARGE) if scope["path"] == "/large" else str(size).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if scope["path"] == "/stream":
        await asyncio.sleep(1.5)
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def serving(monkeypatch):
    """A server with short limits; how many connections there may be is handed in."""
    for name, value in LIMITS.items():
        monkeypatch.setattr(connections, name, value)
    application.gone = 0
    with contextlib.ExitStack() as stack:

        def start(most=50):
            listening = socket.create_server(("127.0.0.1", 0))
            all_of_them = Connections(most)
            config = uvicorn.Config(
                all_of_them.watching(application),
                http=all_of_them.make,
                ws="none",
                log_config=None,
                h11_max_incomplete_event_size=connections.PIECE,
            )
            server = uvicorn.Server(config)
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
            thread.start()
            stack.callback(thread.join, 10)
            stack.callback(setattr, server, "force_exit", True)
            stack.callback(setattr, server, "should_exit", True)

            def client(sent=b""):
                made = stack.enter_context(socket.create_connection(listening.getsockname(), timeout=20))
                made.sendall(sent)
                return made

            return client, all_of_them

        yield start


def answer(client):
    """Everything until the server closes."""
    found = b""
    with contextlib.suppress(ConnectionError):
        while part := client.recv(2**20):
            found += part
    return found


def until(client, text, times=1):
    """Read until this has come so often."""
    found = b""
    while found.count(text) < times:
        part = client.recv(1000)
        assert part, found
        found += part


def drip(client, data=b"a", seconds=0.05):
    """A byte now and then, until the server has had enough."""

    def go():
        with contextlib.suppress(OSError):
            while True:
                client.sendall(data)
                time.sleep(seconds)

    threading.Thread(target=go, daemon=True).start()


@pytest.mark.parametrize("begun", [b"", b"GET", GET[:-2], GET[:-2] + b"X: "])
@pytest.mark.parametrize("is_dripping", [False, True])
def test_a_header_must_come_soon(serving, begun, is_dripping):
    client, _ = serving()
    slow = client(begun)
    if is_dripping and begun:
        drip(slow)
    found = answer(slow)
    assert b" 200 " not in found and (not begun or b"408" in found or b"400" in found or found == b"")


@pytest.mark.parametrize(
    "data", [b"\x16\x03\x01\0\xa5" + bytes(99), GET.replace(b"Host", b"Ho st"), CHUNKED + b"zz\r\nx\r\n"]
)
def test_what_is_no_http_is_answered_once(serving, caplog, data):
    """Also in the middle of a body: whoever reads that is told, and nobody answers a second time."""
    client, _ = serving()
    found = answer(client(data))
    assert found.startswith(b"HTTP/1.1 400 ") and found.count(b"HTTP/1.1") == 1 and b"no valid HTTP" in found
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("is_dripping", [False, True])
def test_a_body_must_come_soon(serving, is_dripping):
    client, _ = serving()
    slow = client(POST + b"a" * 10)
    if is_dripping:
        drip(slow)
    found = answer(slow)
    assert b"408" in found and b"too slowly" in found
    assert application.gone == 1, "whoever read the body was told"


def test_a_body_that_comes_steadily_may_take_its_time(serving, monkeypatch):
    monkeypatch.setattr(connections, "LEAST_RATE", 100)
    client, _ = serving()
    steady = client(POST)
    for _ in range(20):
        steady.sendall(b"a" * 5000)
        time.sleep(0.05)
    steady.settimeout(10)
    assert b"200 OK" in steady.recv(1000)


def test_the_rest_of_a_refused_body_is_not_awaited(serving):
    client, _ = serving()
    slow = client(POST.replace(b"POST /", b"POST /refused"))
    drip(slow)
    assert b"200 OK" in answer(slow)


def test_an_answer_must_be_read(serving):
    client, all_of_them = serving()
    deaf = client(GET.replace(b"GET /", b"GET /large"))
    for _ in range(200):
        time.sleep(0.05)
        if not all_of_them.open:
            break
    assert not all_of_them.open, "nobody reads, nobody is served"
    assert len(answer(deaf)) < LARGE


def test_an_answer_that_is_read_slowly_is_finished(serving):
    client, _ = serving()
    reader = client(GET.replace(b"GET /", b"GET /large"))
    size = 0
    while size < LARGE:
        part = reader.recv(2**20)
        assert part
        size += len(part)
        time.sleep(0.01)


def test_those_who_keep_the_server_waiting_make_room(serving, caplog):
    client, all_of_them = serving(most=10)
    streaming = client(GET.replace(b"GET /", b"GET /stream"))
    time.sleep(0.2)
    idle = [client(b"GET / HTTP/1.1\r\n") for _ in range(60)]
    honest = client(GET)
    assert b"200 OK" in honest.recv(1000)
    assert len(all_of_them.open) <= 10
    assert b"200 OK" in streaming.recv(1000), "whom the server works for is not cut"
    assert len([record for record in caplog.records if "make room" in record.message]) == 1
    assert idle


def test_a_server_that_works_for_everybody_refuses_others(serving):
    client, _ = serving(most=4)
    streaming = [client(GET.replace(b"GET /", b"GET /stream")) for _ in range(4)]
    time.sleep(0.3)
    refused = answer(client(GET))
    assert b"503" in refused and b"retry-after" in refused and b"too many connections" in refused
    assert all(b"200 OK" in each.recv(1000) for each in streaming)


@pytest.mark.parametrize("header", [b"a: b\r\n" * 20_000, b"a: " + b"b" * 200_000 + b"\r\n", b"a" * 200_000])
def test_long_headers_are_refused_before_they_are_taken_apart(serving, header):
    client, _ = serving()
    found = client(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
    with contextlib.suppress(ConnectionError):
        found.sendall(header + b"\r\n")
    assert b" 200 " not in answer(found)


def test_several_requests_of_one_connection(serving):
    """Kept alive, one after another and all at once, with and without bodies."""
    client, _ = serving()
    kept = client()
    for _ in range(3):
        kept.sendall(GET)
        until(kept, b"\r\n\r\n0")
    body = POST.replace(b"100000", b"5") + b"12345"
    kept.sendall(body + GET + body)
    until(kept, b"200 OK", times=3)
    expecting = client(POST.replace(b"100000", b"5").replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
    until(expecting, b"100 Continue")
    expecting.sendall(b"12345")
    until(expecting, b"\r\n\r\n5")
    chunked = client(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
    until(chunked, b"\r\n\r\n3")
    old = client(b"GET / HTTP/1.0\r\n\r\n")
    assert answer(old).endswith(b"0")


def test_no_more_descriptors_is_one_line(serving, caplog):
    _, all_of_them = serving()

    async def complain():
        loop = asyncio.get_running_loop()
        for _ in range(100):
            all_of_them._complain(loop, {"exception": OSError(24, "Too many open files"), "message": "accept"})

    asyncio.run(complain())
    assert len([record for record in caplog.records if "ulimit -n" in record.message]) == 1


def test_run_server_takes_what_uvicorn_offers(monkeypatch):
    """The settings of the real server, with the version of uvicorn that is installed."""
    made = []
    monkeypatch.setattr(
        uvicorn.Server,
        "run",
        lambda self, sockets: made.append((self.config, sockets)) or setattr(self, "started", True),
    )
    run_server(application, [], proxies=("127.0.0.1", "10.0.0.0/8"))
    config = made[0][0]
    config.load()
    assert config.ws_protocol_class is None and config.forwarded_allow_ips == ["127.0.0.1", "10.0.0.0/8"]


# --- the log


def record(text, *values, line=1, trace=None):
    return logging.LogRecord("framewake.x", logging.WARNING, "x.py", line, text, values, trace)


def test_the_log_is_cut_and_cannot_be_forged():
    form = LogFormat("%(levelname)s %(name)s: %(message)s")
    told = form.format(record("a %s", "b\nINFO framewake.serve: FORGED\r\x1b[2J\u202e\x9b" + "c" * 300_000))
    assert "\n" not in told and not set("\r\x1b\u202e\x9b") & set(told) and len(told) < MOST_LETTERS + 200
    try:
        raise ValueError("x\nINFO framewake.serve: FORGED " + "y" * 300_000)
    except ValueError as error:
        told = form.format(record("failed", trace=(ValueError, error, error.__traceback__)))
    assert not [line for line in told.splitlines()[1:] if not line.startswith("  ")] and len(told) < 10_000


def test_no_place_in_the_program_floods_the_log():
    flood = Flood()
    passed = [flood.filter(record("same")) for _ in range(1000)]
    assert sum(passed) == MOST_A_MINUTE and flood.filter(record("another", line=2))
    later = record("same")
    later.created += 61
    assert flood.filter(later) and "970 like it" in later.getMessage()
