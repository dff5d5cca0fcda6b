"""ComfyUI's nodes on a running server: a clip, the stop button, refusals, no server. ComfyUI is not needed."""

from __future__ import annotations

import http.server
import threading

import numpy as np
import pytest
from comfyui_pack import load
from service_process import serving
from test_serve import wait_for

from framewake.media.video import read_video
from framewake.service.database import Database, default_url
from framewake.service.store import JobStore

remote, pack_settings, values = load("remote"), load("settings"), load("values")
WISH = values.Wish("the red circle moves right", "360p", 5, 8, 3, "stable", "off")
KEY = "k" * 24


class Stopped(BaseException):
    """As ComfyUI's own, which is no Exception in newer versions."""


class Shown:
    """What the page would show; the stop button is pressed once there were a step and a preview."""

    def __init__(self, *, stops=False):
        self.steps, self.previews, self.told, self.shares, self.stops = [], [], [], [], stops

    def check(self):
        if self.stops and self.steps and self.previews:
            raise Stopped

    def step(self, index, count, *, seconds_left):
        self.steps.append((index, count))

    def preview(self, image):
        self.previews.append(image.size)

    def decoded(self, share):
        self.shares.append(share)

    def say(self, text):
        self.told.append(text)


@pytest.fixture(scope="module")
def server(toy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    with serving(folder, toy, "--api-key", KEY) as running:
        running.folder = folder
        yield running


@pytest.fixture
def there(server, monkeypatch):
    monkeypatch.setenv(remote.KEY, KEY)
    return remote.Server(f"{server.url}/")


def test_a_clip(there, picture, tmp_path):
    shown = Shown()
    video, clip = remote.make_on(there, pack_settings.body(WISH, ()), picture, shown)
    (tmp_path / "clip.mp4").write_bytes(clip)
    frames, _ = read_video(tmp_path / "clip.mp4")
    assert np.array_equal(remote.frames_in(clip), frames) and len(frames) == 5
    assert (video["seed"], video["num_inference_steps"], video["status"]) == (3, 8, "completed")
    assert shown.steps == sorted(shown.steps)  # maybe none: a server is asked three times a second


def test_the_stop_button_cancels_the_video(there, server, picture):
    long = values.Wish("the red circle moves right", "360p", 33, 1000, 3, "stable", "off")
    shown = Shown(stops=True)
    with pytest.raises(Stopped):
        remote.make_on(there, pack_settings.body(long, ()), picture, shown)
    assert shown.steps == sorted(shown.steps) and {count for _, count in shown.steps} == {1000}
    newest = there.ask("GET", "/v1/videos?limit=1")["data"][0]
    assert newest["status"] == "cancelled" and newest["num_inference_steps"] == 1000
    store = JobStore(Database(default_url(server.folder / "data")))
    row = wait_for(lambda: store.get(newest["id"]), lambda row: row.worker is None)
    store.database.close()
    assert row.step < 1000


def test_refusals_are_the_server_s_own_sentence(there, server, picture, monkeypatch):
    unknown = pack_settings.body(WISH, (values.LoraFile("smoke.safetensors", "/smoke.safetensors", "0.5"),))
    with pytest.raises(pack_settings.Refused, match="no LoRA 'smoke'"):
        remote.make_on(there, unknown, picture, Shown())
    with pytest.raises(pack_settings.Refused, match="picture"):
        remote.make_on(there, pack_settings.body(WISH, ()), b"no picture", Shown())
    monkeypatch.delenv(remote.KEY)
    with pytest.raises(pack_settings.Refused, match="API key is needed"):
        remote.make_on(there, pack_settings.body(WISH, ()), picture, Shown())


@pytest.mark.parametrize("url", ["", "127.0.0.1:7860", "ftp://host", "file:///etc/passwd", "http://"])
def test_an_address_that_is_none(url):
    with pytest.raises(pack_settings.Refused, match="expected the address"):
        remote.Server(url)


def test_nobody_answers_or_somebody_else():
    with pytest.raises(pack_settings.Refused, match="no framewake server answers"):
        remote.Server("http://127.0.0.1:9").ask("GET", "/v1/models")

    class Elsewhere(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(302 if self.path == "/moved" else 200)
            self.send_header("Location", "http://127.0.0.1:9/secret")
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Elsewhere) as other:
        threading.Thread(target=other.serve_forever, args=(0.01,), daemon=True).start()
        there = remote.Server(f"http://127.0.0.1:{other.server_port}")
        for path in ("/v1/models", "/moved"):
            with pytest.raises(pack_settings.Refused, match="is no framewake server"):
                there.ask("GET", path)
        other.shutdown()
