"""Scheduled tasks that keep the service going: the rescue of jobs whose worker died, and the removal of what is old.

They belong to no organisation; definer functions do the work over all of them. Each may run twice, or be left out
once, without harm.
"""

from __future__ import annotations

from datetime import timedelta

from loguru import logger

from reos.db import plain_transaction, tenant_transaction
from reos.jobs.task import TASKS, Job, Retry, failure_event, task
from reos.metrics import JOBS_LOST
from reos.queries import events, idempotency_keys, jobs, rate_limits, webhooks

HEARTBEAT_SECONDS = 5.0
# Silence after which a worker counts as dead. With the rescue's interval, it keeps the promise that a job whose
# worker died runs again within 60 s: 30 s, at most 10 s to the next rescue, and what the queue needs.
STALLED_SECONDS = 30.0
RESCUE_PRIORITY = 100  # before everything that waits

KEEP_JOBS_DAYS = 7
KEEP_FAILED_JOBS_DAYS = 30  # they can be looked at and retried
PURGE_BATCH = 10_000  # the limit in purge_jobs() and purge_webhooks()

UPKEEP_RETRY = Retry(10, 60)


@task("rescue_stalled_jobs", retry=Retry(1, 5), timeout=15, cron="* * * * * */10", priority=RESCUE_PRIORITY)
async def rescue_stalled_jobs(job: Job) -> None:
    """Queue the jobs of dead workers again; one that has used up its attempts ends as failed."""
    attempts = {name: known.retry.attempts for name, known in TASKS.items()}
    async with job.queue.acquire() as conn:
        rescued = await jobs.rescue_stalled(conn, timedelta(seconds=STALLED_SECONDS), attempts)
    for row in rescued:
        JOBS_LOST.labels(row["task"]).inc()
        outcome = "runs again" if row["is_queued"] else "has failed for good"
        if row["organization_id"] is not None and not row["is_queued"]:
            event = failure_event(row["task"], row["job_id"], "its worker died each time.")
            async with tenant_transaction(job.database, row["organization_id"]) as conn:
                await events.record_changes(conn, [], [event])
        told = (row["job_id"], row["task"], row["organization_id"], outcome, row["attempts"])
        logger.warning("Job {} ({} of organisation {}) {}: its worker died in attempt {}", *told)


@task("cleanup_idempotency_keys", retry=UPKEEP_RETRY, timeout=300, cron="7 * * * *")
async def cleanup_idempotency_keys(job: Job) -> None:
    """Remove kept answers after their 24 hours, and the counters of clients that are gone."""
    async with plain_transaction(job.database) as conn:
        keys = await idempotency_keys.purge(conn)
        counters = await rate_limits.purge(conn)
    logger.info("Removed {} idempotency keys and {} rate limit counters", keys, counters)


@task("cleanup_events", retry=UPKEEP_RETRY, timeout=300, cron="17 * * * *")
async def cleanup_events(job: Job) -> None:
    """Remove events after EVENTS_RETENTION_DAYS, and their deliveries to webhooks."""
    days = job.settings.events_retention_days
    async with plain_transaction(job.database) as conn:
        removed = await events.purge(conn, days)
    deliveries, batch = 0, PURGE_BATCH
    while batch == PURGE_BATCH:
        async with plain_transaction(job.database) as conn:
            batch = await webhooks.purge(conn, days)
        deliveries += batch
    logger.info("Removed {} events and {} deliveries", removed, deliveries)


@task("cleanup_sessions", retry=UPKEEP_RETRY, timeout=300, cron="27 * * * *")
async def cleanup_sessions(job: Job) -> None:
    """Remove ended sessions with their tokens, and jobs that ended long ago."""
    async with plain_transaction(job.database) as conn:
        sessions = await jobs.purge_sessions(conn)
    removed, batch = 0, PURGE_BATCH
    while batch == PURGE_BATCH:
        async with job.queue.acquire() as conn:
            batch = await jobs.purge(conn, KEEP_JOBS_DAYS, KEEP_FAILED_JOBS_DAYS)
        removed += batch
    logger.info("Removed {} sessions and tokens and {} jobs", sessions, removed)
