"""Registration, log-in and the user's own account."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from reos.db import Connection, Record, execute, fetch_existing, fetch_one, fetch_value
from reos.sql import load

SQL = load("auth")


async def register(
    conn: Connection,
    *,
    organization_name: str,
    slug: str,
    email: str,
    email_key: str,
    password_hash: str,
    first_name: str,
    last_name: str,
    phone: str | None,
) -> Record:
    """A new organisation and its Admin: `organization_id` and `user_id`. It is the transaction's tenant from now on.

    A taken address breaks the constraint `login_identities_pkey`.
    """
    return await fetch_existing(
        conn, SQL.register_organization, organization_name, slug, email, email_key, password_hash, first_name,
        last_name, phone,
    )  # fmt: skip


async def read_login(conn: Connection, email_key: str, address_key: bytes, window: timedelta) -> Record:
    """Whose address it is (nulls: nobody's), and what the failures within `window` say: `failures`, `wait_seconds`
    until the next try may come, and `locked_seconds`.
    """
    return await fetch_existing(conn, SQL.read_login, email_key, address_key, window)


async def record_failure(
    conn: Connection,
    email_key: str,
    address_key: bytes,
    *,
    seen: int,
    wait: float,
    is_locked: bool,
    window: timedelta,
) -> bool:
    """Count a wrong try if `seen` is still the count; whether it was."""
    counted = await fetch_value(conn, SQL.record_login_failure, email_key, address_key, seen, wait, is_locked, window)
    return bool(counted)


async def record_success(conn: Connection, address_key: bytes, *, seen: int, window: timedelta) -> bool:
    """Forget the failures if `seen` is still their count; whether it was."""
    return bool(await fetch_value(conn, SQL.record_login_success, address_key, seen, window))


async def add_lookup(
    conn: Connection, kind: str, email: str, email_key: str, ip_address: str, user_agent: str | None, request_id: str
) -> int:
    """Leave it to a job to find out whose address it is: the id of the look-up."""
    return int(
        await fetch_value(conn, SQL.add_address_lookup, kind, email, email_key, ip_address, user_agent, request_id)
    )


async def note_login(conn: Connection, user_id: int) -> None:
    await execute(conn, SQL.note_login, user_id)


async def lock_user(conn: Connection, user_id: int) -> Record | None:
    """The user's address, state and password hash, locked."""
    return await fetch_one(conn, SQL.lock_user, user_id)


async def set_password_hash(conn: Connection, user_id: int, password_hash: str) -> None:
    await execute(conn, SQL.set_password_hash, user_id, password_hash)


async def unlock(conn: Connection, user_id: int, address_key: bytes) -> None:
    """End a lock-out and forget the failures that led to it."""
    await execute(conn, SQL.unlock_user, user_id)
    await execute(conn, SQL.clear_login_attempts, address_key)


async def verify_user(conn: Connection, user_id: int) -> None:
    await execute(conn, SQL.verify_user, user_id)


async def read_email(conn: Connection, user_id: int) -> str:
    return str(await fetch_value(conn, SQL.read_email, user_id))


async def get_me(conn: Connection, user_id: int) -> dict[str, Any]:
    """The user with `organization`, `roles`, `permissions` and `preferences`. Raises ResourceNotFoundError."""
    return dict(await fetch_existing(conn, SQL.get_me, user_id))


async def lock_me(conn: Connection, user_id: int) -> dict[str, Any]:
    """The same, locked until the transaction ends."""
    await execute(conn, SQL.lock_me, user_id)
    return await get_me(conn, user_id)


async def update_me(conn: Connection, user_id: int, patch: Mapping[str, Any]) -> dict[str, Any]:
    """The user after the patch."""
    await execute(conn, SQL.update_me, user_id, patch)
    return await get_me(conn, user_id)
