"""What the page's handlers, its login and its cookies answer to those who are no browser of ours."""

from __future__ import annotations

import json
import logging

import pytest
from fastapi.testclient import TestClient
from test_front import HTML, KEY, OTHER, call, desk_in, handlers

from framewake.service.api import Access, create_app
from framewake.service.site import Site


@pytest.fixture(scope="module")
def open_client(tmp_path_factory):
    app = create_app(desk_in(tmp_path_factory.mktemp("open")), Access(), has_page=True)
    with TestClient(app, base_url="http://localhost", follow_redirects=False) as client:
        yield client


@pytest.fixture
def under_a_path(tmp_path):
    app = create_app(desk_in(tmp_path), Access(keys=(KEY, OTHER), site=Site(is_open=True, root="/fw")), has_page=True)
    with TestClient(app, base_url="http://video.example.com", follow_redirects=False) as client:
        yield client


NUMBERS = [99999, -1, None, "0", 1.5, True, [0], {}, 10**30]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_handler_that_there_is_not(open_client, number):
    for values in ([], [1], ["x"] * 30):
        answer = open_client.post("/gradio_api/run/predict", json={"fn_index": number, "data": values})
        assert answer.status_code == 400 and answer.json()["error"]["message"], (number, values)


def test_another_count_of_values(open_client, caplog):
    for count, number in handlers(open_client).items():
        for wrong in {0, count - 1, count + 1, 500} - {count, -1}:
            assert call(open_client, number, ["x" * 1000] * wrong).status_code == 400
    assert not caplog.records, "nothing of it goes to the log"


@pytest.mark.parametrize("value", ["x" * 9000, -1e308, 10**30, True, None, ["a", "b"], "\x1b[2J\nINFO forged: line 1"])
def test_values_that_no_control_has(open_client, value, caplog, capfd):
    """Refused or answered, never an error of the server's, and nothing forged in what it says about it."""
    caplog.set_level(logging.INFO)
    for count, number in handlers(open_client).items():
        answer = call(open_client, number, [value] * count)
        assert answer.status_code in (200, 400, 422) and len(answer.content) < 60_000, answer.text[:500]
    assert "\nINFO forged" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("session", ["x" * 100_000, "../x", 7, ["x"], "A B", ""])
def test_sessions_are_short_names(open_client, session):
    (count, number), *_ = handlers(open_client).items()
    body = {"fn_index": number, "data": [""] * count, "session_hash": session}
    assert open_client.post("/gradio_api/run/predict", json=body).status_code == 400


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b"{", b"{}", b'{"data": 1}', b"[" * 9000, b'{"a":0,' * 9000, b"\xff"]
)
def test_bodies_that_are_no_call(open_client, body):
    for path in ("/gradio_api/run/predict", "/zh/gradio_api/run/predict"):
        assert open_client.post(path, content=body).status_code == 400


@pytest.mark.parametrize(
    "body", [b"", b"key", b"key=" + b"x" * 9000, b"key=%ff%00", b"&" * 4000, b"key=" * 900, b"\xff"]
)
def test_logins_that_are_none(under_a_path, body):
    answer = under_a_path.post("/login", content=body)
    assert answer.status_code in (403, 429) and "set-cookie" not in answer.headers


def test_the_brake_on_wrong_keys_lets_the_right_one_in(under_a_path, monkeypatch):
    monkeypatch.setattr("framewake.service.brake.WAIT_SECONDS", 0.0)
    answers = [under_a_path.post("/login", data={"key": f"wrong-{number}"}).status_code for number in range(60)]
    assert answers[0] == 403 and answers[-1] == 429
    assert under_a_path.post("/login", data={"key": KEY}).status_code == 303
    assert under_a_path.get("/fw/v1/videos").status_code == 200


def test_everything_lies_under_the_path(under_a_path):
    """Whether the proxy takes it away or not, links and redirects lead there."""
    for begin in ("", "/fw"):
        answer = under_a_path.get(f"{begin}/", headers=HTML)
        assert (answer.status_code, answer.headers["location"]) == (303, "/fw/login")
        assert 'action="/fw/login"' in under_a_path.get(f"{begin}/login").text
        answer = under_a_path.post(f"{begin}/login", data={"key": KEY})
        assert answer.headers["location"] == "/fw/" and "Path=/fw" in answer.headers["set-cookie"]
        session = {"Cookie": answer.headers["set-cookie"].partition(";")[0]}
        zh = under_a_path.get(f"{begin}/", headers=HTML | session | {"accept-language": "zh"})
        assert zh.headers["location"] == "/fw/zh/"
        for path, link in (("/", 'href="/fw/zh/"'), ("/zh/", 'href="/fw/?language=en"')):
            page = under_a_path.get(f"{begin}{path}", headers=HTML | session | {"accept-language": "en"}).text
            page = page.replace('\\"', '"')
            assert link in page and 'href="/fw/logout"' in page and '"root": "/fw"' in page
        forwarded = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "video.example.com"}
        config = under_a_path.get(f"{begin}/zh/config", headers=session | forwarded).json()
        assert config["root"] == "https://video.example.com/fw/zh"
        assert under_a_path.get(f"{begin}/logout", headers=session).headers["location"] == "/fw/login"


def test_cookies_of_other_programs_are_left_out(under_a_path):
    under_a_path.post("/login", data={"key": KEY})
    cookie = "; ".join(f"{name}={value}" for name, value in under_a_path.cookies.items())
    under_a_path.cookies.clear()
    for other in ("other=" + "\\" * 20_000, "é=é", "a=b; " * 3000, "=;=;="):
        answer = under_a_path.get("/fw/", headers=HTML | {"Cookie": f"{other}; {cookie}".encode("latin-1")})
        assert answer.status_code in (200, 303) and "/login" not in answer.headers.get("location", "")


def test_the_page_may_not_be_framed(open_client):
    headers = open_client.get("/", headers={"accept-language": "en"}).headers
    assert headers["x-frame-options"] == "DENY" and "frame-ancestors 'none'" in headers["content-security-policy"]
    script = json.loads(open_client.get("/config").text)
    assert script["root"] == "http://localhost"
