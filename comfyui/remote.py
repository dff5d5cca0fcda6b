"""A run on a framewake server, with the standard library: ComfyUI's Python needs no framewake for it."""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import os
import queue
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import av
import numpy as np
from PIL import Image

from .settings import Refused

KEY = "FRAMEWAKE_API_KEY"
LOOK_SECONDS = 0.3  # between two looks at the stop button
SILENT_SECONDS = 60.0  # a server says something every 15 s


class _Straight(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the key goes nowhere but to the address that was typed."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Server:
    """The API of a server.

    Raises: Refused for an address that is none.
    """

    def __init__(self, url: str) -> None:
        parsed = urllib.parse.urlsplit(url.strip())
        if parsed.scheme not in ("http", "https") or not parsed.hostname:
            raise Refused(f"url is {url!r}: expected the address of a framewake server, such as http://127.0.0.1:7860.")
        self.url = url.strip().rstrip("/")
        self._opener = urllib.request.build_opener(_Straight)

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """An answer as a value. Raises: Refused."""
        with self._open(method, path, body) as response:
            return _value(response.read(), self.url)

    def file(self, path: str) -> bytes:
        """A file. Raises: Refused."""
        with self._open("GET", path) as response:
            return response.read()

    def events(self, path: str) -> Iterator[tuple[str, str]]:
        """Server-sent events, each a name and its data. Raises: Refused."""
        with self._open("GET", path) as response:
            name, data = "", ""
            for line in response:
                text = line.decode().rstrip("\r\n")
                field, _, value = text.partition(": ")
                if field == "event":
                    name = value
                elif field == "data":
                    data = value
                elif not text and name:
                    yield name, data
                    name, data = "", ""

    @contextlib.contextmanager
    def _open(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Iterator[Any]:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if os.environ.get(KEY):
            headers["Authorization"] = f"Bearer {os.environ[KEY]}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with self._opener.open(request, timeout=SILENT_SECONDS) as response:
                yield response
        except urllib.error.HTTPError as error:
            told = _value(error.read(), self.url).get("error")
            message = told.get("message") if isinstance(told, dict) else None
            raise Refused(str(message or f"{self.url} answers with status {error.code}.")) from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise Refused(f"no framewake server answers at {self.url} ({reason}).") from error


def _value(data: bytes, url: str) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Refused(f"what answers at {url} is no framewake server.")
    return found


def make_on(server: Server, body: Mapping[str, Any], png: bytes, watch: Any) -> tuple[dict[str, Any], bytes]:
    """Make a clip on a server, told on the page: the video as the server tells it, and its mp4.

    Whatever ends this early cancels the video there; one that has ended already stays.
    Raises: Refused, and ComfyUI's own exception when it is stopped.
    """
    picture = "data:image/png;base64," + base64.b64encode(png).decode()
    place = f"/v1/videos/{server.ask('POST', '/v1/videos', {**body, 'input_reference': picture})['id']}"
    is_over = False
    try:
        for name, data in _looked_after(lambda: server.events(f"{place}/events"), watch.check):
            if name == "status":
                _show(json.loads(data), watch)
            elif name == "preview":
                _preview(data, watch)
        video = server.ask("GET", place)
        is_over = video["status"] not in ("queued", "in_progress", "paused")
    finally:
        if not is_over:
            with contextlib.suppress(Refused):  # what went wrong is told already
                server.ask("POST", f"{place}/cancel")
    if video["status"] != "completed":
        reason = (video["error"] or {}).get("message", "")
        raise Refused(f"the video is {video['status']} on the server. {reason}".strip())
    return video, server.file(f"{place}/content")


def _looked_after(begin: Callable[[], Iterator[Any]], check: Callable[[], None]) -> Iterator[Any]:
    """The events, read by a thread, so that the stop button is looked at however long they take.

    Raises: Refused where reading ends with an error, and whatever ``check`` raises.
    """
    found: queue.Queue[Any] = queue.Queue()

    def read() -> None:
        try:
            for event in begin():
                found.put(event)
            found.put(None)
        except Refused as error:
            found.put(error)

    threading.Thread(target=read, daemon=True, name="framewake events").start()
    while True:
        check()
        try:
            event = found.get(timeout=LOOK_SECONDS)
        except queue.Empty:
            continue
        if event is None:
            return
        if isinstance(event, Refused):
            raise event
        yield event


def _show(video: Mapping[str, Any], watch: Any) -> None:
    if video["status"] == "queued":
        watch.say(f"number {video['queue_position']} in the server's queue")
    elif video["stage"] in ("decode", "write"):
        watch.say("decoding" if video["stage"] == "decode" else "writing the file")
        watch.decoded(0.5 if video["stage"] == "decode" else 0.9)
    elif video["status"] == "in_progress":
        watch.step(video["step"], video["num_inference_steps"], seconds_left=video["seconds_left"])


def _preview(data: str, watch: Any) -> None:
    with Image.open(io.BytesIO(base64.b64decode(data.partition(",")[2]))) as image:
        watch.preview(image.copy())


def frames_in(clip: bytes) -> np.ndarray:
    """The frames of an mp4. Shapes: uint8 (F, H, W, 3)."""
    with av.open(io.BytesIO(clip)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
