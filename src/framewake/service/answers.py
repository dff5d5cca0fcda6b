"""Errors as HTTP answers."""

from __future__ import annotations

import logging

from fastapi.responses import JSONResponse
from pydantic import ValidationError

from framewake.console.escape import escaped, inline
from framewake.service.fields import problem
from framewake.service.refusals import Refused, http_status, public_error
from framewake.service.views import ErrorBody, Failure

log = logging.getLogger("framewake.api")

MOST_LETTERS, MOST_PARAM = 1000, 100
KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


def answer(status: int, code: str, message: str, *, param: str | None = None) -> JSONResponse:
    """An error body in the form that OpenAI's clients read."""
    # Nothing that was sent comes back at length, nor what would steer the terminal of whoever reads it.
    message = escaped(message if len(message) <= MOST_LETTERS else message[:MOST_LETTERS] + "...")
    param = None if param is None else inline(param[:MOST_PARAM])
    kind = KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")
    body = ErrorBody(error=Failure(message=message, type=kind, code=code, param=param))
    return JSONResponse(body.model_dump(), status_code=status)


def answer_error(error: BaseException) -> JSONResponse:
    """Any error, without paths and without the inside of the server."""
    status = http_status(error)
    if status >= 500 and not isinstance(error, Refused):
        log.error("request failed", exc_info=error)
    response = answer(status, *public_error(error), param=getattr(error, "about", None))
    if isinstance(error, Refused) and error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    if status in (503, 507):
        response.headers.setdefault("Retry-After", "5" if status == 503 else "60")
    if status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def answer_invalid(error: ValidationError) -> JSONResponse:
    """The first field that is wrong."""
    return answer_error(problem(error))
