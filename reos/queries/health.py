"""What the health checks look at."""

from __future__ import annotations

from reos.db import Connection, Record, fetch_value
from reos.queries import jobs
from reos.sql import load

SQL = load("health")


async def count_migrations(conn: Connection) -> int:
    """How many migrations the database has had. Raises when the service cannot work with it."""
    return int(await fetch_value(conn, SQL.count_migrations))


async def get_job_health(conn: Connection) -> Record:
    """`workers` alive, `queued` jobs that could run now, and `oldest_seconds`, how long the oldest has waited."""
    return await jobs.job_health(conn)


async def get_backlog(conn: Connection) -> Record:
    """The same, and how many jobs are in the other states."""
    return await jobs.get_backlog(conn)
