"""Addresses that an organisation never writes to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reos.db import Connection, Record, fetch_existing
from reos.queries.listing import Listing, PageRequest, Rows, SortKey, condition, fetch_page
from reos.sql import load

SQL = load("suppressions")

LISTING = Listing(
    table="suppressions",
    alias="s",
    columns=SQL.suppression_columns,
    sort_keys={"created_at": SortKey("s.created_at", is_time=True)},
    filters={
        "email": condition("s.address_key = address_key({}, null)"),
        "phone": condition("s.address_key = address_key(null, {})"),
        # They never change, so they were updated when they were made.
        "updated_since": condition("s.created_at >= {}"),
    },
)


async def list_suppressions(conn: Connection, page: PageRequest, filters: Mapping[str, Any]) -> Rows:
    """A page of the list."""
    return await fetch_page(conn, LISTING, {name: (value,) for name, value in filters.items()}, page)


async def create(conn: Connection, email: str | None, phone: str | None, reason: str | None) -> Record:
    """The new suppression of one of the two. Breaks the constraint suppressions_address_key for one that is there."""
    return await fetch_existing(conn, SQL.create_suppression, email, phone, reason)


async def delete(conn: Connection, suppression_id: int) -> Record:
    """The suppression, which is gone now. Raises ResourceNotFoundError."""
    return await fetch_existing(conn, SQL.delete_suppression, suppression_id)
