"""What goes after its retention: deleted rows, and audit rows once they are archived."""

from __future__ import annotations

from reos.db import Connection, Record, fetch_all, fetch_value
from reos.sql import load

SQL = load("retention")


async def purge_soft_deleted(conn: Connection, days: int) -> int:
    """Remove a batch of what was deleted so many days ago, of all organisations; how many rows there were.

    Rows that a kept row refers to stay. Files are left to the sweep of abandoned ones.
    """
    return int(await fetch_value(conn, SQL.purge_soft_deleted, days))


async def list_old_audit_logs(conn: Connection, days: int) -> list[int]:
    """The organisations that have audit rows older than so many days."""
    return [row["organization_id"] for row in await fetch_all(conn, SQL.list_old_audit_logs, days)]


async def read_old_audit_logs(conn: Connection, days: int, limit: int) -> list[Record]:
    """Up to `limit` of the tenant's audit rows older than so many days, oldest first."""
    return await fetch_all(conn, SQL.read_old_audit_logs, days, limit)


async def purge_audit_logs(conn: Connection, days: int, first_id: int, last_id: int) -> int:
    """Remove the tenant's audit rows of an archived batch; how many there were."""
    return int(await fetch_value(conn, SQL.purge_audit_logs, days, first_id, last_id))
