"""HTTP as clients, proxies and attackers speak it: methods, headers, hosts, origins, paths, conditions."""

from __future__ import annotations

import re

import pytest
from fastapi.testclient import TestClient
from test_api import post
from test_safety import KEY, bearer
from test_worker import work_once

from framewake.errors import InputError
from framewake.service.api import Access, create_app
from framewake.service.brake import AT_ONCE, MOST_ADDRESSES, Brake
from framewake.service.site import Site, site_of

APP = "https://app.example.com"


def sited(desk, client_of, **site):
    return client_of(desk, Access(site=Site(**site)))


@pytest.mark.parametrize("method", ["GETS", "M" * 300, "TRACE", "CONNECT", "PROPFIND", "é"])
def test_unknown_methods_are_refused_and_not_counted(client, method):
    answer = client.request(method, "/health")
    assert answer.status_code == 501 and len(answer.content) < 300
    assert client.get("/metrics").status_code == 200
    assert set(re.findall(r'method="([^"]*)"', client.get("/metrics").text)) == {"GET"}


def test_labels_of_the_figures_are_a_fixed_set(client):
    for number in range(60):
        client.get(f"/v1/nothing/{number}", headers={"Host": "localhost", "User-Agent": f"agent-{number}"})
        client.get(f"/v1/videos/video_{number:032x}")
    text = client.get("/metrics").text
    paths = set(re.findall(r'path="([^"]*)"', text))
    assert paths <= {"other", "/v1/videos/{video_id}", "/metrics"} and "agent" not in text


def test_every_get_answers_head_and_every_address_its_methods(client, picture):
    job = post(client, picture).json()["id"]
    for path in (
        "/health",
        "/metrics",
        "/v1/models",
        "/v1/videos",
        f"/v1/videos/{job}",
        f"/v1/videos/{job}/events",
        "/docs",
    ):
        head = client.head(path)
        assert head.status_code in (200, 503) and head.content == b"", path
    assert client.head(f"/v1/videos/{job}/events").headers["x-accel-buffering"] == "no"
    for path, methods in {
        "/v1/videos": "GET, HEAD, OPTIONS, POST",
        f"/v1/videos/{job}": "DELETE, GET, HEAD, OPTIONS",
    }.items():
        assert client.put(path).status_code == 405 and client.put(path).headers["allow"] == methods
        answer = client.options(path)
        assert (answer.status_code, answer.headers["allow"]) == (204, methods)
    assert not any("head" in methods for methods in client.get("/openapi.json").json()["paths"].values())


def test_slashes_that_clients_add_do_no_harm(client, picture):
    job = post(client, picture).json()["id"]
    for path in (
        f"/v1/videos/{job}/",
        f"http://localhost//v1/videos/{job}",
        f"/v1//videos//{job}",
        "/health/",
        "/v1/models/",
    ):
        assert client.get(path).status_code in (200, 503), path


def test_paths_in_every_form():
    site = Site(root="/fw")
    for path in ("/fw/health", "/health", "//fw//health/", "http://localhost:7860/fw/health", "/health/"):
        assert site.inner(path) == "/health", path
    for path in ("/fw", "/fw/", "/", "http://localhost", "http://localhost/"):
        assert site.inner(path) == "/", path
    assert site.inner("/fwx") == "/fwx" and site.inner("/zh/") == "/zh/"


def test_a_file_that_a_client_has_is_not_sent_again(client, desk, worker_of, picture):
    job = post(client, picture).json()["id"]
    work_once(worker_of(desk))
    place = f"/v1/videos/{job}/content"
    whole = client.get(place)
    tag, date = whole.headers["etag"], whole.headers["last-modified"]
    assert whole.headers["cache-control"] == "private, no-cache"
    for headers in (
        {"If-None-Match": tag},
        {"If-None-Match": f'"x", W/{tag}'},
        {"If-None-Match": "*"},
        {"If-Modified-Since": date},
    ):
        answer = client.get(place, headers=headers)
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag), headers
    for headers in (
        {"If-None-Match": '"x"', "If-Modified-Since": date},
        {"If-Modified-Since": "yesterday"},
        {"If-Match": tag},
    ):
        assert client.get(place, headers=headers).status_code == 200, headers
    assert client.get(place, headers={"If-Match": '"x"'}).status_code == 412
    part = {"Range": "bytes=0-9"}
    assert client.get(place, headers=part | {"If-Range": tag}).status_code == 206
    assert client.get(place, headers=part | {"If-Range": '"x"'}).content == whole.content
    for broken in ("bytes=9-1", "bytes=x", "lines=1-2", "bytes=" + "9" * 5000 + "-", "é", "bytes=-", "=" * 99):
        answer = client.get(place, headers={"Range": broken.encode("latin-1")})
        assert 400 <= answer.status_code < 500 and answer.json()["error"]["code"] == "bad_range", broken


