"""The worker process: runs jobs until it is told to stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from aiohttp import web
from loguru import logger
from procrastinate import App
from procrastinate.exceptions import ConnectorException
from procrastinate.job_context import JobContext
from procrastinate.worker import Worker

from reos import metrics
from reos.auth.signing import Signer
from reos.db import Database
from reos.integrations.email import make_mailer
from reos.integrations.sms import make_texter
from reos.integrations.storage import make_storage
from reos.integrations.webhooks import WebhookClient
from reos.jobs import upkeep
from reos.jobs.app import make_app
from reos.jobs.connector import LOST, AsyncpgConnector
from reos.jobs.task import Parts
from reos.scrape import Scraper
from reos.settings import Settings, SettingsError

CONCURRENCY = 10  # jobs at a time in a process; they mostly wait for others
GRACE_SECONDS = 10.0  # that running jobs have at a stop, before they go back into the queue
POLL_SECONDS = 5.0  # how often the queue is looked at, beside being listened to
FIRST_WAIT, LONGEST_WAIT = 0.5, 15.0  # seconds before a worker that lost its database starts anew


async def run_worker(settings: Settings, stop: asyncio.Event | None = None) -> None:
    """Run jobs until `stop` is set; without one, until SIGTERM or SIGINT arrives.

    Running jobs then have GRACE_SECONDS to end. What has not ended goes back into the queue. Outages of Postgres are
    borne; raises DatabaseError only when it cannot be reached at the start, SettingsError for a setting that is wrong.
    """
    if stop is None:
        with _stop_signals() as stop:
            return await run_worker(settings, stop)
    mailer, texter, storage = make_mailer(settings), make_texter(settings), make_storage(settings)
    database = await Database.connect(settings)
    webhooks = WebhookClient(allow_private=settings.webhook_allow_private)
    connector = AsyncpgConnector(settings.db_listen_dsn or settings.db_dsn)
    signer = Signer(settings.jwt_secret_key)
    parts = Parts(
        settings=settings,
        database=database,
        signer=signer,
        mailer=mailer,
        texter=texter,
        storage=storage,
        webhooks=webhooks,
        queue=connector,
    )
    try:
        async with _measured(settings, database):
            await connector.open_async()
            await _run_until(make_app(connector), parts, stop)
    finally:
        await mailer.close()
        await texter.close()
        await storage.close()
        await webhooks.close()
        await connector.close_async()
        await database.close()


@asynccontextmanager
async def _measured(settings: Settings, database: Database) -> AsyncIterator[None]:
    """Look at the process meanwhile, and tell of it at WORKER_METRICS_PORT where that is set. Raises SettingsError.

    Where servers tell of this process too it is not told a second time, which would count everything twice.
    """
    scraper = Scraper("worker", {database.name: database})
    runner = web.AppRunner(_metrics_app(scraper), access_log=None, handle_signals=False)
    await scraper.start()
    try:
        if settings.worker_metrics_port and not metrics.IS_SHARED:
            await runner.setup()
            try:
                await web.TCPSite(runner, settings.host, settings.worker_metrics_port).start()
            except OSError as error:
                told = f"{settings.worker_metrics_port} on {settings.host} cannot be served: {error.strerror or error}."
                raise SettingsError(f"WORKER_METRICS_PORT: {told}") from None
        yield
    finally:
        await runner.cleanup()
        await scraper.stop()


def _metrics_app(scraper: Scraper) -> web.Application:
    async def get_metrics(request: web.Request) -> web.Response:
        return web.Response(body=await scraper.text(), headers={"Content-Type": metrics.CONTENT_TYPE})

    app = web.Application()
    app.router.add_get("/metrics", get_metrics)
    return app


async def _run_until(app: App, parts: Parts, stop: asyncio.Event) -> None:
    """Run one worker after the other: one that lost the database ends, and the next has an id of its own, so that
    the rescue finds the jobs whose end the first could not write.
    """
    wait = FIRST_WAIT
    while not stop.is_set():
        began = asyncio.get_running_loop().time()
        await _run_one(app, parts, stop)
        if asyncio.get_running_loop().time() - began > LONGEST_WAIT:
            wait = FIRST_WAIT
        try:
            await asyncio.wait_for(stop.wait(), wait)
        except TimeoutError:
            logger.warning("The worker starts anew")
        wait = min(2 * wait, LONGEST_WAIT)


class WakefulWorker(Worker):
    """A worker that looks at the queue again whenever a job may have become ready since it began to look.

    Procrastinate's own forgets what it is notified of while it looks, and is not told when a job ends whose lock
    another one waits for: such jobs would wait for the next regular look.
    """

    is_woken = False

    async def _fetch_and_process_jobs(self) -> None:
        self.is_woken = True
        while self.is_woken and not self._stop_event.is_set():
            self.is_woken = False
            await super()._fetch_and_process_jobs()

    async def _handle_notification(self, **options: Any) -> None:
        self.is_woken = True
        await super()._handle_notification(**options)

    async def _process_job(self, context: JobContext) -> None:
        try:
            await super()._process_job(context)
        finally:
            if context.job.lock:
                self.is_woken = True
                self._new_job_event.set()


async def _run_one(app: App, parts: Parts, stop: asyncio.Event) -> None:
    """Run a worker until it ends, because it is told to or because the database is gone."""
    worker = WakefulWorker(
        app,
        name="reos",
        concurrency=CONCURRENCY,
        fetch_job_polling_interval=POLL_SECONDS,
        shutdown_graceful_timeout=GRACE_SECONDS,
        additional_context={"parts": parts},
        install_signal_handlers=False,
        update_heartbeat_interval=upkeep.HEARTBEAT_SECONDS,
        stalled_worker_timeout=upkeep.STALLED_SECONDS,
    )
    parts.queue.on_lost = worker.stop
    running = asyncio.create_task(worker.run())
    stopping = asyncio.create_task(stop.wait())
    try:
        logger.info("The worker runs")
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        worker.stop()
        await running
        logger.info("The worker has stopped")
    except (ConnectorException, *LOST) as error:
        logger.warning("The worker lost its database: {}", error.__cause__ or error)
    finally:
        stopping.cancel()
        if running.cancel():
            await asyncio.wait({running})


@contextmanager
def _stop_signals() -> Iterator[asyncio.Event]:
    """An event that SIGTERM and SIGINT set."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
