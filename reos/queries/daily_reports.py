"""The morning report: who is to get it, once a day."""

from __future__ import annotations

from datetime import date, datetime

from reos.db import Connection, Record, fetch_all, fetch_value
from reos.sql import load

SQL = load("daily_reports")


async def list_due(conn: Connection, now: datetime, limit: int) -> list[Record]:
    """Up to `limit` of those who are to get one now: `organization_id`, `user_id` and their `day`."""
    return await fetch_all(conn, SQL.list_due_reports, now, limit)


async def claim(conn: Connection, user_id: int, day: date) -> bool:
    """Whether the tenant's user is to get the report of the day from the caller, and from nobody else."""
    return bool(await fetch_value(conn, SQL.claim_report, user_id, day))
