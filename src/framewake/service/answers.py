"""Errors as HTTP answers."""

from __future__ import annotations

import logging

from fastapi.responses import JSONResponse
from pydantic import ValidationError

from framewake.service.refusals import Refused, http_status, public_error
from framewake.service.views import ErrorBody, Failure

log = logging.getLogger("framewake.api")

KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


def answer(status: int, code: str, message: str, *, param: str | None = None) -> JSONResponse:
    """An error body in the form that OpenAI's clients read."""
    kind = KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")
    body = ErrorBody(error=Failure(message=message, type=kind, code=code, param=param))
    return JSONResponse(body.model_dump(), status_code=status)


def answer_error(error: BaseException) -> JSONResponse:
    """Any error, without paths and without the inside of the server."""
    status = http_status(error)
    if status >= 500:
        log.error("request failed", exc_info=error)
    response = answer(status, *public_error(error))
    if isinstance(error, Refused):
        if error.retry_after is not None:
            response.headers["Retry-After"] = str(error.retry_after)
        if status == 401:
            response.headers["WWW-Authenticate"] = "Bearer"
    return response


def answer_invalid(error: ValidationError) -> JSONResponse:
    """The first field that is wrong."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    name = ".".join(str(part) for part in first["loc"]) or None
    return answer(422, "invalid_request", f"{name or 'body'}: {first['msg']}", param=name)
