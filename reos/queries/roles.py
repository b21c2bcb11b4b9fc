"""The organisation's roles: who may hand them out, and what they allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reos.db import Connection, execute, fetch_all, fetch_existing, fetch_value
from reos.queries.references import check_listed
from reos.queries.sublists import SubList, fetch_sublist
from reos.sql import load

SQL = load("roles")


async def list_roles(conn: Connection, limit: int, offset: int) -> SubList:
    return await fetch_sublist(conn, SQL.list_roles, limit, offset)


async def get(conn: Connection, role_id: int) -> dict[str, Any]:
    """The role with its `permissions`. Raises ResourceNotFoundError."""
    role = await fetch_existing(conn, SQL.get_role, role_id)
    permissions = await fetch_all(conn, SQL.list_role_permissions, role_id)
    return {**role, "permissions": [dict(permission) for permission in permissions]}


async def lock(conn: Connection, role_id: int) -> dict[str, Any]:
    """The same, locked against changes and grants until the transaction ends. Raises ResourceNotFoundError."""
    await execute(conn, SQL.lock_role, role_id)
    return await get(conn, role_id)


async def list_user_ids(conn: Connection, role_id: int) -> list[int]:
    """Who has the role."""
    return [row["user_id"] for row in await fetch_all(conn, SQL.list_role_users, role_id)]


async def lock_for_grant(conn: Connection, field: str, role_ids: Sequence[int]) -> None:
    """Keep the roles as they are until they have been given. Raises ValidationError for those that are not there."""
    if role_ids:
        found = await fetch_all(conn, SQL.lock_roles_for_grant, role_ids)
        check_listed(field, role_ids, {row["id"] for row in found})


async def lock_admin_role(conn: Connection) -> int:
    """The id of the role Admin. Others that would take an Admin away wait until this transaction ends."""
    return int(await fetch_value(conn, SQL.lock_admin_role))


async def has_other_admin(conn: Connection, admin_role_id: int, user_id: int) -> bool:
    """Whether somebody beside this user is an Admin who may log in."""
    return bool(await fetch_value(conn, SQL.has_other_admin, admin_role_id, user_id))


async def create(conn: Connection, name: str, description: str | None, permission_ids: Sequence[int]) -> dict[str, Any]:
    """The new role. A name that another has, in whatever case, breaks `roles_name_key`."""
    role_id: int = await fetch_value(conn, SQL.insert_role, name, description)
    await execute(conn, SQL.set_role_permissions, role_id, permission_ids)
    return await get(conn, role_id)


async def update(
    conn: Connection, role_id: int, patch: Mapping[str, Any], permission_ids: Sequence[int] | None
) -> dict[str, Any]:
    """The role after the patch, with exactly these permissions unless they are None. It must be locked.

    A new name changes its users too.
    """
    await execute(conn, SQL.update_role, role_id, patch)
    if "name" in patch:
        await execute(conn, SQL.touch_role_users, role_id)
    if permission_ids is not None:
        await execute(conn, SQL.set_role_permissions, role_id, permission_ids)
    return await get(conn, role_id)


async def delete(conn: Connection, role_id: int) -> None:
    """Remove the role for good; its users lose what it gave them, and so are changed too. It must be locked."""
    await execute(conn, SQL.touch_role_users, role_id)
    await execute(conn, SQL.delete_role, role_id)
