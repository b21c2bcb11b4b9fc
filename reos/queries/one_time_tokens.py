"""Single-use tokens of the present tenant's users, by their digests."""

from __future__ import annotations

from reos.db import Connection, Record, execute, fetch_one, fetch_value
from reos.sql import load

SQL = load("one_time_tokens")


async def create(
    conn: Connection, user_id: int, session_id: int | None, purpose: str, token_hash: bytes, seconds: int
) -> None:
    """Keep a token's digest; the token is good for so many seconds."""
    await execute(conn, SQL.create_one_time_token, user_id, session_id, purpose, token_hash, seconds)


async def redeem(conn: Connection, user_id: int, purpose: str, token_hash: bytes) -> Record | None:
    """Use a token up; None when it is unknown, has expired or was used before."""
    return await fetch_one(conn, SQL.redeem_one_time_token, user_id, purpose, token_hash)


async def count_of_hour(conn: Connection, user_id: int, purpose: str) -> int:
    """How many of a purpose the user was given within the last hour."""
    return int(await fetch_value(conn, SQL.count_links_of_hour, user_id, purpose))


async def spend_links(conn: Connection, user_id: int, *purposes: str) -> None:
    """Make the links of these purposes useless that the user was mailed."""
    await execute(conn, SQL.spend_links, user_id, purposes)
