"""Events and audit rows: collected by a request, written by one last statement; read by streams."""

from __future__ import annotations

from typing import Any, TypedDict
from uuid import UUID

from reos.db import Connection, Record, execute, fetch_all, fetch_one, fetch_value
from reos.sql import load

SQL = load("events")


class Event(TypedDict):
    """What happened; `data` is the resource as GET gives it, or what the contract lists for its type."""

    type: str
    resource_type: str
    resource_id: int | None
    data: Any


def notification(user_id: int | None, message: str, type: str) -> Event:
    """A message to one user, or to all of the organisation (`user_id` None); `type` says what it is about."""
    data = {"user_id": user_id, "message": message, "type": type}
    return Event(type="notification", resource_type="notification", resource_id=None, data=data)


class AuditEntry(TypedDict):
    """Who did what: `changes` maps a field to [before, after]. Secrets never go in."""

    action: str
    resource_type: str
    resource_id: int | None
    changes: dict[str, list[Any]]
    user_id: int | None
    ip_address: str | None
    user_agent: str | None
    request_id: str | None


async def record_changes(conn: Connection, audits: list[AuditEntry], events: list[Event]) -> None:
    """Write what a transaction has collected. Must be its last statement: COMMIT follows directly."""
    if audits or events:
        await execute(conn, SQL.record_changes, audits, events)


async def list_after(conn: Connection, event_id: int, limit: int) -> list[Record]:
    """Up to `limit` events of the tenant with a higher number, in order; fewer (at least one) when they are large."""
    return await fetch_all(conn, SQL.list_events_after, event_id, limit)


async def get_bounds(conn: Connection) -> Record:
    """`first_id` and `last_id` of the tenant's kept events (first_id = last_id + 1 when there is none)."""
    row = await fetch_one(conn, SQL.get_event_bounds)
    assert row is not None
    return row


async def announce_streams(conn: Connection, process_id: UUID, connections: dict[int, int]) -> None:
    """Say how many streams this process serves for each organisation."""
    await execute(conn, SQL.announce_streams, process_id, list(connections), list(connections.values()))


async def list_live_sessions(conn: Connection, sessions: list[tuple[int, int]]) -> list[Record]:
    """The rows of those (organization_id, session_id) that are still alive, with their permissions.

    `last_event_id` is the number of the organisation's newest event.
    """
    return await fetch_all(conn, SQL.list_live_sessions, [o for o, _ in sessions], [s for _, s in sessions])


async def count_streams(conn: Connection) -> int:
    """The tenant's open streams on all web processes."""
    return int(await fetch_value(conn, SQL.count_streams))


async def probe(conn: Connection) -> None:
    """A round trip. Raises when the connection is dead."""
    await fetch_value(conn, SQL.probe)


async def purge(conn: Connection, days: int) -> int:
    """Remove events older than so many days, of all organisations."""
    return int(await fetch_value(conn, SQL.purge_events, days))
