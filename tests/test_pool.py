"""The pool: who waits gets a connection in turn, and none is lost, whatever happens to those that hold or want one."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import asyncpg
import psycopg
import pytest
from conftest import TestDatabase
from event_streams import make_settings, until

from reos import db
from reos.db import Connection, Database, plain_transaction, tenant_transaction
from reos.errors import DatabaseError, OverloadedError, ResourceNotFoundError

pytestmark = pytest.mark.integration

SIZE = 3


@pytest.fixture
async def pool(database: TestDatabase, tmp_path: Path) -> AsyncIterator[Database]:
    """A pool of three."""
    pool = await Database.connect(make_settings(database.dsn, tmp_path, db_pool_min=1, db_pool_max=SIZE))
    yield pool
    await pool.close()


async def number_of(pool: Database) -> int:
    """The number of the server's process behind a connection of the pool."""
    async with pool.acquire() as conn:
        return int(await conn.fetchval("select pg_backend_pid()"))


async def open_transactions(pool: Database) -> int:
    """How many of the service's connections are left within one."""
    async with pool.acquire() as conn:
        statement = "select count(*) from pg_stat_activity where usename = session_user and state like 'idle in%'"
        return int(await conn.fetchval(statement))


async def test_a_read_that_is_over_is_ended_by_who_comes_next(database: TestDatabase, tmp_path: Path) -> None:
    """In one round trip with the beginning of the next, which is of another tenant, or none, or no transaction."""
    pool = await Database.connect(make_settings(database.dsn, tmp_path, db_pool_min=1, db_pool_max=1))
    statement = "select current_organization_id(), current_setting('transaction_read_only'), now()"
    times = []

    async def read(number: int) -> None:
        async with tenant_transaction(pool, number, read_only=True) as conn:
            row = await conn.fetchrow(statement)
            assert (row[0], row[1]) == (number, "on")
            times.append(row[2])

    async def write(number: int) -> None:
        async with tenant_transaction(pool, number) as conn:
            row = await conn.fetchrow(statement)
            assert (row[0], row[1]) == (number, "off")
            await conn.execute("create temporary table if not exists t (n bigint)")
            times.append(row[2])

    async def write_alone() -> None:
        async with pool.acquire() as conn:
            row = await conn.fetchrow(statement)
            assert (row[0], row[1]) == (None, "off")
            assert not conn.is_in_transaction()
            times.append(row[2])

    async def fail(number: int) -> None:
        with pytest.raises(asyncpg.PostgresError):
            async with pool.transaction(f"BEGIN READ ONLY; SELECT {number} / 0"):
                pass

    kinds = [read, write, read, lambda number: write_alone(), read, fail]
    await asyncio.gather(*(kinds[number % 6](number + 1) for number in range(120)))
    assert len(set(times)) == 100  # Each was a transaction of its own.
    assert await open_transactions(pool) == 0
    assert (pool.busy, pool.waiting) == (0, 0)
    await pool.close()


