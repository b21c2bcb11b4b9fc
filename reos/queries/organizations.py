"""The organisation of the present transaction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from zoneinfo import ZoneInfo

from reos.db import Connection, Record, fetch_existing, fetch_value
from reos.sql import load

SQL = load("organizations")


async def get_time_zone(conn: Connection) -> ZoneInfo:
    """The zone in which the organisation's days begin."""
    return ZoneInfo(await fetch_value(conn, SQL.get_time_zone))


async def get(conn: Connection) -> Record:
    """The organisation as GET gives it."""
    return await fetch_existing(conn, SQL.get_organization)


async def lock(conn: Connection) -> Record:
    """The same, locked until the transaction ends."""
    return await fetch_existing(conn, SQL.lock_organization)


async def update(conn: Connection, patch: Mapping[str, Any]) -> Record:
    """The organisation after the patch. A slug that another has breaks `organizations_slug_key`."""
    return await fetch_existing(conn, SQL.update_organization, patch)


async def knows_time_zone(conn: Connection, name: str) -> bool:
    """Whether the database can reckon in this zone."""
    return bool(await fetch_value(conn, SQL.knows_time_zone, name))
