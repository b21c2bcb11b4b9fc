"""The one place that turns an exception into the error envelope."""

from __future__ import annotations

from typing import Any

import asyncpg
from loguru import logger
from sanic import HTTPResponse, Request, Sanic
from sanic.exceptions import MethodNotAllowed, NotFound, SanicException

from reos import encoding
from reos.errors import (
    DatabaseError,
    FileTooLargeError,
    InternalServerError,
    InvalidFileTypeError,
    InvalidInputError,
    MethodNotAllowedError,
    ReosError,
    RequestTimeoutError,
    ResourceNotFoundError,
)
from reos.middleware.requests import begin
from reos.middleware.responses import ApiResponse

MAX_MESSAGE = 200  # characters
METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")

_BY_STATUS: dict[int, type[ReosError]] = {
    400: InvalidInputError,
    404: ResourceNotFoundError,
    405: MethodNotAllowedError,
    408: RequestTimeoutError,
    413: FileTooLargeError,
    415: InvalidFileTypeError,
    416: InvalidInputError,
    417: InvalidInputError,
    503: DatabaseError,
}

# Postgres is away, restarting, out of connections, or ended the statement: try again later.
_UNAVAILABLE = (
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InsufficientResourcesError,  # too many connections, a full disk
    asyncpg.QueryCanceledError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.InvalidCachedStatementError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    ConnectionError,
    TimeoutError,
    OSError,
)


def error_content(error: ReosError, request_id: str) -> dict[str, Any]:
    """The envelope of the contract."""
    return {
        "error": {
            "type": error.type,
            "message": error.message,
            "details": error.details,
            "request_id": request_id,
        }
    }


def as_reos_error(error: BaseException) -> ReosError:
    """The domain error that a client is told of; what is unexpected becomes InternalServerError."""
    if isinstance(error, ReosError):
        return error
    if isinstance(error, SanicException):
        return _from_sanic(error)
    # asyncpg's word for an argument that does not fit is an InterfaceError too, but one of ours.
    if isinstance(error, _UNAVAILABLE) and not isinstance(error, ValueError):
        return DatabaseError()
    return InternalServerError()


def _from_sanic(error: SanicException) -> ReosError:
    kind = _BY_STATUS.get(error.status_code)
    if kind is None:
        return InvalidInputError(_message(error)) if 400 <= error.status_code < 500 else InternalServerError()
    return kind(None if isinstance(error, NotFound | MethodNotAllowed) else _message(error))


def _message(error: SanicException) -> str | None:
    """Sanic's sentence. Some repeat what the client has sent, which may be long and no text at all."""
    return str(error)[:MAX_MESSAGE].encode("ascii", "replace").decode() or None


def render(request: Request, error: ReosError) -> HTTPResponse:
    """The response: the envelope, the error's headers, WWW-Authenticate on 401, Retry-After on 503."""
    headers = dict(error.headers)
    if error.status == 401:
        headers.setdefault("WWW-Authenticate", "Bearer")
    elif error.status == 503:
        headers.setdefault("Retry-After", "1")
    body = encoding.dumps(error_content(error, begin(request)))
    return ApiResponse(body, error.status, headers, "application/json")


async def handle_exception(request: Request, error: Exception) -> HTTPResponse:
    """Sanic's handler for everything that was raised."""
    reos_error = as_reos_error(error)
    if isinstance(error, MethodNotAllowed):
        reos_error.headers["Allow"] = ", ".join(_allowed_methods(request))
    if reos_error.status >= 500:
        trace = logger.opt(exception=error)
        if isinstance(reos_error, InternalServerError):
            trace.error("{} {} failed", request.method, request.path)
        else:
            logger.warning("{} {} refused: {}: {}", request.method, request.path, type(error).__name__, error)
    return render(request, reos_error)


def _allowed_methods(request: Request) -> list[str]:
    """What the path can be asked for. Sanic's own list is empty where the path holds an id."""
    allowed = []
    for method in METHODS:
        try:
            request.app.router.get(request.path, method, request.headers.get("host"))
        except (NotFound, MethodNotAllowed):
            continue
        allowed.append(method)
    return allowed


def install(app: Sanic) -> None:
    app.exception(Exception)(handle_exception)


__all__ = ["as_reos_error", "error_content", "handle_exception", "install", "render"]
