"""Sending webhooks: one job for each endpoint that has something due, which `queue_deliveries` queues with the event.

A job locks its endpoint, leases a batch of deliveries, sends them at the same time without a connection, and records
what came of each. A worker that dies leaves leases that run out, so a delivery arrives at least once. Whatever is due
and has no job (retries, lost attempts) is found by `retry_failed_webhooks`.
"""

from __future__ import annotations

import asyncio
import random
import time
from datetime import timedelta

from loguru import logger

from reos import encoding
from reos.db import Connection, Record, plain_transaction, tenant_transaction
from reos.integrations.webhooks import TIMEOUT_SECONDS, Outcome, open_secrets, signed_headers
from reos.jobs.task import JITTER, Job, Retry, task
from reos.metrics import WEBHOOK_SECONDS
from reos.queries import audit, events
from reos.queries import webhooks as queries

BATCH = 10  # deliveries at a time to an endpoint
TURN_SECONDS = 10.0  # after which a job that has more to send goes behind the others
# Three times what an attempt may take. What comes of one that takes longer still is recorded, unless another has begun.
LEASE = timedelta(seconds=3 * TIMEOUT_SECONDS)
JOB_TIMEOUT = 60.0
SWEEP_LIMIT = 500  # endpoints that one sweep wakes; the next comes soon

# An endpoint that has had no success for so long is switched off when a delivery to it fails for the fifth time or for
# the last: a single event that meets a restart of the receiver does not do it.
FAILING_FOR = timedelta(days=5)
ATTEMPTS_THAT_TELL = 5
GONE = 410


# The waits are short, because a job that waits for its next attempt holds up its lane. They are many, because deaths of
# workers and outages count as attempts too, and restarts in a row may bring some that the job has no part in.
@task("send_webhook", retry=Retry(2, 10, 30, 30, 30), timeout=JOB_TIMEOUT)
async def send_webhook(job: Job, webhook_id: int) -> None:
    """Send what is due to an endpoint."""
    ends = time.monotonic() + TURN_SECONDS
    while True:
        webhook, secrets, batch = await _take(job, webhook_id)
        if webhook is None or not batch:
            return
        sending = (_send(job, webhook, secrets, delivery) for delivery in batch)
        results = await asyncio.gather(*sending, return_exceptions=True)
        for error in filter(None, results):
            raise error
        if len(batch) < BATCH:
            return
        if time.monotonic() > ends:
            async with tenant_transaction(job.database, job.organization_id) as conn:
                await queries.wake(conn, [webhook_id])
            return


@task("retry_failed_webhooks", retry=Retry(1, 5), timeout=60, cron="* * * * * */10")
async def retry_failed_webhooks(job: Job) -> None:
    """Queue a job for every endpoint that has something due and no job."""
    async with plain_transaction(job.database) as conn:
        due = await queries.list_due(conn, SWEEP_LIMIT)
    for row in due:
        # In transactions as short as can be: events of the organisation wait for them.
        async with tenant_transaction(job.database, row["organization_id"]) as conn:
            await queries.wake(conn, [row["webhook_id"]])
    if due:
        logger.info("{} webhooks have something due", len(due))


async def _take(job: Job, webhook_id: int) -> tuple[Record | None, list[str], list[Record]]:
    """The endpoint, its secrets, and a batch of what is due; nothing for one that is switched off."""
    async with tenant_transaction(job.database, job.organization_id) as conn:
        webhook = await queries.find_locked(conn, webhook_id)
        if webhook is None or not webhook["is_active"]:
            return None, [], []
        batch = await queries.take_deliveries(conn, webhook_id, BATCH, LEASE)
        secrets = open_secrets(job.signer, await queries.read_secrets(conn, webhook_id))
    return webhook, secrets, batch


async def _send(job: Job, webhook: Record, secrets: list[str], delivery: Record) -> None:
    """One attempt, and the record of it."""
    body = encoding.dumps(queries.payload_of(delivery))
    headers = signed_headers(secrets, str(delivery["id"]), int(time.time()), body)
    outcome = await job.webhooks.post(webhook["url"], headers, body)
    async with tenant_transaction(job.database, job.organization_id) as conn:
        await _record(job, conn, delivery, outcome)


async def _record(job: Job, conn: Connection, delivery: Record, outcome: Outcome) -> None:
    is_gone = outcome.status == GONE
    next_in = None if outcome.is_success or is_gone else next_wait(job, delivery["attempts"])
    status = "delivered" if outcome.is_success else "failed" if next_in is None else "pending"
    WEBHOOK_SECONDS.labels("retry" if status == "pending" else status).observe(outcome.milliseconds / 1000)
    await queries.finish_attempt(
        conn,
        delivery,
        status,
        response_status=outcome.status,
        response_body=outcome.body,
        response_time_ms=outcome.milliseconds,
        error=outcome.error,
        next_in=next_in,
    )
    if is_gone:
        await _disable(conn, delivery["webhook_id"], "gone", None)
    elif status == "failed" or (status == "pending" and delivery["attempts"] >= ATTEMPTS_THAT_TELL):
        await _disable(conn, delivery["webhook_id"], "failing", FAILING_FOR)


def next_wait(job: Job, attempts: int) -> timedelta | None:
    """How long to wait after so many attempts that failed; None: that was the last."""
    if attempts >= job.settings.webhook_max_attempts:
        return None
    waits = job.settings.webhook_retry_seconds
    seconds = waits[min(attempts, len(waits)) - 1]
    return timedelta(seconds=seconds * (1 + JITTER * random.random()))  # noqa: S311


async def _disable(conn: Connection, webhook_id: int, reason: str, failing_for: timedelta | None) -> None:
    """Switch an endpoint off, unless it has not been failing for so long, and tell whoever created it."""
    after = await queries.disable(conn, webhook_id, reason, failing_for)
    if after is None:
        return
    before = {**after, "is_active": True, "disabled_reason": None}
    entry = events.AuditEntry(
        action="update",
        resource_type="webhook",
        resource_id=webhook_id,
        changes=audit.changed(before, after),
        user_id=None,
        ip_address=None,
        user_agent=None,
        request_id=None,
    )
    why = "its endpoint is gone (410)" if reason == "gone" else f"its endpoint has failed for {FAILING_FOR.days} days"
    message = f"The webhook {webhook_id} was switched off: {why}."
    await events.record_changes(conn, [entry], [events.notification(after["created_by"], message, "webhook_disabled")])
