"""Connections: the pool, the tenant transaction, and the query helpers.

Every connection works as the role `reos_app`, for which row security lets through only the rows of the
organisation that the present transaction names. Only transaction-local settings are ever used, so that
a pooler in transaction mode may stand in between.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from typing import Any, TypeAlias

import asyncpg
import orjson
from asyncpg.pool import PoolConnectionProxy

from reos import encoding, metrics
from reos.errors import DatabaseError, OverloadedError, ReosError, ResourceNotFoundError
from reos.metrics import timed
from reos.settings import Settings
from reos.sql import Statement

Connection: TypeAlias = asyncpg.Connection | PoolConnectionProxy
Record: TypeAlias = asyncpg.Record

ACQUIRE_TIMEOUT = 5.0  # seconds that a request waits for a connection
MAX_WAITING = 2000  # requests that may wait for one at a time, in one process
MAX_PASSED = 16  # times that one of them lets a younger one go first

_READ_ONLY = "BEGIN READ ONLY"

# Postgres counts days and microseconds from the beginning of the year 2000; the ends of its integers are infinities.
_FIRST_DAY = date(2000, 1, 1).toordinal()
_FIRST_MOMENT = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_INFINITE_DAYS = {2**31 - 1: date.max, -(2**31): date.min}
_INFINITE_MOMENTS = {
    2**63 - 1: datetime.max.replace(tzinfo=UTC),
    -(2**63): datetime.min.replace(tzinfo=UTC),
}


async def prepare_connection(conn: asyncpg.Connection, role: str = "reos_app") -> None:
    """Give a new connection its role and its codecs: of jsonb, and of days and moments.

    asyncpg would write Python's first and last day and moment as infinities, which are not equal to the same day in a
    row that came as JSON: a cursor would stand before or behind the row that it was made from.

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
    await conn.set_type_codec("date", schema="pg_catalog", format="tuple", encoder=_encode_day, decoder=_decode_day)
    await conn.set_type_codec(
        "timestamptz", schema="pg_catalog", format="tuple", encoder=_encode_moment, decoder=_decode_moment
    )
    if await conn.fetchval("select current_user") != role:
        await conn.execute(f"set role {role}")


def _encode_day(value: date) -> tuple[int]:
    return (value.toordinal() - _FIRST_DAY,)


def _decode_day(encoded: tuple[int]) -> date:
    (days,) = encoded
    try:
        return date.fromordinal(days + _FIRST_DAY)
    except (OverflowError, ValueError):
        if days in _INFINITE_DAYS:
            return _INFINITE_DAYS[days]
        raise


