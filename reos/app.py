"""create_app(settings): wires pools, blueprints, middleware and error handlers; nothing else."""

from __future__ import annotations

from sanic import Sanic
from sanic.config import Config

from reos.auth.login_guard import LoginGuard
from reos.auth.signing import Signer
from reos.context import Context
from reos.db import Database
from reos.events import Hub
from reos.handlers import BLUEPRINTS
from reos.integrations.email import SmtpMailer
from reos.integrations.storage import make_storage
from reos.integrations.webhooks import WebhookClient
from reos.locks import SessionLocks
from reos.middleware import cors, errors, requests
from reos.middleware.bodies import MULTIPART_OVERHEAD
from reos.middleware.endpoint import ENDPOINTS
from reos.middleware.rate_limit import RateLimiter
from reos.scrape import Scraper
from reos.settings import Settings


def create_app(settings: Settings, name: str = "reos") -> Sanic:
    """The web application of one process; it opens its connections when the server starts."""
    config = Config(
        {
            "REQUEST_MAX_SIZE": _largest_body(settings) + 1024,
            "REQUEST_TIMEOUT": 30,
            "RESPONSE_TIMEOUT": 90,
            "KEEP_ALIVE_TIMEOUT": 75,
            "GRACEFUL_SHUTDOWN_TIMEOUT": 10.0,
            "PROXIES_COUNT": settings.proxies_count or None,
            "ACCESS_LOG": False,
            "FALLBACK_ERROR_FORMAT": "json",
            "OAS": False,
        },
        env_prefix=None,
    )
    app: Sanic = Sanic(
        name, config=config, configure_logging=False, strict_slashes=False, request_class=requests.RootedRequest
    )
    app.ctx.settings = settings
    app.ctx.draining = False  # the whole service stops
    app.ctx.replaced = False  # another process serves on the socket
    errors.install(app)
    requests.install(app, settings)
    cors.install(app, settings)
    for blueprint in BLUEPRINTS:
        app.blueprint(blueprint)
    app.before_server_start(open_parts)
    app.before_server_stop(stop_streams)
    app.after_server_stop(close_parts)
    return app


def _largest_body(settings: Settings) -> int:
    """Bytes that any endpoint takes; each has its own limit below."""
    largest_file = max(endpoint.max_file_bytes for endpoint in ENDPOINTS)
    return max(largest_file + MULTIPART_OVERHEAD, settings.max_body_bytes)


async def open_parts(app: Sanic) -> None:
    """Connect to what the service needs. Raises when Postgres cannot be reached."""
    settings: Settings = app.ctx.settings
    database = await Database.connect(settings)
    redis = counter = None
    if settings.redis_url:
        # Only whoever uses it pays the time and memory that its library takes.
        from reos.middleware import redis_counter

        redis = redis_counter.connect(settings)
        counter = redis_counter.make_counter(redis, database, settings)
    limiter = RateLimiter(database, settings, counter)
    await limiter.start()
    locks = SessionLocks()
    hub = Hub(settings, database, locks)
    await hub.start()
    replica = None
    if settings.db_replica_dsn:
        # While it is away, what it serves is refused, and all else goes on.
        replica = await Database.connect(settings, settings.db_replica_dsn, name="replica", is_needed=False)
    pools = {pool.name: pool for pool in (database, replica) if pool is not None}
    scraper = Scraper("web", pools, hub=hub)
    await scraper.start()
    app.ctx.context = Context(
        settings=settings,
        database=database,
        signer=Signer(settings.jwt_secret_key),
        login_guard=LoginGuard(),
        limiter=limiter,
        storage=make_storage(settings),
        hub=hub,
        locks=locks,
        webhooks=WebhookClient(allow_private=settings.webhook_allow_private),
        scraper=scraper,
        replica=replica,
        redis=redis,
        mailer=SmtpMailer(settings) if settings.smtp_host else None,
    )


async def stop_streams(app: Sanic) -> None:
    """Tell the event streams to reconnect elsewhere, so that they do not hold the shutdown."""
    app.ctx.draining = True
    await app.ctx.context.hub.stop()


async def close_parts(app: Sanic) -> None:
    context: Context = app.ctx.context
    await context.scraper.stop()
    await context.limiter.stop()
    if context.redis is not None:
        await context.redis.aclose()
    if context.mailer is not None:
        await context.mailer.close()
    await context.webhooks.close()
    await context.storage.close()
    await context.database.close()
    if context.replica is not None:
        await context.replica.close()
