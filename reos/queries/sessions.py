"""Sessions: families of refresh tokens, of the present tenant's users."""

from __future__ import annotations

from reos.db import Connection, Record, execute, fetch_one, fetch_value
from reos.errors import ResourceNotFoundError
from reos.queries.sublists import SubList, fetch_sublist
from reos.sql import load

SQL = load("sessions")


async def create(conn: Connection, user_id: int, ip_address: str, user_agent: str | None, days: int) -> int:
    """A new session's id; it ends after so many days without a refresh."""
    return int(await fetch_value(conn, SQL.create_session, user_id, ip_address, user_agent, days))


async def lock(conn: Connection, session_id: int, grace: float) -> Record | None:
    """The session, locked; `is_just_rotated` within `grace` seconds of its last rotation."""
    return await fetch_one(conn, SQL.lock_session, session_id, grace)


async def rotate(
    conn: Connection, session_id: int, generation: int, refresh_hash: bytes, *, days: int, max_days: int
) -> None:
    """The refresh token of this generation is the present one from now on.

    It is good for so many days, but no longer than `max_days` after the session began.
    """
    await execute(conn, SQL.rotate_session, session_id, generation, refresh_hash, days, max_days)


async def revoke(conn: Connection, session_id: int, user_id: int) -> None:
    """End a live session of the user. Raises ResourceNotFoundError when there is none."""
    if not await end(conn, session_id, user_id):
        raise ResourceNotFoundError


async def end(conn: Connection, session_id: int, user_id: int) -> bool:
    """End a session of the user; whether it still lived."""
    return await fetch_value(conn, SQL.revoke_session, session_id, user_id) is not None


async def revoke_all(conn: Connection, user_id: int, *, but: int | None = None) -> None:
    """End the user's sessions, all or all but one."""
    await execute(conn, SQL.revoke_sessions, user_id, but)


async def list_of(conn: Connection, user_id: int, current_id: int, limit: int, offset: int) -> SubList:
    """The user's live sessions, newest first; `is_current` is the one that asks."""
    return await fetch_sublist(conn, SQL.list_sessions, user_id, current_id, limit, offset)
