"""The transactions of deals."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

from reos.db import Connection, Record, execute, fetch_existing
from reos.queries.listing import Listing, PageRequest, Rows, SortKey, condition, fetch_page
from reos.sql import load

SQL = load("transactions")

LISTING = Listing(
    table="transactions",
    alias="t",
    columns=SQL.transaction_columns,
    sort_keys={
        "transaction_date": SortKey("t.transaction_date", is_time=True),
        "created_at": SortKey("t.created_at", is_time=True),
        "amount": SortKey("t.amount_cents"),
    },
    filters={
        "deal_id": condition("t.deal_id = {}"),
        "transaction_type": condition("t.transaction_type = {}"),
        "updated_since": condition("t.updated_at >= {}"),
    },
)


# Those of all deals that are not deleted.
EXPORT = Listing(
    table="transactions",
    alias="t",
    columns=SQL.transaction_cells,
    always=(
        "exists (select from deals d where d.organization_id = t.organization_id and d.id = t.deal_id"
        " and d.deleted_at is null)"
    ),
    sort_keys={"transaction_date": SortKey("t.transaction_date", is_time=True)},
    filters={
        "start_date": condition("t.transaction_date >= {}"),
        "end_date": condition("t.transaction_date <= {}"),
    },
)


async def list_transactions(conn: Connection, page: PageRequest, filters: Mapping[str, Any]) -> Rows:
    """A page of the list; `filters` names the deal."""
    return await fetch_page(conn, LISTING, {name: (value,) for name, value in filters.items()}, page)


async def export(conn: Connection, page: PageRequest, start: date | None, end: date | None) -> Rows:
    """A page of the transactions of these days."""
    days = {"start_date": start, "end_date": end}
    return await fetch_page(conn, EXPORT, {name: (day,) for name, day in days.items() if day is not None}, page)


async def lock(conn: Connection, deal_id: int, transaction_id: int) -> Record:
    """The deal's transaction, locked until the transaction of the database ends. Raises ResourceNotFoundError."""
    return await fetch_existing(conn, SQL.lock_transaction, deal_id, transaction_id)


async def create(conn: Connection, deal_id: int, fields: Mapping[str, Any]) -> Record:
    """The new transaction. `fields` has every column that a client may set."""
    return await fetch_existing(conn, SQL.create_transaction, deal_id, fields)


async def update(conn: Connection, transaction_id: int, patch: Mapping[str, Any]) -> Record:
    """The transaction after the patch: an absent field keeps its value, a null clears it."""
    return await fetch_existing(conn, SQL.update_transaction, transaction_id, patch)


async def delete(conn: Connection, transaction_id: int) -> None:
    await execute(conn, SQL.delete_transaction, transaction_id)