def _encode_moment(value: datetime) -> tuple[int]:
    return ((value - _FIRST_MOMENT) // _MICROSECOND,)


def _decode_moment(encoded: tuple[int]) -> datetime:
    (microseconds,) = encoded
    try:
        return _FIRST_MOMENT + timedelta(0, 0, microseconds)
    except OverflowError:
        if microseconds in _INFINITE_MOMENTS:
            return _INFINITE_MOMENTS[microseconds]
        raise


async def _no_reset(conn: asyncpg.Connection) -> None:
    """Nothing to reset: no session-level state is ever set (and a reset costs a round trip)."""


@dataclass(slots=True, eq=False)
class _Turn:
    """One that waits for a connection."""

    called: asyncio.Future[Connection | None]
    organization_id: int | None  # that it will write to
    passed: int = 0  # by younger ones that went first


class Database:
    """The pool of `reos_app` connections, with a bounded queue in front of it.

    Two writing transactions of one organisation meet at its event counter, where the second waits until the first has
    committed. One that would wait there lets others go first, so that connections do work and do not wait, and the
    many requests of one organisation do not hold all connections while those of others queue.

    Connections that come back whole are handed straight to whoever waits, or kept at hand: asyncpg's own way of taking
    and giving back, with a timer and a task for each, costs as much as a short statement.
    """

    def __init__(self, pool: asyncpg.Pool, name: str = "main"):
        self.pool = pool
        self.name = name
        self._wait_seconds = metrics.pool_tally(name)
        self._refused = metrics.POOL_REFUSED.labels(name)
        self._taken = 0  # from asyncpg's pool, in use or at hand
        self._at_hand: list[Connection] = []
        self._queue: deque[_Turn] = deque()
        self._writing: Counter[int] = Counter()  # open transactions by the organisation that they write to
        self._is_closing = False
        self._left_open: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    async def connect(
        cls, settings: Settings, dsn: str | None = None, *, name: str = "main", is_needed: bool = True
    ) -> Database:
        """Open the pool. Raises DatabaseError when Postgres cannot be reached, unless it `is_needed` only later.

        `name` is what its metrics are told under.
        """
        try:
            pool = await asyncpg.create_pool(
                dsn or settings.db_dsn,
                min_size=settings.db_pool_min if is_needed else 0,
                max_size=settings.db_pool_max,
                statement_cache_size=settings.db_statement_cache_size,
                init=prepare_connection,
                reset=_no_reset,
                max_inactive_connection_lifetime=0,
                command_timeout=60,
            )
        except (OSError, asyncpg.PostgresError) as error:
            raise DatabaseError(f"Postgres cannot be reached: {error}") from error
        return cls(pool, name)

    async def close(self) -> None:
        self._is_closing = True
        try:
            async with asyncio.timeout(10):
                while self._at_hand:
                    await self._give_up(self._at_hand.pop())
                await self.pool.close()
        except TimeoutError:
            self.pool.terminate()

    @property
    def size(self) -> int:
        """Connections that there may be."""
        return int(self.pool.get_max_size())

    @property
    def busy(self) -> int:
        """Connections in use."""
        return self._taken - len(self._at_hand)

    @property
    def waiting(self) -> int:
        """How many wait for a connection."""
        return len(self._queue)

    def acquire(self) -> AbstractAsyncContextManager[Connection]:
        """A connection of the pool; OverloadedError (503) when none is free in time."""
        return _Acquired(self)

    def transaction(self, begin: str, organization_id: int | None = None) -> AbstractAsyncContextManager[Connection]:
        """A connection on which `begin` has run (BEGIN and what belongs to it, in one round trip).

        `organization_id` says whose transaction it is, if anybody's.
        Commits when the block ends, rolls back when it raises. A task that is cancelled (its client went away) rolls
        back, or, once COMMIT is on its way, finishes that first. Raises OverloadedError (503) as `acquire` does.
        """
        return _Transaction(self, begin, None if begin.startswith(_READ_ONLY) else organization_id)

    async def _take(self, organization_id: int | None = None) -> Connection:
        """A connection, for work that writes to the organisation if one is named; `_wrote` when it is done."""
        if self._at_hand and not _is_lost(self._at_hand[-1]):
            conn = self._at_hand.pop()
        else:
            conn = await self._find_in_time(organization_id)
        self._writes(organization_id)
        return conn

    def _writes(self, organization_id: int | None) -> None:
        if organization_id is not None:
            self._writing[organization_id] += 1

    def _wrote(self, organization_id: int | None) -> None:
        if organization_id is not None:
            self._writing[organization_id] -= 1
            if not self._writing[organization_id]:
                del self._writing[organization_id]

    async def _find_in_time(self, organization_id: int | None) -> Connection:
        began = time.perf_counter()
        try:
            return await self._find(organization_id)
        except OverloadedError:
            self._refused.inc()
            raise
        finally:
            self._wait_seconds.observe(time.perf_counter() - began)

    async def _find(self, organization_id: int | None) -> Connection:
        while True:
            while self._at_hand:
                conn = self._at_hand.pop()
                if not _is_lost(conn):
                    return conn
                await self._give_up(conn)
            if self._taken < self.size:
                self._taken += 1
                try:
                    return await self.pool.acquire(timeout=ACQUIRE_TIMEOUT)
                except BaseException as error:
                    self._taken -= 1
                    self._call_next(None)
                    if isinstance(error, TimeoutError):
                        raise OverloadedError(headers={"Retry-After": "1"}) from None
                    raise
            handed = await self._wait(organization_id)
            if handed is not None:
                return handed

    async def _wait(self, organization_id: int | None) -> Connection | None:
        """A connection that another gives back; None when there is room for a new one."""
        if len(self._queue) >= MAX_WAITING:
            raise OverloadedError(headers={"Retry-After": "1"})
        loop = asyncio.get_running_loop()
        called: asyncio.Future[Connection | None] = loop.create_future()
        turn = _Turn(called, organization_id)
        self._queue.append(turn)
        timer = loop.call_later(ACQUIRE_TIMEOUT, _time_out, called)
        try:
            handed = await called
        except BaseException:
            with suppress(ValueError):
                self._queue.remove(turn)
            # What was handed over in the same moment goes to the next.
            if called.done() and not called.cancelled() and called.exception() is None:
                self._wrote(organization_id)
                self._hand_on(called.result())
            raise
        finally:
            timer.cancel()
        self._wrote(organization_id)
        return handed

    def _hand_on(self, conn: Connection | None) -> None:
        if self._call_next(conn) or conn is None:
            return
        if conn in self._left_open:
            # Whoever was to begin with its COMMIT has gone away.
            self._left_open.discard(conn)
            task = asyncio.create_task(self._end_left_open(conn))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            self._at_hand.append(conn)

    def _leave_open(self, conn: Connection) -> bool:
        """Hand on a connection whose transaction has read all that it wanted; False when nobody waits for one.

        Who gets it sends the COMMIT along with its own BEGIN, which spares a round trip when there is most to do.
        """
        if not self._queue or self._is_closing or _is_lost(conn):
            return False
        self._left_open.add(conn)
        self._hand_on(conn)
        return True

    async def _end_left_open(self, conn: Connection) -> None:
        error = None
        try:
            await conn.execute("COMMIT")
        except Exception as failure:
            error = failure  # The connection is broken, and nothing was written on it.
        await self._give_back(conn, error)

    def _was_left_open(self, conn: Connection) -> bool:
        if conn in self._left_open:
            self._left_open.discard(conn)
            return True
        return False

    def _call_next(self, conn: Connection | None) -> bool:
        """Give the next of those who wait the connection, or the room for one; False when nobody waits.

        It counts as one that writes from now on, so that no other of its organisation is called with it.
        """
        while self._queue:
            turn = self._next_turn()
            if not turn.called.done():
                self._writes(turn.organization_id)
                turn.called.set_result(conn)
                return True
        return False

    def _next_turn(self) -> _Turn:
        """Take out of the queue whoever waits longest, but for those that would have to wait for another's COMMIT."""
        eldest = self._queue[0]
        if eldest.organization_id in self._writing and eldest.passed < MAX_PASSED:
            for place, turn in enumerate(islice(self._queue, 1, None), 1):
                if turn.organization_id not in self._writing and not turn.called.done():
                    del self._queue[place]
                    eldest.passed += 1
                    return turn
        return self._queue.popleft()

    async def _give_back(self, conn: Connection, error: BaseException | None) -> None:
        # After an error that neither we nor Postgres raised, such as a cancellation, a statement may still be running.
        is_quiet = error is None or isinstance(error, ReosError | asyncpg.PostgresError)
        is_whole = is_quiet and not _is_lost(conn) and not conn.is_in_transaction()
        if is_whole and not self._is_closing:
            self._hand_on(conn)
        else:
            await self._give_up(conn)

    async def _give_up(self, conn: Connection) -> None:
        """Leave a connection to asyncpg, which ends what still runs on it, or closes it."""
        try:
            await self.pool.release(conn)
        finally:
            self._taken -= 1
            self._call_next(None)


class _Acquired:
    """A connection for the time of a block."""

    __slots__ = ("conn", "database")

    def __init__(self, database: Database):
        self.database = database

    async def __aenter__(self) -> Connection:
        conn = self.conn = await self.database._take()
        if self.database._was_left_open(conn):
            try:
                await _finish(conn, "COMMIT")
            except BaseException:
                await self.database._give_up(conn)
                raise
        return conn

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        await self.database._give_back(self.conn, error)


class _Transaction:
    """A connection inside a transaction for the time of a block."""

    __slots__ = ("begin", "conn", "database", "organization_id")

    def __init__(self, database: Database, begin: str, organization_id: int | None):
        self.database = database
        self.begin = begin
        self.organization_id = organization_id  # that it writes to, if any

    async def __aenter__(self) -> Connection:
        conn = self.conn = await self.database._take(self.organization_id)
        begin = f"COMMIT; {self.begin}" if self.database._was_left_open(conn) else self.begin
        try:
            await conn.execute(begin)
        except BaseException as error:
            await self._roll_back(error)
            raise
        return conn

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None:
            await self._roll_back(error)
        elif self.begin.startswith(_READ_ONLY):
            if not self.database._leave_open(self.conn):
                await self._commit(_end_read(self.conn))
        else:
            await self._commit(timed("commit", _finish(self.conn, "COMMIT")))

    async def _commit(self, committing: Coroutine[Any, Any, str]) -> None:
        try:
            tag = await committing
        except BaseException as error:
            await self._give_back(error)
            raise
        await self._give_back(None)
        if tag != "COMMIT":
            # That is how Postgres answers when a statement had failed and nobody told it to roll back.
            raise RuntimeError("the transaction had failed already, so nothing was committed")

    async def _roll_back(self, error: BaseException) -> None:
        try:
            # A broken connection has nothing to roll back; the server did it when the connection ended.
            if not _is_lost(self.conn):
                await _finish(self.conn, "ROLLBACK")
        finally:
            await self._give_back(error)

    async def _give_back(self, error: BaseException | None) -> None:
        self.database._wrote(self.organization_id)
        await self.database._give_back(self.conn, error)


def _time_out(turn: asyncio.Future[Connection | None]) -> None:
    if not turn.done():
        turn.set_exception(OverloadedError(headers={"Retry-After": "1"}))


def _is_lost(conn: Connection) -> bool:
    try:
        return bool(conn.is_closed())
    except asyncpg.InterfaceError:
        # asyncpg takes a connection that was cut away from whoever holds it.
        return True


async def _end_read(conn: Connection) -> str:
    """Commit where nothing was written.

    A lost connection refuses as soon as its method is called: here that is when it is waited for, where the connection
    is given back whatever comes.
    """
    tag: str = await conn.execute("COMMIT")
    return tag


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
    async with database.transaction(begin, organization_id) as conn:
        yield conn


@asynccontextmanager
async def plain_transaction(database: Database) -> AsyncIterator[Connection]:
    """A transaction without a tenant: row security shows it nothing, only definer functions serve it."""
    async with database.transaction("BEGIN") as conn:
        yield conn


async def fetch_one(conn: Connection, statement: Statement, *args: Any) -> Record | None:
    """The first row of a `:one` statement, or None."""
    row: Record | None = await timed(statement.name, conn.fetchrow(statement.text, *args))
    return row


async def fetch_existing(conn: Connection, statement: Statement, *args: Any) -> Record:
    """The first row of a `:one` statement. Raises ResourceNotFoundError when there is none."""
    row = await timed(statement.name, conn.fetchrow(statement.text, *args))
    if row is None:
        raise ResourceNotFoundError
    return row


async def fetch_all(conn: Connection, statement: Statement, *args: Any) -> list[Record]:
    """All rows of a `:many` statement."""
    rows: list[Record] = await timed(statement.name, conn.fetch(statement.text, *args))
    return rows


async def fetch_value(conn: Connection, statement: Statement, *args: Any) -> Any:
    """The first column of the first row of a `:value` statement, or None."""
    return await timed(statement.name, conn.fetchval(statement.text, *args))


async def execute(conn: Connection, statement: Statement, *args: Any) -> None:
    """Run an `:exec` statement, whose rows nobody needs."""
    await timed(statement.name, conn.execute(statement.text, *args))
