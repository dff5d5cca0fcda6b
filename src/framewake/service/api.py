"""The HTTP API, with the names that OpenAI's video endpoints and other video servers use."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

from framewake import __version__
from framewake.errors import FramewakeError
from framewake.service.answers import answer, answer_error, answer_invalid
from framewake.service.described import DESCRIPTION, add_docs, describe
from framewake.service.desk import Desk
from framewake.service.fetch import Guarded
from framewake.service.guard import Guard
from framewake.service.metrics import Figures, Timed
from framewake.service.routes import make_routes
from framewake.setting import shown


@dataclass(frozen=True)
class Access:
    """Who may come in, and where the server may go. ``fetcher`` None: it fetches no pictures."""

    keys: Sequence[str] = ()
    is_local: bool = True
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
        description=DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,  # FastAPI's own pages run scripts from other hosts
        redoc_url=None,
    )
    add_docs(app)
    figures = Figures(desk)
    app.include_router(make_routes(desk, access.fetcher, access.callbacks, figures=figures))
    if has_page:
        from framewake.service.page.mount import add_page

        add_page(app, desk, access.keys)
    app.add_middleware(Guard, keys=access.keys, is_local=access.is_local, limits=desk.limits, has_page=has_page)
    app.add_middleware(Timed, figures=figures)
    _add_errors(app)
    app.openapi = lambda: describe(app, bool(access.keys))  # type: ignore[method-assign]
    return app


def _add_errors(app: FastAPI) -> None:
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
    async def http(_request: Any, error: HTTPException) -> Any:
        response = answer(error.status_code, "not_found" if error.status_code == 404 else "http_error", error.detail)
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(SQLAlchemyError)
    async def away(_request: Any, error: SQLAlchemyError) -> Any:
        response = answer_error(error)
        if response.status_code == 503:
            response.headers["Retry-After"] = "5"
        return response

    @app.exception_handler(Exception)
    async def unknown(_request: Any, error: Exception) -> Any:
        return answer_error(error)
