"""The job queue against a real Postgres: deferring, running, failing, the death of workers and of connections."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import asyncpg
import job_worker
import procrastinate.schema
import pytest
from conftest import Cluster, TestDatabase
from job_queue import Queue, add_organization, job_settings, open_queue, running_worker, until
from loguru import logger
from procrastinate import exceptions
from procrastinate.jobs import Job as QueuedJob
from procrastinate.manager import JobManager

from reos.db import Connection, plain_transaction, tenant_transaction
from reos.errors import EmailServiceError
from reos.jobs import connector, upkeep, worker
from reos.jobs.app import make_app
from reos.jobs.connector import LOST, AsyncpgConnector, positional
from reos.jobs.task import TASKS, Retry, describe
from reos.queries import jobs
from reos.settings import Settings

MIGRATIONS = Path(__file__).parent.parent / "migrations"
FINISH = "select procrastinate_finish_job_v1(%(job_id)s, 'succeeded', false)"


@pytest.fixture
def settings(fresh_database: TestDatabase, tmp_path: Path) -> Settings:
    return job_settings(fresh_database, tmp_path)


@pytest.fixture
async def queue(fresh_database: TestDatabase, settings: Settings) -> AsyncIterator[Queue]:
    """The queue of a database that no other test uses."""
    async with open_queue(fresh_database, settings) as queue:
        yield queue


@dataclass
class Ears:
    """The notifications that a worker has heard; when they are closed it hears of no more."""

    heard: list[int] = field(default_factory=list)
    are_closed: bool = False

    async def have_heard(self, job_id: int) -> bool:
        return job_id in self.heard


@contextmanager
def worker_process(settings: Settings, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker in a process of its own, killed in the end if it still runs."""
    command = [sys.executable, job_worker.__file__, settings.db_dsn, str(settings.data_dir), *options]
    path = os.pathsep.join([str(MIGRATIONS.parent), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(command, cwd=settings.data_dir, env=os.environ | {"PYTHONPATH": path})
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def ended(process: subprocess.Popen[bytes], timeout: float = 20) -> int:
    """Wait for the process's end; its exit code."""
    async with asyncio.timeout(timeout):
        return await asyncio.to_thread(process.wait, timeout)


# What the tasks and migrations are


@pytest.mark.unit
def test_every_task_has_a_retry_strategy_a_timeout_and_takes_ids_only() -> None:
    app = make_app(AsyncpgConnector("postgresql://"))
    assert set(app.tasks) == set(TASKS)
    for name, registered in app.tasks.items():
        declared = TASKS[name]
        assert registered.retry_strategy is declared.retry
        assert declared.retry.attempts >= 2 or name.startswith("test_"), f"{name} is tried once only"
        assert 0 < declared.timeout <= 300
        first, *others = inspect.signature(declared.body, eval_str=True).parameters.values()
        assert first.name == "job"
        assert {parameter.annotation for parameter in others} <= {int}, f"{name} takes more than ids"


@pytest.mark.unit
def test_the_kinds_are_there() -> None:
    assert {
        "send_welcome_email",
        "send_verification_email",
        "send_password_reset_email",
        "record_failed_login",
        "cleanup_idempotency_keys",
        "cleanup_events",
        "cleanup_sessions",
        "rescue_stalled_jobs",
    } <= set(TASKS)


@pytest.mark.unit
def test_mail_is_tried_for_hours() -> None:
    for name in TASKS:
        if name.endswith("_email"):
            assert sum(TASKS[name].retry.waits) > 12 * 3600


@pytest.mark.unit
def test_the_migration_holds_the_schema_of_the_pinned_version() -> None:
    # defer_job, the rescue and the purge work on the inside of this version: look at them before it moves.
    assert version("procrastinate").startswith("3.10.")
    migration = (MIGRATIONS / "0040.procrastinate-schema.sql").read_text()
    assert procrastinate.schema.SchemaManager.get_schema().strip() in migration


@pytest.mark.unit
def test_retries_wait_a_little_longer_than_told_and_end() -> None:
    retry = Retry(10, 100)
    assert retry.attempts == 3

    def wait(attempts: int, error: BaseException) -> float | None:
        job = QueuedJob(id=1, queue="q", lock=None, queueing_lock=None, task_name="t", attempts=attempts)
        decision = retry.get_retry_decision(exception=error, job=job)
        if decision is None:
            return None
        return (decision.retry_at - datetime.now(UTC)).total_seconds() if decision.retry_at else 0

    assert 9.9 < (wait(0, ValueError()) or 0) < 11
    assert 99.9 < (wait(1, EmailServiceError()) or 0) < 110
    assert wait(2, ValueError()) is None
    assert wait(0, EmailServiceError(temporary=False)) is None
    assert wait(7, asyncio.CancelledError()) == 0, "a stop of the worker is no failure"
    for outage in (asyncpg.CannotConnectNowError(), asyncpg.InterfaceError("connection is closed")):
        assert 99.9 < (wait(2, outage) or 0) < 110
        assert wait(18, outage)
        assert wait(19, outage) is None
    assert wait(2, asyncpg.QueryCanceledError()) is None, "a statement that takes too long is the job's own matter"


@pytest.mark.unit
def test_named_parameters_become_positional() -> None:
    assert positional("select %(a)s, %(b)s::int, %(a)s") == ("select $1, $2::int, $1", ("a", "b"))
    assert positional("select 1") == ("select 1", ())


@pytest.mark.unit
def test_errors_say_nothing_of_the_inside() -> None:
    assert describe(ValueError("secret")) == "An internal error occurred (ValueError)."
    assert describe(EmailServiceError("The mail server put off the mail (450).")).endswith("(450).")


# Deferring


@pytest.mark.integration
async def test_a_job_commits_and_rolls_back_with_its_transaction(queue: Queue) -> None:
    with pytest.raises(ZeroDivisionError):
        async with tenant_transaction(queue.database, queue.organization_id) as conn:
            lost = await jobs.defer(conn, "test_succeed", {"user_id": 1})
            assert lost is not None
            raise ZeroDivisionError
    kept = await queue.defer("test_succeed", ids={"user_id": 2})
    rows = await queue.conn.fetch("select id, args, status from procrastinate_jobs")
    assert [tuple(row) for row in rows] == [
        (kept, {"user_id": 2, "organization_id": queue.organization_id}, "todo"),
    ]


@pytest.mark.integration
async def test_the_tenant_is_the_transactions_and_no_other(queue: Queue) -> None:
    forged = await queue.defer("test_succeed", ids={"organization_id": 1})
    async with plain_transaction(queue.database) as conn:
        nobodys = await jobs.defer(conn, "test_succeed", {"organization_id": 1})
    assert nobodys is not None
    assert (await queue.job(forged))["args"] == {"organization_id": queue.organization_id}
    assert (await queue.job(nobodys))["args"] == {"organization_id": None}


@pytest.mark.integration
@pytest.mark.parametrize("value", ["ann@example.org", [1], {"a": 1}])
async def test_arguments_are_ids(queue: Queue, value: object) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError):
        await queue.defer("test_succeed", ids={"value": value})


@pytest.mark.integration
async def test_one_job_waits_under_a_queueing_lock(queue: Queue) -> None:
    at = datetime(2100, 1, 1, tzinfo=UTC)
    async with tenant_transaction(queue.database, queue.organization_id) as conn:
        first = await jobs.defer(conn, "test_succeed", {}, queueing_lock="one", lock="l", queue="q", scheduled_at=at)
        assert first is not None
        assert await jobs.defer(conn, "test_succeed", {}, queueing_lock="one") is None
        last = await jobs.defer(conn, "test_succeed", {})
        assert last is not None, "the transaction goes on"
    job = await queue.job(first)
    assert (job["queueing_lock"], job["lock"], job["queue_name"], job["scheduled_at"]) == ("one", "l", "q", at)
    assert (await queue.job(last))["status"] == "todo"


@pytest.mark.integration
async def test_each_role_reaches_its_own_only(queue: Queue, settings: Settings) -> None:
    for statement in (
        "select * from procrastinate.procrastinate_jobs",
        "select rescue_stalled_jobs('1 s', '{}', '{}')",
        "select purge_jobs(1, 1)",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with plain_transaction(queue.database) as conn:
                await conn.fetch(statement)
    async with jobs_connection(settings) as conn:
        assert await conn.fetchval("select current_user") == "reos_jobs"
        for table in ("users", "job_runs", "organizations"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await conn.fetch(f"select * from public.{table}")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await jobs.defer(conn, "test_succeed", {})


@pytest.mark.integration
async def test_procrastinates_own_deferring_works_on_a_connection_and_in_its_transaction(
    queue: Queue, settings: Settings
) -> None:
    own = AsyncpgConnector(settings.db_dsn)
    app = make_app(own)
    async with app.open_async():
        task = app.tasks["test_succeed"]
        kept = await task.defer_async(organization_id=queue.organization_id)
        assert (await queue.job(kept))["args"] == {"organization_id": queue.organization_id}
        async with own.acquire() as conn:
            transaction = conn.transaction()
            await transaction.start()
            lost = await task.configure(connection=conn, queueing_lock="x").defer_async()
            await transaction.rollback()
        assert await queue.conn.fetchval("select count(*) from procrastinate_jobs where id = $1", lost) == 0
        await task.configure(queueing_lock="x").defer_async()
        with pytest.raises(exceptions.AlreadyEnqueued):
            await task.configure(queueing_lock="x").defer_async()
        assert await app.check_connection_async()
    with pytest.raises(exceptions.AppNotOpen):
        await task.defer_async()


@pytest.mark.integration
async def test_health_counts_what_could_run_now(queue: Queue) -> None:

    async def health() -> tuple[int, int, float]:
        async with plain_transaction(queue.database) as conn:
            return tuple(await jobs.job_health(conn))

    assert await health() == (0, 0, 0)
    await queue.defer("test_succeed", scheduled_at=datetime.now(UTC) + timedelta(hours=1))
    assert await health() == (0, 0, 0)
    await queue.add_running("test_succeed", silent_for=1)
    await queue.add_running("test_succeed", silent_for=31)
    assert await health() == (1, 0, 0)
    await queue.defer("test_succeed")
    job_id = await queue.defer("test_succeed")
    await queue.conn.execute("update procrastinate_events set at = at - interval '1 minute'")
    assert await health() == (1, 2, pytest.approx(60, abs=5))
    await queue.defer("test_succeed", scheduled_at=datetime.now(UTC) - timedelta(hours=1))
    assert await health() == (1, 3, pytest.approx(3600, abs=5))
    await queue.conn.execute("update procrastinate_jobs set status = 'cancelled' where id <> $1", job_id)
    assert (await health())[1] == 1


# Running


@pytest.mark.integration
async def test_a_job_runs_at_once_for_its_organisation_alone(queue: Queue, settings: Settings) -> None:
    async with running_worker(settings):
        await until(lambda: listens(queue))
        other = await add_organization(queue.database)
        before = datetime.now(UTC)
        job_id = await queue.defer("test_use_tenant", ids={"number": 7})
        others = await queue.defer("test_use_tenant", other, ids={"number": 8})
        job = await queue.until(job_id, "succeeded", timeout=worker.POLL_SECONDS - 1)
        await queue.until(others, "succeeded")
        assert job["attempts"] == 1
        assert set(queue.notes()) == {f"{queue.organization_id} 7 1 {job_id} 1", f"{other} 8 1 {others} 1"}
        (run,) = await queue.runs(job_id)
        assert (run["organization_id"], run["kind"], run["attempt"], run["error"]) == (
            queue.organization_id,
            "test_use_tenant",
            1,
            None,
        )
        assert before < run["started_at"] < run["finished_at"]


@pytest.mark.integration
async def test_jobs_run_on_the_oldest_postgres(postgres_15: Cluster, tmp_path: Path) -> None:
    with postgres_15.database() as database:
        settings = job_settings(database, tmp_path)
        async with open_queue(database, settings) as queue, running_worker(settings):
            dead = await queue.add_running("test_succeed", silent_for=31)
            await rescue(settings)
            await queue.until(await queue.defer("test_succeed"), "succeeded")
            await queue.until(dead, "succeeded")


async def listens(queue: Queue) -> bool:
    """Whether the worker's listening connection is there."""
    return bool(await listeners(queue))


async def listeners(queue: Queue) -> list[int]:
    rows = await queue.service.fetch(
        "select pid from pg_stat_activity where datname = current_database() and query ilike 'listen%'"
    )
    return [row["pid"] for row in rows]


@pytest.mark.integration
async def test_a_job_without_an_organisation_keeps_no_runs(queue: Queue, settings: Settings) -> None:
    async with running_worker(settings):
        async with plain_transaction(queue.database) as conn:
            fine = await jobs.defer(conn, "test_succeed", {})
            lost = await jobs.defer(conn, "test_use_tenant", {"number": 1})
        assert fine is not None and lost is not None
        await queue.until(fine, "succeeded")
        await queue.until(lost, "failed")
        assert await queue.conn.fetchval("select count(*) from job_runs") == 0


@pytest.mark.integration
@pytest.mark.parametrize(
    ("task", "attempts", "error"),
    [
        ("test_fail", 3, "An internal error occurred (ValueError)."),
        ("test_fail_for_good", 1, "The mail server refused the mail (550)."),
        ("test_take_too_long", 1, "The job took too long."),
    ],
)
async def test_a_failing_job_ends_after_its_attempts(
    queue: Queue, settings: Settings, task: str, attempts: int, error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "POLL_SECONDS", 0.1)
    async with running_worker(settings):
        job_id = await queue.defer(task)
        assert (await queue.until(job_id, "failed"))["attempts"] == attempts
        runs = await queue.runs(job_id)
        assert [run["attempt"] for run in runs] == list(range(1, attempts + 1))
        assert {run["error"] for run in runs} == {error}
        assert all(run["finished_at"] for run in runs)


@pytest.mark.integration
async def test_a_retry_gives_way_to_a_job_that_waits_under_its_queueing_lock(
    queue: Queue, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(worker, "GRACE_SECONDS", 0.1)
    async with running_worker(settings):
        first = await queue.defer("test_wait", queueing_lock="one")
        await queue.until_noted(f"wait {first} 1")
        second = await queue.defer("test_succeed", queueing_lock="one", lock="two")
        await queue.until(second, "succeeded")
        third = await queue.defer("test_succeed", queueing_lock="one", scheduled_at=datetime(2100, 1, 1, tzinfo=UTC))
    assert (await queue.job(first))["status"] == "todo"
    assert (await queue.job(third))["status"] == "todo"


@pytest.fixture
def ears(monkeypatch: pytest.MonkeyPatch) -> Ears:
    """What the worker hears, which does not look into the queue by itself."""
    ears = Ears()
    monkeypatch.setattr(worker, "POLL_SECONDS", 3600)
    handle = worker.WakefulWorker._handle_notification

    async def hear(self: worker.WakefulWorker, **options: Any) -> None:
        if not ears.are_closed:
            await handle(self, **options)
            ears.heard.append(options["notification"]["job_id"])

    monkeypatch.setattr(worker.WakefulWorker, "_handle_notification", hear)
    return ears


@pytest.mark.integration
async def test_who_waits_for_a_lock_runs_when_it_is_free(queue: Queue, settings: Settings, ears: Ears) -> None:
    async with running_worker(settings):
        first = await queue.defer("test_wait_for_file", lock="one")
        await queue.until_noted(f"wait {first} 1")
        others = [await queue.defer("test_succeed", lock="one") for _ in range(3)]
        free = await queue.defer("test_succeed")
        await queue.until(free, "succeeded")
        assert {(await queue.job(job_id))["status"] for job_id in others} == {"todo"}
        ears.are_closed = True
        (settings.data_dir / "go").touch()
        for job_id in others:
            await queue.until(job_id, "succeeded")


@pytest.mark.integration
async def test_a_job_that_comes_while_the_queue_is_looked_at_is_not_overlooked(
    queue: Queue, settings: Settings, ears: Ears, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = JobManager.fetch_job
    come: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def look(manager: JobManager, **options: Any) -> QueuedJob | None:
        """A look that sees nothing, and before the end of which the worker hears of a job, and then nothing more."""
        found = await fetch(manager, **options)
        if found is None and not come.done():
            job_id = await queue.defer("test_succeed")
            await until(lambda: ears.have_heard(job_id))
            ears.are_closed = True
            come.set_result(job_id)
        return found

    monkeypatch.setattr(JobManager, "fetch_job", look)
    async with running_worker(settings):
        await queue.until(await asyncio.wait_for(come, 15), "succeeded")


@pytest.mark.integration
async def test_a_stopped_worker_gives_its_jobs_back(
    queue: Queue, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "GRACE_SECONDS", 0.1)
    async with running_worker(settings):
        job_id = await queue.defer("test_wait")
        await queue.until_noted(f"wait {job_id} 1")
    assert (await queue.job(job_id))["status"] == "todo"
    assert await queue.workers() == set()
    (run,) = await queue.runs(job_id)
    assert run["error"] == "The worker was stopped; the job runs again."
    async with running_worker(settings):
        await queue.until(job_id, "succeeded")


@pytest.mark.integration
async def test_sigterm_ends_a_worker_process_in_time(queue: Queue, settings: Settings) -> None:
    with worker_process(settings) as process:
        job_id = await queue.defer("test_succeed")
        await queue.until(job_id, "succeeded")
        process.send_signal(signal.SIGTERM)
        assert await ended(process, timeout=5) == 0
    assert await queue.workers() == set()


# Death


@pytest.mark.integration
async def test_the_job_of_a_killed_worker_runs_again(queue: Queue, settings: Settings) -> None:
    with worker_process(settings, "quick") as process:
        job_id = await queue.defer("test_wait", lock="one")
        await queue.until_noted(f"wait {job_id} 1")
        process.kill()
    successor = await queue.defer("test_succeed", lock="one")
    with worker_process(settings, "quick"):
        assert (await queue.until(job_id, "succeeded"))["attempts"] == 2
        await queue.until(successor, "succeeded")
    first, second = await queue.runs(job_id)
    assert (first["attempt"], first["error"]) == (1, "The worker ended while the job ran.")
    assert (second["attempt"], second["error"]) == (2, None)
    assert first["finished_at"] <= second["started_at"]


@pytest.mark.slow
async def test_the_job_of_a_killed_worker_runs_again_within_a_minute(queue: Queue, settings: Settings) -> None:
    with worker_process(settings) as process:
        job_ids = [await queue.defer("test_wait") for _ in range(8)]
        for job_id in job_ids:
            await queue.until_noted(f"wait {job_id} 1")
        (worker_id,) = await queue.workers()
        assert {(await queue.job(job_id))["worker_id"] for job_id in job_ids} == {worker_id}
        with worker_process(settings):
            await until(lambda: both_run(queue))
            process.kill()
            again = sorted(f"wait {job_id} 2" for job_id in job_ids)
            await until(lambda: have_run_again(queue, again), timeout=60)
            for job_id in job_ids:
                assert (await queue.until(job_id, "succeeded"))["attempts"] == 2


async def both_run(queue: Queue) -> bool:
    return len(await queue.workers()) == 2


async def have_run_again(queue: Queue, again: list[str]) -> bool:
    """Whether each did, and none of them twice."""
    return sorted(queue.notes()[len(again) :]) == again


@pytest.mark.integration
async def test_a_job_that_always_kills_its_worker_fails_after_its_attempts(queue: Queue, settings: Settings) -> None:
    job_id = await queue.defer("test_kill")
    for attempt in (1, 2, 3):
        with worker_process(settings, "quick") as process:
            assert await ended(process) == -signal.SIGKILL
        assert queue.notes()[-1] == f"kill {job_id} {attempt}"
    with worker_process(settings, "quick"):
        assert (await queue.until(job_id, "failed"))["attempts"] == 3
        await queue.until(await queue.defer("test_succeed"), "succeeded")
    assert len([line for line in queue.notes() if line.startswith("kill")]) == 3
    assert [run["error"] for run in await queue.runs(job_id)] == ["The worker ended while the job ran."] * 3


async def rescue(settings: Settings, after: float = 30) -> list[asyncpg.Record]:
    async with jobs_connection(settings) as conn:
        return await jobs.rescue_stalled(conn, timedelta(seconds=after), {"test_wait": 3, "test_kill": 1})


@asynccontextmanager
async def jobs_connection(settings: Settings) -> AsyncIterator[Connection]:
    """A connection that works as reos_jobs."""
    async with opened(AsyncpgConnector(settings.db_dsn)) as own, own.acquire() as conn:
        yield conn


@asynccontextmanager
async def opened(own: AsyncpgConnector) -> AsyncIterator[AsyncpgConnector]:
    """A connector with its pool."""
    await own.open_async()
    try:
        yield own
    finally:
        await own.close_async()


@pytest.mark.integration
async def test_the_rescue_takes_the_jobs_of_the_dead_alone(queue: Queue, settings: Settings) -> None:
    living = await queue.add_running("test_wait", silent_for=29)
    silent = await queue.add_running("test_wait", silent_for=31, queueing_lock="one")
    gone = await queue.add_running("test_wait", silent_for=None, queueing_lock="one")
    last = await queue.add_running("test_wait", silent_for=31, attempts=2)
    only = await queue.add_running("test_kill", silent_for=31)
    unknown = await queue.add_running("of_another_version", silent_for=31)
    aborted = await queue.add_running("test_wait", silent_for=31, abort_requested=True)
    waiting = await queue.defer("test_wait", queueing_lock="one")
    rescued = await rescue(settings)
    assert {row["job_id"]: row["is_queued"] for row in rescued} == {
        silent: True,
        gone: True,
        last: False,
        only: False,
        unknown: True,
        aborted: False,
    }
    assert {row["organization_id"] for row in rescued} == {queue.organization_id}
    found = {row["id"]: row["status"] for row in await queue.conn.fetch("select id, status from procrastinate_jobs")}
    assert found == {
        living: "doing",
        silent: "todo",
        gone: "todo",
        last: "failed",
        only: "failed",
        unknown: "todo",
        aborted: "aborted",
        waiting: "todo",
    }
    assert await queue.workers() == {(await queue.job(living))["worker_id"]}
    assert await rescue(settings) == []


@pytest.mark.integration
async def test_two_rescuers_do_not_put_a_job_back_twice(queue: Queue, settings: Settings) -> None:
    for _ in range(5):
        job_ids = [await queue.add_running("test_wait", silent_for=31) for _ in range(20)]
        results = await asyncio.gather(*(rescue(settings) for _ in range(4)))
        rescued = [row["job_id"] for rows in results for row in rows]
        assert sorted(rescued) == job_ids
    attempts = await queue.conn.fetch("select attempts from procrastinate_jobs")
    assert {row["attempts"] for row in attempts} == {1}


@pytest.mark.integration
async def test_a_schedule_is_kept_once_by_several_workers(queue: Queue, settings: Settings) -> None:
    with worker_process(settings, "quick"), worker_process(settings, "quick"):
        await until(lambda: ran_often(queue))
    rows = await queue.conn.fetch("select args from procrastinate_jobs where task_name = 'rescue_stalled_jobs'")
    times = [row["args"]["timestamp"] for row in rows]
    assert len(times) == len(set(times))


async def ran_often(queue: Queue) -> bool:
    count = await queue.conn.fetchval(
        "select count(*) from procrastinate_jobs where task_name = 'rescue_stalled_jobs' and status = 'succeeded'"
    )
    return bool(count >= 4)


# Lost connections


async def cut(queue: Queue, condition: str = "true") -> int:
    """End the service's connections, as a restart of Postgres or a broken network does; how many there were."""
    return int(
        await queue.service.fetchval(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = current_database()"
            f" and usename = current_user and pid <> pg_backend_pid() and {condition}"
        )
    )


@pytest.mark.integration
async def test_the_listening_connection_comes_back(queue: Queue, settings: Settings) -> None:
    async with running_worker(settings):
        await until(lambda: listens(queue))
        before = await listeners(queue)
        assert await cut(queue, "query ilike 'listen%'") == 1

        async def is_another() -> bool:
            return bool(set(await listeners(queue)) - set(before))

        await until(is_another)
        job_id = await queue.defer("test_succeed")
        await queue.until(job_id, "succeeded", timeout=worker.POLL_SECONDS - 1)


@pytest.mark.integration
async def test_the_worker_outlives_lost_connections_and_no_job_is_lost(
    queue: Queue, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(upkeep, "STALLED_SECONDS", 1.0)
    monkeypatch.setattr(upkeep, "HEARTBEAT_SECONDS", 0.2)
    async with running_worker(settings) as task:
        # Outages are borne by a worker that runs, not by one that is still starting.
        await queue.until(await queue.defer("test_succeed"), "succeeded")
        job_ids = []
        for _ in range(10):
            async with asyncio.timeout(10):
                while len(job_ids) % 20 < 19:
                    try:
                        job_ids.append(await queue.defer("test_succeed"))
                    except LOST:
                        continue
            job_ids.append(0)
            await cut(queue)
        deferred = {row["id"] for row in await queue.conn.fetch("select id from procrastinate_jobs")}
        assert {job_id for job_id in job_ids if job_id} <= deferred

        async def all_done() -> bool:
            # The schedule's next rescue may be 20 s away; this test is about what it finds.
            await rescue(settings.model_copy())
            return not await queue.conn.fetchval(
                "select count(*) from procrastinate_jobs where task_name = 'test_succeed' and status <> 'succeeded'"
            )

        await until(all_done, timeout=60)
        assert not task.done()


@pytest.mark.integration
async def test_a_write_is_repeated_until_postgres_is_back_or_told_lost(
    queue: Queue, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[bool] = []
    job_id = await queue.defer("test_succeed")
    async with opened(AsyncpgConnector(settings.db_dsn, on_lost=lambda: told.append(True))) as own:
        await allow_connections(queue, False)
        await cut(queue)
        write = asyncio.create_task(own.execute_query_async(FINISH, job_id=job_id))
        done, _ = await asyncio.wait({write}, timeout=0.2)
        assert not done
        await allow_connections(queue, True)
        await write
        assert (await queue.job(job_id))["status"] == "succeeded"
        with pytest.raises(exceptions.ConnectorException):
            await own.execute_query_async(FINISH, job_id=job_id)
        assert not told, "only an outage is a loss"
        monkeypatch.setattr(connector, "REPEAT_WAITS", (0.01, 0.01))
        await allow_connections(queue, False)
        await cut(queue)
        with pytest.raises(exceptions.ConnectorException):
            await own.execute_query_async("select 1")
        assert told == [True]
    await allow_connections(queue, True)


class Forgetful(AsyncpgConnector):
    """Loses the answer to its first query, after it was done."""

    has_forgotten = False

    async def execute_query_all_async(self, query: str, **arguments: object) -> list[dict[str, object]]:
        rows = await super().execute_query_all_async(query, **arguments)
        if not self.has_forgotten:
            self.has_forgotten = True
            raise exceptions.ConnectorException from ConnectionResetError()
        return rows


@pytest.mark.integration
async def test_a_write_whose_answer_was_lost_counts_as_done(queue: Queue, settings: Settings) -> None:
    job_id = await queue.defer("test_succeed")
    async with opened(Forgetful(settings.db_dsn)) as own:
        await own.execute_query_async(FINISH, job_id=job_id)
    assert (await queue.job(job_id))["status"] == "succeeded"


@pytest.mark.integration
async def test_after_an_outage_the_worker_starts_anew_and_runs_again_what_it_could_not_end(
    queue: Queue, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connector, "REPEAT_WAITS", (0.01,))
    monkeypatch.setattr(worker, "GRACE_SECONDS", 0.1)
    monkeypatch.setattr(upkeep, "HEARTBEAT_SECONDS", 0.2)

    lines: list[str] = []
    log = logger.add(lines.append)

    async def is_lost() -> bool:
        return any("The worker lost its database" in line for line in lines)

    async def is_another() -> bool:
        return bool(await queue.workers() - before)

    async with running_worker(settings):
        job_id = await queue.defer("test_wait")
        await queue.until_noted(f"wait {job_id} 1")
        before = await queue.workers()
        await allow_connections(queue, False)
        await cut(queue)
        await until(is_lost)
        await allow_connections(queue, True)
        await until(is_another)
        assert (await queue.job(job_id))["status"] == "doing"
        await rescue(settings, after=0.5)
        await queue.until(job_id, "succeeded")
    logger.remove(log)


@pytest.mark.integration
async def test_an_attempt_whose_beginning_was_lost_is_ended_by_the_next(queue: Queue, settings: Settings) -> None:
    job_id = await queue.defer("test_succeed")
    await queue.conn.execute(
        "insert into job_runs (organization_id, job_id, kind, attempt) values ($1, $2, 'test_succeed', 1)",
        queue.organization_id,
        job_id,
    )
    async with running_worker(settings):
        await queue.until(job_id, "succeeded")
    lost, done = await queue.runs(job_id)
    assert lost["error"] == "The database was lost when the attempt began."
    assert done["error"] is None
    assert None not in (lost["finished_at"], done["finished_at"])


@pytest.mark.integration
async def test_the_end_of_an_attempt_is_kept_once_postgres_is_back(queue: Queue, settings: Settings) -> None:
    lines: list[str] = []
    log = logger.add(lines.append)

    async def is_put_off() -> bool:
        return any("The end of the job is not kept yet" in line for line in lines)

    async with running_worker(settings):
        job_id = await queue.defer("test_wait_for_file")
        await queue.until_noted(f"wait {job_id} 1")
        await allow_connections(queue, False)
        await cut(queue)
        (settings.data_dir / "go").touch()
        await until(is_put_off)
        await allow_connections(queue, True)
        await queue.until(job_id, "succeeded")
    (run,) = await queue.runs(job_id)
    assert run["finished_at"] is not None
    assert run["error"] is None
    logger.remove(log)


async def allow_connections(queue: Queue, is_allowed: bool) -> None:
    """Whether anybody may connect to the database (who is connected stays)."""
    name = await queue.conn.fetchval("select current_database()")
    await queue.conn.execute("reset role")
    await queue.conn.execute(f'alter database "{name}" connection limit {-1 if is_allowed else 0}')
    await queue.conn.execute("set role reos_owner")


# Upkeep


@pytest.mark.integration
async def test_old_jobs_go_and_failed_ones_stay_longer(queue: Queue, settings: Settings) -> None:
    kept, gone = [], []
    for days, status, tenant, is_kept in (
        (6, "succeeded", True, True),
        (8, "succeeded", True, False),
        (8, "failed", True, True),
        (31, "failed", True, False),
        (8, "todo", True, True),
        (8, "doing", True, True),
        (2, "succeeded", False, False),
        (0, "succeeded", False, True),
    ):
        if tenant:
            job_id = await queue.defer("test_succeed")
            async with tenant_transaction(queue.database, queue.organization_id) as conn:
                await jobs.start_run(conn, job_id, "test_succeed", 1)
        else:
            async with plain_transaction(queue.database) as conn:
                job_id = await jobs.defer(conn, "test_succeed", {}) or 0
        await queue.conn.execute(
            "update procrastinate_jobs set status = $2::text::procrastinate_job_status where id = $1", job_id, status
        )
        age = timedelta(days=days)
        await queue.conn.execute(
            "update procrastinate_events set at = at - $2::interval where job_id = $1", job_id, age
        )
        await queue.conn.execute(
            "update job_runs set started_at = started_at - $2::interval where job_id = $1", job_id, age
        )
        (kept if is_kept else gone).append(job_id)
    async with running_worker(settings):
        async with plain_transaction(queue.database) as conn:
            for name in ("cleanup_sessions", "cleanup_events", "cleanup_idempotency_keys"):
                job_id = await jobs.defer(conn, name, {})
                assert job_id is not None
                kept.append(job_id)
        for job_id in kept[-3:]:
            await queue.until(job_id, "succeeded")
    left = {row["id"] for row in await queue.conn.fetch("select id from procrastinate_jobs")}
    assert left & {*kept, *gone} == set(kept)  # The worker has deferred others by itself.
    runs = {row["job_id"] for row in await queue.conn.fetch("select job_id from job_runs")}
    assert runs <= left
    assert runs


@pytest.mark.integration
async def test_a_job_that_is_retried_while_it_would_be_purged_stays(queue: Queue, settings: Settings) -> None:
    job_id = await queue.defer("test_succeed")
    await queue.conn.execute("update procrastinate_jobs set status = 'failed' where id = $1", job_id)
    await queue.conn.execute("update procrastinate_events set at = at - interval '31 days' where job_id = $1", job_id)
    async with jobs_connection(settings) as conn:
        async with tenant_transaction(queue.database, queue.organization_id) as retrying:
            await jobs.retry(retrying, job_id)
            purging = asyncio.create_task(jobs.purge(conn, 7, 30))
            await until(lambda: _is_done_or_waits(queue, purging))
        await purging
    assert (await queue.job(job_id))["status"] == "todo"


async def _is_done_or_waits(queue: Queue, task: asyncio.Task[int]) -> bool:
    return task.done() or bool(await queue.conn.fetchval("select exists (select from pg_locks where not granted)"))


@pytest.mark.integration
async def test_jobs_are_never_purged_within_a_day(queue: Queue, settings: Settings) -> None:
    async with jobs_connection(settings) as conn:
        for days in ((0, 30), (7, 0)):
            with pytest.raises(asyncpg.RaiseError):
                await jobs.purge(conn, *days)
