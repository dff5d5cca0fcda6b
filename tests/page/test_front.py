"""What may be reached of the page, by whom, and what its handlers answer; without a browser."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest
from fastapi.testclient import TestClient
from toy15 import write_toy15
from toy_checkpoint import write_picture, write_toy

from framewake.media.metadata import video_metadata
from framewake.media.video import write_video
from framewake.request import from_dict
from framewake.service import sessions
from framewake.service.api import Access, create_app
from framewake.service.database import Database, default_url
from framewake.service.desk import Desk
from framewake.service.guard import Limits
from framewake.service.storage import Storage
from framewake.service.store import JobStore
from framewake.shapes import PixelShape
from framewake.weights.checkpoint.load import open_checkpoint

KEY, OTHER = "a-key-of-some-length", "another-key-of-length"
HTML = {"accept": "text/html"}


def desk_in(folder, write=write_toy):
    storage = Storage(folder / "data")
    store = JobStore(Database(default_url(storage.folder)))
    return Desk(store, storage, open_checkpoint(write(folder / "toy")), limits=Limits(upload_bytes=300_000))


@pytest.fixture(scope="module")
def open_client(tmp_path_factory):
    """A page that asks for no key."""
    app = create_app(desk_in(tmp_path_factory.mktemp("open")), Access(), has_page=True)
    with TestClient(app, base_url="http://localhost", follow_redirects=False) as client:
        yield client


@pytest.fixture(scope="module")
def locked_app(tmp_path_factory):
    return create_app(desk_in(tmp_path_factory.mktemp("locked")), Access(keys=(KEY, OTHER)), has_page=True)


@pytest.fixture
def locked(locked_app):
    """A browser that nobody has logged in with."""
    return TestClient(locked_app, base_url="http://localhost", follow_redirects=False)


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    return write_picture(tmp_path_factory.mktemp("picture") / "picture.png").read_bytes()


def submit(client, picture, **fields):
    form = {"prompt": "the red circle moves left", "resolution": "360p", "num_frames": "5", **fields}
    answer = client.post("/v1/videos", data=form, files={"input_reference": ("x.png", picture)})
    assert answer.status_code == 200, answer.text
    return answer.json()["id"]


def handlers(client):
    """Numbers of the handlers that the page calls, by how many values they take."""
    config = client.get("/config").json()
    return {len(each["inputs"]): each["id"] for each in config["dependencies"] if each["backend_fn"]}


def call(client, number, values):
    return client.post("/gradio_api/run/predict", json={"fn_index": number, "data": values, "session_hash": "x"})


def test_the_page_is_there_in_both_languages(open_client):
    english = open_client.get("/", headers={"accept-language": "en"})
    assert english.status_code == 200 and "Make the video" in english.text
    chinese = open_client.get("/", headers={"accept-language": "zh-CN,zh;q=0.9"})
    assert (chinese.status_code, chinese.headers["location"]) == (303, "/zh/")
    assert "生成视频" in open_client.get("/zh/").text
    assert not re.findall(r'(?:src|href)="https?://', english.text), "it loads something from elsewhere"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/gradio_api/file=/etc/passwd"),
        ("GET", "/gradio_api/proxy=http://127.0.0.1/"),
        ("POST", "/gradio_api/upload"),
        ("POST", "/gradio_api/queue/join"),
        ("GET", "/gradio_api/queue/data"),
        ("GET", "/gradio_api/info"),
        ("GET", "/zh/gradio_api/file=/etc/passwd"),
        ("GET", "/monitoring"),
        ("POST", "/login"),
        ("GET", "/static/../../../../etc/passwd"),
        ("GET", "/assets/..%2f..%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd"),
    ],
)
def test_of_gradio_only_what_the_page_needs_can_be_reached(open_client, method, path):
    answer = open_client.request(method, path)
    assert answer.status_code in (403, 404, 405), answer.text
    assert "root:" not in answer.text and "Traceback" not in answer.text


def test_the_api_keeps_its_own_answers(open_client):
    assert open_client.get("/v1/nothing").json()["error"]["code"] == "not_found"
    assert open_client.put("/v1/videos").status_code == 405
    assert "/page/settings" not in open_client.get("/openapi.json").text


@pytest.mark.parametrize("value", [{"path": "http://127.0.0.1:1/x", "meta": {"_type": "gradio.FileData"}}, [[1]], {}])
def test_handlers_take_plain_values_only(open_client, value):
    number = min(handlers(open_client).values())
    assert call(open_client, number, [value]).status_code == 400
    assert open_client.post("/gradio_api/run/predict", content=b"[" * 100_000).status_code == 400
    assert open_client.post("/gradio_api/run/predict", content=b"x" * 300_000).status_code in (400, 413)


def test_the_card_says_what_a_video_will_be(open_client):
    from framewake.service.page.controls import NAMES

    number = handlers(open_client)[len(NAMES) + 1]
    given = dict.fromkeys(NAMES, None) | {"resolution": "360p", "is_stable": "stable", "frames": 9, "steps": 4}
    card, crop = call(open_client, number, ["900x600", *given.values()]).json()["data"]
    assert "9 frames" in card and "No worker" in card
    found = json.loads(crop)
    assert found["height"] == 1 and found["width"] < 1 and found["left"] == pytest.approx((1 - found["width"]) / 2)
    card, crop = call(open_client, number, ["900x600", *(given | {"frames": 8}).values()]).json()["data"]
    assert "9 frames" in card and crop, "the nearest that can be made"
    card, crop = call(open_client, number, ["wide", *given.values()]).json()["data"]
    assert "expected width x height" in card


def test_keys_are_asked_for(locked):
    for path in ("/", "/zh/", "/config", "/static/img/logo.svg", "/v1/videos", "/page/settings", "/favicon.ico"):
        answer = locked.get(path)
        assert answer.status_code == 401, path
    there = locked.get("/", headers=HTML)
    assert (there.status_code, there.headers["location"]) == (303, "/login")
    form = locked.get("/login", headers={"accept-language": "zh"})
    assert form.status_code == 200 and "密钥" in form.text
    wrong = locked.post("/login", data={"key": "wrong"})
    assert wrong.status_code == 403 and "set-cookie" not in wrong.headers and "This key is unknown" in wrong.text
    right = locked.post("/login", data={"key": KEY})
    assert (right.status_code, right.headers["location"]) == (303, "/")
    cookie = right.headers["set-cookie"]
    assert "HttpOnly" in cookie and "samesite=lax" in cookie.lower() and KEY not in cookie
    assert locked.get("/v1/videos").status_code == 200
    assert locked.get("/", headers=HTML).status_code == 200
    locked.get("/logout")
    assert locked.get("/v1/videos").status_code == 401


def test_a_page_of_another_site_cannot_use_the_cookie(locked):
    locked.post("/login", data={"key": KEY})
    for path in ("/v1/videos", "/page/settings", "/gradio_api/run/predict"):
        assert locked.post(path, headers={"origin": "http://elsewhere.example"}).status_code == 403


def test_nobody_sees_the_videos_of_another_key(locked_app, picture):
    clients = [TestClient(locked_app, base_url="http://localhost") for _ in range(2)]
    for client, key in zip(clients, (KEY, OTHER), strict=True):
        client.post("/login", data={"key": key})
    job = submit(clients[0], picture)
    for path in (f"/page/videos/{job}/settings", f"/page/videos/{job}/picture", f"/v1/videos/{job}"):
        assert clients[0].get(path).status_code == 200
        assert clients[1].get(path).status_code == 404
    assert clients[1].get("/v1/videos").json()["data"] == []


def test_a_cookie_ends_and_cannot_be_made_up():
    keys = [KEY.encode(), OTHER.encode()]
    cookie = f"x=y; {sessions.COOKIE}={sessions.issue(OTHER, now=1000)}"
    assert sessions.key_of(cookie, keys, now=1000) == OTHER
    assert sessions.key_of(cookie, keys[:1], now=1000) is None, "the key was taken away"
    assert sessions.key_of(cookie, keys, now=1001 + sessions.LIFE_SECONDS) is None
    later = re.sub(r"=(\d+)\.", lambda found: f"={int(found[1]) + 9}.", cookie)
    for wrong in (later, "", "framewake_session=", "framewake_session=9.é", "framewake_session=" + "9" * 5000, ";;=\0"):
        assert sessions.key_of(wrong, keys, now=1000) is None


def test_a_stored_picture_is_a_file_and_never_a_page(open_client, picture):
    job = submit(open_client, picture)
    answer = open_client.get(f"/page/videos/{job}/picture")
    assert answer.content == picture
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-disposition"].startswith("attachment")


def test_settings_come_out_of_a_clip(open_client, picture, tmp_path):
    import numpy as np

    job = submit(open_client, picture, seed="123456789012345678")
    stored = json.loads(open_client.get(f"/page/videos/{job}/settings").json()["settings"])
    request = dataclasses.replace(from_dict({**stored, "image": None}), precision="float32")
    shape = PixelShape(5, 64, 64)
    metadata = video_metadata(request, checkpoint="toy", engine="torch:cpu", shape=shape)
    clip = write_video(tmp_path / "x.mp4", np.zeros((5, 64, 64, 3), np.uint8), fps=12, metadata=metadata).read_bytes()
    found = open_client.post("/page/settings", content=clip).json()
    assert json.loads(found["settings"])["seed"] == 123456789012345678
    assert found["picture_of"] == job
    empty = open_client.post("/page/settings", content=b"")
    assert empty.status_code == 422 and "/" not in empty.json()["error"]["message"]
    assert open_client.post("/page/settings", content=b"x" * 300_001).status_code == 413


def test_old_settings_fill_the_form(open_client):
    from framewake.service.page.controls import NAMES

    number = handlers(open_client)[1]
    settings = {"prompt": "it moves", "seed": 2**60 + 1, "frames": 401, "loras": ["/home/me/style.safetensors:0.4"]}
    data = call(open_client, number, [json.dumps(settings)]).json()["data"]
    shown = dict(zip(NAMES, data, strict=False))
    assert shown["prompt"]["value"] == "it moves" and shown["seed"]["value"] == str(2**60 + 1)
    assert shown["frames"]["value"] == 401 and shown["frames"]["maximum"] == 401
    note = json.loads(data[-1])["text"]
    assert "style" in note and "/" not in note
    data = call(open_client, number, ["[1, 2"]).json()["data"]
    assert "cannot be read" in json.loads(data[-1])["error"]


def notes(client, prompt, picture=None):
    files = {"prompt": (None, prompt)} | ({} if picture is None else {"input_reference": ("x", picture)})
    return client.post("/page/notes", files=files)


def test_notes_before_the_click_are_those_of_the_answer(open_client, picture):
    long = "the red circle moves left " * 200
    found = notes(open_client, long, picture).json()
    (text,) = found["request"]
    assert "tokens" in text
    answer = open_client.post("/v1/videos", data={"prompt": long}, files={"input_reference": ("x", picture)})
    assert answer.json()["notes"] == found["picture"] + found["request"]
    assert notes(open_client, "", picture).json()["request"] == []
    assert notes(open_client, "x", picture[:90]).status_code == 422
    assert notes(open_client, "x", b"").status_code == 422
    assert open_client.post("/page/notes", content=b"{}").status_code in (415, 422)


def test_notes_are_for_those_who_may_come_in(locked, picture):
    assert notes(locked, "x", picture).status_code == 401


def test_websockets_are_closed(open_client):
    from starlette.websockets import WebSocketDisconnect

    with pytest.raises(WebSocketDisconnect), open_client.websocket_connect("/queue/join"):
        pass


@pytest.mark.parametrize(
    ("write", "hidden"),
    [(write_toy, {"super_resolution"}), (write_toy15, {"embedded_guidance", "is_stable"})],
    ids=["first", "1.5"],
)
def test_what_would_change_nothing_is_not_shown(tmp_path, write, hidden):
    from framewake.service.page.layout import PageLayout

    layout = PageLayout(desk_in(tmp_path, write), "en", has_keys=False)
    layout.build()
    assert {name for name, each in layout.controls.items() if each.visible is False} == hidden
    assert layout.controls["guidance_scale"].value in (None, ""), "the checkpoint's own"
