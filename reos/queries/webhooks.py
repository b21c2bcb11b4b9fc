"""Webhooks: endpoints, their secrets, and the deliveries that events make (`events.record_changes`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from reos.db import Connection, Record, execute, fetch_all, fetch_existing, fetch_one, fetch_value
from reos.queries.listing import Listing, PageRequest, Rows, SortKey, condition, fetch_page
from reos.sql import load

SQL = load("webhooks")

LISTING = Listing(
    table="webhook_endpoints",
    alias="w",
    columns=SQL.webhook_columns,
    always="w.deleted_at is null",
    sort_keys={
        "created_at": SortKey("w.created_at", is_time=True),
        "updated_at": SortKey("w.updated_at", is_time=True),
    },
    filters={
        "is_active": condition("w.is_active = {}"),
        "updated_since": condition("w.updated_at >= {}"),
    },
)

DELIVERIES = Listing(
    table="webhook_logs",
    alias="l",
    columns=SQL.delivery_columns,
    sort_keys={"created_at": SortKey("l.created_at", is_time=True)},
    filters={
        "webhook_id": condition("l.webhook_endpoint_id = {}"),
        "status": condition("l.status = {}"),
        "event_type": condition("l.event_type = {}"),
        "updated_since": condition("l.updated_at >= {}"),
    },
)


def payload_of(delivery: Mapping[str, Any]) -> dict[str, Any]:
    """What the receiver gets: the event's type, when it happened, and its data."""
    return {"type": delivery["event_type"], "timestamp": delivery["created_at"], "data": delivery["data"]}


async def list_webhooks(conn: Connection, page: PageRequest, filters: Mapping[str, Any]) -> Rows:
    """A page of the list."""
    return await fetch_page(conn, LISTING, {name: (value,) for name, value in filters.items()}, page)


async def get(conn: Connection, webhook_id: int) -> Record:
    """The webhook as GET gives it. Raises ResourceNotFoundError."""
    return await fetch_existing(conn, SQL.get_webhook, webhook_id)


async def find(conn: Connection, webhook_id: int) -> Record | None:
    """The same; None when there is none."""
    return await fetch_one(conn, SQL.get_webhook, webhook_id)


async def lock(conn: Connection, webhook_id: int) -> Record:
    """The webhook as GET gives it, locked until the transaction ends. Raises ResourceNotFoundError."""
    return await fetch_existing(conn, SQL.lock_webhook, webhook_id)


async def find_locked(conn: Connection, webhook_id: int) -> Record | None:
    """The same; None when there is none."""
    return await fetch_one(conn, SQL.lock_webhook, webhook_id)


async def create(conn: Connection, fields: Mapping[str, Any]) -> Record:
    """The new webhook. `fields` has every column that a client may set."""
    return await fetch_existing(conn, SQL.insert_webhook, fields)


async def update(conn: Connection, webhook_id: int, patch: Mapping[str, Any]) -> Record:
    """The webhook after the patch; one that is switched on has no failures behind it."""
    return await fetch_existing(conn, SQL.update_webhook, webhook_id, patch)


async def delete(conn: Connection, webhook_id: int) -> None:
    """Remove the webhook with its secrets; the rest of it is removed by `purge`."""
    await execute(conn, SQL.delete_webhook, webhook_id)


async def disable(conn: Connection, webhook_id: int, reason: str, failing_for: timedelta | None) -> Record | None:
    """The webhook, switched off for `reason`; None when it was already, or has not been failing for so long.

    `failing_for` None: however long.
    """
    return await fetch_one(conn, SQL.disable_webhook, webhook_id, reason, failing_for)


async def set_secret(conn: Connection, webhook_id: int, sealed: bytes, overlap: timedelta) -> None:
    """Keep an encrypted secret; the one before it, if any, counts for `overlap` longer."""
    await execute(conn, SQL.set_webhook_secret, webhook_id, sealed, overlap)


async def read_secrets(conn: Connection, webhook_id: int) -> list[bytes]:
    """The encrypted secrets that count now, the newest first."""
    return list(await fetch_value(conn, SQL.read_webhook_secrets, webhook_id) or ())


async def list_deliveries(conn: Connection, page: PageRequest, filters: Mapping[str, Any]) -> Rows:
    """A page of the deliveries; `filters` names the webhook."""
    return await fetch_page(conn, DELIVERIES, {name: (value,) for name, value in filters.items()}, page)


async def get_delivery(conn: Connection, webhook_id: int, delivery_id: int) -> Record:
    """A delivery of the webhook. Raises ResourceNotFoundError."""
    return await fetch_existing(conn, SQL.get_delivery, webhook_id, delivery_id)


async def lock_delivery(conn: Connection, webhook_id: int, delivery_id: int) -> Record:
    """The same, locked until the transaction ends. Raises ResourceNotFoundError."""
    return await fetch_existing(conn, SQL.lock_delivery, webhook_id, delivery_id)


async def repeat_delivery(conn: Connection, delivery_id: int) -> Record:
    """The delivery, due now."""
    return await fetch_existing(conn, SQL.repeat_delivery, delivery_id)


async def take_deliveries(conn: Connection, webhook_id: int, limit: int, lease: timedelta) -> list[Record]:
    """Up to `limit` deliveries that are due, for the caller alone until the lease is over; their attempt is counted."""
    return await fetch_all(conn, SQL.take_deliveries, webhook_id, limit, lease)


async def finish_attempt(
    conn: Connection,
    delivery: Record,
    status: str,
    *,
    response_status: int | None,
    response_body: str | None,
    response_time_ms: int,
    error: str | None,
    next_in: timedelta | None,
) -> None:
    """Record what came of an attempt that `take_deliveries` gave. `next_in`: until the next; None: no more."""
    await execute(
        conn,
        SQL.finish_attempt,
        delivery["id"],
        delivery["attempts"],
        status,
        response_status,
        response_body,
        response_time_ms,
        error,
        next_in,
    )


async def wake(conn: Connection, webhook_ids: Sequence[int]) -> None:
    """See to it that a job looks at these webhooks after the caller's transaction. Locks them, so call it last."""
    await execute(conn, SQL.wake_webhooks, webhook_ids)


async def list_due(conn: Connection, limit: int) -> list[Record]:
    """Up to `limit` webhooks of all organisations where something is due and no job waits: their two ids."""
    return await fetch_all(conn, SQL.list_due_webhooks, limit)


async def purge(conn: Connection, days: int) -> int:
    """Remove a batch of deliveries older than so many days, or of deleted webhooks; how many there were."""
    return int(await fetch_value(conn, SQL.purge_webhooks, days))
