"""Where the server listens: what cannot be had is told at once, in one line."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from framewake.app.listen import address_of, listen
from framewake.errors import InputError

SERVE = [sys.executable, "-m", "framewake", "serve", "--no-page", "--no-worker"]


@pytest.fixture
def taken():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        yield held.getsockname()[1]


def test_a_port_in_use_is_told_before_anything_is_loaded(call, tmp_path, taken):
    pytest.importorskip("gradio")
    answer = call("serve", "--port", taken)
    assert answer.code == 2 and answer.out == ""
    assert answer.err.startswith(f"framewake: port {taken} of 127.0.0.1 is in use: add --port ")
    assert answer.err.count("\n") == 1 and list(tmp_path.iterdir()) == []


def test_the_port_that_is_advised_is_free(taken):
    with pytest.raises(InputError) as told:
        listen("127.0.0.1", taken)
    advised = int(str(told.value).split("--port ")[1].rstrip("."))
    for each in listen("127.0.0.1", advised):
        each.close()


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("", "--host is empty"),
        ("[]", "--host is empty"),
        ("nowhere.invalid", "cannot be looked up"),
        ("http://localhost:7860", "without http:// and without a port"),
        ("localhost:7860", "without a port, which is --port"),
        ("a\0b", "cannot be looked up"),
        ("a" * 300, "cannot be looked up"),
        ("203.0.113.7", "no address of this machine"),
    ],
)
def test_a_host_that_is_none(host, words):
    with pytest.raises(InputError, match="--host ") as told:
        listen(host, 0)
    assert words in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("host", "shown"),
    [("127.0.0.1", "127.0.0.1"), ("localhost", "localhost"), ("::1", "[::1]"), ("[::1]", "[::1]"), ("::", "[::]")],
)
def test_free_ports_and_ipv6(host, shown):
    try:
        opened = listen(host, 0)
    except InputError as error:
        if ":" in host and "no address of this machine" in str(error):
            pytest.skip("no IPv6 here")
        raise
    ports = {each.getsockname()[1] for each in opened}
    assert len(ports) == 1 and ports != {0}
    assert address_of(host, opened) == f"http://{shown}:{ports.pop()}"
    for each in opened:
        each.close()


def test_a_privileged_port(tmp_path):
    first = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
    if os.name != "posix" or os.geteuid() != 0 or not os.path.exists(first):
        pytest.skip("needs to give up the rights of root")
    with open(first) as file:
        if int(file.read()) <= 80:
            pytest.skip("every port is free to all here")
    # Once before: without its rights the process cannot read its own libraries.
    code = "import os; from framewake.app.listen import listen; listen('localhost', 0); os.setuid(65534)"
    code += "; listen('127.0.0.1', 80)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "port 80 needs special rights" in done.stderr


def test_of_two_servers_at_once_one_serves(toy, tmp_path):
    pytest.importorskip("uvicorn")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [*SERVE, "--port", str(port), "--checkpoint", str(toy), "--data"]
    both = [
        subprocess.Popen([*command, str(tmp_path / name)], stderr=subprocess.PIPE, text=True) for name in ("a", "b")
    ]
    try:
        # Asked while it still loads, the one that has the port answers when it is ready.
        while all(process.poll() is None for process in both):
            time.sleep(0.05)
        (loser,) = [process for process in both if process.poll() is not None]
        assert loser.wait() == 2 and f"port {port} of 127.0.0.1 is in use" in loser.stderr.read()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/videos") as answer:
            assert json.load(answer)["data"] == []
    finally:
        for process in both:
            process.terminate()
            process.communicate()


def test_the_sockets_are_known_for_tcp():
    """Asyncio turns off the delay of small packets for those only: else each answer takes 40 ms more."""
    opened = listen("localhost", 0)
    assert {each.proto for each in opened} == {socket.IPPROTO_TCP}
    for each in opened:
        each.close()
