"""Campaign templates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reos.db import Connection, Record, execute, fetch_existing
from reos.queries.sublists import SubList, fetch_sublist
from reos.sql import load

SQL = load("campaign_templates")


async def list_campaign_templates(
    conn: Connection, campaign_type: str | None, is_active: bool | None, limit: int, offset: int
) -> SubList:
    """A page of the templates; None lets all through."""
    return await fetch_sublist(conn, SQL.list_campaign_templates, campaign_type, is_active, limit, offset)


async def get(conn: Connection, template_id: int) -> Record:
    """The template as GET gives it. Raises ResourceNotFoundError."""
    return await fetch_existing(conn, SQL.get_campaign_template, template_id)


async def lock(conn: Connection, template_id: int) -> Record:
    """The same, locked until the transaction ends. Raises ResourceNotFoundError."""
    return await fetch_existing(conn, SQL.lock_campaign_template, template_id)


async def create(conn: Connection, fields: Mapping[str, Any]) -> Record:
    """The new template. `fields` has every column that a client may set."""
    return await fetch_existing(conn, SQL.create_campaign_template, fields)


async def update(conn: Connection, template_id: int, patch: Mapping[str, Any]) -> Record:
    """The template after the patch: an absent field keeps its value, a null clears it."""
    return await fetch_existing(conn, SQL.update_campaign_template, template_id, patch)


async def delete(conn: Connection, template_id: int) -> None:
    await execute(conn, SQL.delete_campaign_template, template_id)


async def restore(conn: Connection, template_id: int) -> Record:
    """The template, no longer deleted. Raises ResourceNotFoundError."""
    return await fetch_existing(conn, SQL.restore_campaign_template, template_id)
