"""Procrastinate over asyncpg: a pool of connections that work as `reos_jobs` in Procrastinate's schema.

Procrastinate brings connectors for psycopg only. Its queries name their parameters `%(name)s`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, cast

import asyncpg
from loguru import logger
from procrastinate import exceptions
from procrastinate.connector import BaseAsyncConnector, Notify

from reos.db import Connection, prepare_connection
from reos.errors import DatabaseError

ACQUIRE_TIMEOUT = 10.0  # seconds
COMMAND_TIMEOUT = 30.0  # seconds
PROBE_SECONDS = 30.0  # how often the listening connection is tried, since a dead peer may stay silent
REPEAT_WAITS = (0.1, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0)  # seconds between the tries of a write while Postgres restarts

# What a statement fails with while Postgres restarts, or when its connection is cut. InternalClientError is what the
# first use of a connection gives that Postgres ended while it was idle.
AWAY = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)

# The same, or the way to Postgres is away, or it is out of connections, or cancels. TimeoutError is an OSError.
LOST = (*AWAY, OSError, asyncpg.OperatorInterventionError, asyncpg.InsufficientResourcesError)

_PARAMETER = re.compile(r"%\((\w+)\)s")


@cache
def positional(query: str) -> tuple[str, tuple[str, ...]]:
    """The query with `$n` for `%(name)s`, and the names in the order of their numbers."""
    names = tuple(dict.fromkeys(_PARAMETER.findall(query)))
    return _PARAMETER.sub(lambda match: f"${names.index(match[1]) + 1}", query), names


async def _prepare(conn: asyncpg.Connection) -> None:
    await prepare_connection(conn, "reos_jobs")
    # Procrastinate names nothing with its schema. These are session settings, so the DSN must lead to Postgres
    # itself, not to a pooler in transaction mode.
    await conn.execute("set search_path = procrastinate, public")


async def _keep_session(conn: asyncpg.Connection) -> None:
    """No reset when a connection goes back to the pool: it would take the role away."""


class AsyncpgConnector(BaseAsyncConnector):
    """Procrastinate's way to the database.

    `on_lost` is called when a write has finally failed: a job may then stand as running although nobody runs it, so
    the worker has to start anew under another id, and the rescue finds the job.
    """

    def __init__(self, dsn: str, *, on_lost: Callable[[], None] | None = None):
        self.dsn = dsn
        self.on_lost = on_lost
        self._pool: asyncpg.Pool | None = None

    def get_sync_connector(self) -> AsyncpgConnector:
        return self

    async def open_async(self, pool: Any = None) -> None:
        """Open the pool. Raises DatabaseError when Postgres cannot be reached."""
        try:
            self._pool = pool or await asyncpg.create_pool(
                self.dsn,
                min_size=1,
                max_size=4,
                init=_prepare,
                reset=_keep_session,
                command_timeout=COMMAND_TIMEOUT,
            )
        except (OSError, asyncpg.PostgresError) as error:
            raise DatabaseError(f"Postgres cannot be reached: {error}") from error

    async def close_async(self) -> None:
        """Close the pool; connections that do not come back in time are cut."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            await asyncio.wait_for(pool.close(), timeout=ACQUIRE_TIMEOUT)
        except TimeoutError:
            pool.terminate()

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        """A connection that works as `reos_jobs`."""
        if self._pool is None:
            raise exceptions.AppNotOpen
        async with self._pool.acquire(timeout=ACQUIRE_TIMEOUT) as conn:
            yield conn

    async def execute_query_async(self, query: str, **arguments: Any) -> None:
        """A write of Procrastinate's: a job's end, a heartbeat. Repeated while Postgres restarts."""
        for tries, wait in enumerate((*REPEAT_WAITS, None)):
            try:
                await self.execute_query_all_async(query, **arguments)
                return
            except exceptions.ConnectorException as error:
                if tries and isinstance(error.__cause__, asyncpg.RaiseError):
                    # "Job was not found or not in doing": the first try was done, only its answer was lost.
                    return
                if not isinstance(error.__cause__, LOST):
                    raise
                if wait is None:
                    if self.on_lost:
                        self.on_lost()
                    raise
            await asyncio.sleep(wait)

    async def execute_query_one_async(self, query: str, **arguments: Any) -> dict[str, Any]:
        return _first(await self.execute_query_all_async(query, **arguments))

    async def execute_query_all_async(self, query: str, **arguments: Any) -> list[dict[str, Any]]:
        return await _translated(self._fetch_pooled(query, arguments))

    async def execute_query_one_async_with_connection(
        self, connection: Connection, query: str, **arguments: Any
    ) -> dict[str, Any]:
        return _first(await self.execute_query_all_async_with_connection(connection, query, **arguments))

    async def execute_query_all_async_with_connection(
        self, connection: Connection, query: str, **arguments: Any
    ) -> list[dict[str, Any]]:
        """On a connection of the caller's, in its transaction; it must work as `reos_jobs`."""
        return await _translated(_fetch(connection, query, arguments))

    async def _fetch_pooled(self, query: str, arguments: dict[str, Any]) -> list[dict[str, Any]]:
        async with self.acquire() as conn:
            return await _fetch(conn, query, arguments)

    async def listen_notify(self, on_notification: Notify, channels: Iterable[str]) -> None:
        """Hand every notification on, for ever; a connection that dies is replaced.

        What is missed in between does no harm: the worker looks for jobs every few seconds all the same.
        """
        while True:
            try:
                await self._listen(on_notification, channels)
            except LOST as error:
                logger.warning("The connection that listens for jobs was lost: {}", error or type(error).__name__)
            await asyncio.sleep(1)

    async def _listen(self, on_notification: Notify, channels: Iterable[str]) -> None:
        async def notify(conn: Connection, pid: int, channel: str, payload: object) -> None:
            await on_notification(channel=channel, payload=str(payload))

        conn = await asyncpg.connect(self.dsn, timeout=ACQUIRE_TIMEOUT, command_timeout=COMMAND_TIMEOUT)
        try:
            ended = asyncio.Event()
            conn.add_termination_listener(lambda _: ended.set())
            for channel in channels:
                await conn.add_listener(channel, notify)
            while not ended.is_set():
                try:
                    await asyncio.wait_for(ended.wait(), PROBE_SECONDS)
                except TimeoutError:
                    await conn.execute("select 1")
        finally:
            conn.terminate()


async def _fetch(conn: Connection, query: str, arguments: dict[str, Any]) -> list[dict[str, Any]]:
    text, names = positional(query)
    return [dict(row) for row in await conn.fetch(text, *(arguments[name] for name in names))]


def _first(rows: list[dict[str, Any]]) -> dict[str, Any]:
    if not rows:
        raise exceptions.NoResult
    return rows[0]


async def _translated(query: Coroutine[Any, Any, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Run a query; Procrastinate's own exceptions instead of asyncpg's."""
    try:
        return await query
    except asyncpg.UniqueViolationError as error:
        name = cast("str | None", error.constraint_name)
        raise exceptions.UniqueViolation(constraint_name=name, queueing_lock=None) from error
    except (asyncpg.PostgresError, *LOST) as error:
        raise exceptions.ConnectorException from error
