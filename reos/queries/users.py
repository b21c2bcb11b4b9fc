"""The organisation's users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from unicodedata import normalize

from reos.db import Connection, Record, execute, fetch_existing, fetch_value
from reos.queries.listing import Listing, PageRequest, Rows, SortKey, condition, fetch_page, text_condition
from reos.queries.search import search_filters
from reos.sql import load

SQL = load("users")

LISTING = Listing(
    table="users",
    alias="u",
    columns=f"{SQL.user_columns}, {SQL.role_column}",
    sort_keys={
        "created_at": SortKey("u.created_at", is_time=True),
        "updated_at": SortKey("u.updated_at", is_time=True),
        "email": SortKey("u.email"),
        "last_name": SortKey("u.last_name"),
        "last_login": SortKey("u.last_login", is_nullable=True, is_time=True),
    },
    filters={
        "ids": condition("u.id = any({})"),
        "words": text_condition("u.search_text like all({})"),
        "is_active": condition("u.is_active = {}"),
        "role_id": condition("u.id in (select ur.user_id from user_roles ur where ur.role_id = {})"),
        "updated_since": condition("u.updated_at >= {}"),
    },
)


def email_key(email: str) -> str:
    """What an address is compared by: addresses differ in more than their case, or how their letters are composed."""
    return normalize("NFC", email.lower())


async def list_users(
    conn: Connection, page: PageRequest, filters: Mapping[str, Any], *, search: str | None = None
) -> Rows:
    """A page of the list; the items have their `roles`."""
    values: dict[str, tuple[Any, ...]] = await search_filters(conn, SQL.search_user_ids, search) if search else {}
    values |= {name: (value,) for name, value in filters.items()}
    return await fetch_page(conn, LISTING, values, page)


async def get(conn: Connection, user_id: int) -> Record:
    """The user as GET gives it, with `roles`. Raises ResourceNotFoundError."""
    return await fetch_existing(conn, SQL.get_user, user_id)


async def lock(conn: Connection, user_id: int) -> Record:
    """The user as GET gives it, locked until the transaction ends. Raises ResourceNotFoundError."""
    await execute(conn, SQL.lock_user, user_id)
    return await get(conn, user_id)


async def create(
    conn: Connection,
    *,
    email: str,
    first_name: str,
    last_name: str,
    phone: str | None,
    password_hash: str,
    role_ids: Sequence[int],
) -> Record:
    """The new user, whose address counts as verified. A taken address breaks `login_identities_pkey`."""
    user_id: int = await fetch_value(conn, SQL.insert_user, email, first_name, last_name, phone)
    await execute(conn, SQL.create_login, user_id, email_key(email), password_hash)
    await set_roles(conn, user_id, role_ids)
    return await get(conn, user_id)


async def update(conn: Connection, user_id: int, patch: Mapping[str, Any]) -> None:
    """Change the user's own fields, and the address that they log in with.

    The user is marked as changed also when the patch is empty. A taken address breaks `login_identities_pkey`.
    """
    await execute(conn, SQL.update_user, user_id, patch)
    if "email" in patch:
        await execute(conn, SQL.change_login, user_id, email_key(patch["email"]))


async def set_roles(conn: Connection, user_id: int, role_ids: Sequence[int]) -> None:
    """Give the user exactly these roles, which must be there."""
    await execute(conn, SQL.set_user_roles, user_id, role_ids)
