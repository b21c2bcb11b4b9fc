"""Deals, their stages and their history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

from reos.db import Connection, Record, execute, fetch_existing, fetch_one, fetch_value
from reos.errors import ResourceNotFoundError
from reos.queries.listing import Listing, PageRequest, Rows, SortKey, condition, fetch_page
from reos.queries.search import search_filters
from reos.queries.sublists import SubList, fetch_sublist
from reos.schemas.deals import DealStage, DealType
from reos.sql import load

SQL = load("deals")

LISTING = Listing(
    table="deals",
    alias="d",
    columns=SQL.deal_columns,
    always="d.deleted_at is null",
    sort_keys={
        "created_at": SortKey("d.created_at", is_time=True),
        "updated_at": SortKey("d.updated_at", is_time=True),
        "value": SortKey("d.value_cents"),
        "probability": SortKey("d.probability"),
        "expected_close_date": SortKey("d.expected_close_date", is_nullable=True, is_time=True),
        "closed_at": SortKey("d.closed_at", is_nullable=True, is_time=True),
        "stage": SortKey("d.stage"),
    },
    filters={
        "ids": condition("d.id = any({})"),
        # A subquery for each row, so that the list index drives: a join would read all texts to show a page.
        "words": condition(
            "coalesce((select s.text like all({}) from deal_search_texts s"
            " where s.organization_id = d.organization_id and s.deal_id = d.id), false)"
        ),
        "stage": condition("d.stage = {}"),
        "deal_type": condition("d.deal_type = {}"),
        "property_id": condition("d.property_id = {}"),
        "lead_id": condition("d.lead_id = {}"),
        "assigned_to": condition("d.assigned_to = {}"),
        "min_value": condition("d.value >= {}"),
        "max_value": condition("d.value <= {}"),
        "updated_since": condition("d.updated_at >= {}"),
    },
)


EXPORT = replace(LISTING, columns=SQL.deal_cells)


async def list_deals(
    conn: Connection,
    page: PageRequest,
    filters: Mapping[str, Any],
    *,
    search: str | None = None,
    listing: Listing = LISTING,
) -> Rows:
    """A page of the list. `filters` holds the plain filters."""
    values: dict[str, tuple[Any, ...]] = {}
    if search:
        values |= await search_filters(conn, SQL.search_deal_ids, search)
    values |= {name: (value,) for name, value in filters.items()}
    return await fetch_page(conn, listing, values, page)


async def get(conn: Connection, deal_id: int) -> Record:
    """The deal as GET gives it. Raises ResourceNotFoundError."""
    return await fetch_existing(conn, SQL.get_deal, deal_id)


async def lock_if_there(conn: Connection, deal_id: int) -> Record | None:
    """The deal as GET gives it, locked until the transaction ends; None when there is none."""
    return await fetch_one(conn, SQL.lock_deal, deal_id)


async def lock(conn: Connection, deal_id: int) -> Record:
    """The deal as GET gives it, locked until the transaction ends. Raises ResourceNotFoundError."""
    return await fetch_existing(conn, SQL.lock_deal, deal_id)


async def lock_deleted(conn: Connection, deal_id: int) -> Record:
    """The deleted deal, locked. Raises ResourceNotFoundError."""
    return await fetch_existing(conn, SQL.lock_deleted_deal, deal_id)


async def require(conn: Connection, deal_id: int) -> None:
    """Raises ResourceNotFoundError unless the deal is there."""
    if not await fetch_value(conn, SQL.deal_exists, deal_id):
        raise ResourceNotFoundError


async def has_open(conn: Connection, property_id: int) -> bool:
    """Whether an open deal is about the property, which must be locked: then none can come before the end."""
    return bool(await fetch_value(conn, SQL.has_open_deal, property_id))


async def hold_lead(conn: Connection, lead_id: int) -> bool:
    """Keep others from changing the lead until the transaction ends; False when there is none.

    What a deal is found by holds the lead's name. A lead is locked after its deal and before its property.
    """
    return await fetch_value(conn, SQL.hold_lead, lead_id) is not None


async def create(conn: Connection, fields: Mapping[str, Any]) -> Record:
    """The new deal, with the first entry of its history. `fields` has every column that a client may set."""
    return await fetch_existing(conn, SQL.create_deal, fields)


async def update(conn: Connection, deal_id: int, patch: Mapping[str, Any]) -> Record:
    """The deal after the patch: an absent field keeps its value, a null clears it."""
    return await fetch_existing(conn, SQL.update_deal, deal_id, patch)


async def add_stage_change(conn: Connection, deal_id: int, old_stage: str) -> int:
    """Note that the deal, which must be locked, is now in its stage; the id of the note."""
    return int(await fetch_value(conn, SQL.add_stage_change, deal_id, old_stage))


async def list_stage_changes(conn: Connection, deal_id: int, limit: int, offset: int) -> SubList:
    return await fetch_sublist(conn, SQL.list_stage_changes, deal_id, limit, offset)


async def get_stage_change(conn: Connection, change_id: int) -> Record | None:
    """What the mail about a stage change says; None when the deal is gone."""
    return await fetch_one(conn, SQL.get_stage_change, change_id)


async def delete(conn: Connection, deal_id: int) -> None:
    await execute(conn, SQL.delete_deal, deal_id)


async def restore(conn: Connection, deal_id: int) -> Record:
    return await fetch_existing(conn, SQL.restore_deal, deal_id)


async def get_stats(conn: Connection) -> dict[str, Any]:
    """All deals in numbers; every stage and type is a key."""
    row = dict(await fetch_existing(conn, SQL.get_deal_stats))
    row["by_stage"] = dict.fromkeys(get_args(DealStage), 0) | row["by_stage"]
    row["by_type"] = dict.fromkeys(get_args(DealType), 0) | row["by_type"]
    return row
