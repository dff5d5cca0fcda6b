"""Errors as HTTP answers."""

from __future__ import annotations

import logging

from fastapi.responses import JSONResponse
from pydantic import ValidationError

from framewake.service.fields import PARAM_OF, problem
from framewake.service.refusals import Refused, http_status, public_error
from framewake.service.views import ErrorBody, Failure

log = logging.getLogger("framewake.api")

KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


def answer(status: int, code: str, message: str, *, param: str | None = None) -> JSONResponse:
    """An error body in the form that OpenAI's clients read."""
    # What people send may hold half a letter, which no answer can.
    message, param = (None if text is None else text.encode(errors="replace").decode() for text in (message, param))
    kind = KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")
    body = ErrorBody(error=Failure(message=message, type=kind, code=code, param=param))
    return JSONResponse(body.model_dump(), status_code=status)


def answer_error(error: BaseException) -> JSONResponse:
    """Any error, without paths and without the inside of the server."""
    status = http_status(error)
    if status >= 500:
        log.error("request failed", exc_info=error)
    name = getattr(error, "about", None)
    response = answer(status, *public_error(error), param=PARAM_OF.get(name, name))
    if isinstance(error, Refused):
        if error.retry_after is not None:
            response.headers["Retry-After"] = str(error.retry_after)
        if status == 401:
            response.headers["WWW-Authenticate"] = "Bearer"
    return response


def answer_invalid(error: ValidationError) -> JSONResponse:
    """The first field that is wrong."""
    return answer_error(problem(error))
