"""Campaigns as a client sees and changes them. Their sending is `queries/campaign_sending.py`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, get_args

from reos.db import Connection, Record, execute, fetch_existing, fetch_one, fetch_value
from reos.errors import ResourceNotFoundError
from reos.queries.listing import Listing, PageRequest, Rows, SortKey, condition, fetch_page, text_condition
from reos.queries.search import search_filters
from reos.schemas.campaigns import CampaignStatus, CampaignType
from reos.sql import load

SQL = load("campaigns")

LISTING = Listing(
    table="campaigns",
    alias="c",
    columns=SQL.campaign_columns,
    always="c.deleted_at is null",
    sort_keys={
        "created_at": SortKey("c.created_at", is_time=True),
        "updated_at": SortKey("c.updated_at", is_time=True),
        "scheduled_at": SortKey("c.scheduled_at", is_nullable=True, is_time=True),
        "name": SortKey("c.name"),
        "status": SortKey("c.status"),
    },
    filters={
        "ids": condition("c.id = any({})"),
        "words": text_condition("c.search_text like all({})"),
        "campaign_type": condition("c.campaign_type = {}"),
        "status": condition("c.status = {}"),
        "updated_since": condition("c.updated_at >= {}"),
    },
)


async def list_campaigns(
    conn: Connection, page: PageRequest, filters: Mapping[str, Any], *, search: str | None = None
) -> Rows:
    """A page of the list. `filters` holds the plain filters."""
    values: dict[str, tuple[Any, ...]] = {}
    if search:
        values |= await search_filters(conn, SQL.search_campaign_ids, search)
    values |= {name: (value,) for name, value in filters.items()}
    return await fetch_page(conn, LISTING, values, page)


async def get(conn: Connection, campaign_id: int) -> Record:
    """The campaign as GET gives it. Raises ResourceNotFoundError."""
    return await fetch_existing(conn, SQL.get_campaign, campaign_id)


async def find(conn: Connection, campaign_id: int) -> Record | None:
    """The same, or None when there is none: what the client sent is judged first."""
    return await fetch_one(conn, SQL.get_campaign, campaign_id)


async def lock(conn: Connection, campaign_id: int) -> Record:
    """The campaign as GET gives it, locked until the transaction ends. Raises ResourceNotFoundError."""
    return await fetch_existing(conn, SQL.lock_campaign, campaign_id)


async def lock_if_there(conn: Connection, campaign_id: int) -> Record | None:
    """The same, or None when there is none."""
    return await fetch_one(conn, SQL.lock_campaign, campaign_id)


async def require(conn: Connection, campaign_id: int) -> None:
    """Raises ResourceNotFoundError unless the campaign is there."""
    if not await fetch_value(conn, SQL.campaign_exists, campaign_id):
        raise ResourceNotFoundError


async def create(conn: Connection, fields: Mapping[str, Any]) -> Record:
    """The new draft. `fields` has every column that a client may set."""
    return await fetch_existing(conn, SQL.create_campaign, fields)


async def update(conn: Connection, campaign_id: int, patch: Mapping[str, Any]) -> Record:
    """The campaign after the patch: an absent field keeps its value, a null clears it."""
    return await fetch_existing(conn, SQL.update_campaign, campaign_id, patch)


async def delete(conn: Connection, campaign_id: int) -> None:
    await execute(conn, SQL.delete_campaign, campaign_id)


async def restore(conn: Connection, campaign_id: int) -> Record:
    """The campaign, no longer deleted. Raises ResourceNotFoundError."""
    return await fetch_existing(conn, SQL.restore_campaign, campaign_id)


async def start(
    conn: Connection, campaign_id: int, status: CampaignStatus, scheduled_at: datetime | None
) -> tuple[dict[str, Any], int]:
    """The campaign, scheduled or in progress now, and the number that its next job has to have."""
    row = dict(await fetch_existing(conn, SQL.start_campaign, campaign_id, status, scheduled_at))
    number = row.pop("job_number")
    return row, number


async def stop(conn: Connection, campaign_id: int, status: CampaignStatus, reason: str | None = None) -> Record:
    """The campaign, paused or cancelled now. The `reason` is why it has paused itself."""
    return await fetch_existing(conn, SQL.stop_campaign, campaign_id, status, reason)


async def complete(conn: Connection, campaign_id: int, export_file_id: int | None = None) -> Record:
    """The campaign, completed now."""
    return await fetch_existing(conn, SQL.complete_campaign, campaign_id, export_file_id)


async def get_export(conn: Connection, campaign_id: int) -> Record:
    """The file of a campaign that the service does not send itself. Raises ResourceNotFoundError until it is there."""
    return await fetch_existing(conn, SQL.get_campaign_export, campaign_id)


async def get_export_file(conn: Connection, campaign_id: int) -> Record:
    """The same with its size in bytes, for who holds a link to it. Raises ResourceNotFoundError."""
    return await fetch_existing(conn, SQL.get_export_file, campaign_id)


async def get_stats(conn: Connection) -> dict[str, Any]:
    """All campaigns in numbers; every status and type is a key, also at 0."""
    stats = dict(await fetch_existing(conn, SQL.get_campaign_stats))
    stats["by_status"] = dict.fromkeys(get_args(CampaignStatus), 0) | stats["by_status"]
    stats["by_type"] = dict.fromkeys(get_args(CampaignType), 0) | stats["by_type"]
    return stats


async def get_example_values(conn: Connection, created_by: int | None) -> Record:
    """The merge fields that do not depend on a lead."""
    return await fetch_existing(conn, SQL.get_example_values, created_by)


async def get_lead_values(conn: Connection, lead_id: int, created_by: int | None) -> Record:
    """The merge fields of a lead in a campaign of that user's."""
    return await fetch_existing(conn, SQL.get_lead_values, lead_id, created_by)
