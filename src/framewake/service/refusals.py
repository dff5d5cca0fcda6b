"""What the service refuses besides bad settings: each refusal has its HTTP status and a code for programs."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from framewake.errors import HTTP_STATUS, FramewakeError, UnwritableError
from framewake.service.database import is_broken


class Refused(FramewakeError):
    """The service will not do what was asked; ``status`` is the HTTP status."""

    status = 400
    code = "bad_request"
    retry_after: int | None = None  # seconds


class BadRequest(Refused):
    """A header or an address that cannot be understood."""


class Unauthorised(Refused):
    """No API key, or an unknown one."""

    status, code = 401, "invalid_api_key"


class Forbidden(Refused):
    """The request comes from a page of another site."""

    status, code = 403, "forbidden"


class NotFound(Refused):
    """There is no such thing, or it belongs to another key."""

    status, code = 404, "not_found"


class NoSuchVideo(NotFound):
    """No video has this id, or another key's has."""

    about = "video_id"

    def __init__(self) -> None:
        super().__init__("there is no such video.")


class SlowBody(Refused):
    """The client went away, or its body stopped coming."""

    status, code = 408, "timeout"


class Conflict(Refused):
    """The job's state does not allow it."""

    status, code = 409, "conflict"


class Changed(Refused):
    """A condition of the request does not hold."""

    status, code = 412, "precondition_failed"


class TooLarge(Refused):
    """More bytes or pixels than are taken."""

    status, code = 413, "too_large"


class LongAddress(Refused):
    """An address of more characters than any endpoint has."""

    status, code = 414, "address_too_long"


class LongHeader(Refused):
    """More headers than any client needs."""

    status, code = 431, "headers_too_large"


class UnknownMethod(Refused):
    """A method that nothing here has, under any address."""

    status, code = 501, "method_unknown"


class KeyUsed(Refused):
    """An Idempotency-Key that stands for another video."""

    status, code = 422, "idempotency_key_used"


class WrongType(Refused):
    """Neither JSON nor a form."""

    status, code = 415, "unsupported_media_type"


class TooMany(Refused):
    """The queue or the rate of a key is used up, or too many wrong keys came from one address."""

    status, code = 429, "rate_limit_exceeded"

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


# What people may read; any other error's text could tell about the machine.
_OPEN = {422: "invalid_request", 507: "out_of_resources", 409: "conflict"}
_PATH = re.compile(r"(?<![\w.:/])(?:~|[A-Za-z]:\\|/)(?:[^\s'\"]*/)?(?=[^\s'\"/])")


def http_status(error: BaseException) -> int:
    """The HTTP status of any error."""
    if isinstance(error, Refused):
        return error.status
    if isinstance(error, UnwritableError):
        return 500
    if _is_disk_full(error):
        return 507
    if isinstance(error, SQLAlchemyError):
        return 500 if is_broken(error) else 503
    return next((status for kind, status in HTTP_STATUS.items() if isinstance(error, kind)), 500)


def public_error(error: BaseException) -> tuple[str, str]:
    """A code and a message without paths and without the inside of the server."""
    if isinstance(error, Refused):
        return error.code, str(error)
    for is_meant, code, message in _SERVERS_OWN:
        if is_meant(error):
            return code, message
    status = http_status(error)
    if status in _OPEN:
        return _OPEN[status], without_paths(str(error))
    code = re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).lower()
    if code == "numerics_error":
        return code, without_paths(str(error))
    return code, "the server could not make this video; its log says why."


def _is_disk_full(error: BaseException) -> bool:
    """Whether the system or SQLite says so; our own error for it has its own words."""
    if isinstance(error, SQLAlchemyError):
        return "disk is full" in str(getattr(error, "orig", ""))
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


# Troubles of the server's own, whose words would tell about the machine or advise the wrong person.
_SERVERS_OWN: tuple[tuple[Callable[[BaseException], bool], str, str], ...] = (
    (
        lambda error: isinstance(error, UnwritableError),
        "storage_failed",
        "the server could not store this video; its log says why.",
    ),
    (_is_disk_full, "out_of_resources", "the server's disk is full: no new videos are taken until there is room."),
    (
        lambda error: isinstance(error, SQLAlchemyError) and is_broken(error),
        "database_broken",
        "the server's database cannot be used any more: its operator has to mend it, and finds the reason in the log.",
    ),
    (
        lambda error: isinstance(error, SQLAlchemyError),
        "unavailable",
        "the server's database does not answer now: try again in some seconds.",
    ),
)


def without_paths(text: str) -> str:
    """A text whose absolute paths are cut down to their last part."""
    return _PATH.sub("", text)
