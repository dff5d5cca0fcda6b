"""Keys, sites, sizes, rates, and addresses that users name."""

from __future__ import annotations

import asyncio
import base64
import hmac
import io
import json
import os
import shutil
import subprocess
import sys
import urllib.parse
from pathlib import Path

import pytest
from PIL import Image
from test_api import FIELDS, data_url, post
from toy_checkpoint import write_picture

from framewake.app.access import asked_keys, is_loopback, read_keys
from framewake.errors import InputError
from framewake.service.addresses import is_public
from framewake.service.api import Access
from framewake.service.body import json_value
from framewake.service.brake import Brake
from framewake.service.database import Database
from framewake.service.fetch import Guarded, read_data_url
from framewake.service.guard import Guard, Limits, owner_of
from framewake.service.refusals import TooMany, public_error, without_paths
from framewake.service.site import Site
from framewake.service.stream import Streams

KEY, OTHER = "k" * 24, "o" * 24


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


def test_keys(desk, client_of, picture):
    client = client_of(desk, Access(keys=[KEY, OTHER], site=Site(is_open=True)))
    for headers in ({}, bearer("x" * 24), bearer(""), {"Authorization": "Basic abc"}, {"X-API-Key": KEY + "x"}):
        for path in ("/v1/videos", "/v1/models", "/metrics", "/docs", "/openapi.json", "/nowhere"):
            answer = client.get(path, headers=headers)
            assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer", (path, headers)
    assert client.get("/health").status_code == 503, "open to everybody"
    files = {"input_reference": ("x.png", picture)}
    made = client.post("/v1/videos", data={"prompt": "x"}, files=files, headers=bearer(KEY)).json()["id"]
    assert client.get(f"/v1/videos/{made}", headers={"X-API-Key": KEY}).status_code == 200
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/content"), ("GET", "/events"), ("POST", "/retry")):
        assert client.request(method, f"/v1/videos/{made}{path}", headers=bearer(OTHER)).status_code == 404
    assert client.get("/v1/videos", headers=bearer(OTHER)).json()["data"] == []
    assert KEY not in str(desk.store.get(made))


def test_every_key_is_compared_in_constant_time():
    """Both keys go through hmac.compare_digest, whichever matches; the profiler sees the calls."""
    compared = []

    async def application(scope, receive, send):
        compared.append(scope["owner"])

    def watch(_frame, event, function):
        if event == "c_call" and function is hmac.compare_digest:
            compared.append(event)

    guard = Guard(application, keys=[KEY, OTHER], site=Site(is_open=True), limits=Limits(), brake=Brake())
    scope = {"type": "http", "method": "GET", "path": "/v1/videos", "headers": [(b"x-api-key", KEY.encode())]}
    sys.setprofile(watch)
    try:
        asyncio.run(guard(scope, None, None))
    finally:
        sys.setprofile(None)
    assert compared == ["c_call", "c_call", owner_of(KEY)]


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "", "0.0.0.0", "[::2]"]
)
def test_a_local_server_answers_to_its_own_name_only(client, host):
    """A name that was made to point here must not let a web page in."""
    answer = client.get("/v1/videos", headers={"Host": host})
    assert answer.status_code == 403 and "--allow-host" in answer.json()["error"]["message"]
    for own in ("localhost:7860", "127.0.0.1:7860", "[::1]:7860"):
        assert client.get("/v1/videos", headers={"Host": own}).status_code == 200


def test_pages_of_other_sites_cannot_post(client, picture):
    files = {"input_reference": ("x.png", picture)}
    for origin, status in (("http://evil.example", 403), ("null", 403), ("http://localhost", 200)):
        answer = client.post("/v1/videos", data={"prompt": "x"}, files=files, headers={"Origin": origin})
        assert answer.status_code == status, answer.text


def test_sizes(desk_of, client_of, picture):
    client = client_of(desk_of(upload_bytes=len(picture) - 1))
    assert post(client, picture).status_code == 413
    answer = client.post("/v1/videos", json=FIELDS | {"input_reference": data_url(picture)})
    assert answer.status_code == 413
    huge = b"x" * (3 * 2**20)
    for content in (huge, iter([huge[: 2**20]] * 3)):  # with and without a length in its header
        headers = {"content-type": "application/json"}
        assert client.post("/v1/videos", content=content, headers=headers).status_code == 413


def test_pixels_are_counted_before_they_are_decoded(desk_of, client_of):
    buffer = io.BytesIO()
    Image.new("1", (9000, 9000)).save(buffer, "PNG")
    client = client_of(desk_of(pixels=1_000_000))
    answer = post(client, buffer.getvalue())
    assert answer.status_code == 413 and "9000 x 9000" in answer.json()["error"]["message"]


