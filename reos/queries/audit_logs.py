"""The list of audit rows. Writing them is `queries/events.record_changes`; their form is in `queries/audit.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reos.db import Connection
from reos.queries.listing import Listing, PageRequest, Rows, SortKey, condition, fetch_page
from reos.sql import load

SQL = load("audit_logs")

LISTING = Listing(
    table="audit_logs",
    alias="a",
    columns=SQL.audit_log_columns,
    sort_keys={"created_at": SortKey("a.created_at", is_time=True)},
    filters={
        "user_id": condition("a.user_id = {}"),
        "action": condition("a.action = {}"),
        "resource_type": condition("a.resource_type = {}"),
        "resource_id": condition("a.resource_id = {}"),
        "since": condition("a.created_at >= {}"),
        "until": condition("a.created_at <= {}"),
        # They never change, so they were updated when they were made.
        "updated_since": condition("a.created_at >= {}"),
    },
)


async def list_audit_logs(conn: Connection, page: PageRequest, filters: Mapping[str, Any]) -> Rows:
    """A page of the list."""
    return await fetch_page(conn, LISTING, {name: (value,) for name, value in filters.items()}, page)
