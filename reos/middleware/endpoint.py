"""The way of every API request, and the registry of all endpoints.

    @post(bp, "/properties", "property:create", response=Property)
    async def create_property(call: Call, body: PropertyCreate) -> Answer: ...

The decorator reads the handler's annotations: `body` and `query` name the models, every other argument is
an id of the path. The order of refusals is 401, 413/415/400, 401/403, 422, 404, 412, 409.

1. the token's signature, then the rate limit, then the body's bytes;
2. one round trip begins the transaction and authorises;
3. the models judge the query and the body;
4. an Idempotency-Key is claimed, and the work runs in a savepoint;
5. the handler works; what it audits and publishes is collected;
6. one last statement writes what was collected, then COMMIT; then the bytes go out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

import asyncpg
from loguru import logger
from sanic import Blueprint, HTTPResponse, Request

from reos import encoding
from reos.auth.guard import authenticate, begin_authorised, refusal
from reos.context import Context
from reos.db import Connection, begin_tenant, tenant_transaction
from reos.errors import (
    AuthenticationError,
    InsufficientPermissionsError,
    PreconditionFailedError,
    ReosError,
    ResourceNotFoundError,
    from_constraint,
)
from reos.log import add_context
from reos.metrics import RATE_LIMITED
from reos.middleware import idempotency
from reos.middleware.bodies import MAX_UPLOAD_BYTES, Body, BodyKind, read_body
from reos.middleware.call import Answer, Call, Pages, etag_of, is_known
from reos.middleware.errors import error_content
from reos.middleware.rate_limit import network_of
from reos.middleware.requests import streaming
from reos.middleware.responses import ApiResponse
from reos.queries import events
from reos.schemas.common import RequestModel, parse_query, query_args, validate

PREFIX = "/api/v1"
PUBLIC = "public"
ANY_USER = None
MAX_ID = 2**63 - 1
JSON = "application/json"
CSV = "text/csv; charset=utf-8"

# A transaction that ended like this may run again: by a change of the schema, a deadlock, or, on a replica, by what
# the primary has removed meanwhile.
_UNDONE = (asyncpg.InvalidCachedStatementError, asyncpg.DeadlockDetectedError, asyncpg.SerializationError)

Handler = Callable[..., Awaitable[Any]]
Prepare = Callable[[Call, Any, dict[str, int]], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One route: what it needs, takes and gives. The OpenAPI document is made from these."""

    method: str
    path: str  # with the prefix, ids as {property_id}
    handler: Handler
    permission: str | None  # PUBLIC, None (any user), or the permission's name (several: with a space between them)
    status: int
    response: Any  # a model, list[model], Page[model] or None
    body: Any  # a model; with `form` a union of the two
    form: type[RequestModel] | None  # the fields beside `file` in multipart/form-data
    query: type[RequestModel] | None
    prepare: Prepare | None  # what must not hold a connection: runs between two short transactions
    has_transaction: bool  # False: the handler opens its own
    is_tagged: bool  # whether the answer carries what the resource's GET would give, and its tag
    is_secret: bool  # whether a kept answer is encrypted
    takes_body_optionally: bool
    ignores_key: bool = False  # Idempotency-Key means nothing here
    max_file_bytes: int = MAX_UPLOAD_BYTES
    writes_on_get: bool = False  # a GET leaves an audit row; HEAD does not
    is_stream: bool = False  # the handler authorises, judges its query and writes its response itself
    produces: str = JSON  # the content type; of any other the answer has pages, unless the handler writes it itself
    reads_replica: bool = False  # where there is one, after the primary has authorised

    @property
    def name(self) -> str:
        return self.handler.__name__

    @property
    def permissions(self) -> tuple[str, ...]:
        """The names of all that it takes."""
        return () if self.permission in (PUBLIC, None) else tuple(self.permission.split(" "))

    @property
    def is_read(self) -> bool:
        return self.method == "GET"

    @property
    def json_model(self) -> type[RequestModel] | None:
        """The model of a JSON body; the other one of `body` is that of a form."""
        models = get_args(self.body) or (self.body,)
        return next((model for model in models if model is not self.form), None)

    @property
    def takes_idempotency_key(self) -> bool:
        return not self.is_read and self.has_transaction and not self.ignores_key


ENDPOINTS: list[Endpoint] = []


