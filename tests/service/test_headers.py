"""Every header is data: whatever is in it, there is an answer, never an error of the server's."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_safety import KEY

from framewake.service.api import Access, create_app
from framewake.service.site import site_of

APP = "https://app.example.com"
NAMES = (
    "host origin authorization x-api-key cookie content-type content-length accept accept-language range if-none-match "
)
NAMES += "if-modified-since idempotency-key x-forwarded-host x-forwarded-proto x-forwarded-for content-encoding expect "
NAMES += "sec-fetch-site access-control-request-method user-agent connection"
ODD = [
    "",
    " ",
    "é",
    "\x00",
    "\x7f",
    "http://[",
    "http://[::1",
    "null",
    "*",
    "a" * 20_000,
    "%00",
    "\\" * 8000,
    "bytes=0-0,-1",
    "-1",
]
ODD += [
    "9" * 5000,
    "Bearer",
    "Bearer é",
    "Basic \xff",
    "application/json; charset=" + "x" * 300,
    "multipart/form-data; boundary=",
]
ODD += [
    "framewake_session=" + "\\" * 4000,
    "framewake_session=²²²²²²²²²²²²².x",
    "W/",
    '"',
    "Tue, 99 Foo 9999",
    ";;;=,,,",
    "evil@localhost",
]


@settings(max_examples=200, deadline=None)
@given(
    headers=st.dictionaries(
        st.sampled_from(NAMES.split()),
        st.sampled_from(ODD) | st.binary(max_size=60).map(lambda b: b.decode("latin-1")),
        max_size=5,
    ),
    path=st.sampled_from(
        ["/v1/videos", "/v1/models", "/health", "/login", "/", "/v1/videos/x/content", "/docs", "/page/settings"]
    ),
    method=st.sampled_from(["GET", "POST", "HEAD", "OPTIONS", "DELETE"]),
    query=st.sampled_from(
        ["", "limit=" + "9" * 5000, "after=%ff%00", "order=" + "a" * 9000, "a&" * 900, "limit=1&limit=x"]
    ),
)
def test_any_header_is_answered(fuzzed, headers, path, method, query):
    """Straight to the application, as a server hands over what a client has sent. Never 500, and nothing at length."""
    raw = [
        (name.encode(), value.encode("latin-1"))
        for name, value in headers.items()
        if value.isascii() or ord(max(value)) < 256
    ]
    raw += [] if "host" in headers else [(b"host", b"localhost")]
    for app in fuzzed:
        status, body = app(method, path, query, raw)
        assert status < 500 or status in (501, 503), (status, body[:300])
        assert len(body) < 4000 or status == 200


@pytest.fixture(scope="module")
def fuzzed(toy, tmp_path_factory):
    """Applications with and without keys, each with its page, called without a client in between."""
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    from framewake.service.database import Database, default_url
    from framewake.service.desk import Desk
    from framewake.service.guard import Limits
    from framewake.service.storage import Storage
    from framewake.service.store import JobStore
    from framewake.weights.checkpoint.load import open_checkpoint

    # A thread of its own: where tests of the page ran before in this process, its main thread has a loop that runs.
    thread = ThreadPoolExecutor(1)

    def caller(app):
        def call(method, path, query, headers):
            sent = []
            messages = [{"type": "http.request", "body": b"{}", "more_body": False}]

            async def receive():
                return messages.pop() if messages else {"type": "http.disconnect"}

            async def send(message):
                sent.append(message)

            scope = {"type": "http", "http_version": "1.1", "method": method, "path": path, "raw_path": path.encode()}
            scope |= {"query_string": query.encode(), "headers": headers, "scheme": "http", "client": ("127.0.0.1", 1)}
            scope |= {"server": ("127.0.0.1", 80), "root_path": "", "asgi": {"version": "3.0", "spec_version": "2.3"}}
            with contextlib.suppress(Exception):  # raised again after it was answered with 500, which is looked for
                thread.submit(asyncio.run, app(scope, receive, send)).result()
            return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])

        return call

    made = []
    for number, keys in enumerate(((), (KEY,))):
        storage = Storage(tmp_path_factory.mktemp("fuzzed") / "data")
        database = Database(default_url(storage.folder))
        desk = Desk(JobStore(database), storage, open_checkpoint(toy), limits=Limits())
        site = site_of((), (APP,) if number else (), root="", proxies=(), has_keys=bool(keys))
        made.append(caller(create_app(desk, Access(keys, site), has_page=bool(keys))))
    yield made
    thread.shutdown()