def test_headers_that_are_too_many_or_too_long(client):
    assert client.get("/health", headers={"x": "a" * 40_000}).status_code == 431
    assert client.get("/health", headers={f"x-{number}": "a" for number in range(120)}).status_code == 431
    assert client.get("/health?" + "a" * 9000).status_code == 414
    assert (
        client.get("/v1/videos", headers=[("Authorization", "Bearer a"), ("Authorization", "Bearer b")]).status_code
        == 400
    )


def test_answers_carry_what_browsers_need(client, desk, client_of):
    for path in ("/health", "/v1/nothing", "/docs", "/v1/videos/x"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "same-origin", path
        assert headers["x-frame-options"] == "DENY" and "frame-ancestors 'none'" in headers["content-security-policy"]
    assert client.get("/v1/videos").headers["cache-control"] == "no-store"
    framed = sited(desk, client_of, origins=(APP,)).get("/health").headers
    assert "x-frame-options" not in framed and f"frame-ancestors 'self' {APP}" in framed["content-security-policy"]


# --- where it stands

ODD_HOSTS = [
    "evil@localhost",
    "127.0.0.1/evil",
    "127.0.0.1#evil",
    "127.0.0.1:7860, evil",
    "localhost:7860:1",
    "[::1",
    "a b",
    "localhost?",
]


@pytest.mark.parametrize("host", [*ODD_HOSTS, "localhost:x", "http://localhost", "localhost\\", "é"])
@pytest.mark.parametrize("is_open", [True, False])
def test_hosts_that_are_no_names(desk, client_of, host, is_open):
    answer = sited(desk, client_of, is_open=is_open).get("/v1/videos", headers={"Host": host.encode("latin-1")})
    assert answer.status_code == 400 and "Host" in answer.json()["error"]["message"]


def test_behind_a_proxy_on_the_same_host(desk, client_of):
    """Whatever nginx passes on as Host: the name, the name without its port, or its own upstream's."""
    host, body = {"Host": "video.example.com"}, {"content-type": "text/plain"}
    for site in ({"is_open": True}, {"hosts": frozenset({"video.example.com"})}):
        client = sited(desk, client_of, **site)
        assert client.get("/v1/videos", headers=host).status_code == 200
        own = {"Origin": "https://video.example.com"}
        through = (
            host | own,
            {"Host": "video.example.com:443"} | own,
            {"Host": "localhost", "X-Forwarded-Host": "video.example.com"} | own,
            {"Host": "localhost", "Sec-Fetch-Site": "same-origin"} | own,
            {
                "Host": "video.example.com",
                "X-Forwarded-Host": "video.example.com:8443",
                "Origin": "https://video.example.com:8443",
            },
        )
        for headers in through:
            assert client.post("/v1/videos", headers=body | headers).status_code == 415, headers
        for headers in (
            host | {"Origin": "https://evil.example.com"},
            host | own | {"Sec-Fetch-Site": "cross-site"},
            {"Host": "video.example.com:443", "Origin": "https://video.example.com:8443"},
            host | {"Origin": "http://["},
            host | {"Origin": "null"},
            {"Host": "localhost", "X-Forwarded-Host": "http://["} | own,
        ):
            answer = client.post("/v1/videos", headers=body | headers)
            assert answer.status_code == 403 and "--allow-origin" in answer.json()["error"]["message"], headers


def test_a_client_of_http_1_0_names_no_host(desk):
    """As load balancers ask; a browser always names one."""
    client = TestClient(create_app(desk, Access()), base_url="http://localhost")
    request = client.build_request("GET", "/v1/models")
    del request.headers["host"]
    assert client.send(request).status_code == 200


@pytest.mark.parametrize("is_kept", [True, False])
def test_a_sub_path(desk, client_of, picture, is_kept):
    """Whether the proxy takes the path away or not."""
    client, root = sited(desk, client_of, root="/framewake"), "/framewake" if is_kept else ""
    job = post(client, picture).json()["id"]
    assert client.get(f"{root}/v1/videos/{job}").json()["id"] == job
    assert client.get(f"{root}/openapi.json").json()["servers"] == [{"url": "/framewake"}]
    assert client.get(f"{root}/docs").status_code == 200
    assert client.get("/framewakes/v1/videos").status_code == 404


def test_pages_of_an_allowed_origin(desk, client_of):
    client = client_of(desk, Access(keys=[KEY], site=Site(is_open=True, origins=(APP,))))
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,idempotency-key"}
    preflight = client.options("/v1/videos", headers={"Origin": APP} | asks)
    assert preflight.status_code == 200 and preflight.headers["access-control-allow-origin"] == APP
    assert "idempotency-key" in preflight.headers["access-control-allow-headers"]
    refused = client.get("/v1/videos", headers={"Origin": APP})
    assert refused.status_code == 401 and refused.headers["access-control-allow-origin"] == APP
    answer = client.post("/v1/videos", headers={"Origin": APP} | bearer(KEY))
    assert answer.status_code == 415 and "retry-after" in answer.headers["access-control-expose-headers"].lower()
    for origin in ("https://evil.example", "null", APP + ".evil.example", APP.upper()):
        assert client.options("/v1/videos", headers={"Origin": origin} | asks).status_code == 400
        assert "access-control-allow-origin" not in client.get("/health", headers={"Origin": origin}).headers


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"hosts": ["http://a"]}, "--allow-host"),
        ({"hosts": ["a:80"]}, "--allow-host"),
        ({"hosts": [""]}, "--allow-host"),
        ({"origins": ["app.example.com"]}, "--allow-origin"),
        ({"origins": ["https://a/b"]}, "--allow-origin"),
        ({"origins": ["*"]}, "--api-key-file"),
        ({"origins": ["null"]}, "--api-key-file"),
        ({"root": "/a b"}, "--root-path"),
        ({"root": "https://a"}, "--root-path"),
        ({"proxies": ["proxy"]}, "--trust-proxy"),
    ],
)
def test_sites_that_cannot_be_meant(given, words):
    with pytest.raises(InputError, match=words):
        site_of(
            given.get("hosts", ()),
            given.get("origins", ()),
            root=given.get("root", ""),
            proxies=given.get("proxies", ()),
            has_keys=False,
        )