def _route(
    method: str, bp: Blueprint, path: str, permission: str | None, **options: Any
) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        hints = get_type_hints(handler)
        endpoint = Endpoint(
            method=method,
            path=PREFIX + path,
            handler=handler,
            permission=permission,
            status=options.get("status", {"POST": 201, "DELETE": 204}.get(method, 200)),
            response=options.get("response"),
            body=hints.get("body"),
            form=options.get("form"),
            query=options.get("query", hints.get("query")),
            prepare=options.get("prepare"),
            has_transaction=options.get("has_transaction", not options.get("is_stream")),
            is_tagged=options.get("is_tagged", method in ("GET", "PUT", "PATCH") and "produces" not in options),
            is_secret=options.get("is_secret", False),
            takes_body_optionally=options.get("takes_body_optionally", False),
            ignores_key=options.get("ignores_key", False),
            max_file_bytes=options.get("max_file_bytes", MAX_UPLOAD_BYTES),
            writes_on_get=options.get("writes_on_get", False),
            is_stream=options.get("is_stream", False),
            produces=options.get("produces", JSON),
            reads_replica=options.get("reads_replica", False),
        )
        ENDPOINTS.append(endpoint)

        async def route(request: Request, **path_ids: str) -> HTTPResponse | None:
            return await answer_request(endpoint, request, path_ids)

        methods = ["GET", "HEAD"] if method == "GET" else [method]
        route_path = PREFIX + path.replace("{", "<").replace("}", ">")
        bp.add_route(route, route_path, methods=methods, name=f"{handler.__name__}_{method.lower()}", stream=True)
        return handler

    return register


def get(bp: Blueprint, path: str, permission: str | None, **options: Any) -> Callable[[Handler], Handler]:
    """A reading endpoint: READ ONLY transaction, ETag, 304; answers HEAD too."""
    return _route("GET", bp, path, permission, **options)


def post(bp: Blueprint, path: str, permission: str | None, **options: Any) -> Callable[[Handler], Handler]:
    """A writing endpoint; 201 unless `status` says otherwise."""
    return _route("POST", bp, path, permission, **options)


def put(bp: Blueprint, path: str, permission: str | None, **options: Any) -> Callable[[Handler], Handler]:
    """PUT and PATCH alike: both change only what is sent."""

    def register(handler: Handler) -> Handler:
        _route("PUT", bp, path, permission, **options)(handler)
        return _route("PATCH", bp, path, permission, **options)(handler)

    return register


def delete(bp: Blueprint, path: str, permission: str | None, **options: Any) -> Callable[[Handler], Handler]:
    """A removing endpoint: 204."""
    return _route("DELETE", bp, path, permission, **options)


def parse_id(text: str) -> int:
    """A path id. Whatever is no positive 64-bit integer becomes 0, which no row has: the same 404."""
    if text.isascii() and text.isdigit() and len(text) <= 19 and not text.startswith("0"):
        number = int(text)
        return number if number <= MAX_ID else 0
    return 0


async def answer_request(endpoint: Endpoint, request: Request, path_ids: dict[str, str]) -> HTTPResponse | None:
    """Take a request through all stages, and once more when a schema change or a deadlock undid it.

    None: the response is written already.
    """
    context: Context = request.app.ctx.context
    call = Call(request, context)
    await _admit(endpoint, call)
    # Of a stream too: its answer has no end at which a body that nobody has read would be missed.
    body = await _read_body(endpoint, request, context)
    if endpoint.is_stream:
        with streaming(request):
            response: HTTPResponse | None = await endpoint.handler(call)
            return response
    ids = {name: parse_id(value) for name, value in path_ids.items()}
    try:
        try:
            answer = await _attempt(endpoint, call, ids, body)
        except _UNDONE as error:
            logger.warning("The transaction runs again after: {}", error)
            call.audits.clear()
            call.events.clear()
            answer = await _attempt(endpoint, call, ids, body)
    except InsufficientPermissionsError as error:
        await _audit_denied(endpoint, call, error)
        raise
    if answer.pages is not None:
        await _send_pages(endpoint, call, answer)
        return None
    return _respond(endpoint, request, answer)


async def _read_body(endpoint: Endpoint, request: Request, context: Context) -> Body | None:
    stream: Any = request.stream
    if endpoint.is_read and not stream.request_body:
        return None
    return await read_body(request, context.settings, _body_kind(endpoint), endpoint.max_file_bytes)


def _body_kind(endpoint: Endpoint) -> BodyKind:
    if endpoint.form is not None:
        return BodyKind.JSON_OR_FILE
    if endpoint.body is None:
        return BodyKind.NONE
    return BodyKind.OPTIONAL_JSON if endpoint.takes_body_optionally else BodyKind.JSON


