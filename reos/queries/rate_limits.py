"""Counting requests in the windows of a minute, an hour and a day."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from reos.db import Connection, execute, fetch_one, fetch_value
from reos.sql import load

SQL = load("rate_limits")


@dataclass(frozen=True, slots=True)
class Reserve:
    """Requests counted ahead, and the starts of the three windows that they were counted in."""

    key: bytes
    count: int
    started_at: Sequence[datetime]


@dataclass(frozen=True, slots=True)
class Taken:
    """What was counted: how many of the wanted requests, how many ahead, and the windows afterwards."""

    granted: int
    reserved: int
    started_at: Sequence[datetime]
    used: Sequence[int]
    counted_at: datetime


async def take(
    conn: Connection,
    key: bytes,
    taker: int,
    wanted: int,
    limits: Sequence[int],
    hold: timedelta | None,
    returned: Reserve | None,
) -> Taken | float:
    """Count up to `wanted` requests against the three limits (0 is off), and a reserve for `hold` (None: none).

    `taker` is the number of the asking process, `returned` what it has not used of its last reserve. A number
    instead of the result is the seconds for which another process still uses up a reserve: nothing was counted.
    """
    count, starts = (returned.count, returned.started_at) if returned else (0, None)
    row = await fetch_one(conn, SQL.take_rate_limit, key, taker, wanted, limits, hold, count, starts)
    assert row is not None
    if row["held_seconds"] is not None:
        return float(row["held_seconds"])
    return Taken(row["granted"], row["reserved"], row["started_at"], row["used"], row["counted_at"])


async def give_back(conn: Connection, reserves: Sequence[Reserve]) -> None:
    """Take what was not used off the windows that it was counted in, where they still run."""
    ordered = sorted(reserves, key=lambda reserve: reserve.key)
    await execute(
        conn,
        SQL.give_back_rate_limits,
        [reserve.key for reserve in ordered],
        [reserve.count for reserve in ordered],
        [start for reserve in ordered for start in reserve.started_at],
    )


async def purge(conn: Connection) -> int:
    """Remove the rows of clients that have been gone for a day; how many there were."""
    return int(await fetch_value(conn, SQL.purge_rate_limits))
