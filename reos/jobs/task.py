"""What a task is: a named body with a time limit and a retry strategy. Procrastinate runs it through `make_runner`.

    @task("send_welcome_email", retry=MAIL_RETRY, timeout=90)
    async def send_welcome_email(job: Job, user_id: int) -> None: ...

The body gets the job and the ids that it was deferred with. It opens its own transactions, as short as can be
(`tenant_transaction(job.database, job.organization_id)`), and holds none while it talks to the outside. Any task may
run twice (its worker may die before the end is recorded), so what it does must bear that.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from loguru import logger
from procrastinate import BaseRetryStrategy, RetryDecision
from procrastinate.job_context import JobContext
from procrastinate.jobs import Job as QueuedJob

from reos.auth.signing import Signer
from reos.db import Database, tenant_transaction
from reos.errors import OverloadedError, ReosError
from reos.integrations.email import Mailer
from reos.integrations.sms import Texter
from reos.integrations.storage import Storage
from reos.integrations.webhooks import WebhookClient
from reos.jobs import connector
from reos.jobs.connector import AsyncpgConnector
from reos.log import set_context
from reos.metrics import JOB_SECONDS
from reos.queries import events
from reos.queries import jobs as queries
from reos.settings import Settings

OUTAGE_ATTEMPTS = 20  # that a job has in all, if it fails because Postgres is away
JITTER = 0.1  # a wait is up to so much longer, so that what failed together does not come back together


class Retry(BaseRetryStrategy):
    """So many seconds between the attempts: one attempt more than there are waits.

    An error with `temporary = False` ends the job at once. A stop of the worker is no failure: the job goes back
    into the queue, whatever attempt it was. What fails because Postgres is away has more attempts, with the last wait
    in between: that says nothing of the job, and several restarts in a row must not use it up.
    """

    def __init__(self, *waits: float):
        self.waits = waits

    @property
    def attempts(self) -> int:
        return len(self.waits) + 1

    def get_retry_decision(self, *, exception: BaseException, job: QueuedJob) -> RetryDecision | None:
        """`job.attempts` are those before this one."""
        if isinstance(exception, asyncio.CancelledError):
            return RetryDecision()
        is_outage = bool(self.waits) and isinstance(exception, connector.AWAY)
        allowed = OUTAGE_ATTEMPTS - 1 if is_outage else len(self.waits)
        if job.attempts >= allowed or not getattr(exception, "temporary", True):
            return None
        wait = self.waits[min(job.attempts, len(self.waits) - 1)] * (1 + JITTER * random.random())  # noqa: S311
        return RetryDecision(retry_in={"milliseconds": int(wait * 1000)})


DEFAULT_RETRY = Retry(5, 30, 120, 600)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parts:
    """What a worker process hands to every job. `queue` gives connections that work as `reos_jobs`."""

    settings: Settings
    database: Database
    signer: Signer
    mailer: Mailer
    texter: Texter
    storage: Storage
    webhooks: WebhookClient
    queue: AsyncpgConnector


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job(Parts):
    """One attempt of a job, with the worker's parts. `attempt` is 1 for the first."""

    id: int
    kind: str
    attempt: int
    tenant: int | None

    @property
    def organization_id(self) -> int:
        """Whose job it is. Raises LookupError for one without an organisation (schedules, look-ups)."""
        if self.tenant is None:
            raise LookupError(f"{self.kind} was deferred without an organisation")
        return self.tenant


Body = Callable[..., Awaitable[None]]


@dataclasses.dataclass(frozen=True, slots=True)
class Task:
    """A task as its module declares it. `cron` has a sixth column for seconds; None: not scheduled."""

    name: str
    body: Body
    retry: Retry
    timeout: float  # seconds
    cron: str | None
    priority: int


TASKS: dict[str, Task] = {}


def task(
    name: str,
    *,
    retry: Retry = DEFAULT_RETRY,
    timeout: float = 60,
    cron: str | None = None,
    priority: int = 0,
) -> Callable[[Body], Body]:
    """Declare a task; its name is its kind in `GET /jobs`.

    `timeout` in seconds bounds an attempt. Keep it short: long attempts hold up the worker's stop and, when they
    fill all its places, the rescue of other jobs. Work that takes longer defers its own continuation.
    `priority` counts for scheduled tasks only; the higher goes first.
    """

    def declare(body: Body) -> Body:
        if name in TASKS:
            raise ValueError(f"there are two tasks {name}")
        TASKS[name] = Task(name, body, retry, timeout, cron, priority)
        return body

    return declare


