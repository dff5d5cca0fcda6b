"""Proxies in the environment: used as it says, never for this machine, told in one line when they are of no use."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading

import pytest

from framewake.errors import EngineError, FramewakeError, InputError
from framewake.network import forget_proxies, is_this_machine, proxy_for

VIDEO = {"id": "video_1", "status": "queued", "progress": 0, "created_at": 1767225600, "prompt": "a circle"}
NAMES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in NAMES:
        for each in (name, name.upper()):
            monkeypatch.delenv(each, raising=False)


@pytest.fixture
def server():
    """Says what it is told to, as a server of videos or as a proxy that is asked for whole addresses."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked.append(self.path)
            body = self.server.says if isinstance(self.server.says, bytes) else json.dumps(self.server.says).encode()
            self.send_response(self.server.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    made.asked, made.says, made.status = [], {"data": [VIDEO]}, 200
    made.url = f"http://127.0.0.1:{made.server_address[1]}"
    threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def run(*arguments, **environment):
    line = [sys.executable, "-m", "framewake.app.cli", *arguments]
    clean = {name: value for name, value in os.environ.items() if name.lower() not in NAMES}
    return subprocess.run(line, env=clean | environment, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "http://127.0.0.1:1", "nonsense://x", ":::"])
@pytest.mark.parametrize("name", ["http_proxy", "ALL_PROXY"])
def test_this_machine_is_never_asked_through_a_proxy(server, name, proxy):
    done = run("jobs", "list", "--server", server.url, **{name: proxy})
    assert done.returncode == 0, done.stderr
    assert "a circle" in done.stdout and server.asked == ["/v1/videos?limit=20"]


def test_another_machine_is(server):
    done = run("jobs", "list", "--server", "http://videos.invalid:7860", http_proxy=server.url)
    assert done.returncode == 0, done.stderr
    assert server.asked == ["http://videos.invalid:7860/v1/videos?limit=20"]
    direct = run("jobs", "list", "--server", "http://videos.invalid", http_proxy=server.url, no_proxy="videos.invalid")
    assert direct.returncode == 4 and "proxy" not in direct.stderr and len(server.asked) == 1


@pytest.mark.parametrize(
    ("proxy", "words", "code"),
    [
        ("socks5://me:secret@127.0.0.1:1", "needs the package socksio", 4),
        ("http://me:secret@127.0.0.1:1", "through the proxy http://...@127.0.0.1:1", 4),
        ("ftp://127.0.0.1", "expected a proxy's address", 2),
        ("http://", "expected a proxy's address", 2),
        ("http://a b", "expected a proxy's address", 2),
        ("http://[::1", "expected a proxy's address", 2),
    ],
)
def test_a_proxy_of_no_use_is_told_in_one_line(monkeypatch, proxy, words, code):
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None if name == "socksio" else object())
    monkeypatch.setenv("ALL_PROXY", proxy)
    from framewake.app.jobs import show_jobs

    kind = {2: InputError, 4: EngineError}[code]
    with pytest.raises(kind) as told:
        show_jobs({"server": "http://videos.invalid", "api_key": None, "limit": 1, "json": False})
    assert words in str(told.value) and "secret" not in str(told.value)


@pytest.mark.parametrize("url", ["http://localhost", "http://LOCALHOST.:1", "http://127.9.9.9", "http://[::1]:7860"])
def test_names_of_this_machine(monkeypatch, url):
    monkeypatch.setenv("ALL_PROXY", "http://proxy.invalid")
    assert proxy_for(url) is None
    assert proxy_for(url.replace("localhost", "elsewhere.invalid")) in (None, "http://proxy.invalid")
    assert not is_this_machine("localhost.example.com") and not is_this_machine("128.0.0.1")


@pytest.mark.parametrize("url", ["", "x", "localhost:7860", "ftp://a", "http://", "http://[", "http://a:b"])
def test_what_is_no_address(url):
    with pytest.raises(FramewakeError, match="is no address"):
        proxy_for(url)


def test_a_server_forgets_them(monkeypatch):
    """Gradio makes clients for every proxy that is named while it is imported."""
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "*")
    forget_proxies()
    assert not [name for name in os.environ if name.lower() in NAMES]
    monkeypatch.undo()


def test_words_of_other_people_stay_words(server):
    """A prompt, or a whole answer, that would write lines of its own or steer the terminal."""
    prompt = "a\x1b[2J\u202eb\u009bc\nstatus: completed\r\n"
    server.says = {"data": [VIDEO | {"prompt": prompt, "status": "que\x1bued\nvideo_2  completed"}]}
    done = run("jobs", "list", "--server", server.url)
    assert done.returncode == 0 and done.stdout.count("\n") == 1
    server.says = VIDEO | {"prompt": prompt, "no\nte": "x\ny"}
    for flags in ((), ("--json",)):
        done = run("jobs", "show", "video_1", "--server", server.url, *flags)
        assert done.returncode == 0 and not set("\x1b\x9b\u202e\r") & set(done.stdout)
        assert "\nstatus: completed" not in done.stdout and "\ny" not in done.stdout
    assert json.loads(done.stdout)["prompt"] == prompt
    server.says, server.status = {"error": {"message": prompt}}, 404
    done = run("jobs", "show", "video_1", "--server", server.url)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "\x1b" not in done.stderr


@pytest.mark.parametrize(
    "says",
    [
        *(
            [],
            "x",
            7,
            None,
            {},
            {"data": None},
            {"data": [None]},
            {"data": [{}]},
            {"data": [VIDEO | {"progress": "x"}]},
        ),
        *({"data": [VIDEO | {"created_at": 10**30}]}, {"data": [VIDEO | {"id": None}]}, b"<html>", b"", b"\xff"),
    ],
)
@pytest.mark.parametrize("status", [200, 404, 500])
def test_another_server_is_no_framewake_server(server, says, status, capsys):
    from framewake.app.jobs import show_jobs

    server.says, server.status = says, status
    with pytest.raises((EngineError, InputError), match=r"does not answer as|answers with status"):
        show_jobs({"server": server.url, "api_key": None, "limit": 1, "json": False})
    assert capsys.readouterr().out == ""
