"""Locks that last for longer than a transaction and for no longer than the process.

They are Postgres' advisory locks of a session, taken on the process's listening connection: Postgres lets go of them in
the moment in which the process dies, so that nothing has to run out or be cleaned up, and whoever tries again after a
crash is not kept waiting. A session gets its own lock as often as it asks for it, so each process also remembers what
it holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from loguru import logger

from reos.db import Connection
from reos.queries import session_locks

ANSWER_SECONDS = 2.0  # that a statement may take


class SessionLocks:
    """What a process holds. Without its connection it asks nobody else: who uses it must bear that."""

    def __init__(self) -> None:
        self._conn: Connection | None = None
        self._has_turn = asyncio.Lock()  # a connection does one statement at a time
        self._held: set[str] = set()

    def use(self, conn: Connection | None) -> None:
        """Take the locks on this connection from now on. Those of the last one ended with it."""
        self._conn = conn

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Have the connection for another statement."""
        async with self._has_turn:
            yield

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[bool]:
        """Hold the lock within the block, if nobody else does: the value says so. Never waits for another's."""
        if name in self._held:
            yield False
            return
        self._held.add(name)
        # A client that goes away ends what waits here, not the statement, whose outcome would be unknown.
        taking = asyncio.ensure_future(self._ask(session_locks.take, name))
        try:
            yield await asyncio.shield(taking) is not False
        finally:
            await asyncio.shield(self._release(name, taking))

    async def _release(self, name: str, taking: asyncio.Future[bool | None]) -> None:
        try:
            if await taking:
                await self._ask(session_locks.release, name)
        finally:
            self._held.discard(name)

    async def _ask(self, statement: session_locks.Ask, name: str) -> bool | None:
        """What Postgres says; None when there is no connection to ask on."""
        async with self._has_turn:
            conn = self._conn
            if conn is None or conn.is_closed():
                return None
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    return await statement(conn, name)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                # What it holds now is unknown; with the connection it ends, and the process makes another.
                logger.warning("Locks: the connection failed: {}: {}", type(error).__name__, error)
                conn.terminate()
                return None