async def _admit(endpoint: Endpoint, call: Call) -> None:
    """Verify the token's signature, then count: on the user, or on the address before log-in."""
    request, limiter = call.request, call.context.limiter
    refused: AuthenticationError | None = None
    if endpoint.permission != PUBLIC and not _brings_ticket(endpoint, request):
        try:
            call.principal = principal = authenticate(request, call.context.settings)
            request.ctx.principal = principal
            add_context(user_id=principal.user_id, organization_id=principal.organization_id)
        except AuthenticationError as error:
            refused = error
    key = f"user:{call.principal.user_id}" if call.principal else f"address:{network_of(call.client_address)}"
    allowance = await limiter.take(key)
    request.ctx.rate_limit_headers = allowance.headers()
    if not allowance.allowed:
        RATE_LIMITED.labels(key.partition(":")[0]).inc()
        raise allowance.error()
    if refused:
        raise refused


def _brings_ticket(endpoint: Endpoint, request: Request) -> bool:
    """Whether a ticket stands in for the token, because a browser's EventSource cannot send headers."""
    return endpoint.is_stream and "authorization" not in request.headers and "ticket" in request.args


async def _attempt(endpoint: Endpoint, call: Call, ids: dict[str, int], body: Body | None) -> Answer:
    """The stages from the transaction on."""
    if not endpoint.has_transaction:
        arguments = _arguments(endpoint, call, ids, body)
        return _as_answer(endpoint, await endpoint.handler(call, **arguments))
    if endpoint.reads_replica and call.context.replica is not None:
        return await _attempt_on_replica(endpoint, call, ids, body)
    claim = idempotency.read_key(endpoint, call, body)
    if endpoint.prepare is None:
        return await _carry_out(endpoint, call, claim, lambda: _arguments(endpoint, call, ids, body))
    async with idempotency.alone(claim, call):
        arguments, kept = await _prepare(endpoint, call, ids, body, claim)
        return kept if kept is not None else await _carry_out(endpoint, call, claim, lambda: arguments)


async def _carry_out(
    endpoint: Endpoint, call: Call, claim: idempotency.Claim | None, read_arguments: Callable[[], dict[str, Any]]
) -> Answer:
    """The transaction. The arguments are read in it, because it is what authorises."""
    organization_id = call.principal.organization_id if call.principal else None
    try:
        async with call.context.database.transaction(_begin(endpoint, call), organization_id) as conn:
            call.connection = conn
            arguments = read_arguments()
            if claim:
                answer = await idempotency.answer_once(claim, call, lambda: _work(endpoint, call, arguments))
            else:
                answer = await _work(endpoint, call, arguments)
            await events.record_changes(conn, call.audits, call.events)
    except asyncpg.PostgresError as error:
        raise (refusal(error, endpoint.permission) or error) from error
    finally:
        call.connection = None
    return answer


async def _attempt_on_replica(endpoint: Endpoint, call: Call, ids: dict[str, int], body: Body | None) -> Answer:
    """The same for what a replica serves. It may not know yet of a log-out, so the primary authorises first."""
    principal, replica = call.principal, call.context.replica
    assert principal is not None
    assert replica is not None
    async with _reading(endpoint, call):
        arguments = _arguments(endpoint, call, ids, body)
    begin = begin_tenant(principal.organization_id, principal.user_id, read_only=True)
    try:
        async with replica.transaction(begin) as conn:
            call.connection = conn
            return await _work(endpoint, call, arguments)
    finally:
        call.connection = None


@asynccontextmanager
async def _reading(endpoint: Endpoint, call: Call) -> AsyncIterator[Connection]:
    """A read-only transaction of the request beside its main one. It authorises too."""
    try:
        async with call.context.database.transaction(_begin(endpoint, call, writes=False)) as conn:
            yield conn
    except asyncpg.PostgresError as error:
        raise (refusal(error, endpoint.permission) or error) from error


def _begin(endpoint: Endpoint, call: Call, *, writes: bool = True) -> str:
    if call.principal is None:
        return "BEGIN READ ONLY" if endpoint.is_read else "BEGIN"
    requires_verified = call.context.settings.require_verified_email and not endpoint.path.startswith(f"{PREFIX}/auth/")
    may_write = not endpoint.is_read or (endpoint.writes_on_get and call.request.method == "GET")
    return begin_authorised(
        call.principal, endpoint.permission, read_only=not (writes and may_write), require_verified=requires_verified
    )


async def _prepare(
    endpoint: Endpoint, call: Call, ids: dict[str, int], body: Body | None, claim: idempotency.Claim | None
) -> tuple[dict[str, Any], Answer | None]:
    """Authorise and validate in a short transaction, then do what must not hold a connection.

    A kept answer is given at once, before the work that the preparation would be.
    """
    assert endpoint.prepare is not None
    try:
        async with call.context.database.transaction(_begin(endpoint, call)) as conn:
            arguments = _arguments(endpoint, call, ids, body)
            kept = await idempotency.find_kept(claim, conn, call) if claim else None
    except asyncpg.PostgresError as error:
        raise (refusal(error, endpoint.permission) or error) from error
    if kept is None:
        call.prepared = await endpoint.prepare(call, arguments.get("body"), ids)
    return arguments, kept


