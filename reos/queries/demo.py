"""The demo data: whether it is there, and its rows in bulk. All but `list_present` and `lock` are of the tenant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from reos.db import Connection, execute, fetch_all, fetch_value
from reos.sql import load

SQL = load("demo")

Rows = list[dict[str, Any]]


async def list_present(conn: Connection, email_keys: list[str]) -> list[str]:
    """Those of the addresses that somebody logs in with, of whatever organisation."""
    return [row["email"] for row in await fetch_all(conn, SQL.list_present, email_keys)]


async def lock(conn: Connection) -> None:
    """Keep other seeders waiting until the transaction ends."""
    await execute(conn, SQL.lock_seeding)


async def set_settings(conn: Connection, settings: dict[str, Any]) -> None:
    await execute(conn, SQL.set_organization_settings, settings)


async def create_users(conn: Connection, users: Rows) -> dict[str, int]:
    """Their ids by `email`. They are verified, and have neither a log-in nor a role yet."""
    return {row["email"]: row["id"] for row in await fetch_all(conn, SQL.create_users, users)}


async def create_logins(conn: Connection, logins: Rows) -> None:
    await execute(conn, SQL.create_logins, logins)


async def grant_roles(conn: Connection, grants: Rows) -> None:
    """Give each `user_id` the system role of the name `role`."""
    await execute(conn, SQL.grant_roles, grants)


async def create_properties(conn: Connection, rows: Rows) -> dict[str, int]:
    """Their ids by `address`."""
    return {row["address"]: row["id"] for row in await fetch_all(conn, SQL.create_properties, rows)}


async def create_images(conn: Connection, rows: Rows) -> None:
    """Pictures with their stored files, which lie in the storage already."""
    await execute(conn, SQL.create_images, rows)


async def create_valuations(conn: Connection, rows: Rows) -> None:
    await execute(conn, SQL.create_valuations, rows)


async def create_notes(conn: Connection, rows: Rows) -> None:
    await execute(conn, SQL.create_notes, rows)


async def create_activities(conn: Connection, rows: Rows) -> None:
    await execute(conn, SQL.create_activities, rows)


async def create_leads(conn: Connection, rows: Rows) -> dict[str, int]:
    """Their ids by `email`."""
    return {row["email"]: row["id"] for row in await fetch_all(conn, SQL.create_leads, rows)}


async def create_lead_activities(conn: Connection, rows: Rows) -> None:
    await execute(conn, SQL.create_lead_activities, rows)


async def create_deals(conn: Connection, rows: Rows) -> dict[tuple[int, datetime], int]:
    """Their ids by `property_id` and `created_at`. The properties know of them."""
    created = await fetch_all(conn, SQL.create_deals, rows)
    await execute(conn, SQL.claim_properties)
    return {(row["property_id"], row["created_at"]): row["id"] for row in created}


async def create_stage_changes(conn: Connection, rows: Rows) -> None:
    await execute(conn, SQL.create_stage_changes, rows)


async def create_transactions(conn: Connection, rows: Rows) -> None:
    await execute(conn, SQL.create_transactions, rows)


async def create_portfolio(
    conn: Connection, name: str, description: str, created_by: int, addresses: Sequence[str]
) -> None:
    """A portfolio of the properties at these addresses."""
    await execute(conn, SQL.create_portfolio, name, description, created_by, addresses)


async def create_campaign_templates(conn: Connection, rows: Rows) -> dict[str, int]:
    """Their ids by `name`."""
    return {row["name"]: row["id"] for row in await fetch_all(conn, SQL.create_campaign_templates, rows)}


async def create_campaign(
    conn: Connection, row: dict[str, Any], recipients: Rows, message_id: Callable[[int], str]
) -> None:
    """A campaign with its recipients. `message_id` tells the id of a mail by that of its recipient."""
    campaign_id = await fetch_value(conn, SQL.create_campaign, row)
    created = await fetch_all(conn, SQL.create_campaign_recipients, campaign_id, recipients)
    written = [entry["id"] for entry in created if entry["attempts"]]
    await execute(conn, SQL.name_messages, written, [message_id(recipient_id) for recipient_id in written])
    await execute(conn, SQL.date_campaign, campaign_id, row["updated_at"])


async def create_suppressions(conn: Connection, rows: Rows) -> None:
    await execute(conn, SQL.create_suppressions, rows)
