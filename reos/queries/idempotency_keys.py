"""Kept answers. `scope` is None inside a tenant transaction (organisation and user are the scope)."""

from __future__ import annotations

from reos.db import Connection, Record, execute, fetch_one, fetch_value
from reos.sql import load

SQL = load("idempotency_keys")


async def claim(conn: Connection, scope: bytes | None, key: str) -> Record:
    """Lock the key for this transaction: `is_claimed`, and the kept answer's columns (null when there is none)."""
    if scope is None:
        row = await fetch_one(conn, SQL.claim_idempotency_key, key)
    else:
        row = await fetch_one(conn, SQL.claim_public_idempotency_key, scope, key)
    assert row is not None
    return row


async def keep(
    conn: Connection,
    scope: bytes | None,
    key: str,
    fingerprint: bytes,
    status: int,
    headers: dict[str, str],
    body: bytes,
) -> None:
    """Keep an answer in the transaction that made it."""
    if scope is None:
        await execute(conn, SQL.keep_answer, key, fingerprint, status, headers, body)
    else:
        await execute(conn, SQL.keep_public_answer, scope, key, fingerprint, status, headers, body)


async def purge(conn: Connection) -> int:
    """Remove the answers of all organisations that are older than 24 hours; how many there were."""
    return int(await fetch_value(conn, SQL.purge_idempotency_keys))
