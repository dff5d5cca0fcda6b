"""Addresses that lead inside, and servers that answer badly or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading

import pytest

from framewake.errors import InputError
from framewake.service import fetch
from framewake.service.addresses import is_public
from framewake.service.fetch import Guarded

INSIDE = """
0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.127.255.255 127.0.0.1 127.255.255.255 169.254.169.254
172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.192 192.0.2.1 192.88.99.1 192.168.0.1 198.18.0.1 198.19.255.255
198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255
:: ::1 ::7f00:1 ::127.0.0.1 ::8.8.8.8 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:8.8.8.8 ::ffff:0:127.0.0.1
::ffff:0:8.8.8.8 64:ff9b::7f00:1 64:ff9b::10.0.0.1 64:ff9b::169.254.169.254 64:ff9b:1::1 64:ff9b:1::7f00:1
100::1 100:0:0:1::1 2001::1 2001:0:7f00:1:: 2001:2::1 2001:10::1 2001:20::1 2001:1ff:ffff::1 2001:db8::1 2002::1
2002:7f00:1:: 2002:808:808:: 2620:4f:8000::1 3ffe::1 3fff::1 3fff:fff:ffff::1 4000::1 5f00::1 8000::1 fc00::1 fd00::1
fe00::1 fe80::1 fe80::1%eth0 fec0::1 feff::1 ff02::1 1fff::1
"""
OUTSIDE = """
1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 169.253.255.255 169.255.0.0
172.15.255.255 172.32.0.0 192.0.1.0 192.0.3.0 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0 223.255.255.255
2000::1 2001:200::1 2001:4860:4860::8888 2400:cb00::1 2606:4700::1111 2a00:1450::1 3ffd::1 64:ff9b::808:808
"""


@pytest.mark.parametrize("address", INSIDE.split())
def test_special_addresses_are_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", OUTSIDE.split())
def test_their_neighbours_are(address):
    assert is_public(address)


@pytest.mark.parametrize("text", ["", "x", "1.2.3", "01.2.3.4", "1.2.3.4.5", ":", "2000::1::", "8.8.8.8/8", "8.8.8.8 "])
def test_what_is_no_address_is_not_public(text):
    assert not is_public(text)


@pytest.fixture
def answering():
    """Makes a server that says something to whoever connects, and then listens on or goes away."""
    stop = threading.Event()
    with contextlib.ExitStack() as stack:
        stack.callback(stop.set)

        def make(said, then="close"):
            server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

            def serve():
                with contextlib.suppress(OSError):
                    while True:
                        connection, _ = server.accept()
                        with connection:
                            connection.recv(65536)
                            connection.sendall(said)
                            while then == "drip" and not stop.wait(0.02):
                                connection.sendall(b"x")
                            if then == "wait":
                                stop.wait()

            threading.Thread(target=serve, daemon=True).start()
            return f"http://127.0.0.1:{server.getsockname()[1]}/"

        yield make


HERE = Guarded(allows=lambda address: address.startswith("127."), seconds=0.5)
OK = b"HTTP/1.1 200 OK\r\n"
ANSWERS = {
    "no place to go": b"HTTP/1.1 302 Found\r\n\r\n",
    "another without one": b"HTTP/1.1 308 Permanent Redirect\r\nContent-Length: 0\r\n\r\n",
    "not modified": b"HTTP/1.1 304 Not Modified\r\n\r\n",
    "choices": b"HTTP/1.1 300 Multiple Choices\r\n\r\n",
    "a place that is none": b"HTTP/1.1 302 Found\r\nLocation: http://[\r\n\r\n",
    "a place with a bad port": b"HTTP/1.1 302 Found\r\nLocation: http://a:b/\r\n\r\n",
    "an empty place": b"HTTP/1.1 302 Found\r\nLocation: \r\n\r\n",
    "a place in Latin-1": b"HTTP/1.1 302 Found\r\nLocation: http://\xe9/\r\n\r\n",
    "a long place": b"HTTP/1.1 302 Found\r\nLocation: http://a/" + 60_000 * b"a" + b"\r\n\r\n",
    "a script": b"HTTP/1.1 302 Found\r\nLocation: javascript:alert(1)\r\n\r\n",
    "a bad label": b"HTTP/1.1 302 Found\r\nLocation: http://" + 70 * b"a" + b"/\r\n\r\n",
    "two dots": b"HTTP/1.1 302 Found\r\nLocation: http://a..b/\r\n\r\n",
    "a future address": b"HTTP/1.1 302 Found\r\nLocation: http://[v1.a]/\r\n\r\n",
    "no HTTP": b"SSH-2.0-OpenSSH\r\n",
    "nothing": b"",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "a bad length": OK + b"Content-Length: -1\r\n\r\nx",
    "two lengths": OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    "a short body": OK + b"Content-Length: 10\r\n\r\nx",
    "a bad chunk": OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "packed": OK + b"Content-Encoding: br\r\n\r\nx",
    "endless headers": OK + b"a: b\r\n" * 40_000,
    "bytes": bytes(range(256)),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_broken_answer_is_refused(answering, name):
    url = answering(ANSWERS[name])
    with pytest.raises(InputError, match=r"address|host") as told:
        asyncio.run(HERE.get(url, most_bytes=1000))
    assert len(str(told.value)) < 300


@pytest.mark.parametrize(
    ("said", "then"),
    [(b"", "wait"), (OK, "drip"), (OK + b"Content-Length: 9999\r\n\r\n", "drip"), (OK + b"\r\n", "wait")],
)
def test_nobody_waits_for_a_slow_picture(answering, said, then):
    with pytest.raises(InputError, match=r"did not answer within 0\.5 s"):
        asyncio.run(HERE.get(answering(said, then), most_bytes=10**6))


@pytest.mark.parametrize(("said", "then"), [(b"", "wait"), (OK, "drip"), (b"no HTTP\r\n\r\n", "close"), (b"", "close")])
def test_nobody_waits_for_a_slow_receiver(answering, said, then):
    with pytest.raises(InputError, match=r"no answer within 0\.5 s|cannot be reached"):
        asyncio.run(HERE.post(answering(said, then), b"{}", {}))


def test_a_silent_name_server_holds_nobody(monkeypatch):
    """Neither the check of a callback nor a fetch; the system's own look-up goes on in its thread."""
    asked = threading.Event()
    monkeypatch.setattr(fetch, "LOOKUP_SECONDS", 0.1)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_kwargs: asked.wait(30) and [])
    try:
        with pytest.raises(InputError, match="not known"):
            asyncio.run(Guarded().check("http://silent.example/"))
        with pytest.raises(InputError, match="did not answer"):
            asyncio.run(Guarded().get("http://silent.example/", most_bytes=10))
    finally:
        asked.set()
