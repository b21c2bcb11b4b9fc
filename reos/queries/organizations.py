"""The organisation of the present transaction."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from reos.db import Connection, fetch_value
from reos.sql import load

SQL = load("organizations")


async def get_time_zone(conn: Connection) -> ZoneInfo:
    """The zone in which the organisation's days begin."""
    return ZoneInfo(await fetch_value(conn, SQL.get_time_zone))
