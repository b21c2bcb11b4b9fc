"""Plain arrays under a resource: a page and the count of all."""

from __future__ import annotations

from typing import Any

from reos.db import Connection, fetch_all
from reos.sql import Statement

SubList = tuple[list[dict[str, Any]], int]


async def fetch_sublist(conn: Connection, statement: Statement, *args: Any) -> SubList:
    """The items and the total. The statement's rows end in `total`; its last two arguments are limit and offset."""
    rows = await fetch_all(conn, statement, *args)
    if not rows and args[-1] > 0:
        # A page behind the end has no row that could carry the count.
        first = await fetch_all(conn, statement, *args[:-2], 1, 0)
        return [], first[0]["total"] if first else 0
    items = [dict(row) for row in rows]
    total = items[0]["total"] if items else 0
    for item in items:
        del item["total"]
    return items, total
