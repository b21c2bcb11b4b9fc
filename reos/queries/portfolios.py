"""Portfolios and what is in them."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from reos.db import Connection, Record, execute, fetch_all, fetch_existing, fetch_value
from reos.queries import properties
from reos.queries.listing import Listing, PageRequest, Rows, SortKey, condition, fetch_page, text_condition
from reos.queries.search import search_filters
from reos.sql import load

SQL = load("portfolios")

LISTING = Listing(
    table="portfolios",
    alias="f",
    columns=SQL.portfolio_columns,
    always="f.deleted_at is null",
    sort_keys={
        "created_at": SortKey("f.created_at", is_time=True),
        "updated_at": SortKey("f.updated_at", is_time=True),
        "name": SortKey("f.name"),
    },
    filters={
        "ids": condition("f.id = any({})"),
        "words": text_condition("f.search_text like all({})"),
        "updated_since": condition("f.updated_at >= {}"),
    },
)


async def list_portfolios(
    conn: Connection, page: PageRequest, filters: Mapping[str, Any], *, search: str | None = None
) -> Rows:
    """A page of the list. `filters` holds the plain filters."""
    values: dict[str, tuple[Any, ...]] = {}
    if search:
        values |= await search_filters(conn, SQL.search_portfolio_ids, search)
    values |= {name: (value,) for name, value in filters.items()}
    rows = await fetch_page(conn, LISTING, values, page)
    # Only for what is shown: an offset would have the sums of all that it passes over computed too.
    sums = await fetch_all(conn, SQL.sum_portfolios, [item["id"] for item in rows.items]) if rows.items else []
    by_id = {row["id"]: row for row in sums}
    for item in rows.items:
        item["property_count"] = by_id[item["id"]]["property_count"]
        item["total_value"] = by_id[item["id"]]["total_value"]
    return rows


async def get(conn: Connection, portfolio_id: int) -> dict[str, Any]:
    """The portfolio as GET gives it, with its properties. Raises ResourceNotFoundError."""
    return await _with_properties(conn, await fetch_existing(conn, SQL.get_portfolio, portfolio_id))


async def lock(conn: Connection, portfolio_id: int) -> dict[str, Any]:
    """The portfolio as GET gives it, locked until the transaction ends. Raises ResourceNotFoundError."""
    return await _with_properties(conn, await fetch_existing(conn, SQL.lock_portfolio, portfolio_id))


async def _with_properties(conn: Connection, row: Record) -> dict[str, Any]:
    found = await properties.list_in_portfolio(conn, row["id"])
    total = sum((item["price"] for item in found if item["price"] is not None), Decimal("0.00"))
    return {**row, "property_count": len(found), "total_value": total, "properties": found}


async def create(
    conn: Connection, *, name: str, description: str | None, metadata: dict[str, Any], property_ids: list[int]
) -> dict[str, Any]:
    """The new portfolio as GET gives it. `property_ids` have been checked, and none is there twice."""
    row = await fetch_existing(conn, SQL.create_portfolio, name, description, metadata, property_ids)
    return await _with_properties(conn, row)


async def update(conn: Connection, before: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """The portfolio after the patch: an absent field keeps its value, a null clears it. `before` is locked."""
    return {**before, **await fetch_existing(conn, SQL.update_portfolio, before["id"], patch)}


async def delete(conn: Connection, portfolio_id: int) -> None:
    await execute(conn, SQL.delete_portfolio, portfolio_id)


async def restore(conn: Connection, portfolio_id: int) -> dict[str, Any]:
    """The portfolio, no longer deleted, as GET gives it. Raises ResourceNotFoundError."""
    return await _with_properties(conn, await fetch_existing(conn, SQL.restore_portfolio, portfolio_id))


async def lock_alone(conn: Connection, portfolio_id: int) -> None:
    """Lock the portfolio without reading what is in it. Raises ResourceNotFoundError."""
    await fetch_existing(conn, SQL.lock_portfolio, portfolio_id)


async def add_property(conn: Connection, portfolio_id: int, property_id: int) -> bool:
    """Put a property into the portfolio, which must be locked; False when it is in there already."""
    if await fetch_value(conn, SQL.add_portfolio_property, portfolio_id, property_id) is None:
        return False
    await execute(conn, SQL.touch_portfolio, portfolio_id)
    return True


async def remove_property(conn: Connection, portfolio_id: int, property_id: int) -> bool:
    """Take a property out of the portfolio, which must be locked; False when it is not in there."""
    if await fetch_value(conn, SQL.remove_portfolio_property, portfolio_id, property_id) is None:
        return False
    await execute(conn, SQL.touch_portfolio, portfolio_id)
    return True


async def get_stats(conn: Connection) -> Record:
    """All portfolios in numbers."""
    return await fetch_existing(conn, SQL.get_portfolio_stats)
