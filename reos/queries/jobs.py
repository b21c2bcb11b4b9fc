"""Jobs: deferring them in the caller's transaction, the record of their runs, and what they look up."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from reos.db import Connection, Record, execute, fetch_all, fetch_existing, fetch_one, fetch_value
from reos.errors import BusinessLogicError
from reos.queries.listing import Listing, PageRequest, Rows, SortKey
from reos.sql import load

SQL = load("jobs")

MAX_ERROR_LENGTH = 500  # characters that job_runs keeps

# The rows come from functions, so only the sort keys of a listing are of use: ids count in the order of creation.
LISTING = Listing(table="", alias="j", columns="", sort_keys={"created_at": SortKey("j.id")}, filters={})


async def defer(
    conn: Connection,
    task: str,
    args: Mapping[str, int],
    *,
    queue: str = "default",
    queueing_lock: str | None = None,
    lock: str | None = None,
    scheduled_at: datetime | None = None,
) -> int | None:
    """Put a job into the queue when the caller's transaction commits, for the transaction's organisation.

    `args` are ids (numbers), never a text: the queue keeps them for days. No two jobs wait under the same
    `queueing_lock`: None instead of the job's id when one does already. No two jobs run under the same `lock`.
    A transaction that takes a `queueing_lock` makes others that want it wait for its end, so defer last.
    """
    job_id = await fetch_value(conn, SQL.defer_job, task, queue, dict(args), lock, queueing_lock, scheduled_at)
    return None if job_id is None else int(job_id)


async def job_health(conn: Connection) -> Record:
    """`workers` alive, `queued` jobs that could run now, and `oldest_seconds`, how long the oldest has waited."""
    row = await fetch_one(conn, SQL.get_job_health)
    assert row is not None
    return row


async def get_backlog(conn: Connection) -> Record:
    """What `job_health` tells, and the jobs that are `scheduled` for later, `running` and `failed`.

    `running_oldest_seconds` is how long the oldest attempt has been under way.
    """
    row = await fetch_one(conn, SQL.get_job_backlog)
    assert row is not None
    return row


async def start_run(conn: Connection, job_id: int, kind: str, attempt: int) -> int:
    """Record that an attempt of the tenant's job begins; the id of its run."""
    return int(await fetch_value(conn, SQL.start_job_run, job_id, kind, attempt))


async def finish_run(conn: Connection, run_id: int, error: str | None) -> bool:
    """Record that an attempt has ended, well when `error` is None; False when its end was recorded before.

    The organisation may read the error.
    """
    return await fetch_value(conn, SQL.finish_job_run, run_id, error and error[:MAX_ERROR_LENGTH]) is not None


async def rescue_stalled(conn: Connection, after: timedelta, attempts: Mapping[str, int]) -> list[Record]:
    """Queue the jobs of workers silent for so long again, or end them as failed after their attempts.

    `attempts` says for each task how often it may run. Runs as `reos_jobs`. The rows tell which jobs it was.
    """
    return await fetch_all(conn, SQL.rescue_stalled_jobs, after, list(attempts), list(attempts.values()))


async def purge(conn: Connection, days: int, failed_days: int) -> int:
    """Remove a batch of jobs that ended long ago; how many there were. Runs as `reos_jobs`."""
    return int(await fetch_value(conn, SQL.purge_jobs, days, failed_days))


async def purge_sessions(conn: Connection) -> int:
    """Remove ended sessions and what belongs to them, of all organisations; how many rows there were."""
    return int(await fetch_value(conn, SQL.purge_sessions))


async def take_lookup(conn: Connection, lookup_id: int) -> Record | None:
    """What is to be done about an address, and whose it is (`user_id` null: nobody's); None once it is finished."""
    return await fetch_one(conn, SQL.take_address_lookup, lookup_id)


async def finish_lookup(conn: Connection, lookup_id: int) -> None:
    """Forget the address: its work is done."""
    await execute(conn, SQL.finish_address_lookup, lookup_id)


async def get_addressee(conn: Connection, user_id: int) -> Record | None:
    """The tenant's user as a mail needs it; `is_active` is false also when the organisation is not active."""
    return await fetch_one(conn, SQL.get_addressee, user_id)


async def get_former_addresses(conn: Connection, user_id: int) -> list[str]:
    """The addresses that the tenant's user had before the last change, and before others within the hour before it."""
    return [row["email"] for row in await fetch_all(conn, SQL.get_former_addresses, user_id)]


async def list_jobs(
    conn: Connection, page: PageRequest, kind: str | None, state: str | None, since: datetime | None
) -> Rows:
    """A page of the tenant's jobs; `since` is when something last happened to them."""
    _, is_descending = page.sort[0]
    before_or_after = page.after[-1] if page.after else None
    found = await fetch_all(
        conn,
        SQL.list_jobs,
        kind,
        state,
        since,
        before_or_after if is_descending else None,
        None if is_descending else before_or_after,
        is_descending,
        page.limit + 1,
        0 if page.after else page.offset,
        page.include_total,
    )
    items = [dict(row) for row in found]
    totals = [item.pop("total") for item in items]
    total = totals[0] if totals else None
    if page.include_total and not found:
        total = await fetch_value(conn, SQL.count_jobs, kind, state, since)
    last_id = items[page.limit - 1]["id"] if len(items) > page.limit else None
    return Rows(items[: page.limit], None if last_id is None else (last_id, last_id), total)


async def get(conn: Connection, job_id: int) -> Record:
    """The tenant's job. Raises ResourceNotFoundError."""
    return await fetch_existing(conn, SQL.get_job, job_id)


async def retry(conn: Connection, job_id: int) -> Record:
    """Queue a failed job again. Raises ResourceNotFoundError, or BusinessLogicError for a job that has not failed."""
    is_queued = await fetch_value(conn, SQL.retry_job, job_id)
    job = await get(conn, job_id)
    if not is_queued:
        raise BusinessLogicError("Only a failed job can be retried.")
    return job