def _arguments(endpoint: Endpoint, call: Call, ids: dict[str, int], body: Body | None) -> dict[str, Any]:
    """The handler's arguments: path ids, and the query and body as their models. Raises ValidationError."""
    arguments: dict[str, Any] = dict(ids)
    if endpoint.query is not None:
        arguments["query"] = parse_query(endpoint.query, query_args(call.request.query_string))
    if body is not None and body.form is not None and endpoint.form is not None:
        call.file = body.file
        arguments["body"] = parse_query(endpoint.form, body.form)
    elif (json_model := endpoint.json_model) is not None:
        assert body is not None
        arguments["body"] = validate(json_model, body.json)
    return arguments


async def _work(endpoint: Endpoint, call: Call, arguments: dict[str, Any]) -> Answer:
    """Run the handler; a broken constraint becomes the domain error of its name."""
    try:
        answer = _as_answer(endpoint, await endpoint.handler(call, **arguments))
    except asyncpg.IntegrityConstraintViolationError as error:
        raise from_constraint(error.constraint_name, error) from error
    is_unchecked = endpoint.method in ("PUT", "PATCH", "DELETE") and not call.is_precondition_checked
    if is_unchecked and call.wanted_tags not in (None, "*"):
        # The resource has no GET of its own, so no tag can match.
        raise PreconditionFailedError
    return answer


def _as_answer(endpoint: Endpoint, result: Any) -> Answer:
    return result if isinstance(result, Answer) else Answer(endpoint.status, result)


async def _audit_denied(endpoint: Endpoint, call: Call, error: InsufficientPermissionsError) -> None:
    """A refused permission is audited in a transaction of its own, after the request's connection is back."""
    assert call.principal is not None
    call.audits.clear()
    call.events.clear()
    permission = error.details.get("required_permission") or endpoint.permission or ""
    call.audit("denied", permission.partition(":")[0], None, {"permission": [None, permission]})
    principal = call.principal
    async with tenant_transaction(call.context.database, principal.organization_id, principal.user_id) as conn:
        await events.record_changes(conn, call.audits, [])


def _respond(endpoint: Endpoint, request: Request, answer: Answer) -> HTTPResponse:
    """The bytes: ETag and 304 for reads, the tag of the resource for writes that return one."""
    headers = dict(answer.headers)
    if isinstance(answer, idempotency.KeptAnswer):
        return ApiResponse(answer.content, answer.status, headers, _content_type(answer.content))
    if answer.content is None:
        return ApiResponse(None, answer.status, headers)
    body = encoding.dumps(answer.content)
    if endpoint.is_read or (endpoint.is_tagged and answer.status < 300):
        # A handler whose answer says more than GET does (a new secret) has given GET's tag itself.
        headers.setdefault("ETag", etag_of(body))
    if endpoint.is_read and is_known(request, headers["ETag"]):
        return ApiResponse(None, 304, headers)
    return ApiResponse(body, answer.status, headers, "application/json")


async def _send_pages(endpoint: Endpoint, call: Call, answer: Answer) -> None:
    """Send a body page by page, each read in a transaction that authorises anew."""
    request, pages = call.request, answer.pages
    assert pages is not None
    with streaming(request):
        response = await request.respond(status=answer.status, headers=answer.headers, content_type=endpoint.produces)
        if request.method == "HEAD":
            # The headers of a body that goes on, as GET's are.
            await response.send(b"", end_stream=False)
            return
        try:
            await _send_page(response, pages)
            while not pages.is_last:
                async with _reading(endpoint, call) as conn:
                    await pages.read(conn)
                await _send_page(response, pages)
        except Exception as error:
            # The status is out already: only the end of the connection can tell that something is missing.
            level = "WARNING" if isinstance(error, ReosError) else "ERROR"
            logger.opt(exception=error).log(level, "{} {} was cut off", request.method, request.path)
            transport: Any = request.transport
            transport.abort()


async def _send_page(response: HTTPResponse, pages: Pages) -> None:
    """Send a page. It is held as bytes while the client takes its time, and others have their turn meanwhile."""
    chunks = []
    for chunk in pages.chunks():
        chunks.append(chunk)
        await asyncio.sleep(0)
    for chunk in chunks:
        await response.send(chunk)


def _content_type(body: bytes | None) -> str | None:
    return "application/json" if body else None


__all__ = [
    "ANY_USER",
    "ENDPOINTS",
    "PUBLIC",
    "Answer",
    "Call",
    "Connection",
    "Endpoint",
    "ReosError",
    "ResourceNotFoundError",
    "delete",
    "error_content",
    "get",
    "post",
    "put",
]
