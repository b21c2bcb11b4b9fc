"""What every request and response gets: a request id, the standing headers, and one line in the access log."""

from __future__ import annotations

import re
import time
from typing import Any
from uuid import uuid4

from loguru import logger
from sanic import HTTPResponse, Request, Sanic

from reos.settings import Settings

_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_SECRET_PARAMETER = re.compile(r"(^|&)(ticket|token|signature|sig)=[^&]*")

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def install(app: Sanic, settings: Settings) -> None:
    """Attach the middleware of all requests."""
    standing = dict(SECURITY_HEADERS)
    if settings.base_url.startswith("https://"):
        standing["Strict-Transport-Security"] = "max-age=31536000; includeSubDomains"

    async def start(request: Request) -> None:
        request.ctx.started = time.perf_counter()
        given = request.headers.get("x-request-id", "")
        request.ctx.request_id = given if _SANE_ID.fullmatch(given) else uuid4().hex

    async def finish(request: Request, response: HTTPResponse) -> None:
        # A request that could not be parsed never passed the first middleware.
        request_id = getattr(request.ctx, "request_id", None) or uuid4().hex
        headers = response.headers
        headers["X-Request-ID"] = request_id
        for name, value in getattr(request.ctx, "rate_limit_headers", {}).items():
            headers[name] = value
        for name, value in standing.items():
            headers.setdefault(name, value)
        if getattr(app.ctx, "draining", False):
            headers["Connection"] = "close"
        _log(request, response, request_id)

    register: Any = app.register_middleware
    register(start, "request", priority=100)
    register(finish, "response", priority=100)


def _log(request: Request, response: HTTPResponse, request_id: str) -> None:
    started = getattr(request.ctx, "started", None)
    principal = getattr(request.ctx, "principal", None)
    body = getattr(response, "body", None)
    logger.bind(
        request_id=request_id,
        user_id=principal.user_id if principal else None,
        organization_id=principal.organization_id if principal else None,
        method=request.method,
        path=request.path,
        query=_SECRET_PARAMETER.sub(r"\1\2=***", request.query_string),
        client=str(request.client_ip),
        status=response.status,
        duration_ms=round((time.perf_counter() - started) * 1000, 2) if started else None,
        bytes=len(body) if body else 0,
    ).info("{} {} {}", request.method, request.path, response.status)
