"""What one kind of request does to others: log-ins beside small GETs, and events to thousands of streams."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

from event_streams import until

from reos import demo
from reos.db import Database
from reos.embedded import EmbeddedPostgres
from reos.seed.scale import Scale
from tools.bench.clients import Target, load, request_bytes
from tools.bench.servers import make_settings, server
from tools.load import streams
from tools.load.service import serving
from tools.load.wire import quantiles

LAG_GOAL = 20.0  # milliseconds, the 99th of a hundred
REACH_GOAL = 100.0
STREAMS = (2000, 5000)


async def log_ins(postgres: EmbeddedPostgres, directory: Path, scale: Scale, seconds: float) -> tuple[str, bool]:
    """How late the event loop comes to a request that needs nothing, while as many log in as can."""
    with server("service", postgres.dsn, directory) as (port, pid):
        live = request_bytes("GET", "/live", {})
        alone = Target("/live", port, [[live]], pid)
        beside = Target("/live", port, [[live]], pid)
        bodies = [json.dumps({"email": email, "password": demo.SCALE_PASSWORD}).encode() for email in scale.admins]
        entering = Target("log-in", port, [[request_bytes("POST", "/api/v1/auth/login", {}, body)] for body in bodies])
        await load(alone, 1, seconds)
        # Each with an address of its own: a second try for one that is being looked at is refused.
        await asyncio.gather(load(beside, 1, seconds), load(entering, min(16, len(bodies)), seconds))
    text = (
        f"log-ins: {entering.rate:.0f} a second; /live meanwhile p50 {beside.quantile(50):.2f},"
        f" p99 {beside.quantile(99):.2f} ms (alone {alone.quantile(50):.2f}, {alone.quantile(99):.2f});"
        f" goal p99 under {LAG_GOAL:.0f} ms"
    )
    return text, beside.quantile(99) < LAG_GOAL


async def fan_out(postgres: EmbeddedPostgres, directory: Path, number: int) -> tuple[str, bool]:
    """How long after a change was asked for each stream has it, on one server process."""
    database = await Database.connect(make_settings(postgres.dsn, directory))
    try:
        with serving(postgres.dsn, postgres.owner_dsn, directory) as service:
            account = await streams.organisation(database)
            tokens = await streams.tokens_of(service, database, account, "Agent", number)
            readers = await streams.open_streams(service.port, tokens)
            auth = account.headers(service.settings)
            reached: list[float] = []
            for turn in range(1, 6):
                for reader in readers:
                    reader.events, reader.seen_at = 0, 0.0
                began = time.monotonic()
                answer = await streams.ask(service.port, streams.creation(auth, f"{turn}"))
                assert answer.status == 201, answer
                await until(lambda: all(reader.events for reader in readers), 60)
                reached += [reader.seen_at - began for reader in readers]
            for reader in readers:
                reader.transport.abort()
    finally:
        await database.close()
    p99 = 1000 * sorted(reached)[int(0.99 * len(reached))]
    goal = f"; goal p99 under {REACH_GOAL:.0f} ms" if number == STREAMS[0] else ""
    text = (
        f"{number} streams: an event is there after {quantiles(reached)}, counted from the request that made it{goal}"
    )
    return text, number != STREAMS[0] or p99 < REACH_GOAL
