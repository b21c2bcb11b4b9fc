"""The event stream, its tickets and its state."""

from __future__ import annotations

from contextlib import ExitStack, aclosing
from typing import Any

import asyncpg
from sanic import Blueprint, HTTPResponse

from reos.auth import one_time
from reos.auth.guard import Principal, begin_authorised, refusal
from reos.db import Connection, begin_tenant
from reos.errors import InvalidTokenError, OverloadedError
from reos.middleware.call import Call
from reos.middleware.endpoint import ANY_USER, get, post
from reos.queries import events
from reos.schemas.common import parse_query, query_args
from reos.schemas.sse import StreamQuery, StreamStatus, StreamTicket
from reos.streams import Start, Stream

bp = Blueprint("sse")

TICKET = one_time.STREAM_TICKET
CONTENT_TYPE = "text/event-stream; charset=utf-8"
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


@post(bp, "/sse/ticket", ANY_USER, response=StreamTicket, is_secret=True)
async def create_stream_ticket(call: Call) -> dict[str, Any]:
    """Get a ticket that opens one event stream without the Authorization header."""
    principal = call.principal
    assert principal is not None
    ticket = await one_time.issue(
        call.conn,
        call.context.signer,
        principal.user_id,
        TICKET,
        organization_id=principal.organization_id,
        session_id=principal.session_id,
    )
    return {"ticket": ticket, "expires_in": one_time.LIFETIMES[TICKET]}


@get(bp, "/sse/status", ANY_USER, response=StreamStatus)
async def get_stream_status(call: Call) -> dict[str, Any]:
    """Get the state of the organisation's event streams."""
    principal = call.principal
    assert principal is not None
    bounds = await events.get_bounds(call.conn)
    return {
        "organization_id": principal.organization_id,
        "active_connections": await events.count_streams(call.conn),
        "listener_connected": call.context.hub.is_listening,
        "last_event_id": bounds["last_id"],
    }


@get(bp, "/sse/stream", ANY_USER, is_stream=True, produces=CONTENT_TYPE, query=StreamQuery)
async def stream_events(call: Call) -> HTTPResponse | None:
    """Follow the organisation's events.

    The first message has the type `connected` and the id after which the stream starts; then comes each event that
    the user may read, with its id, and every 15 seconds a comment. The header Last-Event-ID, or `last_event_id=`,
    replays what was missed, 0 all that is kept; when that is not possible, a message of the type `resync` says so.
    """
    if call.request.app.ctx.draining:
        raise OverloadedError(headers={"Retry-After": "1"})
    with ExitStack() as stack:
        try:
            stream, last_event_id = await _admit(call, stack)
        except _OnlyHead:
            return HTTPResponse(None, 200, dict(HEADERS), content_type=CONTENT_TYPE)
        start = await call.context.hub.place(stream, last_event_id)
        await _write(call, stream, start)
    return None


class _OnlyHead(Exception):
    """Rolls back what a HEAD request has looked at, so that its ticket stays unused."""


async def _admit(call: Call, stack: ExitStack) -> tuple[Stream, str | None]:
    """Authorise, use up the ticket if that is how, and count the stream in; the stack lets it go in the end.

    A refusal, also for the query or for want of room, leaves the ticket unused.
    """
    hub, request = call.context.hub, call.request
    try:
        ticket = "" if call.principal else request.args.get("ticket", "")
        async with call.context.database.transaction(_begin(call, ticket)) as conn:
            if call.principal is None:
                call.principal = request.ctx.principal = await _redeem(call, conn, ticket)
            principal = call.principal
            alive = await events.list_live_sessions(conn, [(principal.organization_id, principal.session_id)])
            if not alive:
                raise InvalidTokenError("The session has ended.")
            query = parse_query(StreamQuery, query_args(request.query_string))
            if request.method == "HEAD":
                raise _OnlyHead
            stream = hub.admit(principal, alive[0]["permissions"], query.types, request.transport)
            stack.callback(hub.release, stream)
    except asyncpg.PostgresError as error:
        raise (refusal(error, None) or error) from error
    # The header is newer: a browser that connects again sends it along with the address of the first time.
    return stream, request.headers.get("last-event-id") or query.last_event_id


def _begin(call: Call, ticket: str) -> str:
    if call.principal is None:
        return begin_tenant(one_time.organization_of(call.context.signer, TICKET, ticket))
    requires_verified = call.context.settings.require_verified_email
    return begin_authorised(call.principal, None, read_only=True, require_verified=requires_verified)


async def _redeem(call: Call, conn: Connection, ticket: str) -> Principal:
    row = await one_time.redeem(conn, call.context.signer, TICKET, ticket)
    return Principal(row["organization_id"], row["user_id"], row["session_id"])


async def _write(call: Call, stream: Stream, start: Start) -> None:
    """Write the stream until it ends or the client goes, which cancels this."""
    request = call.request
    # The connection ends with the stream: a client that has to come again shall find another process.
    http: Any = request.stream
    http.keep_alive = False
    request.conn_info.ctx.is_event_stream = True  # type: ignore[union-attr]
    response = await request.respond(status=200, headers=dict(HEADERS), content_type=CONTENT_TYPE)
    async with aclosing(call.context.hub.chunks(stream, start)) as chunks:
        async for chunk in chunks:
            await response.send(chunk)
            stream.line.wrote(len(chunk))
