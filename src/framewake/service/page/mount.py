"""The page as a part of the application: its routes, its ways in, and what of Gradio is reachable."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response
from starlette.routing import Match, Mount

from framewake.errors import FramewakeError
from framewake.packages import imported
from framewake.service.answers import answer
from framewake.service.body import json_value
from framewake.service.brake import Brake
from framewake.service.desk import Desk
from framewake.service.guard import App, Receive, Scope, Send
from framewake.service.page.advice import add_advice
from framewake.service.page.door import add_doors
from framewake.service.page.examples import add_examples
from framewake.service.page.memory import add_memory
from framewake.service.page.texts import LANGUAGES, preferred
from framewake.service.sessions import LANGUAGE_COOKIE

log = logging.getLogger("framewake.page")

# All of Gradio that the page needs; uploads, files, proxies and its own queue stay out of reach.
FILES = ("/assets/", "/static/")
PLACES = {"", "/", "/theme.css", "/config"}
HANDLER = "/gradio_api/run/predict"
MOST_BYTES = 256 * 1024  # of a handler's input: settings only, pictures go through the API
ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" height="16" rx="4" fill="#0f766e"/>'
    '<path d="M6 4.5v7l6-3.5z" fill="white"/></svg>'
)
MOST_SESSIONS, MOST_VALUES = 500, 100  # that Gradio remembers of each language; in one list of a handler's input


def add_page(app: FastAPI, desk: Desk, keys: Sequence[str], *, brake: Brake, root: str) -> None:
    """Mount the page at the root of an application; importing Gradio takes some seconds."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("GRADIO_TEMP_DIR", str(desk.storage.folder / "page"))
    imported("gradio")
    import gradio as gr

    from framewake.service.page.layout import HERE, PageLayout

    _tame(gr.routes)

    inner = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    css = (HERE / "style.css").read_text(encoding="utf-8")
    handlers: dict[str, dict[int, int]] = {}
    for language in sorted(LANGUAGES, key=lambda name: name == "en"):  # "/" catches all, so it comes last
        layout = PageLayout(desk, language, has_keys=bool(keys), root=root)
        blocks = layout.build()
        blocks.state_session_capacity = MOST_SESSIONS
        handlers[language] = {number: len(fn.inputs) for number, fn in blocks.fns.items() if fn.fn is not None}
        place = "" if language == "en" else f"/{language}"
        gr.mount_gradio_app(
            inner,
            blocks,
            path=place or "/",
            root_path=root + place or None,
            ssr_mode=False,
            run_history=False,
            mcp_server=False,
            pwa=False,
            show_error=False,
            enable_monitoring=False,
            footer_links=[],
            theme=_theme(),
            css=css,
            head=layout.head(),
        )

    @app.get("/favicon.ico", include_in_schema=False)
    def icon() -> Response:
        return Response(ICON, media_type="image/svg+xml")

    add_memory(app, desk)
    add_advice(app, desk)
    add_examples(app)
    add_doors(app, keys, brake=brake)
    app.router.routes.append(PageMount("", app=Front(inner, handlers)))
    _live_together(app, inner)


def _tame(routes: Any) -> None:
    """What goes wrong in a handler goes to the log, which nobody can forge; Gradio prints it, values and all."""

    class ToTheLog:
        @staticmethod
        def print_exc() -> None:
            log.warning("the page sent what a handler cannot use", exc_info=True)

    routes.traceback = ToTheLog


def _theme() -> Any:
    import gradio as gr

    # Fonts of the system: a page on a machine without internet must not wait for any.
    fonts = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "Noto Sans CJK SC", "sans-serif")
    theme = gr.themes.Default(
        primary_hue="teal", neutral_hue="slate", radius_size="lg", font=fonts, font_mono=("ui-monospace", "monospace")
    )
    return theme.set(
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_600",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_600",
        slider_color="*primary_600",
        color_accent="*primary_600",
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="*neutral_400",
        block_info_text_color="*neutral_500",
        block_info_text_color_dark="*neutral_400",
    )


def _live_together(app: FastAPI, inner: FastAPI) -> None:
    """What Gradio starts and stops belongs to the application's own life."""
    outer = app.router.lifespan_context

    @contextlib.asynccontextmanager
    async def both(whole: FastAPI) -> AsyncIterator[Any]:
        async with outer(whole) as state, inner.router.lifespan_context(inner):
            yield state

    app.router.lifespan_context = both


