"""The rate limiter against a real Postgres; several limiters, each with a pool of its own, are several processes."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import pairwise
from uuid import uuid4

import asyncpg
import pytest

from reos.db import Database
from reos.errors import OverloadedError
from reos.middleware import rate_limit
from reos.middleware.rate_limit import UNLIMITED, Allowance, PostgresCounter, RateLimiter
from reos.queries import rate_limits
from reos.queries.rate_limits import Reserve, Taken
from reos.settings import Settings

pytestmark = pytest.mark.integration


class Recorder:
    """A counter that remembers what it was asked and what it said."""

    def __init__(self, inner: PostgresCounter):
        self.inner = inner
        self.taken: list[Taken] = []
        self.refused_for: list[float] = []
        self.given_back: list[Reserve] = []

    async def take(self, key: bytes, wanted: int, hold: timedelta | None, returned: Reserve | None) -> Taken | float:
        answer = await self.inner.take(key, wanted, hold, returned)
        if isinstance(answer, Taken):
            self.taken.append(answer)
        else:
            self.refused_for.append(answer)
        return answer

    async def give_back(self, reserves: Sequence[Reserve]) -> None:
        await self.inner.give_back(reserves)
        self.given_back.extend(reserves)


class Process:
    """A limiter with a pool of its own."""

    def __init__(self, database: Database, settings: Settings):
        limits = (settings.rate_limit_per_minute, settings.rate_limit_per_hour, settings.rate_limit_per_day)
        self.database = database
        self.counter = Recorder(PostgresCounter(database, limits))
        self.limiter = RateLimiter(database, settings, self.counter)

    async def take(self, key: str) -> Allowance:
        return await self.limiter.take(key)


@asynccontextmanager
async def processes(dsn: str, number: int, *limits: int) -> AsyncIterator[list[Process]]:
    """So many limiters with the same limits a minute, hour and day."""
    minute, hour, day = limits
    settings = Settings.model_construct(
        rate_limit_per_minute=minute, rate_limit_per_hour=hour, rate_limit_per_day=day, db_pool_min=1, db_pool_max=2
    )
    started = [Process(await Database.connect(settings, dsn), settings) for _ in range(number)]
    for process in started:
        await process.limiter.start()
    try:
        yield started
    finally:
        for process in started:
            await process.limiter.stop()
            await process.database.close()


class Rows:
    """The table as its owner sees and changes it."""

    def __init__(self, conn: asyncpg.Connection):
        self.conn = conn

    async def used(self, process: Process, key: str) -> list[int]:
        return await self.conn.fetchval("select used from rate_limits where key = $1", self._key(process, key)) or [
            0,
            0,
            0,
        ]

    async def age(self, process: Process, key: str, **by: float) -> None:
        """Let the windows have begun earlier."""
        await self.conn.execute(
            "update rate_limits set used_at = used_at - $2::interval, started_at ="
            " array(select s - $2::interval from unnest(started_at) with ordinality u(s, i) order by i) where key = $1",
            self._key(process, key),
            timedelta(**by),
        )

    async def until_used(self, process: Process, key: str, used: int) -> None:
        """Wait until so many requests are counted in the minute."""
        async with asyncio.timeout(5):
            while (await self.used(process, key))[0] != used:
                await asyncio.sleep(0.005)

    @staticmethod
    def _key(process: Process, key: str) -> bytes:
        return process.limiter._find(key).key


@asynccontextmanager
async def owner_rows(owner_dsn: str) -> AsyncIterator[Rows]:
    conn = await asyncpg.connect(owner_dsn)
    try:
        await conn.execute("set role reos_owner")
        yield Rows(conn)
    finally:
        await conn.close()


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not is_so():
            await asyncio.sleep(0.005)


@pytest.fixture
def key() -> str:
    return f"user:{uuid4()}"


async def test_of_200_parallel_requests_in_4_processes_exactly_60_pass(dsn: str, key: str) -> None:
    async with processes(dsn, 4, 60, 1000, 10000) as four:
        answers = await asyncio.gather(*(four[number % 4].take(key) for number in range(200)))
        assert sorted(answer.remaining for answer in answers if answer.allowed) == list(range(60))
        assert all(answer.remaining == 0 and answer.retry_after > 0 for answer in answers if not answer.allowed)


@pytest.mark.property
@pytest.mark.parametrize("seed", range(4))
async def test_never_more_than_the_limit_and_none_lost(dsn: str, owner_dsn: str, key: str, seed: int) -> None:
    source = random.Random(seed)
    async with owner_rows(owner_dsn) as rows, processes(dsn, 4, 1000, 0, 0) as four:

        async def client(process: Process) -> int:
            passed = 0
            for _ in range(45):
                passed += (await process.take(key)).allowed
                await asyncio.sleep(source.choice((0, 0, 0, 0.001, 0.01)))
            return passed

        first = sum(await asyncio.gather(*(client(four[number % 4]) for number in range(20))))
        assert first == 900
        await rows.until_used(four[0], key, 900)
        answers = await asyncio.gather(*(four[number % 4].take(key) for number in range(200)))
        assert sum(answer.allowed for answer in answers) <= 100
        second = sum(answer.allowed for answer in answers)
        await rows.until_used(four[0], key, first + second)
        while (await four[seed].take(key)).allowed:
            second += 1
        assert first + second == 1000


@pytest.mark.property
@pytest.mark.parametrize("seed", range(4))
async def test_what_is_said_to_remain_is_never_more_than_is_left(dsn: str, key: str, seed: int) -> None:
    source = random.Random(seed)
    async with processes(dsn, 3, 1000, 0, 0) as three:
        process = three[0]
        for number in range(1, 1001):
            if source.random() < 0.05:
                process = source.choice(three)
            answer = await process.take(key)
            left = 1000 - number
            # Two other processes may hold 1 % each.
            assert left - 20 <= answer.remaining <= left
            if not answer.allowed:
                pytest.fail(f"refused with {left} left")
        assert sum(len(process.counter.taken) for process in three) < 1000, "reserves were used"
        assert not (await process.take(key)).allowed


async def test_a_process_alone_counts_exactly_with_few_statements(dsn: str, owner_dsn: str, key: str) -> None:
    async with owner_rows(owner_dsn) as rows, processes(dsn, 1, 1000, 0, 0) as (process,):
        assert [(await process.take(key)).remaining for _ in range(900)] == list(range(999, 99, -1))
        statements = len(process.counter.taken)
        assert statements < 450
        for taken in process.counter.taken:
            # What is left after a reserve was handed out is at least 99 times as much.
            assert taken.reserved * 99 <= 1000 - taken.used[0]
        await rows.until_used(process, key, 900)
        assert [(await process.take(key)).remaining for _ in range(100)] == list(range(99, -1, -1))
        assert sum(taken.granted for taken in process.counter.taken[statements:]) == 100, "counted singly"
        assert not (await process.take(key)).allowed


async def test_a_slow_client_gets_no_reserve(dsn: str, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "HOLD_SECONDS", 0.0)
    async with processes(dsn, 1, 1000, 0, 0) as (process,):
        for _ in range(5):
            await process.take(key)
        assert [taken.reserved for taken in process.counter.taken] == [0] * 5


async def asked_beside_a_reserve(first: Process, second: Process) -> tuple[str, Allowance]:
    """A client whose request the second process counted while the first one held a reserve, and what it was told.

    A reserve is good for a twentieth of a second, which a busy machine may miss: then it is another client's turn.
    """
    for _ in range(20):
        key = f"user:{uuid4()}"
        await first.take(key)
        await first.take(key)
        answer = await second.take(key)
        if second.counter.refused_for:
            assert first.counter.taken[-1].reserved == 9
            return key, answer
    pytest.fail("never had to wait")


async def test_another_process_waits_for_the_end_of_a_reserve(dsn: str, owner_dsn: str) -> None:
    async with owner_rows(owner_dsn) as rows, processes(dsn, 2, 1000, 0, 0) as (first, second):
        began = time.monotonic()
        key, answer = await asked_beside_a_reserve(first, second)
        assert time.monotonic() - began < 1
        assert 988 <= answer.remaining <= 997
        await rows.until_used(first, key, 3)
        # Now that two processes are known to count, neither gets a reserve.
        for process in (first, first, second, second, first):
            await process.take(key)
            assert process.counter.taken[-1].reserved == 0
        assert len(second.counter.refused_for) == 1
        assert (await first.take(key)).remaining == 991


async def test_reserves_are_good_for_longer_while_a_client_goes_on_with_one_process(dsn: str, key: str) -> None:
    async with processes(dsn, 2, 1_000_000, 0, 0) as (first, second):
        await first.take(key)
        client = first.limiter._find(key)
        seen = [client.hold]
        while client.hold < rate_limit.LONGEST_HOLD_SECONDS:
            await first.take(key)
            await asyncio.sleep(0)
            if client.hold != seen[-1]:
                seen.append(client.hold)
        for before, after in pairwise(seen):
            # 0 is for a machine that was busy with something else, so that the client did not seem to go on.
            assert after in (0.0, rate_limit.HOLD_SECONDS, 2 * before, rate_limit.LONGEST_HOLD_SECONDS)
        assert len(seen) >= 5
        await second.take(key)
        await first.take(key)
        assert client.hold == 0


async def test_an_unused_reserve_goes_back_in_time_and_at_the_end(dsn: str, owner_dsn: str, key: str) -> None:
    async with owner_rows(owner_dsn) as rows:
        async with processes(dsn, 1, 1000, 2000, 0) as (process,):
            await asyncio.gather(*(process.take(key) for _ in range(3)))
            await rows.until_used(process, key, 3)
            assert await rows.used(process, key) == [3, 3, 3]
            assert [reserve.count for reserve in process.counter.given_back] == [9]
            await asyncio.gather(*(process.take(key) for _ in range(3)))
        assert await rows.used(process, key) == [6, 6, 6]


async def test_what_is_left_of_a_reserve_goes_back_with_the_next_question(dsn: str, owner_dsn: str, key: str) -> None:
    async with owner_rows(owner_dsn) as rows, processes(dsn, 1, 1000, 0, 0) as (process,):
        assert process.limiter._giving_back
        process.limiter._giving_back.cancel()
        await asyncio.gather(process.take(key), process.take(key))
        assert await rows.used(process, key) == [11, 11, 11]
        await until(lambda: time.monotonic() > process.limiter._find(key).good_until)
        assert (await process.take(key)).remaining == 997
        assert await rows.used(process, key) == [3, 3, 3]


async def test_requests_that_come_during_a_statement_share_the_next(dsn: str, key: str) -> None:
    async with processes(dsn, 1, 60, 0, 0) as (process,):
        first = asyncio.create_task(process.take(key))
        await until(lambda: process.limiter._find(key).is_busy)
        async with process.database.acquire(), process.database.acquire():
            # No connection is free, so the first statement cannot end before all have come.
            others = []
            for _ in range(200):
                others.append(asyncio.create_task(process.take(key)))
                await asyncio.sleep(0)
        answers = await asyncio.gather(first, *others)
        assert sum(answer.allowed for answer in answers) == 60
        assert len(process.counter.taken) <= 3


async def test_a_reserve_goes_back_only_to_the_window_that_it_was_counted_in(
    dsn: str, owner_dsn: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with owner_rows(owner_dsn) as rows, processes(dsn, 1, 1000, 0, 0) as (process,):
        counter = process.counter
        digest = process.limiter._find(key).key
        taken = await counter.take(digest, 5, timedelta(seconds=0.01), None)
        assert isinstance(taken, Taken)
        assert (taken.granted, taken.reserved) == (5, 9)
        await rows.conn.execute(
            "update rate_limits set started_at[1] = started_at[1] - interval '1 minute' where key = $1", digest
        )
        await process.take(key)
        assert await rows.used(process, key) == [1, 15, 15]
        await counter.give_back([Reserve(digest, taken.reserved, taken.started_at)])
        assert await rows.used(process, key) == [1, 6, 6]
        await counter.take(digest, 1, None, Reserve(digest, 2, taken.started_at))
        assert await rows.used(process, key) == [2, 5, 5]


async def test_windows_begin_with_the_first_request_and_run_out(dsn: str, owner_dsn: str, key: str) -> None:
    async with owner_rows(owner_dsn) as rows, processes(dsn, 1, 2, 3, 5) as (process,):

        async def passes(number: int, window: str, retry_within: int) -> None:
            answers = [await process.take(key) for _ in range(number + 1)]
            assert [answer.allowed for answer in answers] == [True] * number + [False]
            assert answers[-1].window == window
            assert retry_within - 30 < answers[-1].retry_after <= retry_within

        await passes(2, "minute", 60)
        await rows.age(process, key, seconds=45)
        await passes(0, "minute", 15)
        await rows.age(process, key, seconds=16)
        await passes(1, "hour", 3600 - 61)
        await rows.age(process, key, minutes=59)
        await passes(2, "day", 86400 - 3601)
        await rows.age(process, key, hours=22)
        await passes(0, "day", 3600)
        await rows.age(process, key, hours=2)
        await passes(2, "minute", 60)
        assert await rows.used(process, key) == [2, 2, 2]


async def test_a_refused_request_does_not_count(dsn: str, owner_dsn: str, key: str) -> None:
    async with owner_rows(owner_dsn) as rows, processes(dsn, 1, 2, 100, 100) as (process,):
        for _ in range(10):
            await process.take(key)
        assert await rows.used(process, key) == [2, 2, 2]


async def test_a_clock_that_was_set_back_shuts_nobody_out(dsn: str, owner_dsn: str, key: str) -> None:
    async with owner_rows(owner_dsn) as rows, processes(dsn, 1, 2, 2, 2) as (process,):
        await process.take(key)
        await process.take(key)
        await rows.age(process, key, hours=-3)
        assert (await process.take(key)).allowed


async def test_a_lowered_limit_holds_at_once(dsn: str, key: str) -> None:
    async with processes(dsn, 1, 10, 0, 0) as (before,):
        for _ in range(6):
            await before.take(key)
    async with processes(dsn, 1, 5, 0, 0) as (after,):
        answer = await after.take(key)
        assert (answer.allowed, answer.remaining) == (False, 0)


async def test_clients_are_counted_apart(dsn: str) -> None:
    async with processes(dsn, 1, 1, 0, 0) as (process,):
        keys = [f"address:{uuid4()}" for _ in range(20)]
        assert all([(await process.take(key)).allowed for key in keys])
        assert not any([(await process.take(key)).allowed for key in keys])
        for odd in ("", "x" * 100_000, "\ud800", "\x00"):
            await process.take(odd)


async def test_without_limits_the_database_is_not_asked(dsn: str, key: str) -> None:
    async with processes(dsn, 1, 0, 0, 0) as (process,):
        await process.database.close()
        answer = await process.take(key)
        assert answer is UNLIMITED
        assert answer.allowed
        assert answer.headers() == {}


async def test_the_headers_tell_of_the_tightest_window(dsn: str, key: str) -> None:
    async with processes(dsn, 1, 60, 0, 2) as (process,):
        began = time.time()
        headers = (await process.take(key)).headers()
        reset = int(headers.pop("X-RateLimit-Reset"))
        assert began + 86400 <= reset <= time.time() + 86401
        assert headers == {
            "X-RateLimit-Limit": "2",
            "X-RateLimit-Remaining": "1",
            "RateLimit": '"day";r=1;t=86400',
            "RateLimit-Policy": '"minute";q=60;w=60, "day";q=2;w=86400',
        }
        await process.take(key)
        error = (await process.take(key)).error()
        assert error.status == 429
        assert error.headers == {"Retry-After": "86400"}
        assert error.details == {"limit": 2, "window": 86400, "retry_after": 86400}


async def test_everybody_who_waits_hears_of_a_failure_and_the_next_one_is_counted(
    dsn: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with processes(dsn, 1, 60, 0, 0) as (process,):

        async def fail(*_: object) -> Taken:
            raise ConnectionError("away")

        with monkeypatch.context() as patch:
            patch.setattr(process.counter, "take", fail)
            answers = await asyncio.gather(*(process.take(key) for _ in range(5)), return_exceptions=True)
            assert all(isinstance(answer, ConnectionError) for answer in answers)
        assert (await process.take(key)).remaining == 59


async def test_a_client_that_goes_away_does_not_stop_the_others(dsn: str, key: str) -> None:
    async with processes(dsn, 1, 60, 0, 0) as (process,):
        first, *others = [asyncio.create_task(process.take(key)) for _ in range(5)]
        await asyncio.sleep(0)
        first.cancel()
        assert all(answer.allowed for answer in await asyncio.gather(*others))
        with pytest.raises(asyncio.CancelledError):
            await first
        assert (await process.take(key)).allowed


async def test_the_queue_of_a_client_is_bounded(dsn: str, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "MAX_WAITING", 3)
    async with processes(dsn, 1, 60, 0, 0) as (process,):
        answers = await asyncio.gather(*(process.take(key) for _ in range(5)), return_exceptions=True)
        assert [isinstance(answer, OverloadedError) for answer in answers] == [False] * 3 + [True] * 2


async def test_the_memory_for_clients_is_bounded(dsn: str, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "MAX_CLIENTS", 10)
    async with processes(dsn, 1, 2, 0, 0) as (process,):
        for number in range(50):
            await process.take(f"{key}{number}")
        assert len(process.limiter._clients) <= 10
        assert (await process.take(f"{key}0")).remaining == 0, "forgotten here, not in the database"


async def test_the_application_reaches_the_counts_through_the_functions_alone(dsn: str, owner_dsn: str) -> None:
    async with processes(dsn, 1, 2, 0, 0) as (process,), process.database.acquire() as conn:
        for statement in ("select * from rate_limits", "delete from rate_limits", "update rate_limits set used = used"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await conn.execute(statement)


async def test_clients_that_are_gone_for_a_day_are_purged(dsn: str, owner_dsn: str, key: str) -> None:
    async with owner_rows(owner_dsn) as rows, processes(dsn, 1, 2, 2, 2) as (process,):
        for name in (key, key + "recent"):
            await process.take(name)
        await rows.age(process, key, hours=24, minutes=1)
        await rows.age(process, key + "recent", hours=23)
        async with process.database.acquire() as conn:
            assert await rate_limits.purge(conn) >= 1
        assert await rows.used(process, key) == [0, 0, 0]
        assert await rows.used(process, key + "recent") == [1, 1, 1]
