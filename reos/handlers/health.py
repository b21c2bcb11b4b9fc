"""Is the service alive, ready, healthy? Outside the rate limit and without auth."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from sanic import Blueprint, HTTPResponse, Request

import reos
from reos import encoding
from reos.context import Context
from reos.queries import health as queries

bp = Blueprint("health")

SERVICE = "Real Estate OS API"
CHECK_TIMEOUT = 3.0  # seconds
# For so long an answer of the parts counts: anybody may ask, and each check writes a file or knocks at a mail server.
KEPT_SECONDS = 1.0
Details = dict[str, Any]


def _json(content: Any, status: int = 200) -> HTTPResponse:
    return HTTPResponse(encoding.dumps(content), status, content_type="application/json")


@bp.route("/healthz", methods=["GET", "HEAD"])
async def healthz(request: Request) -> HTTPResponse:
    """The process answers."""
    return _json({"status": "ok"})


@bp.route("/live", methods=["GET", "HEAD"])
async def live(request: Request) -> HTTPResponse:
    """The process answers; what Kubernetes calls liveness."""
    return _json({"status": "ok"})


@bp.route("/ready", methods=["GET", "HEAD"])
async def ready(request: Request) -> HTTPResponse:
    """Whether traffic may come: not while starting or draining, not without the database."""
    context: Context | None = getattr(request.app.ctx, "context", None)
    if context is None:
        return _json({"status": "starting"}, 503)
    if request.app.ctx.draining:
        return _json({"status": "draining"}, 503)
    check = await _run(lambda: _database(context))
    is_ready = check["status"] != "unhealthy"
    return _json({"status": "ready" if is_ready else "unavailable"}, 200 if is_ready else 503)


@bp.route("/health", methods=["GET", "HEAD"])
async def health(request: Request) -> HTTPResponse:
    """Every part with its state. Details never hold an address or a secret."""
    started = time.perf_counter()
    checks = await _checks(request)
    if checks["database"]["status"] == "unhealthy":
        status = "unhealthy"
    else:
        status = "healthy" if all(c["status"] == "healthy" for c in checks.values()) else "degraded"
    content = {
        "status": status,
        "timestamp": datetime.now(UTC),
        "service": SERVICE,
        "version": reos.__version__,
        "checks": checks,
        "response_time_ms": _elapsed(started),
    }
    return _json(content, 503 if status == "unhealthy" else 200)


async def _checks(request: Request) -> dict[str, dict[str, Any]]:
    """How the parts are, asked at most once in KEPT_SECONDS, whoever and however many want to know."""
    kept: _Kept | None = getattr(request.app.ctx, "health", None)
    if kept is None:
        kept = request.app.ctx.health = _Kept()
    async with kept.lock:
        if time.monotonic() - kept.asked_at >= KEPT_SECONDS:
            kept.checks = await _ask_parts(request.app.ctx.context)
            kept.asked_at = time.monotonic()
        return kept.checks


@dataclass(slots=True)
class _Kept:
    """What the parts said last."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    asked_at: float = -math.inf
    checks: dict[str, dict[str, Any]] = field(default_factory=dict)


async def _ask_parts(context: Context) -> dict[str, dict[str, Any]]:
    parts: dict[str, Callable[[Context], Awaitable[tuple[str, Details]]]] = {
        "database": _database,
        "jobs": _jobs,
        "storage": _storage,
    }
    if context.redis is not None:
        parts["redis"] = _redis
    if context.mailer is not None:
        parts["email"] = _email
    results = await asyncio.gather(*(_run(partial(check, context)) for check in parts.values()))
    return dict(zip(parts, results, strict=True))


async def _run(check: Callable[[], Awaitable[tuple[str, Details]]]) -> dict[str, Any]:
    """A check's state, its time and its details; whatever it raises is unhealthy."""
    started = time.perf_counter()
    try:
        async with asyncio.timeout(CHECK_TIMEOUT):
            status, details = await check()
    except Exception as error:
        status, details = "unhealthy", {"error": type(error).__name__}
    return {"status": status, "response_time_ms": _elapsed(started), "details": details}


async def _database(context: Context) -> tuple[str, Details]:
    async with context.database.acquire() as conn:
        migrations = await queries.count_migrations(conn)
    return "healthy", {"connection": "ok", "query_test": "ok", "migrations": migrations}


async def _jobs(context: Context) -> tuple[str, Details]:
    async with context.database.acquire() as conn:
        row = await queries.get_job_health(conn)
    return "healthy" if row["workers"] else "degraded", dict(row)


async def _storage(context: Context) -> tuple[str, Details]:
    return "healthy", {**await context.storage.check(), "connection": "ok"}


async def _redis(context: Context) -> tuple[str, Details]:
    info = await context.redis.info()
    return "healthy", {name: info[name] for name in ("connected_clients", "used_memory_human")}


async def _email(context: Context) -> tuple[str, Details]:
    await context.mailer.check()
    return "healthy", {"connection": "ok"}


def _elapsed(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 2)