def make_runner(task: Task) -> Callable[..., Awaitable[None]]:
    """The function that Procrastinate calls with its context and the job's arguments."""

    async def run(
        context: JobContext, *, organization_id: int | None = None, timestamp: int | None = None, **ids: Any
    ) -> None:
        # The timestamp is that of a schedule; no task of ours needs it.
        parts: Parts = context.additional_context["parts"]
        given = {field.name: getattr(parts, field.name) for field in dataclasses.fields(Parts)}
        queued = context.job
        assert queued.id is not None
        job = Job(**given, id=queued.id, kind=task.name, attempt=queued.attempts + 1, tenant=organization_id)
        # Each job runs in a task of its own, so this names it on the lines of this job alone.
        set_context(organization_id=organization_id, job_id=job.id, kind=job.kind)

        def is_final(error: BaseException) -> bool:
            return task.retry.get_retry_decision(exception=error, job=queued) is None

        async with _observed(job, is_final), asyncio.timeout(task.timeout):
            await task.body(job, **ids)

    return run


@asynccontextmanager
async def _observed(job: Job, is_final: Callable[[BaseException], bool]) -> AsyncIterator[None]:
    """Log an attempt and, for an organisation's job, keep its start, end and error in `job_runs`.

    When no attempt follows a failed one, the organisation's users are told by an event.
    """
    started = time.perf_counter()
    run_id = await _start_run(job)
    try:
        yield
    except BaseException as error:
        unexpected = not isinstance(error, (ReosError, TimeoutError, asyncio.CancelledError))
        told = logger.opt(exception=error) if unexpected else logger
        told.warning("The job failed in attempt {}: {}", job.attempt, describe(error))
        is_stopped, has_failed = isinstance(error, asyncio.CancelledError), is_final(error)
        _measure(job, "stopped" if is_stopped else "failed" if has_failed else "retried", started)
        await _finish_run(job, run_id, describe(error), failed_for_good=has_failed)
        raise
    _measure(job, "done", started)
    level = "DEBUG" if job.tenant is None else "INFO"
    logger.log(level, "The job is done after {:.0f} ms", (time.perf_counter() - started) * 1000)
    await _finish_run(job, run_id, None)


def _measure(job: Job, outcome: str, started: float) -> None:
    JOB_SECONDS.labels(job.kind, outcome).observe(time.perf_counter() - started)


def describe(error: BaseException) -> str:
    """What the organisation may read of an error: nothing of the inside."""
    if isinstance(error, ReosError):
        return error.message
    if isinstance(error, asyncio.CancelledError):
        return "The worker was stopped; the job runs again."
    if isinstance(error, TimeoutError):
        return "The job took too long."
    return f"An internal error occurred ({type(error).__name__})."


def failure_event(kind: str, job_id: int, reason: str) -> events.Event:
    """What all users of the organisation are told of a job that will not run again by itself."""
    message = f"The job {job_id} ({kind}) has failed for good: {reason}"
    return events.notification(None, message, "job_failed")


async def _start_run(job: Job) -> int | None:
    if job.tenant is None:
        return None
    async with tenant_transaction(job.database, job.tenant) as conn:
        return await queries.start_run(conn, job.id, job.kind, job.attempt)


async def _finish_run(job: Job, run_id: int | None, error: str | None, *, failed_for_good: bool = False) -> None:
    """Keep the end of an attempt, with patience while Postgres is away, as the queue has for the job's own end.

    A failure here is logged only: it must not make done work run again.
    """
    if job.tenant is None or run_id is None:
        return
    for wait in (*connector.REPEAT_WAITS, None):
        try:
            await _finish_run_once(job, run_id, error, failed_for_good=failed_for_good)
            return
        except (*connector.LOST, OverloadedError) as lost:
            if wait is None:
                logger.error("The end of the job could not be kept: {}", lost)
                return
            logger.warning("The end of the job is not kept yet: {}", lost)
        except Exception:
            logger.exception("The end of the job could not be kept")
            return
        await asyncio.sleep(wait)


async def _finish_run_once(job: Job, run_id: int, error: str | None, *, failed_for_good: bool) -> None:
    async with tenant_transaction(job.database, job.organization_id) as conn:
        is_new = await queries.finish_run(conn, run_id, error)
        if is_new and failed_for_good:
            await events.record_changes(conn, [], [failure_event(job.kind, job.id, error or "")])
