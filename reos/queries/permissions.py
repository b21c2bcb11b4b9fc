"""Permissions: the same for all organisations; and that nobody hands out what they lack."""

from __future__ import annotations

from collections.abc import Sequence

from reos.db import Connection, Record, fetch_all, fetch_existing, fetch_value
from reos.errors import InsufficientPermissionsError
from reos.queries.references import check_listed
from reos.queries.sublists import SubList, fetch_sublist
from reos.sql import load

SQL = load("permissions")


async def list_permissions(conn: Connection, limit: int, offset: int) -> SubList:
    return await fetch_sublist(conn, SQL.list_permissions, limit, offset)


async def get(conn: Connection, permission_id: int) -> Record:
    """Raises ResourceNotFoundError."""
    return await fetch_existing(conn, SQL.get_permission, permission_id)


async def require(conn: Connection, permission: str) -> None:
    """Raises InsufficientPermissionsError unless the caller has what a part of the request needs."""
    if not await fetch_value(conn, SQL.has_permission, permission):
        raise InsufficientPermissionsError(f"This needs the permission {permission}.", required_permission=permission)


async def check_ids(conn: Connection, field: str, permission_ids: Sequence[int]) -> None:
    """Raises ValidationError for those that lead nowhere."""
    if permission_ids:
        found = await fetch_all(conn, SQL.list_existing_permissions, permission_ids)
        check_listed(field, permission_ids, {row["id"] for row in found})


async def check_grant(conn: Connection, *, role_ids: Sequence[int] = (), permission_ids: Sequence[int] = ()) -> None:
    """Raises InsufficientPermissionsError unless the caller has all that the roles and permissions give."""
    if not role_ids and not permission_ids:
        return
    lacking: list[str] = await fetch_value(conn, SQL.list_lacking, role_ids, permission_ids, None)
    if lacking:
        raise _insufficient("Nobody can grant a permission that they lack", lacking)


async def check_power_over(conn: Connection, user_id: int) -> None:
    """Raises InsufficientPermissionsError when the user may do what the caller may not.

    Whoever could set such a user's password or address would in effect have granted themselves what they lack.
    """
    lacking: list[str] = await fetch_value(conn, SQL.list_lacking, [], [], user_id)
    if lacking:
        raise _insufficient("Nobody can take over a user who has a permission that they lack", lacking)


def _insufficient(sentence: str, lacking: list[str]) -> InsufficientPermissionsError:
    return InsufficientPermissionsError(
        f"{sentence}: {', '.join(lacking)}.", required_permission=lacking[0], missing_permissions=lacking
    )
