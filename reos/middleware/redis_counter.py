"""Counting requests in Redis, when one is configured, and in Postgres while it is away.

The script counts as the function of migration 0035 does, whose comments say why; Redis runs one script at a time, so
there is no lock to take. A client's counts vanish a day after its last request.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from loguru import logger
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from reos.db import Database
from reos.middleware.rate_limit import Counter, PostgresCounter
from reos.queries.rate_limits import Reserve, Taken
from reos.settings import Settings

TIMEOUT_SECONDS = 0.5  # for connecting and for each command: a request waits no longer for a count
MAX_CONNECTIONS = 32
AWAY_SECONDS = 2.0  # after a failure Redis is not asked for so long
PREFIX = b"reos:rate:"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

# Times are in microseconds since the epoch. Arguments: taker, wanted, three limits, hold (-1: none), returned, and the
# three starts of what is returned. The answer begins with how long another process still holds a reserve, or with 0.
_TAKE = """
local lengths = {60000000, 3600000000, 86400000000}
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local kept = redis.call('HMGET', KEYS[1], 's1', 's2', 's3', 'u1', 'u2', 'u3', 'taker', 'held', 'shared')
local taker, wanted, hold, returned = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[6]), tonumber(ARGV[7])
local held, shared = tonumber(kept[8] or 0), tonumber(kept[9] or 0)
if kept[7] and kept[7] ~= taker then
    shared = now + 5000000
    if held > now then
        redis.call('HSET', KEYS[1], 'shared', string.format('%.0f', shared))
        return {held - now}
    end
end
local starts, used, remaining = {}, {}, math.huge
for i = 1, 3 do
    starts[i], used[i] = tonumber(kept[i] or 0), tonumber(kept[3 + i] or 0)
    if starts[i] <= now - lengths[i] or starts[i] > now + 1000000 then
        starts[i], used[i] = now, 0
    elseif starts[i] == tonumber(ARGV[7 + i]) then
        used[i] = math.max(used[i] - returned, 0)
    end
    local limit = tonumber(ARGV[2 + i])
    if limit > 0 then
        remaining = math.min(remaining, math.max(limit - used[i], 0))
    end
end
local granted, reserved = math.min(wanted, remaining), 0
if shared <= now and hold >= 0 and remaining < math.huge then
    reserved = math.floor((remaining - granted) / 100)
end
for i = 1, 3 do
    used[i] = used[i] + granted + reserved
end
if granted > 0 or returned > 0 then
    held = reserved > 0 and now + hold or 0
    redis.call('HSET', KEYS[1], 'taker', taker, 'held', string.format('%.0f', held),
        'shared', string.format('%.0f', shared),
        's1', string.format('%.0f', starts[1]), 's2', string.format('%.0f', starts[2]),
        's3', string.format('%.0f', starts[3]), 'u1', used[1], 'u2', used[2], 'u3', used[3])
    redis.call('EXPIRE', KEYS[1], 86400)
end
return {0, granted, reserved, starts[1], starts[2], starts[3], used[1], used[2], used[3], now}
"""

# Arguments: the count and the three starts of one reserve.
_GIVE_BACK = """
local kept = redis.call('HMGET', KEYS[1], 's1', 's2', 's3', 'u1', 'u2', 'u3')
for i = 1, 3 do
    if kept[i] and tonumber(kept[i]) == tonumber(ARGV[1 + i]) then
        redis.call('HSET', KEYS[1], 'u' .. i, math.max(tonumber(kept[3 + i]) - tonumber(ARGV[1]), 0))
    end
end
"""


def connect(settings: Settings) -> Any:
    """A client of the configured Redis. It connects at the first use, and again when it has to.

    With all connections in use a command waits for one: more clients at a time must not look like a Redis that is
    away, or their requests would be counted in two places.
    """
    pool = BlockingConnectionPool.from_url(
        settings.redis_url,
        timeout=TIMEOUT_SECONDS,
        socket_timeout=TIMEOUT_SECONDS,
        socket_connect_timeout=TIMEOUT_SECONDS,
        retry=Retry(NoBackoff(), 0),
        max_connections=MAX_CONNECTIONS,
    )
    return Redis.from_pool(pool)


def make_counter(redis: Any, database: Database, settings: Settings) -> Counter:
    """Where requests are counted: in Redis, with Postgres to fall back upon."""
    limits = (settings.rate_limit_per_minute, settings.rate_limit_per_hour, settings.rate_limit_per_day)
    return FallbackCounter(RedisCounter(redis, limits, secrets.randbits(63)), PostgresCounter(database, limits))


class RedisCounter:
    """The counts in Redis."""

    def __init__(self, redis: Any, limits: Sequence[int], taker: int):
        self._redis = redis
        self._limits = limits
        self._taker = taker
        self._take = redis.register_script(_TAKE)
        self._give_back = redis.register_script(_GIVE_BACK)

    async def take(self, key: bytes, wanted: int, hold: timedelta | None, returned: Reserve | None) -> Taken | float:
        held_for = -1 if hold is None else hold // _MICROSECOND
        starts = _microseconds(returned.started_at) if returned else (0, 0, 0)
        count = returned.count if returned else 0
        arguments = [self._taker, wanted, *self._limits, held_for, count, *starts]
        held, *answer = await self._take(keys=[PREFIX + key], args=arguments)
        if held:
            return float(held) / 1_000_000
        granted, reserved, *times = answer
        return Taken(
            granted=granted,
            reserved=reserved,
            started_at=[_moment(start) for start in times[:3]],
            used=times[3:6],
            counted_at=_moment(times[6]),
        )

    async def give_back(self, reserves: Sequence[Reserve]) -> None:
        async with self._redis.pipeline(transaction=False) as pipe:
            for reserve in reserves:
                arguments = [reserve.count, *_microseconds(reserve.started_at)]
                await self._give_back(keys=[PREFIX + reserve.key], args=arguments, client=pipe)
            await pipe.execute()


def _microseconds(moments: Sequence[datetime]) -> list[int]:
    return [(moment - _EPOCH) // _MICROSECOND for moment in moments]


def _moment(microseconds: int) -> datetime:
    return _EPOCH + microseconds * _MICROSECOND


class FallbackCounter:
    """Counts in Redis, and in Postgres for a while after Redis has failed. Each holds the limits by its own count."""

    def __init__(self, redis: Counter, postgres: Counter):
        self._redis = redis
        self._postgres = postgres
        self._away_until = 0.0  # monotonic

    async def take(self, key: bytes, wanted: int, hold: timedelta | None, returned: Reserve | None) -> Taken | float:
        if time.monotonic() >= self._away_until:
            try:
                return await self._redis.take(key, wanted, hold, returned)
            except (RedisError, OSError) as error:
                self._note(error)
        return await self._postgres.take(key, wanted, hold, returned)

    async def give_back(self, reserves: Sequence[Reserve]) -> None:
        # What was counted in the one is unknown to the other, which then takes nothing off.
        if time.monotonic() >= self._away_until:
            try:
                return await self._redis.give_back(reserves)
            except (RedisError, OSError) as error:
                self._note(error)
        return await self._postgres.give_back(reserves)

    def _note(self, error: Exception) -> None:
        self._away_until = time.monotonic() + AWAY_SECONDS
        logger.warning("Redis is away, requests are counted in Postgres: {}: {}", type(error).__name__, error)
