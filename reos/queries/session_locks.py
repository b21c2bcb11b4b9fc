"""Advisory locks that a connection holds until it lets go of them or ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from reos.db import Connection, fetch_value
from reos.sql import load

SQL = load("session_locks")

Ask: TypeAlias = Callable[[Connection, str], Awaitable[bool]]


async def take(conn: Connection, name: str) -> bool:
    """Take the lock of this name, unless another connection has it; whether it was taken. Does not wait."""
    return bool(await fetch_value(conn, SQL.take_session_lock, name))


async def release(conn: Connection, name: str) -> bool:
    """Let go of the lock of this name; whether it was held."""
    return bool(await fetch_value(conn, SQL.release_session_lock, name))
