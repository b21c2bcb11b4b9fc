"""Connections: the pool, the tenant transaction, and the query helpers.

Every connection works as the role `reos_app`, for which row security lets through only the rows of the
organisation that the present transaction names. Only transaction-local settings are ever used, so that
a pooler in transaction mode may stand in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import asyncpg
import orjson
from asyncpg.pool import PoolConnectionProxy

from reos import encoding
from reos.errors import DatabaseError, OverloadedError, ResourceNotFoundError
from reos.settings import Settings
from reos.sql import Statement

Connection: TypeAlias = asyncpg.Connection | PoolConnectionProxy
Record: TypeAlias = asyncpg.Record

ACQUIRE_TIMEOUT = 5.0  # seconds that a request waits for a connection
MAX_WAITING = 2000  # requests that may wait for one at a time, in one process

_READ_ONLY = "BEGIN READ ONLY"


async def prepare_connection(conn: asyncpg.Connection, role: str = "reos_app") -> None:
    """Give a new connection its role and its jsonb codec.

    The role is usually there already (`alter role … in database … set role`); where one log-in
    serves owner and service alike it is taken here.
    """
    await conn.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        format="binary",
        encoder=lambda value: b"\x01" + encoding.dumps(value),
        decoder=lambda data: orjson.loads(data[1:]),
    )
    if await conn.fetchval("select current_user") != role:
        await conn.execute(f"set role {role}")


async def _no_reset(conn: asyncpg.Connection) -> None:
    """Nothing to reset: no session-level state is ever set (and a reset costs a round trip)."""


class Database:
    """The pool of `reos_app` connections, with a bounded queue in front of it."""

    def __init__(self, pool: asyncpg.Pool):
        self.pool = pool
        self.waiting = 0

    @classmethod
    async def connect(cls, settings: Settings, dsn: str | None = None) -> Database:
        """Open the pool. Raises DatabaseError when Postgres cannot be reached."""
        try:
            pool = await asyncpg.create_pool(
                dsn or settings.db_dsn,
                min_size=settings.db_pool_min,
                max_size=settings.db_pool_max,
                statement_cache_size=settings.db_statement_cache_size,
                init=prepare_connection,
                reset=_no_reset,
                max_inactive_connection_lifetime=0,
                command_timeout=60,
            )
        except (OSError, asyncpg.PostgresError) as error:
            raise DatabaseError(f"Postgres cannot be reached: {error}") from error
        return cls(pool)

    async def close(self) -> None:
        try:
            await asyncio.wait_for(self.pool.close(), timeout=10)
        except TimeoutError:
            self.pool.terminate()

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        """A connection of the pool; OverloadedError (503) when none is free in time."""
        if self.waiting >= MAX_WAITING:
            raise OverloadedError(headers={"Retry-After": "1"})
        self.waiting += 1
        try:
            conn = await self.pool.acquire(timeout=ACQUIRE_TIMEOUT)
        except TimeoutError:
            raise OverloadedError(headers={"Retry-After": "1"}) from None
        finally:
            self.waiting -= 1
        try:
            yield conn
        finally:
            await self.pool.release(conn)


@asynccontextmanager
async def transaction(conn: Connection, begin: str) -> AsyncIterator[None]:
    """Run `begin` (BEGIN and what belongs to it, in one round trip), then commit, or roll back on a raise.

    A task that is cancelled (its client went away) rolls back, or, once COMMIT is on its way, finishes that first.
    """
    try:
        await conn.execute(begin)
        yield
    except BaseException:
        # A broken connection has nothing to roll back; the server did it when the connection ended.
        if not conn.is_closed():
            await _finish(conn, "ROLLBACK")
        raise
    if await (conn.execute("COMMIT") if begin.startswith(_READ_ONLY) else _finish(conn, "COMMIT")) != "COMMIT":
        # That is how Postgres answers when a statement had failed and nobody told it to roll back.
        raise RuntimeError("the transaction had failed already, so nothing was committed")


async def _finish(conn: Connection, statement: str) -> str:
    """Run the transaction's last statement to its end, also for a task that is cancelled meanwhile.

    asyncpg would have the server cancel the statement, and whether it had committed nobody would know.
    """
    finishing = asyncio.ensure_future(conn.execute(statement))
    try:
        return await asyncio.shield(finishing)
    except asyncio.CancelledError:
        await asyncio.wait([finishing])
        raise


def begin_tenant(organization_id: int, user_id: int | None = None, *, read_only: bool = False) -> str:
    """The text that opens a transaction of one organisation. Only integers and constants go into it."""
    mode = " READ ONLY" if read_only else ""
    return f"BEGIN{mode}; {set_tenant(organization_id, user_id)}"


def set_tenant(organization_id: int, user_id: int | None = None) -> str:
    """The text that makes a transaction one of this organisation and user."""
    return f"SET LOCAL reos.organization_id = '{organization_id:d}'; SET LOCAL reos.user_id = '{user_id or 0:d}'"


async def enter_tenant(conn: Connection, organization_id: int, user_id: int | None = None) -> None:
    """Give a transaction its tenant that began without one, because only a token in the body names it."""
    await conn.execute(set_tenant(organization_id, user_id))


@asynccontextmanager
async def tenant_transaction(
    database: Database, organization_id: int, user_id: int | None = None, *, read_only: bool = False
) -> AsyncIterator[Connection]:
    """A connection inside a transaction that sees and writes one organisation's rows only.

    Commits when the block ends, rolls back when it raises. For work that no request authorises:
    jobs, the event hub. Requests open theirs in the endpoint guard.
    """
    begin = begin_tenant(organization_id, user_id, read_only=read_only)
    async with database.acquire() as conn, transaction(conn, begin):
        yield conn


@asynccontextmanager
async def plain_transaction(database: Database) -> AsyncIterator[Connection]:
    """A transaction without a tenant: row security shows it nothing, only definer functions serve it."""
    async with database.acquire() as conn, transaction(conn, "BEGIN"):
        yield conn


async def fetch_one(conn: Connection, statement: Statement, *args: Any) -> Record | None:
    """The first row of a `:one` statement, or None."""
    return await conn.fetchrow(statement.text, *args)


async def fetch_existing(conn: Connection, statement: Statement, *args: Any) -> Record:
    """The first row of a `:one` statement. Raises ResourceNotFoundError when there is none."""
    row = await conn.fetchrow(statement.text, *args)
    if row is None:
        raise ResourceNotFoundError
    return row


async def fetch_all(conn: Connection, statement: Statement, *args: Any) -> list[Record]:
    """All rows of a `:many` statement."""
    rows: list[Record] = await conn.fetch(statement.text, *args)
    return rows


async def fetch_value(conn: Connection, statement: Statement, *args: Any) -> Any:
    """The first column of the first row of a `:value` statement, or None."""
    return await conn.fetchval(statement.text, *args)


async def execute(conn: Connection, statement: Statement, *args: Any) -> None:
    """Run an `:exec` statement, whose rows nobody needs."""
    await conn.execute(statement.text, *args)
