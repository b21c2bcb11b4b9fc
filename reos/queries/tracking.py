"""What recipients do with what they got: opening, clicking, unsubscribing, bouncing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reos.db import Connection, Record, execute, fetch_one, fetch_value
from reos.sql import load

SQL = load("tracking")


async def record_open(conn: Connection, recipient_id: int) -> None:
    """The recipient has seen the mail; the first time counts."""
    await execute(conn, SQL.record_open, recipient_id)


async def record_click(conn: Connection, recipient_id: int) -> None:
    """The recipient has followed a link; the first time counts."""
    await execute(conn, SQL.record_click, recipient_id)


async def get_unsubscriber(conn: Connection, recipient_id: int) -> Record | None:
    """The recipient's `address`, `organization_name`, and whether it `is_suppressed`; None when they are purged."""
    return await fetch_one(conn, SQL.get_unsubscriber, recipient_id)


async def unsubscribe(conn: Connection, recipient_id: int) -> Record | None:
    """Never write to the recipient again; None when they are purged.

    `suppression_id` is null when that was so already; `has_bounced`: it is the one of an address that mails came back
    from, and has another reason now.
    """
    return await fetch_one(conn, SQL.unsubscribe, recipient_id)


async def record_bounces(conn: Connection, bounces: Sequence[dict[str, Any]]) -> int:
    """Keep bounces and complaints: `id` of the recipient, `kind`, `reason`. How many of them were sent anything."""
    return int(await fetch_value(conn, SQL.record_bounces, bounces))
