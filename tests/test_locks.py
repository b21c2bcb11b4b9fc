"""Locks that last as long as their process: real connections to a real Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from conftest import TestDatabase
from event_streams import until

from reos.locks import SessionLocks

pytestmark = pytest.mark.integration


@pytest.fixture
async def conns(dsn: str) -> AsyncIterator[list[asyncpg.Connection]]:
    opened = [await asyncpg.connect(dsn) for _ in range(2)]
    yield opened
    for conn in opened:
        conn.terminate()


@pytest.fixture
async def processes(conns: list[asyncpg.Connection]) -> list[SessionLocks]:
    """What two processes hold."""
    made = [SessionLocks() for _ in conns]
    for locks, conn in zip(made, conns, strict=True):
        locks.use(conn)
    return made


async def is_free(locks: SessionLocks, name: str = "a") -> bool:
    async with locks.hold(name) as is_alone:
        return is_alone


async def test_one_holds_it_until_it_lets_go(processes: list[SessionLocks]) -> None:
    here, there = processes
    async with here.hold("a") as is_alone:
        assert is_alone
        assert [await is_free(locks) for locks in processes] == [False, False]
        assert [await is_free(locks, "b") for locks in processes] == [True, True]
    assert [await is_free(locks) for locks in (there, here)] == [True, True]


async def test_it_ends_with_the_process(processes: list[SessionLocks], conns: list[asyncpg.Connection]) -> None:
    here, there = processes
    async with here.hold("a") as is_alone:
        assert is_alone
        conns[0].terminate()
        await until(lambda: is_free(there))


async def test_many_at_once(processes: list[SessionLocks]) -> None:
    """One connection does one statement at a time; they take turns."""
    held = [process.hold(str(number)) for number in range(50) for process in processes]
    got = await asyncio.gather(*(each.__aenter__() for each in held))
    assert sorted(got) == [False] * 50 + [True] * 50
    await asyncio.gather(*(each.__aexit__(None, None, None) for each in held))
    assert all([await is_free(locks, str(number)) for number in range(50) for locks in processes])


async def test_who_is_called_off_holds_nothing(processes: list[SessionLocks]) -> None:
    here, there = processes
    is_taken = asyncio.Event()

    async def hold() -> None:
        async with here.hold("a") as is_alone:
            assert is_alone
            is_taken.set()
            await asyncio.Event().wait()

    for turns in range(6):  # before the statement has gone out, while it is under way, and when it is held
        is_taken.clear()
        task = asyncio.create_task(hold())
        for _ in range(turns):
            await asyncio.sleep(0)
        if turns == 5:
            # Who looked by asking for it might be the one who has it.
            await is_taken.wait()
            assert not await is_free(there)
        task.cancel()
        await asyncio.wait([task])
        for locks in processes:
            await until(lambda locks=locks: is_free(locks))  # type: ignore[misc]


async def test_without_a_connection_the_process_asks_itself(processes: list[SessionLocks]) -> None:
    here, there = processes
    here.use(None)
    async with here.hold("a") as is_alone:
        assert is_alone
        assert not await is_free(here)
        assert await is_free(there)


async def test_a_connection_that_fails_is_given_up(
    processes: list[SessionLocks], conns: list[asyncpg.Connection], database: TestDatabase
) -> None:
    here, there = processes
    async with here.hold("a"):
        superuser = await asyncpg.connect(database.superuser_dsn)
        await superuser.execute("select pg_terminate_backend($1, 5000)", conns[0].get_server_pid())
        await superuser.close()
        assert await is_free(here, "b")
        assert conns[0].is_closed()
        await until(lambda: is_free(there))