def test_rate_and_queue(desk_of, client_of, picture):
    client = client_of(desk_of(per_minute=3, queued=2))
    answers = [post(client, picture) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 429, 429]
    assert "waiting" in answers[2].json()["error"]["message"]
    assert "a minute" in answers[3].json()["error"]["message"] and int(answers[3].headers["retry-after"]) > 0


PRIVATE = (
    *("127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1"),
    *("255.255.255.255", "192.0.2.1", "198.18.0.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "2002:7f00:1::", "::127.0.0.1"),
)


def test_public_addresses():
    assert [address for address in PRIVATE if is_public(address)] == []
    assert is_public("8.8.8.8") and is_public("2606:4700::1111")


@pytest.fixture(scope="module")
def island(toy, tmp_path_factory):
    """What was fetched on an island with its own addresses and names: see island.py."""
    separate = ["unshare", "--net", "--mount"]
    is_there = all(shutil.which(name) for name in ("unshare", "ip", "mount"))
    if not is_there or subprocess.run([*separate, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this test makes a network of its own, which needs Linux and root")
    folder = tmp_path_factory.mktemp("island")
    program = Path(__file__).with_name("island.py")
    command = [*separate, sys.executable, str(program), str(folder), str(toy), str(write_picture(folder / "x.png"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("name", "said", "asked"),
    [
        ("plain", "11.0.0.1 open.example:8080", ["11.0.0.1"]),
        ("address", "11.0.0.1 11.0.0.1:8080", ["11.0.0.1"]),
        ("redirected", "11.0.0.2 11.0.0.2:8080", ["11.0.0.1", "11.0.0.2"]),
        ("rebind", "11.0.0.1 rebind.example:8080", ["11.0.0.1"]),
        ("large", "TooLarge: the picture has more than 100,000 bytes.", ["11.0.0.1"]),
        ("slow", "InputError: the picture's address did not answer", ["11.0.0.1"]),
        ("dripping", "InputError: the picture's address did not answer", ["11.0.0.1"]),
        ("zipped", "InputError: the picture's address answers with compressed", ["11.0.0.1"]),
        ("missing", "InputError: the picture's address answered with status 404", ["11.0.0.1"]),
        ("round", "InputError: the picture's address redirects more than 5 times", ["11.0.0.1"] * 6),
        ("unknown", "InputError: the picture's address could not be fetched", []),
        ("closed", "InputError: the picture's address could not be fetched", []),
        ("to file", "InputError: the address must be http", ["11.0.0.1"]),
    ],
)
def test_fetching(island, name, said, asked):
    assert island[name]["said"].startswith(said)
    assert island[name]["asked"] == asked


def test_a_name_is_looked_up_once(island):
    """Its second answer would have led inside. One look-up asks for IPv4 and for IPv6."""
    assert island["rebind"]["names"] == ["rebind.example"] * 2


@pytest.mark.parametrize("name", ["inside", "both", "here", "mapped", "six", "metadata", "number", "hexadecimal"])
def test_what_leads_inside_is_never_asked(island, name):
    assert "private or local" in island[name]["said"] and island[name]["asked"] == []


@pytest.mark.parametrize("name", ["to inside", "to address", "to metadata", "to again"])
def test_redirects_lead_nowhere_inside(island, name):
    assert "private or local" in island[name]["said"] and island[name]["asked"] == ["11.0.0.1"]


def test_a_picture_by_its_address_becomes_a_job(island):
    status, body = island["api"]["picture"]
    assert status == 200 and json.loads(body)["status"] == "queued"
    status, body = island["api"]["inside"]
    assert status == 422 and "private or local" in body
    assert island["api"]["callback"][0] == 422
    assert island["api"]["asked"] == ["11.0.0.1"]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("file:///etc/passwd", "http"),
        ("ftp://example.com/", "http"),
        ("http://user:word@example.com/", "user name"),
        ("http:///x", "host"),
        ("http://example.com:99999/", "understood"),
        ("http://example.com/a b", "spaces"),
        ("http://localhost:1/", "private"),
        ("http://127.0.0.1:1/", "private"),
        ("http://[::1]:1/", "private"),
        ("http://[::ffff:127.0.0.1]:1/", "private"),
        ("http://2130706433:1/", "private"),
    ],
)
def test_addresses_that_are_not_fetched(url, words):
    with pytest.raises(InputError, match=words):
        asyncio.run(Guarded().get(url, most_bytes=100))


def test_addresses_need_permission(desk, client_of):
    fields = FIELDS | {"input_reference": "http://127.0.0.1:9/"}
    answer = client_of(desk).post("/v1/videos", json=fields)
    assert answer.status_code == 422 and "fetches no pictures" in answer.json()["error"]["message"]
    answer = client_of(desk, Access(fetcher=Guarded())).post("/v1/videos", json=fields)
    assert answer.status_code == 422 and "private" in answer.json()["error"]["message"]


@pytest.mark.parametrize("url", ["data:,x", "data:image/png;base64", "data:image/png;base64,***", "data:;base64,é"])
def test_bad_data_urls(url):
    with pytest.raises(InputError):
        read_data_url(url, most_bytes=100)


@pytest.mark.parametrize("how", ["lines", "lines of Windows", "percent", "percent in small letters", "no end"])
@pytest.mark.parametrize("count", [100, 101, 102, 200_000])
def test_base64_as_programs_write_it(how, count):
    data = os.urandom(count)
    text = base64.b64encode(data).decode()
    written = {
        "lines": base64.encodebytes(data).decode(),
        "lines of Windows": base64.encodebytes(data).decode().replace("\n", "\r\n"),
        "percent": urllib.parse.quote(text, safe=""),
        "percent in small letters": text.replace("+", "%2b").replace("/", "%2f").replace("=", "%3d"),
        "no end": text.rstrip("="),
    }[how]
    body = json.dumps({"input_reference": f"data:image/png;base64,{written}"}).encode()
    assert read_data_url(json_value(body)["input_reference"], most_bytes=count) == data


def test_paths_are_cut_out_of_messages():
    assert without_paths("1 / 2, ~ 5 s, and/or") == "1 / 2, ~ 5 s, and/or"
    text = "/srv/data/jobs/x/picture: damaged, see '/home/me/a b.txt' and https://example.com/a/b (24/7)"
    assert without_paths(text).startswith("picture: damaged, see ")
    assert "/srv" not in without_paths(text) and "https://example.com/a/b" in without_paths(text)
    assert public_error(KeyError("/secret"))[1] == "the server could not make this video; its log says why."


def test_hosts_and_keys_of_the_command_line(tmp_path):
    assert [is_loopback(host) for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost")] == [True] * 4
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "192.168.1.1", "example.com", "")] == [False] * 5
    file = tmp_path / "keys"
    file.write_text(f"# ours\n{KEY}\n\n{OTHER}\n")
    assert read_keys([], str(file)) == [KEY, OTHER]
    for keys, name in ((["short"], None), (["with space in the key"], None), ([], str(tmp_path / "gone"))):
        with pytest.raises(InputError):
            read_keys(keys, name)


def test_a_folder_named_as_a_database_stays_as_it_is(tmp_path):
    tmp_path.chmod(0o755)
    with pytest.raises(InputError):
        Database(f"sqlite:///{tmp_path}")
    assert tmp_path.stat().st_mode & 0o777 == 0o755


EMPTY = ["", "\n \n\t\n", "# only a word\n", "  # another\n", "\ufeff"]


@pytest.mark.parametrize("content", [*EMPTY, "short\n", KEY + "\nshort", "with space " * 3, "é" * 20])
def test_files_of_keys_that_are_of_no_use(tmp_path, content):
    file = tmp_path / "keys"
    file.write_text(content, encoding="utf-8")
    for given in ([], [OTHER]):
        with pytest.raises(InputError) as told:
            read_keys(given, str(file))
        assert "short\n" not in str(told.value)


def test_files_of_keys_that_went_through_an_editor(tmp_path):
    file = tmp_path / "keys"
    file.write_bytes(f"\ufeff{KEY}  \r\n\r\n  # ours\r\n\t{OTHER}\r\n".encode())
    assert read_keys([], str(file)) == [KEY, OTHER]
    for content in (b"\xff\xfe" + KEY.encode("utf-16-le"), bytes(range(256))):
        file.write_bytes(content)
        with pytest.raises(InputError):
            read_keys([], str(file))


def test_an_empty_key_in_the_environment_is_no_open_door(monkeypatch):
    given = {"api_key": [], "api_key_file": None, "host": "127.0.0.1", "public": False}
    monkeypatch.delenv("FRAMEWAKE_API_KEY", raising=False)
    assert asked_keys(given) == []
    monkeypatch.setenv("FRAMEWAKE_API_KEY", " ")
    with pytest.raises(InputError, match="FRAMEWAKE_API_KEY is empty"):
        asked_keys(given)


def test_streams_of_one_key_are_counted(desk_of, client_of, picture, monkeypatch):
    monkeypatch.setattr("framewake.service.stream.MOST_OF_ONE", 2)
    client = client_of(desk_of())
    files = {"input_reference": ("x.png", picture)}
    job = client.post("/v1/videos", data={"prompt": "x"}, files=files).json()["id"]
    streams = Streams()
    streams.take("one")
    streams.take("one")
    with pytest.raises(TooMany):
        streams.take("one")
    streams.take("another")
    streams.give_back("one")
    streams.take("one")
    client.delete(f"/v1/videos/{job}")
    for _ in range(5):  # each ends, and its place is free again
        assert client.get(f"/v1/videos/{job}/events").status_code == 200