async def test_a_read_that_is_over_is_ended_also_when_who_comes_next_has_gone(
    database: TestDatabase, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pool = await Database.connect(make_settings(database.dsn, tmp_path, db_pool_min=1, db_pool_max=1))
    async with tenant_transaction(pool, 1, read_only=True):
        waiting = asyncio.create_task(number_of(pool))
        await until(lambda: pool.waiting == 1)
    waiting.cancel()  # in the moment in which it has been handed the connection
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    await until(lambda: pool.busy == 0)
    assert await open_transactions(pool) == 0
    await pool.close()
    assert "active transaction" not in caplog.text


async def test_connections_are_used_again_and_never_too_many(pool: Database) -> None:
    seen: set[int] = set()
    now = 0

    async def work() -> None:
        nonlocal now
        async with pool.acquire() as conn:
            now += 1
            assert now <= SIZE
            seen.add(await conn.fetchval("select pg_backend_pid()"))
            await asyncio.sleep(0)
            now -= 1

    await asyncio.gather(*(work() for _ in range(200)))
    assert len(seen) == SIZE
    assert (pool.busy, pool.waiting) == (0, 0)


async def test_who_waits_longest_is_next(pool: Database) -> None:
    order: list[int] = []

    async def work(number: int) -> None:
        async with pool.acquire() as conn:
            order.append(number)
            await conn.execute("select 1")

    held = [pool.acquire() for _ in range(SIZE)]
    for one in held:
        await one.__aenter__()
    tasks = [asyncio.create_task(work(number)) for number in range(20)]
    await until(lambda: pool.waiting == 20)
    for one in held:
        await one.__aexit__(None, None, None)
    await asyncio.gather(*tasks)
    assert order == list(range(20))


async def hold_all(pool: Database, organization_ids: list[int]) -> list[AbstractAsyncContextManager[Connection]]:
    """Writing transactions, one of each organisation, on all connections of the pool."""
    assert len(organization_ids) == SIZE
    held = [tenant_transaction(pool, organization_id) for organization_id in organization_ids]
    for one in held:
        await one.__aenter__()
    return held


class Waiting:
    """What waits for a connection, in the order in which it came and in that in which it had its turn."""

    def __init__(self, pool: Database):
        self.pool = pool
        self.order: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def add(self, name: str, organization_id: int, *, read_only: bool = False) -> None:
        async def work() -> None:
            async with tenant_transaction(self.pool, organization_id, read_only=read_only) as conn:
                self.order.append(name)
                await conn.execute("select 1")

        self.tasks.append(asyncio.create_task(work()))
        await until(lambda: self.pool.waiting == len(self.tasks))


async def test_who_would_wait_for_the_commit_of_another_lets_others_go_first(pool: Database) -> None:
    first, second, third = await hold_all(pool, [1, 2, 1])
    waiting = Waiting(pool)
    await waiting.add("writes to 1", 1)
    await waiting.add("writes to 1 too", 1)
    await waiting.add("reads 1", 1, read_only=True)
    await waiting.add("writes to 3", 3)
    await second.__aexit__(None, None, None)
    await until(lambda: len(waiting.order) == 4)
    # When only those of an organisation are left that is being written to, they go on all the same.
    assert waiting.order == ["reads 1", "writes to 3", "writes to 1", "writes to 1 too"]
    for one in (first, third):
        await one.__aexit__(None, None, None)
    await asyncio.gather(*waiting.tasks)
    assert not pool._writing


async def test_however_many_of_an_organisation_wait_others_go_first(pool: Database) -> None:
    held = await hold_all(pool, [1, 2, 1])
    waiting = Waiting(pool)
    for number in range(100):
        await waiting.add(f"writes to 1: {number}", 1)
    await waiting.add("writes to 3", 3)
    await held[1].__aexit__(None, None, None)
    await until(lambda: len(waiting.order) == 101)
    assert waiting.order[0] == "writes to 3"
    for one in (held[0], held[2]):
        await one.__aexit__(None, None, None)
    await asyncio.gather(*waiting.tasks)
    assert not pool._writing


async def test_the_oldest_that_waits_is_next_when_the_commit_is_done(pool: Database) -> None:
    held = await hold_all(pool, [1, 2, 3])
    waiting = Waiting(pool)
    await waiting.add("writes to 1", 1)
    await waiting.add("writes to 4", 4)
    await held[0].__aexit__(None, None, None)
    await until(lambda: len(waiting.order) == 2)
    assert waiting.order == ["writes to 1", "writes to 4"]
    for one in held[1:]:
        await one.__aexit__(None, None, None)
    await asyncio.gather(*waiting.tasks)


async def test_nobody_is_passed_for_ever(pool: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db, "MAX_PASSED", 2)
    held = await hold_all(pool, [1, 1, 2])
    waiting = Waiting(pool)
    await waiting.add("writes to 1", 1)
    for number in range(4):
        await waiting.add(f"reads {number}", 1, read_only=True)
    await held[2].__aexit__(None, None, None)
    await until(lambda: len(waiting.order) == 5)
    assert waiting.order == ["reads 0", "reads 1", "writes to 1", "reads 2", "reads 3"]
    for one in held[:2]:
        await one.__aexit__(None, None, None)
    await asyncio.gather(*waiting.tasks)


async def test_who_gives_up_in_the_moment_of_being_called_does_not_count_as_writing(pool: Database) -> None:
    held = await hold_all(pool, [1, 2, 3])
    waiting = Waiting(pool)
    await waiting.add("writes to 4", 4)
    await waiting.add("writes to 4 too", 4)
    await held[0].__aexit__(None, None, None)
    waiting.tasks[0].cancel()  # It has been handed the connection.
    await asyncio.wait(waiting.tasks)
    assert waiting.order == ["writes to 4 too"]
    for one in held[1:]:
        await one.__aexit__(None, None, None)
    assert not pool._writing
    assert (pool.busy, pool.waiting) == (0, 0)


async def test_waiting_has_an_end_and_a_limit(pool: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db, "ACQUIRE_TIMEOUT", 0.05)
    monkeypatch.setattr(db, "MAX_WAITING", 2)
    async with pool.acquire(), pool.acquire(), pool.acquire():
        waiting = [asyncio.create_task(number_of(pool)) for _ in range(2)]
        await until(lambda: pool.waiting == 2)
        with pytest.raises(OverloadedError):
            await number_of(pool)
        for task in waiting:
            with pytest.raises(OverloadedError):
                await task
        assert pool.waiting == 0
    assert await number_of(pool)
    assert pool.busy == 0


async def test_after_an_error_of_ours_the_connection_goes_on_after_any_other_it_is_looked_at(pool: Database) -> None:
    first = await number_of(pool)
    with pytest.raises(ResourceNotFoundError):
        async with plain_transaction(pool):
            raise ResourceNotFoundError
    assert await number_of(pool) == first
    with pytest.raises(asyncpg.DivisionByZeroError):
        async with plain_transaction(pool) as conn:
            await conn.execute("select 1 / 0")
    async with pool.acquire() as conn:
        assert not conn.is_in_transaction()
    # A transaction that was left open is not handed on.
    async with pool.acquire() as conn:
        await conn.execute("begin")
    async with pool.acquire() as conn:
        assert not conn.is_in_transaction()
    assert pool.busy == 0


async def test_a_connection_that_was_cut_is_replaced(pool: Database, database: TestDatabase) -> None:
    def cut(numbers: list[int]) -> None:
        with psycopg.connect(database.superuser_dsn, autocommit=True) as conn:
            conn.execute("select pg_terminate_backend(pid) from unnest(%s::int[]) pid", [numbers])

    at_hand = await number_of(pool)
    cut([at_hand])
    await until(lambda: all(db._is_lost(conn) for conn in pool._at_hand))
    assert await number_of(pool) != at_hand
    for _ in range(5):
        with pytest.raises(asyncpg.PostgresError):
            async with plain_transaction(pool) as conn:
                cut([await conn.fetchval("select pg_backend_pid()")])
                await conn.execute("select 1")
    assert pool.busy == 0
    assert len({await number_of(pool) for _ in range(3)}) == 1


@pytest.mark.parametrize("read_only", [True, False])
async def test_one_that_was_cut_between_its_last_statement_and_its_end_is_replaced(
    pool: Database, database: TestDatabase, read_only: bool
) -> None:
    for _ in range(SIZE + 1):
        with pytest.raises(asyncpg.InterfaceError):
            async with tenant_transaction(pool, 1, read_only=read_only) as conn:
                number = await conn.fetchval("select pg_backend_pid()")
                with psycopg.connect(database.superuser_dsn, autocommit=True) as superuser:
                    superuser.execute("select pg_terminate_backend(%s)", [number])
                await until(lambda: db._is_lost(conn))
        assert pool.busy == 0
    assert not pool._writing
    assert await number_of(pool)


async def random_work(pool: Database, dice: random.Random, number: int) -> None:
    """A transaction of a tenant that reads or writes, or a statement without one; some fail."""
    kind = dice.randrange(3)
    block = pool.acquire() if kind == 0 else tenant_transaction(pool, number, read_only=kind == 1)
    async with block as conn:
        assert await conn.fetchval("select current_organization_id()") == (number if kind else None)
        if dice.random() < 0.3:
            await conn.execute("select pg_sleep(0.002)")
        if dice.random() < 0.2:
            raise ResourceNotFoundError
        await asyncio.sleep(dice.choice((0, 0, 0.001)))


@pytest.mark.property
async def test_in_any_order_of_cancellations_none_is_lost(pool: Database) -> None:
    dice = random.Random(7)
    for _ in range(40):
        tasks = [asyncio.create_task(random_work(pool, dice, number % 4)) for number in range(15)]
        for task in tasks:
            for _ in range(dice.randrange(6)):
                await asyncio.sleep(0)
            if dice.random() < 0.6:
                task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            assert task.cancelled() or isinstance(task.exception(), (ResourceNotFoundError, type(None)))
        await until(lambda: pool.busy == pool.waiting == 0)
        assert not pool._left_open
        assert not pool._writing
    assert await open_transactions(pool) == 0
    async with pool.acquire() as one, pool.acquire() as two, pool.acquire() as three:
        assert [await conn.fetchval("select 1") for conn in (one, two, three)] == [1] * SIZE


async def test_closing_waits_for_what_is_in_use(database: TestDatabase, tmp_path: Path) -> None:
    pool = await Database.connect(make_settings(database.dsn, tmp_path, db_pool_min=1, db_pool_max=SIZE))
    await number_of(pool)
    async with asyncio.timeout(5):
        async with pool.acquire() as conn:
            closing = asyncio.create_task(pool.close())
            await asyncio.sleep(0.02)
            assert await conn.fetchval("select 1") == 1
            assert not closing.done()
        await closing
    with pytest.raises((asyncpg.InterfaceError, DatabaseError)):
        await number_of(pool)
