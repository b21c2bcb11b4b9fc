"""Each process looks at itself every few seconds, and answers a scrape with what all have counted.

What is the same for all of them (the queue of jobs) is read from Postgres at the scrape. Without Postgres, the rest is
still told.
"""

from __future__ import annotations

import asyncio
import os
import resource
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from loguru import logger
from prometheus_client.metrics_core import Metric

import reos
from reos import metrics
from reos.db import Database
from reos.queries import health as queries

SAMPLE_SECONDS = 2.0
READ_TIMEOUT = 3.0  # seconds that a scrape waits for Postgres; Prometheus waits 10
FRESH_SECONDS = 0.5  # anybody may scrape as often as they like, so that for so long all get the same text

_PAGE_BYTES = resource.getpagesize()


class Scraper:
    """The text of a process's metrics. One a process; start it, and stop it before the pools.

    `name` is what the process is called where no supervisor has named it. `pools` are its ways to Postgres by name, of
    which `main` is asked for the queue; `hub` feeds its event streams.
    """

    def __init__(self, name: str, pools: Mapping[str, Database], *, hub: Any = None):
        self._pools = pools
        self._hub = hub
        self._name = metrics.PROCESS or name
        self._cpu_seconds = 0.0
        self._sampling: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()
        self._text = b""
        self._made_at = float("-inf")  # monotonic

    async def start(self) -> None:
        """Begin to look at the process regularly."""
        metrics.START_TIME.labels(self._name).set(time.time())
        self._sampling = asyncio.create_task(self._sample_all(), name="metrics")

    async def stop(self) -> None:
        if self._sampling is not None:
            self._sampling.cancel()
            await asyncio.wait([self._sampling])
        metrics.flush()

    async def text(self) -> bytes:
        """Everything in Prometheus' format. Never raises for want of a part."""
        async with self._lock:
            if time.monotonic() - self._made_at >= FRESH_SECONDS:
                self._sample()
                live = await self._read_live()
                self._text = await asyncio.to_thread(metrics.render, live)
                self._made_at = time.monotonic()
            return self._text

    async def _read_live(self) -> list[Metric]:
        found: Mapping[str, Any] = {}
        try:
            async with asyncio.timeout(READ_TIMEOUT), self._pools["main"].acquire() as conn:
                found = await queries.get_backlog(conn)
        except Exception as error:
            logger.warning("The metrics are told without the queue: {}: {}", type(error).__name__, error)
        return [
            metrics.gauge("reos_build_info", "The version of the service.", 1, version=reos.__version__),
            metrics.gauge("reos_database_up", "Whether the scrape could ask Postgres.", float(bool(found))),
            *_backlog(found),
        ]

    async def _sample_all(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + SAMPLE_SECONDS
            await asyncio.sleep(SAMPLE_SECONDS)
            metrics.LOOP_LAG.observe(max(0.0, loop.time() - due))
            self._sample()

    def _sample(self) -> None:
        name = self._name
        metrics.flush()
        for pool, database in self._pools.items():
            metrics.POOL_SIZE.labels(name, pool).set(database.size)
            metrics.POOL_IN_USE.labels(name, pool).set(database.busy)
            metrics.POOL_WAITING.labels(name, pool).set(database.waiting)
        if self._hub is not None:
            metrics.STREAM_CLIENTS.labels(name).set(self._hub.stream_count)
            metrics.STREAM_LISTENING.labels(name).set(self._hub.is_listening)
        used = time.process_time()
        metrics.CPU_SECONDS.labels(name).inc(used - self._cpu_seconds)
        self._cpu_seconds = used
        with suppress(OSError):  # Elsewhere than on Linux there is no /proc.
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            metrics.MEMORY_BYTES.labels(name).set(pages * _PAGE_BYTES)
            metrics.OPEN_FILES.labels(name).set(len(os.listdir("/proc/self/fd")))


def _backlog(found: Mapping[str, Any]) -> list[Metric]:
    """The queue by state; nothing without an answer of Postgres, which would look like an empty queue."""
    workers = metrics.gauge("reos_job_workers", "Workers with a sign of life within 30 seconds.", found.get("workers"))
    jobs = metrics.gauge("reos_jobs", "Jobs by state; queued are those that could run now.", None, state="")
    oldest = metrics.gauge("reos_jobs_oldest_seconds", "How long the oldest job has been in its state.", None, state="")
    if found:
        for state in ("queued", "scheduled", "running", "failed"):
            jobs.add_metric([state], found[state])
        oldest.add_metric(["queued"], found["oldest_seconds"])
        oldest.add_metric(["running"], found["running_oldest_seconds"])
    return [workers, jobs, oldest]
