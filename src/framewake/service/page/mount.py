"""The page as a part of the application: its routes, its doors, and what of Gradio may be reached."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import FastAPI
from starlette.responses import RedirectResponse, Response
from starlette.routing import Match, Mount

from framewake.service.answers import answer
from framewake.service.desk import Desk
from framewake.service.guard import App, Receive, Scope, Send
from framewake.service.page.door import add_doors
from framewake.service.page.memory import add_memory
from framewake.service.page.texts import LANGUAGES, preferred

# All of Gradio that the page needs; uploads, files, proxies and its own queue stay out of reach.
FILES = ("/assets/", "/static/")
PLACES = {"", "/", "/theme.css", "/config"}
HANDLER = "/gradio_api/run/predict"
MOST_BYTES = 256 * 1024  # of a handler's input: settings only, pictures go through the API
ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" height="16" rx="4" fill="#0f766e"/>'
    '<path d="M6 4.5v7l6-3.5z" fill="white"/></svg>'
)
LANGUAGE_COOKIE = "framewake_language"


def add_page(app: FastAPI, desk: Desk, keys: Sequence[str]) -> None:
    """Mount the page at the root of an application; importing Gradio takes some seconds."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("GRADIO_TEMP_DIR", str(desk.storage.folder / "page"))
    import gradio as gr

    from framewake.service.page.layout import HERE, Layout

    inner = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    css = (HERE / "style.css").read_text(encoding="utf-8")
    for language in sorted(LANGUAGES, key=lambda name: name == "en"):  # "/" catches all, so it comes last
        layout = Layout(desk, language, has_keys=bool(keys))
        gr.mount_gradio_app(
            inner,
            layout.build(),
            path="/" if language == "en" else f"/{language}",
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
    add_doors(app, keys)
    app.router.routes.append(PageMount("", app=Front(inner)))
    _live_together(app, inner)


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
        path = inner_path(scope["path"])
        is_read = scope["method"] in ("GET", "HEAD") and (path in PLACES or path.startswith(FILES))
        is_call = scope["method"] == "POST" and path == HANDLER
        return super().matches(scope) if is_read or is_call else (Match.NONE, {})


class Front:
    """What stands before Gradio: chooses the language, and lets nothing but plain values into the handlers."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer here, or hand on."""
        if scope["method"] == "POST":
            receive = await _plain(receive)
            if receive is None:
                await answer(400, "bad_request", "the page sent something that is no setting.")(scope, receive, send)
                return
        elif scope["path"] in ("", "/"):
            other = _other_language(scope)
            if other is not None:
                await other(scope, receive, send)
                return
        await self.app(scope, receive, send)


def _other_language(scope: Scope) -> RedirectResponse | None:
    """Where a reader of another language goes from the root; a choice by hand is kept in a cookie."""
    headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
    if scope["query_string"] == b"language=en":
        there = RedirectResponse("/", status_code=303)
        there.set_cookie(LANGUAGE_COOKIE, "en", max_age=365 * 24 * 3600, samesite="lax")
        return there
    if f"{LANGUAGE_COOKIE}=en" in headers.get(b"cookie", ""):
        return None
    language = preferred(headers.get(b"accept-language", ""))
    return None if language == "en" else RedirectResponse(f"/{language}/", status_code=303)


async def _plain(receive: Receive) -> Receive | None:
    """The same body, when it holds only numbers and texts: Gradio would fetch a file that an object names."""
    body, is_more = b"", True
    while is_more and len(body) <= MOST_BYTES:
        message = await receive()
        body += message.get("body", b"")
        is_more = message.get("more_body", False)
    try:
        given = json.loads(body)["data"] if not is_more and len(body) <= MOST_BYTES else None
    except (ValueError, RecursionError, KeyError, TypeError):
        return None
    if not isinstance(given, list) or not all(_is_plain(value) for value in given):
        return None
    whole = {"type": "http.request", "body": body, "more_body": False}
    waiting = [whole]

    async def again() -> Any:
        return waiting.pop() if waiting else await receive()

    return again


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(each, str | int | float | bool | None) for each in value)
    return isinstance(value, str | int | float | bool | None)
