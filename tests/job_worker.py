"""A worker process with tasks that tests need. `python job_worker.py DSN DATA_DIR [quick]`

With `quick`, silence counts as death after a second, and the rescue comes every second.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import signal
import sys
from pathlib import Path

from reos.db import tenant_transaction
from reos.errors import EmailServiceError
from reos.jobs import upkeep
from reos.jobs.task import TASKS, Job, Retry, task
from reos.jobs.worker import run_worker
from reos.settings import load_settings


def note(job: Job, what: str) -> None:
    """Append a line to the record of what the tests' tasks did."""
    with open(job.settings.data_dir / "notes", "a") as file:
        file.write(f"{what} {job.id} {job.attempt}\n")


@task("test_succeed")
async def succeed(job: Job) -> None:
    """Note itself."""
    note(job, "succeed")


@task("test_wait", retry=Retry(1, 1))
async def wait(job: Job) -> None:
    """Wait in the first attempt until the process dies or is stopped; succeed in the next."""
    note(job, "wait")
    if job.attempt == 1:
        await asyncio.Event().wait()


@task("test_wait_for_file")
async def wait_for_file(job: Job) -> None:
    """Succeed when there is a file `go`."""
    note(job, "wait")
    while not (job.settings.data_dir / "go").exists():
        await asyncio.sleep(0.02)


@task("test_kill", retry=Retry(1, 1))
async def kill(job: Job) -> None:
    """Kill the worker."""
    note(job, "kill")
    os.kill(os.getpid(), signal.SIGKILL)


@task("test_fail", retry=Retry(0, 0))
async def fail(job: Job) -> None:
    """Fail with an error of the inside."""
    note(job, "fail")
    raise ValueError("a secret of the inside")


@task("test_fail_for_good")
async def fail_for_good(job: Job) -> None:
    """Fail in a way that another try would not mend."""
    raise EmailServiceError("The mail server refused the mail (550).", temporary=False)


@task("test_take_too_long", retry=Retry(), timeout=0.05)
async def take_too_long(job: Job) -> None:
    """Run into the time limit."""
    await asyncio.Event().wait()


@task("test_use_tenant", retry=Retry())
async def use_tenant(job: Job, number: int) -> None:
    """Note the organisation, the argument, and how many organisations can be seen."""
    async with tenant_transaction(job.database, job.organization_id) as conn:
        visible = await conn.fetchval("select count(*) from organizations")
    note(job, f"{job.organization_id} {number} {visible}")


def main() -> None:
    dsn, data_dir = sys.argv[1], Path(sys.argv[2])
    logging.basicConfig(level=logging.INFO)
    if "quick" in sys.argv:
        upkeep.HEARTBEAT_SECONDS, upkeep.STALLED_SECONDS = 0.2, 1.0
        rescue = TASKS["rescue_stalled_jobs"]
        TASKS[rescue.name] = dataclasses.replace(rescue, cron="* * * * * *")
    asyncio.run(run_worker(load_settings(db_dsn=dsn, data_dir=data_dir, db_pool_min=1)))


if __name__ == "__main__":
    main()
