"""Keys, sites, sizes, rates, and addresses that users name."""

from __future__ import annotations

import asyncio
import http.server
import io
import threading

import pytest
from PIL import Image
from test_api import FIELDS, data_url, post

from framewake.app.serve import is_loopback, read_keys
from framewake.errors import InputError
from framewake.service.api import Access
from framewake.service.fetch import Guarded, is_public, read_data_url
from framewake.service.refusals import TooLarge, public_error, without_paths

KEY, OTHER = "k" * 24, "o" * 24


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


def test_keys(desk, client_of, picture):
    client = client_of(desk, Access(keys=[KEY, OTHER], is_local=False))
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


def test_every_key_is_compared_in_constant_time(monkeypatch, desk, client_of):
    """Both keys go through hmac.compare_digest, whichever matches."""
    import hmac

    compared = []
    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: (compared.append(a), real(a, b))[1])
    client = client_of(desk, Access(keys=[KEY, OTHER], is_local=False))
    client.get("/v1/videos", headers=bearer(KEY))
    assert compared == [KEY.encode(), OTHER.encode()]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "", "[::1"])
def test_a_local_server_answers_to_its_own_name_only(client, host):
    """A name that was made to point here must not let a web page in."""
    assert client.get("/v1/videos", headers={"Host": host}).status_code == 403
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


class Site(http.server.BaseHTTPRequestHandler):
    """A web site on this machine."""

    def do_GET(self):
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path[4:])
            self.end_headers()
            return
        body = b"x" * 5000
        self.send_response(200)
        if self.path == "/zipped":
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        if self.path == "/slow":
            self.server.stopping.wait(10)
        self.wfile.write(body + self.headers["Host"].encode())

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def site():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.stopping = threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.stopping.set()
    server.shutdown()


def guarded(*, seconds=5.0):
    """Names lead where the test says; only 127.0.0.1 counts as public here, so that a real site can be asked."""
    asked = []

    async def resolve(host, _port):
        asked.append(host)
        # rebind.example is judged at its first answer; a second look-up would lead inside.
        places = {"open.example": "127.0.0.1", "inside.example": "10.0.0.1", "both.example": "127.0.0.1 10.0.0.1"}
        places["rebind.example"] = "127.0.0.1" if asked.count(host) == 1 else "10.0.0.1"
        return places.get(host, host).split()

    return Guarded(allows=lambda address: address == "127.0.0.1", resolve=resolve, seconds=seconds), asked


def get(guard, url, most_bytes=10_000):
    return asyncio.run(guard.get(url, most_bytes=most_bytes))


def test_fetching(site):
    guard, _ = guarded()
    assert get(guard, f"http://open.example:{site}/") == b"x" * 5000 + f"open.example:{site}".encode()
    assert len(get(guard, f"http://open.example:{site}/to/http://open.example:{site}/")) > 5000
    with pytest.raises(TooLarge):
        get(guard, f"http://open.example:{site}/", most_bytes=4000)


def test_a_name_is_looked_up_once(site):
    guard, asked = guarded()
    assert get(guard, f"http://rebind.example:{site}/").startswith(b"x")
    assert asked == ["rebind.example"]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://inside.example/", "private"),
        ("http://both.example/", "private"),
        ("http://10.0.0.1/", "private"),
        ("http://open.example:{site}/to/http://inside.example/", "private"),
        ("http://open.example:{site}/to/http://169.254.169.254/latest", "private"),
        ("http://open.example:{site}/to/file:///etc/passwd", "http"),
        ("http://open.example:{site}/to//to//to//to//to//to//to//", "redirects|private|fetched|http"),
        ("http://open.example:{site}/zipped", "compressed"),
        ("file:///etc/passwd", "http"),
        ("ftp://open.example/", "http"),
        ("http://user:word@open.example/", "user name"),
        ("http:///x", "host"),
        ("http://open.example:99999/", "understood"),
        ("http://open.example/a b", "spaces"),
        ("http://open.example:1/", "could not be fetched"),
    ],
)
def test_addresses_that_are_not_fetched(site, url, words):
    guard, _ = guarded()
    with pytest.raises(InputError, match=words):
        get(guard, url.replace("{site}", str(site)))


def test_a_slow_site_is_left(site):
    guard, _ = guarded(seconds=0.5)
    with pytest.raises(InputError, match="did not answer"):
        get(guard, f"http://open.example:{site}/slow")


def test_addresses_need_permission(desk, client_of, site):
    fields = FIELDS | {"input_reference": f"http://127.0.0.1:{site}/"}
    answer = client_of(desk).post("/v1/videos", json=fields)
    assert answer.status_code == 422 and "fetches no pictures" in answer.json()["error"]["message"]
    answer = client_of(desk, Access(fetcher=Guarded())).post("/v1/videos", json=fields)
    assert answer.status_code == 422 and "private" in answer.json()["error"]["message"]


@pytest.mark.parametrize("url", ["data:,x", "data:image/png;base64", "data:image/png;base64,***", "data:;base64,é"])
def test_bad_data_urls(url):
    with pytest.raises(InputError):
        read_data_url(url, most_bytes=100)


def test_paths_are_cut_out_of_messages():
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
