"""Cross-origin requests (the Fetch standard's CORS protocol): none unless CORS_ORIGINS names origins.

Written here because an origin has to match wholly, and because a preflight must neither need auth, nor
count in the rate limit, nor add a route (which would appear in `Allow`).
"""

from __future__ import annotations

from typing import Any

from sanic import HTTPResponse, Request, Sanic

from reos.middleware.bodies import BodyKind, read_body
from reos.settings import Settings

ALLOWED_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"
ALLOWED_HEADERS = "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, Last-Event-ID, X-Request-ID"
EXPOSED_HEADERS = (
    "ETag, Location, Retry-After, X-Request-ID, X-Total-Count, Idempotency-Replayed, Content-Disposition, "
    "X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, RateLimit, RateLimit-Policy"
)
PREFLIGHT_SECONDS = "600"


def install(app: Sanic, settings: Settings) -> None:
    """Answer preflights and mark every response, errors and streams too."""
    origins = frozenset(settings.cors_origins)
    if not origins:
        return

    async def preflight(request: Request) -> HTTPResponse | None:
        if request.method != "OPTIONS" or "access-control-request-method" not in request.headers:
            return None
        # No browser sends a body along, and one that is left lying there is taken for a mistake of ours.
        await read_body(request, settings, BodyKind.NONE)
        return HTTPResponse(None, 204, _preflight_headers(_allowed_origin(request, origins)))

    async def mark(request: Request, response: HTTPResponse) -> None:
        _mark(response, _allowed_origin(request, origins))

    register: Any = app.register_middleware
    register(preflight, "request", priority=90)
    register(mark, "response", priority=90)


def _allowed_origin(request: Request, origins: frozenset[str]) -> str | None:
    """What the response tells the browser to be allowed; None for requests of other origins, or of none."""
    origin: str | None = request.headers.get("origin")
    if origin is not None and "*" in origins:
        return "*"
    return origin if origin in origins else None


def _preflight_headers(origin: str | None) -> dict[str, str]:
    headers = {"Vary": "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"}
    if origin is not None:
        headers["Access-Control-Allow-Methods"] = ALLOWED_METHODS
        headers["Access-Control-Allow-Headers"] = ALLOWED_HEADERS
        headers["Access-Control-Max-Age"] = PREFLIGHT_SECONDS
    return headers


def _mark(response: HTTPResponse, origin: str | None) -> None:
    if origin != "*":
        # What is answered depends on the origin, also where there was none.
        vary = response.headers.get("Vary")
        if vary is None or "origin" not in vary.lower():
            response.headers["Vary"] = f"{vary}, Origin" if vary else "Origin"
    if origin is None:
        return
    response.headers["Access-Control-Allow-Origin"] = origin
    response.headers["Access-Control-Expose-Headers"] = EXPOSED_HEADERS
    response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
    if origin != "*":
        response.headers["Access-Control-Allow-Credentials"] = "true"
