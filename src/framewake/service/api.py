"""The HTTP API, with the names that OpenAI's video endpoints and other video servers use."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route

from framewake import __version__
from framewake.errors import FramewakeError
from framewake.service.answers import answer, answer_error, answer_invalid
from framewake.service.brake import Brake
from framewake.service.described import add_docs, describe
from framewake.service.desk import Desk
from framewake.service.fetch import Guarded
from framewake.service.guard import Guard
from framewake.service.metrics import Figures, Timed
from framewake.service.protocol import Plain
from framewake.service.refusals import SlowBody, public_error
from framewake.service.routes import make_routes
from framewake.service.site import Site
from framewake.setting import shown

# What a page of an allowed origin may read beside the body.
EXPOSED = ("Content-Disposition", "Content-Range", "ETag", "Idempotent-Replayed", "Retry-After")


@dataclass(frozen=True)
class Access:
    """Who may come in, and where the server may go. ``fetcher`` None: it fetches no pictures."""

    keys: Sequence[str] = ()
    site: Site = field(default_factory=Site)
    fetcher: Guarded | None = None
    callbacks: Guarded = field(default_factory=Guarded)


class Background:
    """What runs beside the API while it is up."""

    def __init__(self, start: Sequence[Callable[[], None]] = (), stop: Sequence[Callable[[], None]] = ()) -> None:
        self.start = start
        self.stop = stop


def create_app(desk: Desk, access: Access, *, background: Background | None = None, has_page: bool = False) -> FastAPI:
    """The application, ready for any ASGI server; with the page, Gradio is imported, which takes some seconds."""
    beside = background or Background()

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        for begin in beside.start:
            begin()
        try:
            yield
        finally:
            for end in beside.stop:
                end()

    app = FastAPI(
        title="framewake",
        version=__version__,
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,  # FastAPI's own pages run scripts from other hosts
        redoc_url=None,
    )
    add_docs(app)
    figures, brake, site = Figures(desk), Brake(), access.site
    router = make_routes(desk, access.fetcher, access.callbacks, figures=figures)
    described = [copy.copy(route) for route in router.routes]
    for route in router.routes:
        _answer_head(route)
    app.include_router(router)
    app.openapi = functools.cache(  # type: ignore[method-assign]
        lambda: describe(described, bool(access.keys), site.root)
    )
    if has_page:
        from framewake.service.page.mount import add_page

        add_page(app, desk, access.keys, brake=brake, root=site.root)
    for route in app.routes:
        _answer_head(route)
    # The last one added is asked first.
    app.add_middleware(Guard, keys=access.keys, site=site, limits=desk.limits, brake=brake, has_page=has_page)
    app.add_middleware(Timed, figures=figures)
    if site.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=site.origins,
            allow_methods=("GET", "HEAD", "POST", "DELETE", "OPTIONS"),
            allow_headers=("*",),
            allow_private_network=True,
            expose_headers=EXPOSED,
        )
    app.add_middleware(Plain, site=site)
    # Newer versions of FastAPI keep a router as one; older ones take its routes over.
    _add_errors(app, [route for route in (*router.routes, *app.routes) if isinstance(route, Route)])
    return app


def _answer_head(route: BaseRoute) -> None:
    """Whoever may GET may ask for the headers alone; FastAPI has no such rule. What is described are copies without."""
    if isinstance(route, Route) and route.methods and "GET" in route.methods:
        route.methods = {*route.methods, "HEAD"}


def _add_errors(app: FastAPI, routes: Sequence[Route]) -> None:
    from fastapi.exceptions import RequestValidationError

    @app.exception_handler(FramewakeError)
    async def known(_request: Any, error: FramewakeError) -> Any:
        return answer_error(error)

    @app.exception_handler(ValidationError)
    async def invalid(_request: Any, error: ValidationError) -> Any:
        return answer_invalid(error)

    @app.exception_handler(RequestValidationError)
    async def wrong(_request: Any, error: RequestValidationError) -> Any:
        first = error.errors()[0]
        name, expected = str(first["loc"][-1]), first["msg"].replace("Input should be", "expected")
        return answer(422, "invalid_request", f"{name} is {shown(first['input'])}: {expected}.", param=name)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Any:
        allowed = _methods(routes, request) if error.status_code == 405 else []
        if request.method == "OPTIONS" and allowed:
            return Response(status_code=204, headers={"Allow": ", ".join(allowed)})
        response = answer(error.status_code, "not_found" if error.status_code == 404 else "http_error", error.detail)
        response.headers.update(error.headers or {})
        if allowed:
            response.headers["Allow"] = ", ".join(allowed)
        return response

    @app.exception_handler(ClientDisconnect)
    async def gone(_request: Any, _error: ClientDisconnect) -> Any:
        return answer_error(SlowBody("the request ended before its body did."))

    @app.exception_handler(SQLAlchemyError)
    async def away(_request: Any, error: SQLAlchemyError) -> Any:
        return answer_error(error)

    @app.exception_handler(Exception)
    async def unknown(_request: Any, error: Exception) -> Any:
        # Raised again for the server, which writes it to the log.
        response = answer(500, *public_error(error))
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def _methods(routes: Sequence[Route], request: Request) -> list[str]:
    """All methods of an address, which may be several endpoints."""
    met = (route for route in routes if route.matches(request.scope)[0] != Match.NONE)
    found = {method for route in met for method in route.methods or ()}
    return sorted(found | {"OPTIONS"}) if found else []
