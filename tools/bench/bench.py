"""What the service costs: its reads against a bare handler that does the same statement, side by side in one run.

    make bench                     # ARGS="--rounds 8 --seconds 5 --clients 16"

Both are one Sanic process on the same database, with the same pool, server and event loop. The bare handler begins a
READ ONLY transaction and names its tenant, runs the statement that the service runs, commits, and writes the rows as
JSON; nothing else. The service does all that it does for everybody: the token, the rate limit, authorisation in the
database, validation, ETag, headers and the line in its log. Only the limits are too high to be met.

The targets take turns, so that whatever else the machine does meets all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from reos import embedded, encoding, migrate
from reos.auth.tokens import issue_access_token
from reos.db import Database, begin_tenant, plain_transaction, tenant_transaction
from reos.queries import listing, properties
from reos.queries.listing import PageRequest
from reos.seed import scale
from reos.settings import Settings

ROOT = Path(__file__).parents[2]
SCALE = scale.Scale(1, 1000)
PAGE = 20
POOL = 8
GOAL = 0.8
HUGE = 2**30


def make_settings(dsn: str, data_dir: Path, owner_dsn: str = "") -> Settings:
    """Everything on, the limits out of reach."""
    values: dict[str, Any] = {
        "db_dsn": dsn,
        "db_owner_dsn": owner_dsn,
        "data_dir": data_dir,
        "jwt_secret_key": "a secret for measuring only, of no worth",
        "jwt_access_token_expire_minutes": 600,
        "rate_limit_per_minute": HUGE,
        "rate_limit_per_hour": HUGE,
        "rate_limit_per_day": HUGE,
        "db_pool_min": POOL,
        "db_pool_max": POOL,
        "log_format": "json",
    }
    return Settings(_env_file=None, **values)  # type: ignore[call-arg]


# --- the two servers -------------------------------------------------------------------------------------------


def serve(kind: str, dsn: str, data_dir: Path, listener: socket.socket) -> None:
    """What a child does until it is told to stop."""
    from reos.app import create_app
    from reos.log import setup_logging
    from reos.server import serve_socket

    settings = make_settings(dsn, data_dir)
    setup_logging(settings, kind)
    app = create_app(settings) if kind == "service" else bare_app(settings)
    serve_socket(app, listener, lambda: print("ready", flush=True))


def bare_app(settings: Settings) -> Any:
    """The statements of the service without the service."""
    from sanic import HTTPResponse, Request, Sanic

    app = Sanic("bare", configure_logging=False)
    app.config.ACCESS_LOG = False

    @app.before_server_start
    async def connect(app: Sanic) -> None:
        database = await Database.connect(settings)
        app.ctx.pool = database.pool

    @app.after_server_stop
    async def close(app: Sanic) -> None:
        await app.ctx.pool.close()

    @app.get("/<organization_id:int>/properties/<property_id:int>")
    async def get_property(request: Request, organization_id: int, property_id: int) -> HTTPResponse:
        async with app.ctx.pool.acquire() as conn:
            await conn.execute(begin_tenant(organization_id, read_only=True))
            row = await conn.fetchrow(properties.SQL.get_property.text, property_id)
            await conn.execute("COMMIT")
        return HTTPResponse(encoding.dumps(row), content_type="application/json")

    # The text that the service builds, once; its values are the limit and the offset.
    text = page_text(PageRequest(PAGE, (("created_at", True),)))

    @app.get("/<organization_id:int>/properties")
    async def list_properties(request: Request, organization_id: int) -> HTTPResponse:
        async with app.ctx.pool.acquire() as conn:
            await conn.execute(begin_tenant(organization_id, read_only=True))
            rows = await conn.fetch(text, PAGE + 1, 0)
            await conn.execute("COMMIT")
        items = [dict(row) for row in rows[:PAGE]]
        return HTTPResponse(encoding.dumps({"items": items}), content_type="application/json")

    return app


def page_text(page: PageRequest) -> str:
    """The statement of the first page of properties."""
    return listing._page_text(properties.LISTING, listing._Shape((), page.sort, None, page.include_total))


@contextmanager
def server(kind: str, dsn: str, data_dir: Path) -> Iterator[int]:
    """A server process; its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.set_inheritable(True)
    command = [sys.executable, __file__, "--serve", kind, "--dsn", dsn, "--data-dir", str(data_dir), "--listener"]
    with (data_dir / f"{kind}.stderr").open("wb") as stderr:
        process = subprocess.Popen(
            [*command, str(listener.fileno())], stdout=subprocess.PIPE, stderr=stderr,
            pass_fds=[listener.fileno()], env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    try:
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            raise SystemExit((data_dir / f"{kind}.stderr").read_text())
        yield int(listener.getsockname()[1])
    finally:
        listener.close()
        process.terminate()
        process.wait(30)


# --- the clients -----------------------------------------------------------------------------------------------


@dataclass
class Target:
    """What is asked for, and how long the answers took, in seconds."""

    name: str
    port: int
    path: str
    headers: str = ""
    times: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)  # requests a second, of each round

    @property
    def request(self) -> bytes:
        return f"GET {self.path} HTTP/1.1\r\nHost: bench\r\n{self.headers}\r\n".encode()


