"""How a job sends a campaign: what it takes, what became of it, what is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal, TypedDict

from reos.db import Connection, Record, execute, fetch_all, fetch_one, fetch_value
from reos.queries import jobs
from reos.sql import load

SQL = load("campaign_sending")

TASK = "send_campaign"


OutcomeKind = Literal["sent", "failed", "unknown", "retry", "released"]

# What becomes of a recipient to whom nothing was handed over when the campaign has come to its end meanwhile: the job
# had been taken for dead, and nobody comes back to it.
_UNSENT = {"cancelled": "cancelled", "completed": "failed"}


class Outcome(TypedDict):
    """What became of a recipient in one attempt; `retry` after `wait` seconds; `released`: it was not tried."""

    id: int
    attempt: int
    outcome: OutcomeKind
    error: str | None
    wait: float | None
    message_id: str | None


async def defer(conn: Connection, campaign_id: int, number: int, at: datetime | None = None) -> None:
    """Queue the campaign's job with this number, for then or for now."""
    await jobs.defer(conn, TASK, {"campaign_id": campaign_id, "number": number}, scheduled_at=at)


async def lock(conn: Connection, campaign_id: int) -> Record | None:
    """What a job has to know of the campaign, which is locked until the transaction ends; None when it is purged."""
    return await fetch_one(conn, SQL.lock_sending, campaign_id)


async def give_up_taken(conn: Connection, campaign_id: int, number: int) -> None:
    """What a dead attempt of this job had in its hands is unknown now."""
    await execute(conn, SQL.give_up_taken, campaign_id, number)


async def has_got_on(conn: Connection, campaign_id: int, number: int) -> bool:
    """Whether the attempts of this job before have brought anything to an end."""
    return bool(await fetch_value(conn, SQL.has_got_on, campaign_id, number))


async def list_due(conn: Connection, campaign_id: int, limit: int, created_by: int | None) -> list[Record]:
    """The next recipients, locked, with their merge fields in a campaign of that user's."""
    return await fetch_all(conn, SQL.list_due, campaign_id, limit, created_by)


async def take(conn: Connection, message_ids: Mapping[int, str | None], number: int) -> None:
    """Take recipients for sending by the job of this number; their ids with those of their messages."""
    await execute(conn, SQL.take_recipients, list(message_ids), list(message_ids.values()), number)


async def suppress(conn: Connection, reasons: Mapping[int, str]) -> None:
    """Never write to these recipients."""
    await execute(conn, SQL.suppress_recipients, list(reasons), list(reasons.values()))


async def postpone(conn: Connection, times: Mapping[int, datetime]) -> None:
    """Write to these recipients then and not before."""
    await execute(conn, SQL.postpone_recipients, list(times), list(times.values()))


async def record(
    conn: Connection, campaign_id: int, number: int, outcomes: Sequence[Outcome], campaign_status: str
) -> Record:
    """Keep what became of recipients; how the campaign does then. The campaign must be locked."""
    await execute(conn, SQL.record_outcomes, outcomes, number, _UNSENT.get(campaign_status, "pending"))
    tried = [entry["outcome"] for entry in outcomes if entry["outcome"] in ("sent", "failed", "unknown")]
    row = await fetch_one(conn, SQL.count_tries, campaign_id, len(tried), tried.count("failed"))
    assert row is not None
    return row


async def get_rest(conn: Connection, campaign_id: int) -> Record:
    """`pending` and `sending` recipients, and `next_at`, when the next pending one is due."""
    row = await fetch_one(conn, SQL.get_rest, campaign_id)
    assert row is not None
    return row


async def reserve_pace(conn: Connection, messages: int, per_second: float) -> float:
    """In how many seconds the first of so many messages may go out."""
    return float(await fetch_value(conn, SQL.reserve_pace, messages, per_second))


async def go_on(conn: Connection, campaign_id: int, number: int, at: datetime | None = None) -> None:
    """Queue the job that follows the one of this number, unless that has been overtaken."""
    following = await fetch_value(conn, SQL.overtake, campaign_id, number)
    if following is not None:
        await defer(conn, campaign_id, following, at)


async def list_for_export(
    conn: Connection, campaign_id: int, after: int, limit: int, created_by: int | None
) -> list[Record]:
    """A batch of recipients with their merge fields in a campaign of that user's, by id."""
    return await fetch_all(conn, SQL.list_for_export, campaign_id, after, limit, created_by)
