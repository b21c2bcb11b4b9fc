"""The organisation's teams and their members."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reos.db import Connection, Record, execute, fetch_all, fetch_existing, fetch_value
from reos.errors import BusinessLogicError, ResourceNotFoundError
from reos.queries.listing import Listing, PageRequest, Rows, SortKey, condition, fetch_page
from reos.sql import load

SQL = load("teams")

LISTING = Listing(
    table="teams",
    alias="t",
    columns=SQL.team_columns,
    sort_keys={
        "created_at": SortKey("t.created_at", is_time=True),
        "updated_at": SortKey("t.updated_at", is_time=True),
        "name": SortKey("t.name"),
    },
    filters={"updated_since": condition("t.updated_at >= {}")},
)


async def list_teams(conn: Connection, page: PageRequest, filters: Mapping[str, Any]) -> Rows:
    """A page of the list; the items have their `member_count`."""
    return await fetch_page(conn, LISTING, {name: (value,) for name, value in filters.items()}, page)


async def get(conn: Connection, team_id: int) -> dict[str, Any]:
    """The team with its `members`. Raises ResourceNotFoundError."""
    team = await fetch_existing(conn, SQL.get_team, team_id)
    members = await fetch_all(conn, SQL.list_team_members, team_id)
    return {**team, "members": [dict(member) for member in members]}


async def lock(conn: Connection, team_id: int) -> dict[str, Any]:
    """The same, locked until the transaction ends. Raises ResourceNotFoundError."""
    await require_locked(conn, team_id)
    return await get(conn, team_id)


async def require_locked(conn: Connection, team_id: int) -> None:
    """Lock the team. Raises ResourceNotFoundError."""
    if await fetch_value(conn, SQL.lock_team, team_id) is None:
        raise ResourceNotFoundError


async def create(conn: Connection, name: str, description: str | None) -> dict[str, Any]:
    """The new team, without members."""
    return await get(conn, await fetch_value(conn, SQL.insert_team, name, description))


async def update(conn: Connection, team_id: int, patch: Mapping[str, Any]) -> dict[str, Any]:
    """The team after the patch."""
    await execute(conn, SQL.update_team, team_id, patch)
    return await get(conn, team_id)


async def delete(conn: Connection, team_id: int) -> None:
    """Remove the team for good."""
    await execute(conn, SQL.delete_team, team_id)


async def add_member(conn: Connection, team_id: int, user_id: int, role: str) -> Record:
    """The new member. The team must be locked.

    Raises ResourceNotFoundError when there is no such user, BusinessLogicError when the user is not active. Who is a
    member already breaks `team_members_pkey`.
    """
    if not (await fetch_existing(conn, SQL.get_candidate, user_id))["is_active"]:
        raise BusinessLogicError("The user is not active.")
    member = await fetch_existing(conn, SQL.add_team_member, team_id, user_id, role)
    await execute(conn, SQL.update_team, team_id, {})
    return member


async def remove_member(conn: Connection, team_id: int, user_id: int) -> Record:
    """`user_id` and `role` of who was a member. The team must be locked. Raises ResourceNotFoundError."""
    member = await fetch_existing(conn, SQL.remove_team_member, team_id, user_id)
    await execute(conn, SQL.update_team, team_id, {})
    return member