class Client(asyncio.Protocol):
    """A connection that asks again as soon as it has its answer."""

    def __init__(self, target: Target, until: float, ended: asyncio.Future[None]):
        self.request, self.times, self.until, self.ended = target.request, target.times, until, ended
        self.buffer = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        self.asked_at = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.buffer[:end].lower()
        _, found, length = head.partition(b"content-length: ")
        if not found or not head.startswith(b"http/1.1 200"):
            self.fail(self.buffer)
            return
        if len(self.buffer) < end + 4 + int(length.partition(b"\r")[0]):
            return
        self.buffer = b""
        now = time.perf_counter()
        self.times.append(now - self.asked_at)
        if now < self.until:
            self.ask()
        else:
            self.transport.close()

    def fail(self, answer: bytes) -> None:
        self.transport.close()
        if not self.ended.done():
            self.ended.set_exception(RuntimeError(f"not an answer to measure: {answer[:500]!r}"))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


async def load(target: Target, clients: int, seconds: float) -> None:
    """Ask for the target with so many clients for so long."""
    loop = asyncio.get_running_loop()
    before, began = len(target.times), time.perf_counter()
    ends = [loop.create_future() for _ in range(clients)]
    for ended in ends:
        await loop.create_connection(
            lambda ended=ended: Client(target, began + seconds, ended), "127.0.0.1", target.port
        )
    await asyncio.gather(*ends)
    target.rates.append((len(target.times) - before) / (time.perf_counter() - began))


# --- the run ---------------------------------------------------------------------------------------------------


async def fill(settings: Settings) -> tuple[int, int, str]:
    """An organisation with properties: its id, one of theirs, and the Authorization header of its Admin."""
    await scale.load(settings, SCALE)
    database = await Database.connect(settings)
    try:
        async with plain_transaction(database) as conn:
            row = await conn.fetchrow("select * from read_login($1, '', interval '0')", SCALE.admins[0])
        organization_id, user_id = row["organization_id"], row["user_id"]
        async with tenant_transaction(database, organization_id) as conn:
            session_id = await conn.fetchval(
                "insert into sessions (organization_id, user_id, expires_at) values ($1, $2, now() + interval '1 day')"
                " returning id", organization_id, user_id,
            )  # fmt: skip
            property_id = await conn.fetchval("select id from properties offset 500 limit 1")
    finally:
        await database.close()
    token = issue_access_token(settings, user_id=user_id, organization_id=organization_id, session_id=session_id)
    return organization_id, property_id, f"Authorization: Bearer {token}\r\n"


async def measure(targets: list[Target], rounds: int, clients: int, seconds: float) -> None:
    for target in targets:
        await load(target, clients, min(seconds, 1))
        target.times.clear()
        target.rates.clear()
    for number in range(rounds):
        # In turn forwards and backwards, so that none always comes after the same.
        for target in targets if number % 2 == 0 else reversed(targets):
            await load(target, clients, seconds)


def report(pairs: list[tuple[Target, Target]]) -> bool:
    """Print the figures; whether the goal was reached."""
    print(f"{'':28}{'requests/s':>12}{'p50 ms':>9}{'p99 ms':>9}{'ratio':>8}")
    ratios = []
    for bare, service in pairs:
        ratios.append(statistics.mean(service.rates) / statistics.mean(bare.rates))
        for target, ratio in ((bare, ""), (service, f"{ratios[-1]:.0%}")):
            p50, p99 = (1000 * statistics.quantiles(target.times, n=100)[n] for n in (49, 98))
            print(f"{target.name:28}{statistics.mean(target.rates):12.0f}{p50:9.2f}{p99:9.2f}{ratio:>8}")
    return min(ratios) >= GOAL


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each target in each round")
    parser.add_argument("--clients", type=int, default=16, help="connections at a time")
    for name in ("--serve", "--dsn", "--data-dir", "--listener"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        listener = socket.socket(fileno=int(options.listener))
        serve(options.serve, options.dsn, Path(options.data_dir), listener)
        return
    directory = Path(tempfile.mkdtemp(prefix="reos-bench-"))
    directory.chmod(0o755)  # The account that Postgres runs as for root has to reach its data.
    try:
        with embedded.start(directory) as postgres, ExitStack() as stack:
            migrate.migrate(postgres.owner_dsn, embedded.SERVICE_LOGIN)
            settings = make_settings(postgres.dsn, directory, postgres.owner_dsn)
            organization_id, property_id, authorization = uvloop.run(fill(settings))
            ports = {kind: stack.enter_context(server(kind, postgres.dsn, directory)) for kind in ("bare", "service")}
            pairs = [
                (
                    Target(f"{what}, bare", ports["bare"], f"/{organization_id}{path}"),
                    Target(f"{what}, service", ports["service"], f"/api/v1{path}{query}", authorization),
                )
                for what, path, query in (
                    ("GET by id", f"/properties/{property_id}", ""),
                    (f"list of {PAGE}", "/properties", f"?page_size={PAGE}"),
                )
            ]
            targets = [target for pair in pairs for target in pair]
            uvloop.run(measure(targets, options.rounds, options.clients, options.seconds))
            reached = report(pairs)
    finally:
        embedded.remove(directory)
        shutil.rmtree(directory)
    sys.exit(0 if reached else f"The goal is {GOAL:.0%}.")


if __name__ == "__main__":
    main()
