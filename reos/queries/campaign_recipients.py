"""Whom campaigns go to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reos.db import Connection, execute, fetch_all, fetch_value
from reos.queries import leads
from reos.queries.listing import Listing, PageRequest, Rows, SortKey, condition, fetch_ids, fetch_page
from reos.queries.search import search_filters
from reos.sql import load

SQL = load("campaign_recipients")

LISTING = Listing(
    table="campaign_recipients",
    alias="r",
    columns=SQL.recipient_columns,
    sort_keys={
        "created_at": SortKey("r.id"),  # all of a campaign are made in the same moment
        "status": SortKey("r.status"),
    },
    filters={
        "campaign_id": condition("r.campaign_id = {}"),
        "status": condition("r.status = {}"),
        "updated_since": condition("r.updated_at >= {}"),
    },
)


async def list_campaign_recipients(conn: Connection, page: PageRequest, filters: Mapping[str, Any]) -> Rows:
    """A page of a campaign's recipients; its id is among the filters."""
    return await fetch_page(conn, LISTING, {name: (value,) for name, value in filters.items()}, page)


async def find_leads(conn: Connection, lead_ids: Sequence[int] | None, filters: Mapping[str, Any]) -> list[int] | None:
    """The ids of the leads that are among `lead_ids` and meet the list's filters; None for all there are."""
    if lead_ids is None and not filters:
        return None
    values: dict[str, tuple[Any, ...]] = {}
    if search := filters.get("search"):
        values |= await search_filters(conn, leads.SQL.search_lead_ids, search)
    values |= {name: (value,) for name, value in filters.items() if name != "search"}
    found = await fetch_ids(conn, leads.LISTING, values)
    return found if lead_ids is None else sorted(set(found) & set(lead_ids))


async def known_leads(conn: Connection, lead_ids: Sequence[int]) -> set[int]:
    """Those of the ids that are leads."""
    return {row["id"] for row in await fetch_all(conn, SQL.list_known_leads, list(lead_ids))}


async def freeze(conn: Connection, campaign_id: int, lead_ids: Sequence[int] | None, campaign_type: str) -> int:
    """Choose the recipients once and for all; how many there are. None: all leads."""
    return int(await fetch_value(conn, SQL.freeze_recipients, campaign_id, lead_ids, campaign_type))


async def cancel(conn: Connection, campaign_id: int) -> None:
    """Take back all that have not been taken for sending. The campaign must be locked."""
    await execute(conn, SQL.cancel_recipients, campaign_id)
