"""What the command line asks as the owner of all tables."""

from __future__ import annotations

from reos.db import Connection, Record, fetch_all
from reos.sql import load

SQL = load("admin")


async def find_organizations(conn: Connection, name: str) -> list[Record]:
    """`id`, `name` and `slug` of those with this name, in whatever case, or this slug."""
    return await fetch_all(conn, SQL.find_organizations, name)
