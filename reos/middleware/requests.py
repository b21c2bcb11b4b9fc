"""What every request and response gets: a request id, the standing headers, and one line in the access log."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sanic import HTTPResponse, Request, Sanic
from sanic.exceptions import RequestCancelled

from reos import metrics
from reos.errors import InvalidInputError
from reos.log import AccessLog, set_context
from reos.middleware.responses import VARIABLE, ApiResponse, standing_pair
from reos.settings import Settings

API = "/api/"
METHODS = frozenset(("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"))
CLIENT_GONE = 499  # what the log shows for a client that did not wait for its answer; nobody receives it

_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_SECRET_PARAMETER = re.compile(r"(^|&)([a-z0-9_-]*(?:ticket|token|signature)|sig)=[^&]*", re.IGNORECASE)
_SECRET_PATH = re.compile(r"^(/files/|/t/[a-z]/)[^/]+")
_PATH_PARAMETER = re.compile(r"<(\w+)[^>]*>")
# A line that does not begin with a field's name and a colon (RFC 9112, section 5).
_NO_FIELD = re.compile(rb"\r\n(?![!#$%&'*+.^_`|~0-9A-Za-z-]+:)")

# By method, path of the route and status: looked up at every request.
_tallies: dict[tuple[str, str | None, int], metrics.Tally] = {}
# The only field that tells how long the body is (Sanic refuses a second one), as it was sent: Sanic trims it as Python
# does, by more than spaces and tabs.
_LENGTH = re.compile(
    rb"\r\n(?:content-length:[ \t]*[0-9]+|transfer-encoding:[ \t]*chunked)[ \t]*(?=\r\n|\Z)", re.IGNORECASE
)

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    # What default-src says does not hold for the last three.
    "Content-Security-Policy": (
        "default-src 'none'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
READ_HEADERS = {"Cache-Control": "private, no-cache", "Vary": "Authorization"}  # of the API


def install(app: Sanic, settings: Settings) -> None:
    """Attach the middleware of all requests."""
    standing = dict(SECURITY_HEADERS)
    if settings.base_url.startswith("https://"):
        standing["Strict-Transport-Security"] = "max-age=31536000; includeSubDomains"
    of_writes, of_reads = standing_pair(standing), standing_pair(standing | READ_HEADERS)
    access_log = app.ctx.access_log = AccessLog(settings)

    def finish(request: Request, response: HTTPResponse) -> HTTPResponse | None:
        headers = response.headers
        headers["X-Request-ID"] = begin(request)
        _measure(request, response.status)
        headers.update(getattr(request.ctx, "rate_limit_headers", ()))
        is_read = request.method in ("GET", "HEAD") and request.path.startswith(API)
        if isinstance(response, ApiResponse) and not any(name in headers for name in VARIABLE):
            response.standing = of_reads if is_read else of_writes
        else:
            if is_read:
                headers.setdefault("Cache-Control", READ_HEADERS["Cache-Control"])
                vary(response, READ_HEADERS["Vary"])
            for name, value in standing.items():
                headers.setdefault(name, value)
        if app.ctx.draining or app.ctx.replaced or not request.ctx.is_framed:
            # Sanic says so in the response, and closes the connection.
            connection: Any = request.stream
            connection.keep_alive = False
        if getattr(request.ctx, "is_streaming", False):
            counted = _CountedResponse(response)
            request.ctx.streamed = counted
            return counted
        _log(access_log, request, response.status, 0 if request.method == "HEAD" else len(response.body or b""))
        return None

    async def flush(app: Sanic) -> None:
        access_log.flush()

    untyped: Any = app
    untyped.register_middleware(begin_request, "request", priority=100)
    untyped.register_middleware(finish, "response", priority=100)
    untyped.exception(RequestCancelled)(_answer_nobody)
    app.after_server_stop(flush)


class RootedRequest(Request):
    """A request whose address may be a whole one without a path, which then is the root (RFC 9112, section 3.2.1)."""

    __slots__ = ()

    @property
    def path(self) -> str:
        """The path that is asked for."""
        path: bytes | None = self._parsed_url.path
        return "/" if path is None else path.decode()


def begin_request(request: Request) -> None:
    """The first middleware. Raises InvalidInputError (400)."""
    begin(request)
    if not request.ctx.is_framed:
        raise InvalidInputError("The request's head is malformed.")


def begin(request: Request) -> str:
    """The request's id. The first call starts its clock; what cannot be parsed never passes a middleware before."""
    context = request.ctx
    request_id: str | None = getattr(context, "request_id", None)
    if request_id is None:
        given = request.headers.get("x-request-id", "")
        request_id = given if given and _SANE_ID.fullmatch(given) else f"{random.getrandbits(128):032x}"
        context.request_id = request_id
        context.started = time.perf_counter()
        context.is_framed = _is_framed(request)
        set_context(request_id=request_id)
    return request_id