def inner_path(path: str) -> str:
    """A path without the folder of its language."""
    for language in LANGUAGES:
        if path == f"/{language}" or path.startswith(f"/{language}/"):
            return path[len(language) + 1 :]
    return path


class PageMount(Mount):
    """A mount at the root that leaves every other path to the API's own answers."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether this is one of the page's places."""
        if scope["type"] != "http":
            return Match.NONE, {}
        path = inner_path(scope["inner"])
        is_read = scope["method"] in ("GET", "HEAD") and (path in PLACES or path.startswith(FILES))
        is_call = scope["method"] == "POST" and path == HANDLER
        return super().matches(scope) if is_read or is_call else (Match.NONE, {})


class Front:
    """What stands before Gradio: chooses the language, and lets nothing but plain values into the handlers.

    ``handlers`` has for each language how many values each handler takes.
    """

    def __init__(self, app: App, handlers: Mapping[str, Mapping[int, int]]) -> None:
        self.app = app
        self.handlers = handlers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer here, or hand on."""
        path = scope["inner"]
        if scope["method"] == "POST":
            language = next((name for name in self.handlers if path.startswith(f"/{name}/")), "en")
            body = await _body(receive)
            plain = await run_in_threadpool(_plain, body, self.handlers[language])
            if plain is None:
                await answer(400, "bad_request", "the page sent something that is no setting.")(scope, receive, send)
                return
            await _call(self.app, scope, plain, send)
            return
        if path == "/":
            other = _other_language(scope)
            if other is not None:
                await other(scope, receive, send)
                return
        await self.app(scope, receive, send)


async def _call(app: App, scope: Scope, body: bytes, send: Send) -> None:
    """Call a handler. What Gradio cannot put into a control is the sender's mistake, not the server's."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]
    is_refused = False

    async def receive() -> Any:
        return waiting.pop() if waiting else {"type": "http.disconnect"}

    async def told(message: Any) -> None:
        nonlocal is_refused
        if message["type"] == "http.response.start" and message["status"] >= 500:
            is_refused = True
            await answer(422, "invalid_request", "the page sent a value that its control does not have.")(
                scope, receive, send
            )
        elif not is_refused:
            await send(message)

    headers = [pair for pair in scope["headers"] if pair[0] not in (b"content-length", b"transfer-encoding")]
    length = (b"content-length", str(len(body)).encode())
    await app({**scope, "headers": [*headers, length]}, receive, told)


def _other_language(scope: Scope) -> RedirectResponse | None:
    """Where a reader of another language goes from the root; a choice by hand is kept in a cookie."""
    headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
    root = scope["root_path"]
    if scope["query_string"] == b"language=en":
        there = RedirectResponse(f"{root}/", status_code=303)
        there.set_cookie(LANGUAGE_COOKIE, "en", max_age=365 * 24 * 3600, samesite="lax", path=root or "/")
        return there
    if f"{LANGUAGE_COOKIE}=en" in headers.get(b"cookie", ""):
        return None
    language = preferred(headers.get(b"accept-language", ""))
    return None if language == "en" else RedirectResponse(f"{root}/{language}/", status_code=303)


async def _body(receive: Receive) -> bytes:
    """As much of a body as a handler may have, and one byte more when it has more."""
    body, is_more = bytearray(), True
    while is_more and len(body) <= MOST_BYTES:
        message = await receive()
        body += message.get("body", b"")
        is_more = message.get("more_body", False)
    return bytes(body[: MOST_BYTES + 1])


def _plain(body: bytes, handlers: Mapping[int, int]) -> bytes | None:
    """A call with nothing but numbers and texts in it, as many as its handler takes; Gradio would fetch a file that an
    object names, and remember a session under any name."""
    try:
        given = json_value(body) if len(body) <= MOST_BYTES else None
    except FramewakeError:
        return None
    if not isinstance(given, dict):
        return None
    number, data, session = given.get("fn_index"), given.get("data"), given.get("session_hash")
    if type(number) is not int or not isinstance(data, list) or handlers.get(number) != len(data):
        return None
    if not all(_is_plain(value) for value in data):
        return None
    if session is not None and not (isinstance(session, str) and re.fullmatch(r"[a-z0-9]{1,20}", session)):
        return None
    return json.dumps({"fn_index": number, "data": data, "session_hash": session}).encode()


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return len(value) <= MOST_VALUES and all(isinstance(each, str | int | float | bool | None) for each in value)
    return isinstance(value, str | int | float | bool | None)
