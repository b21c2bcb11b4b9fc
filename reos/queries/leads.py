"""Leads and what belongs to them: activities, notes, documents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

from reos.db import Connection, Record, execute, fetch_existing, fetch_one, fetch_value
from reos.errors import ResourceNotFoundError
from reos.queries.listing import Listing, PageRequest, Rows, SortKey, condition, fetch_page, text_condition
from reos.queries.search import search_filters
from reos.queries.sublists import SubList, fetch_sublist
from reos.schemas.leads import LeadSource, LeadStatus
from reos.sql import load

SQL = load("leads")

LISTING = Listing(
    table="leads",
    alias="l",
    columns=SQL.lead_columns,
    always="l.deleted_at is null",
    sort_keys={
        "created_at": SortKey("l.created_at", is_time=True),
        "updated_at": SortKey("l.updated_at", is_time=True),
        "score": SortKey("l.score"),
        "budget": SortKey("l.budget_cents", is_nullable=True),
        "last_contacted_at": SortKey("l.last_contacted_at", is_nullable=True, is_time=True),
        "last_name": SortKey("l.last_name"),
        "status": SortKey("l.status"),
    },
    filters={
        "ids": condition("l.id = any({})"),
        "words": text_condition("l.search_text like all({})"),
        "source": condition("l.source = {}"),
        "status": condition("l.status = {}"),
        "assigned_to": condition("l.assigned_to = {}"),
        "min_score": condition("l.score >= {}"),
        "max_score": condition("l.score <= {}"),
        "updated_since": condition("l.updated_at >= {}"),
    },
)


EXPORT = replace(LISTING, columns=SQL.lead_cells)


async def list_leads(
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
        values |= await search_filters(conn, SQL.search_lead_ids, search)
    values |= {name: (value,) for name, value in filters.items()}
    return await fetch_page(conn, listing, values, page)


async def get(conn: Connection, lead_id: int) -> Record:
    """The lead as GET gives it. Raises ResourceNotFoundError."""
    return await fetch_existing(conn, SQL.get_lead, lead_id)


async def find(conn: Connection, lead_id: int) -> Record | None:
    """The lead, or None when it is gone."""
    return await fetch_one(conn, SQL.get_lead, lead_id)


async def lock(conn: Connection, lead_id: int) -> Record:
    """The lead as GET gives it, locked until the transaction ends. Raises ResourceNotFoundError."""
    return await fetch_existing(conn, SQL.lock_lead, lead_id)


async def lock_if_there(conn: Connection, lead_id: int) -> Record | None:
    """The same, or None when there is none: what the client sent is judged first."""
    return await fetch_one(conn, SQL.lock_lead, lead_id)


async def lock_deleted(conn: Connection, lead_id: int) -> Record:
    """The deleted lead, locked. Raises ResourceNotFoundError."""
    return await fetch_existing(conn, SQL.lock_deleted_lead, lead_id)


async def get_agent(conn: Connection, lead_id: int) -> int | None:
    """The user who looks after the lead; None when nobody does, or somebody who has left."""
    agent_id: int | None = await fetch_value(conn, SQL.get_lead_agent, lead_id)
    return agent_id


async def exists(conn: Connection, lead_id: int) -> bool:
    return bool(await fetch_value(conn, SQL.lead_exists, lead_id))


async def require(conn: Connection, lead_id: int) -> None:
    """Raises ResourceNotFoundError unless the lead is there."""
    if not await exists(conn, lead_id):
        raise ResourceNotFoundError


async def create(conn: Connection, fields: Mapping[str, Any]) -> Record:
    """The new lead. `fields` has every column that a client may set."""
    return await fetch_existing(conn, SQL.create_lead, fields)


async def update(conn: Connection, lead_id: int, patch: Mapping[str, Any]) -> Record:
    """The lead after the patch: an absent field keeps its value, a null clears it."""
    return await fetch_existing(conn, SQL.update_lead, lead_id, patch)


async def delete(conn: Connection, lead_id: int) -> None:
    await execute(conn, SQL.delete_lead, lead_id)


async def restore(conn: Connection, lead_id: int) -> Record:
    return await fetch_existing(conn, SQL.restore_lead, lead_id)


async def get_stats(conn: Connection) -> dict[str, Any]:
    """All leads in numbers; every status and source is a key, also at 0."""
    stats = dict(await fetch_existing(conn, SQL.get_lead_stats))
    stats["by_status"] = dict.fromkeys(get_args(LeadStatus), 0) | stats["by_status"]
    stats["by_source"] = dict.fromkeys(get_args(LeadSource), 0) | stats["by_source"]
    return stats


async def list_activities(conn: Connection, lead_id: int, limit: int, offset: int) -> SubList:
    return await fetch_sublist(conn, SQL.list_lead_activities, lead_id, limit, offset)


async def create_activity(conn: Connection, lead_id: int, fields: Mapping[str, Any]) -> Record:
    return await fetch_existing(conn, SQL.create_lead_activity, lead_id, fields)


async def list_notes(conn: Connection, lead_id: int, limit: int, offset: int) -> SubList:
    return await fetch_sublist(conn, SQL.list_lead_notes, lead_id, limit, offset)


async def create_note(conn: Connection, lead_id: int, content: str, is_pinned: bool) -> Record:
    return await fetch_existing(conn, SQL.create_lead_note, lead_id, content, is_pinned)


async def list_documents(conn: Connection, lead_id: int, limit: int, offset: int) -> SubList:
    return await fetch_sublist(conn, SQL.list_lead_documents, lead_id, limit, offset)


async def create_document(
    conn: Connection,
    lead_id: int,
    title: str,
    *,
    file_path: str | None = None,
    file_id: int | None = None,
    file_name: str | None = None,
    file_type: str | None,
    file_size: int | None,
) -> Record:
    """A document that lies elsewhere (`file_path`) or in the storage (`file_id`, with the name it came under)."""
    return await fetch_existing(
        conn, SQL.create_lead_document, lead_id, title, file_path, file_id, file_name, file_type, file_size
    )


async def get_document(conn: Connection, lead_id: int, document_id: int) -> Record:
    """The document with its file's `storage_key` and `content_type` (null for one that lies elsewhere).

    Raises ResourceNotFoundError.
    """
    return await fetch_existing(conn, SQL.get_lead_document, lead_id, document_id)


async def get_document_file(conn: Connection, document_id: int) -> Record:
    """The file of a document: its name, key, content type and size in bytes. Raises ResourceNotFoundError."""
    return await fetch_existing(conn, SQL.get_document_file, document_id)