def test_a_root_path_may_be_written_in_any_way():
    for root in ("framewake", "/framewake", "framewake/", "/framewake/"):
        assert site_of((), (), root=root, proxies=(), has_keys=False).root == "/framewake"
    assert site_of((), (), root="/", proxies=(), has_keys=False).root == ""


# --- wrong keys


def test_wrong_keys_meet_a_brake_and_right_ones_never_do(desk, client_of, monkeypatch):
    monkeypatch.setattr("framewake.service.brake.WAIT_SECONDS", 0.0)
    client = client_of(desk, Access(keys=[KEY], site=Site(is_open=True)))
    answers = [client.get("/v1/videos", headers=bearer(f"wrong-{number:020}")).status_code for number in range(60)]
    assert answers[:AT_ONCE] == [401] * AT_ONCE and 429 in answers[AT_ONCE : AT_ONCE + 3] and answers[-1] == 429
    assert client.get("/v1/videos", headers=bearer(KEY)).status_code == 200
    assert client.get("/v1/videos").status_code == 401, "no key is no wrong key"
    assert int(client.get("/v1/videos", headers=bearer("x" * 20)).headers["retry-after"]) > 0


def test_the_brake_remembers_no_more_than_it_may():
    import asyncio

    async def many():
        brake = Brake()
        for number in range(MOST_ADDRESSES + 500):
            assert await brake.wrong(f"2001:db8:{number >> 16:x}:{number & 0xFFFF:x}::1") == 0
        assert await brake.wrong("no address " * 999) == 0
        return len(brake._used)

    assert asyncio.run(many()) == MOST_ADDRESSES


def test_an_ipv6_network_is_one_address(monkeypatch):
    import asyncio

    monkeypatch.setattr("framewake.service.brake.WAIT_SECONDS", 0.0)

    async def many():
        brake = Brake()
        return [await brake.wrong(f"2001:db8::{number:x}") for number in range(AT_ONCE + 5)]

    assert [bool(seconds) for seconds in asyncio.run(many())][-3:] == [True] * 3
