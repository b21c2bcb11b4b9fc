"""What tests of jobs share: the queue as its owner sees it, and a worker in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
from conftest import TestDatabase

from reos.db import Database, plain_transaction, prepare_connection, tenant_transaction
from reos.jobs.worker import run_worker
from reos.queries import jobs
from reos.settings import Settings


class Queue:
    """The queue as its owner sees and changes it, the database's pool for deferring, and one organisation.

    `service` works as the service's log-in, which alone sees and ends the service's connections.
    """

    def __init__(
        self,
        conn: asyncpg.Connection,
        service: asyncpg.Connection,
        database: Database,
        organization_id: int,
        settings: Settings,
    ):
        self.conn = conn
        self.service = service
        self.database = database
        self.organization_id = organization_id
        self.settings = settings

    async def defer(self, task: str, organization_id: int | None = None, **options: Any) -> int:
        """Defer a job for an organisation (by default the one) and commit."""
        ids = options.pop("ids", {})
        async with tenant_transaction(self.database, organization_id or self.organization_id) as conn:
            job_id = await jobs.defer(conn, task, ids, **options)
        assert job_id is not None
        return job_id

    async def job(self, job_id: int) -> asyncpg.Record:
        row = await self.conn.fetchrow("select * from procrastinate_jobs where id = $1", job_id)
        assert row is not None
        return row

    async def until(self, job_id: int, status: str, timeout: float = 15) -> asyncpg.Record:
        """Wait until the job stands so."""
        async with asyncio.timeout(timeout):
            while (row := await self.job(job_id))["status"] != status:
                await asyncio.sleep(0.02)
        return row

    async def until_attempts(self, job_id: int, attempts: int, timeout: float = 15) -> asyncpg.Record:
        """Wait until the job is back in the queue after so many attempts."""
        async with asyncio.timeout(timeout):
            while (row := await self.job(job_id))["attempts"] != attempts or row["status"] != "todo":
                await asyncio.sleep(0.02)
        return row

    async def until_noted(self, line: str, timeout: float = 15) -> None:
        """Wait until a task has noted the line."""
        async with asyncio.timeout(timeout):
            while line not in self.notes():
                await asyncio.sleep(0.02)

    def notes(self) -> list[str]:
        path = self.settings.data_dir / "notes"
        return path.read_text().splitlines() if path.exists() else []

    async def runs(self, job_id: int) -> list[asyncpg.Record]:
        return await self.conn.fetch("select * from job_runs where job_id = $1 order by id", job_id)

    async def workers(self) -> set[int]:
        return {row["id"] for row in await self.conn.fetch("select id from procrastinate_workers")}

    async def add_running(self, task: str, *, silent_for: float | None, attempts: int = 0, **columns: Any) -> int:
        """A job that a worker took, which gave its last sign of life so many seconds ago (None: it is off the list)."""
        worker_id = None
        if silent_for is not None:
            worker_id = await self.conn.fetchval(
                "insert into procrastinate_workers (last_heartbeat) values (now() - $1::interval) returning id",
                timedelta(seconds=silent_for),
            )
        given = {"queue_name": "default", "task_name": task, "status": "doing", "attempts": attempts} | columns
        given |= {"worker_id": worker_id, "args": {"organization_id": self.organization_id}}
        text = f"insert into procrastinate_jobs ({', '.join(given)}) select {', '.join(given)}"
        return int(
            await self.conn.fetchval(
                f"{text} from jsonb_populate_record(null::procrastinate_jobs, $1) returning id", given
            )
        )


def job_settings(database: TestDatabase, data_dir: Path, **values: Any) -> Settings:
    """Settings that read no `.env`."""
    given = {"db_dsn": database.dsn, "data_dir": data_dir, "db_pool_min": 1, "jwt_secret_key": "k" * 32}
    return Settings(_env_file=None, **(given | values))


@asynccontextmanager
async def open_queue(database: TestDatabase, settings: Settings) -> AsyncIterator[Queue]:
    """A queue with an organisation in a database of its own."""
    pool = await Database.connect(settings)
    conn, service = await asyncpg.connect(database.owner_dsn), await asyncpg.connect(database.dsn)
    try:
        await prepare_connection(conn, "reos_owner")
        await conn.execute("set search_path = public, procrastinate")
        await service.execute("set role none")
        yield Queue(conn, service, pool, await add_organization(pool), settings)
    finally:
        await conn.close()
        await service.close()
        await pool.close()


async def add_organization(database: Database) -> int:
    """Register an organisation; its id."""
    address = f"{uuid4().hex}@example.org"
    async with plain_transaction(database) as conn:
        return int(
            await conn.fetchval(
                "select organization_id from register_organization('A', $1, $2, $2, 'x', 'Ann', 'Lee', null)",
                uuid4().hex,
                address,
            )
        )


@asynccontextmanager
async def running_worker(settings: Settings) -> AsyncIterator[asyncio.Task[None]]:
    """A worker in this process, stopped in the end as SIGTERM stops one."""
    stop = asyncio.Event()
    task = asyncio.create_task(run_worker(settings, stop))
    try:
        yield task
    finally:
        stop.set()
        await task


async def until(is_so: Callable[[], Awaitable[bool]], timeout: float = 15) -> None:
    async with asyncio.timeout(timeout):
        while not await is_so():
            await asyncio.sleep(0.02)
