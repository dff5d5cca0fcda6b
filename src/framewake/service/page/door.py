"""The way in where keys are needed: a form that asks for one, and a cookie that proves it afterwards."""

from __future__ import annotations

import hmac
import html
import urllib.parse
from collections.abc import Sequence

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from framewake.service import sessions
from framewake.service.brake import Brake
from framewake.service.guard import LOGIN, client_of
from framewake.service.page.texts import preferred, say
from framewake.service.refusals import NotFound

MOST_BYTES = 4096
FORM = """<!doctype html><html lang="$language"><meta charset="utf-8"><title>framewake</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { display: grid; place-items: center; min-height: 90vh; margin: 0; padding: 16px; }
form { width: min(22rem, 100%); display: grid; gap: 12px; }
h1 { font-size: 1.4rem; margin: 0; } p { margin: 0; opacity: .75; } .wrong { color: #dc2626; opacity: 1; }
input, button { font: inherit; padding: 10px 12px; border-radius: 8px; border: 1px solid #8886; }
button { background: #0f766e; color: white; border: 0; cursor: pointer; }
</style><form method="post" action="$root/login"><h1>framewake</h1><p>$hint</p>$wrong
<label>$title <input style="width:100%;box-sizing:border-box" type="password" name="key" autocomplete="current-password"
required autofocus></label><button>$button</button></form></html>"""


def add_doors(app: FastAPI, keys: Sequence[str], *, brake: Brake) -> None:
    """Routes to come in and to leave; without keys there is nothing to open."""

    def form(request: Request, *, is_wrong: bool = False, seconds: int = 0) -> HTMLResponse:
        language = preferred(request.headers.get("accept-language", ""))
        wrong = f'<p class="wrong" role="alert">{html.escape(say(language, "login.wrong"))}</p>' if is_wrong else ""
        page = FORM.replace("$language", language).replace("$wrong", wrong).replace("$root", request.scope["root_path"])
        for word in ("title", "hint", "button"):
            page = page.replace(f"${word}", html.escape(say(language, f"login.{word}")))
        headers = {"Cache-Control": "no-store"} | ({"Retry-After": str(seconds)} if seconds else {})
        return HTMLResponse(page, status_code=429 if seconds else 403 if is_wrong else 200, headers=headers)

    @app.get(LOGIN, include_in_schema=False)
    def show_door(request: Request) -> Response:
        if not keys:
            raise NotFound("this server needs no key.")
        return form(request)

    @app.post(LOGIN, include_in_schema=False)
    async def open_door(request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk[: MOST_BYTES + 1]
            if len(body) > MOST_BYTES:
                return form(request, is_wrong=True)
        given = urllib.parse.parse_qs(body.decode("latin-1")).get("key", [""])[0].strip().encode()
        matches = [key for key in keys if hmac.compare_digest(key.encode(), given)]
        if not matches:
            return form(request, is_wrong=True, seconds=await brake.wrong(client_of(request.scope)))
        root = request.scope["root_path"]
        there = RedirectResponse(f"{root}/", status_code=303)
        there.set_cookie(
            sessions.COOKIE,
            sessions.issue(matches[0]),
            max_age=sessions.LIFE_SECONDS,
            httponly=True,
            samesite="lax",
            secure=request.url.scheme == "https",
            path=root or "/",
        )
        return there

    @app.get("/logout", include_in_schema=False)
    def leave(request: Request) -> Response:
        root = request.scope["root_path"]
        gone = RedirectResponse(root + (LOGIN if keys else "/"), status_code=303)
        gone.delete_cookie(sessions.COOKIE, path=root or "/")
        return gone