def _is_framed(request: Request) -> bool:
    """Whether everybody finds the end of this request at the same place (RFC 9112, sections 2.2, 5 and 6.3).

    Where a proxy in front of us reads another line or length than Sanic, what follows would be taken for a request of
    its own, and perhaps for one of another client.
    """
    head, headers = request.head, request.headers
    has_stray_ends = not head.count(b"\r\n") == head.count(b"\r") == head.count(b"\n") or b"\x00" in head
    has_body = "content-length" in headers or "transfer-encoding" in headers
    return not (has_stray_ends or _NO_FIELD.search(head) or (has_body and not _LENGTH.search(head)))


def client_address(request: Request) -> str:
    """The client's address, through as many proxies as PROXIES_COUNT says."""
    # Sanic would read the headers of proxies first, to take no notice of them.
    return str(request.client_ip if request.app.ctx.settings.proxies_count else request.ip)


def vary(response: HTTPResponse, name: str) -> None:
    """Name a request header that the response depends on, beside those that it names already."""
    present = response.headers.get("Vary")
    if present is None:
        response.headers["Vary"] = name
    elif name.lower() not in (part.strip().lower() for part in present.split(",")):
        response.headers["Vary"] = f"{present}, {name}"


@contextmanager
def streaming(request: Request) -> Iterator[None]:
    """The block writes the response itself (by `request.respond`); its line in the log is written at its end."""
    request.ctx.is_streaming = True
    try:
        yield
    finally:
        request.ctx.is_streaming = False
        streamed: _CountedResponse | None = getattr(request.ctx, "streamed", None)
        if streamed is not None:
            _log(request.app.ctx.access_log, request, streamed.status, streamed.sent)


class _CountedResponse(HTTPResponse):
    """A streamed response that knows how many bytes of its body it was given; to HEAD, the head alone goes out."""

    def __init__(self, response: HTTPResponse):
        super().__init__(response.body, response.status, response.headers, response.content_type)
        self.sent = 0
        self.is_complete = False  # HEAD has its answer

    async def send(self, data: Any = None, end_stream: bool | None = None) -> None:
        if self.is_complete:
            return
        await super().send(data, end_stream)
        http: Any = self.stream
        if http.head_only:
            # Ends the answer here. Sanic awaits this function itself when the handler is done, and it is no coroutine.
            http.head_response_ignored(b"", True)
            self.is_complete = True
        else:
            self.sent += len(data or b"")


def _measure(request: Request, status: int) -> None:
    """Keep how long it took, under names of which there are only so many, whatever clients send."""
    route = request.route
    path = None if route is None else route.path
    tally = _tallies.get((request.method, path, status)) or _tally_of(request.method, path, status)
    tally.observe(time.perf_counter() - request.ctx.started)


def _tally_of(method: str, path: str | None, status: int) -> metrics.Tally:
    """The same for good. `path` is Sanic's of the route; the documentation of the API has /properties/{property_id}."""
    key = (method if method in METHODS else "other", path, status)
    if key not in _tallies:
        route = "unknown" if path is None else "/" + _PATH_PARAMETER.sub(r"{\1}", path)
        _tallies[key] = metrics.request_tally(key[0], route, status)
    return _tallies[key]


def _answer_nobody(request: Request, error: BaseException) -> HTTPResponse:
    """The client is gone, so this is only ever logged."""
    return HTTPResponse(None, CLIENT_GONE)


def _log(access_log: AccessLog, request: Request, status: int, size: int) -> None:
    context = request.ctx
    path, query = request.path, request.query_string
    if not path.startswith(API):
        path = _SECRET_PATH.sub(r"\1***", path)
    fields: dict[str, Any] = {"request_id": context.request_id}
    principal = getattr(context, "principal", None)
    if principal is not None:
        fields["user_id"] = principal.user_id
        fields["organization_id"] = principal.organization_id
    fields["method"] = request.method
    fields["path"] = path
    fields["query"] = _SECRET_PARAMETER.sub(r"\1\2=***", query) if query else ""
    fields["client"] = client_address(request)
    fields["status"] = status
    fields["duration_ms"] = round((time.perf_counter() - context.started) * 1000, 2)
    fields["bytes"] = size
    access_log.write(f"{request.method} {path} {status}", fields)
