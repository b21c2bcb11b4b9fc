"""A rolling restart in the midst of the load, with a migration that adds in between: nobody may notice.

Clients keep their connections and send a request every now and then, each at its own pace; others follow the events.
Whoever is told that the connection closes opens another, as every HTTP client does; nothing is sent twice.
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
from event_streams import until
from running import ROOT, reos

from reos.db import Database, tenant_transaction
from tools.load.service import Account, Service, organisation
from tools.load.wire import parse_head, quantiles, read_answer, request

LISTING = {"address": "1 Main St", "city": "Austin", "state": "TX", "zip_code": "78701", "property_type": "condo"}
# What every request meets. Each gets a migration of its own, as `reos migrate new` begins one.
TABLES = ("properties", "users", "sessions", "events", "event_counters", "audit_logs", "organizations")
ADDITION = "set local lock_timeout = '5s';\n\nalter table {table} add column added_under_load text;\n"
OFFERED = 0.9  # the least part of the wanted rate


@dataclass
class Story:
    """What clients asked for and got, while everything was restarted under them."""

    statuses: Counter[str] = field(default_factory=Counter)  # method and status
    failures: list[str] = field(default_factory=list)  # no answer, or one of 5xx
    times: list[float] = field(default_factory=list)
    created: dict[int, str] = field(default_factory=dict)  # the acknowledged properties, and their last description
    resets_asked: int = 0  # jobs that were asked for
    followers: list[Follower] = field(default_factory=list)
    seconds: float = 0.0  # that the restart took
    migrated: list[str] = field(default_factory=list)  # the migrations that were applied meanwhile
    rate: float = 0.0  # answers a second while it was restarted: what comes later cannot make up for them
    wanted_rate: float = 0.0
    problems: list[str] = field(default_factory=list)  # of what is in the database afterwards

    def lines(self) -> list[str]:
        told = sum(follower.told for follower in self.followers)
        return [
            f"{sum(self.statuses.values())} answers {dict(self.statuses)}, {quantiles(self.times)}",
            f"{self.rate:.0f} answers a second meanwhile, of {self.wanted_rate:.0f} that were wanted",
            f"restarted in {self.seconds:.1f} s, {len(self.migrated)} migrations applied meanwhile",
            f"{len(self.followers)} streams were told {told} times to connect again",
            f"and got {len(self.followers[0].ids)} events each",
            f"failed: {self.failures or 'nothing'}; lost or doubled: {self.problems or 'nothing'}",
        ]

    def misses(self) -> list[str]:
        """What breaks the promise that nobody notices a rolling restart."""
        found = [*self.failures, *self.problems]
        if self.rate < OFFERED * self.wanted_rate:
            found.append(f"only {self.rate:.0f} requests a second were made while it was restarted")
        if len(self.migrated) != len(TABLES):
            found.append(f"the migrations applied were {self.migrated}")
        if any(not follower.told for follower in self.followers):
            found.append("streams ended without a word")
        return found


class Talker:
    """A client with a connection that it keeps until it is told not to."""

    def __init__(self, port: int, story: Story):
        self.port, self.story = port, story
        self.writer: asyncio.StreamWriter | None = None

    async def ask(self, method: str, path: str, headers: dict[str, str], body: Any = None) -> Any:
        """The parsed answer, or None when it was not a good one; what was wrong is noted."""
        began = time.monotonic()
        try:
            if self.writer is None:
                self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**20)
            self.writer.write(request(method, path, headers, body, close=False))
            answer = await read_answer(self.reader, began)
        except (OSError, EOFError) as error:
            self.story.failures.append(f"{method} {path}: {error!r}")
            self.close()
            return None
        self.story.times.append(answer.seconds)
        self.story.statuses[f"{method} {answer.status}"] += 1
        if answer.status >= 400:
            self.story.failures.append(f"{method} {path}: {answer.status} {answer.body[:300]!r}")
        if answer.headers.get("connection") == "close":
            self.close()
        return json.loads(answer.body) if answer.body and answer.status < 400 else None

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
            self.writer = None


class Follower:
    """A reader of the event stream that connects again with the id of what it saw last."""

    def __init__(self, port: int, headers: dict[str, str], story: Story):
        self.port, self.headers, self.story = port, headers, story
        self.ids: list[int] = []
        self.last = 0
        self.told = 0
        self.was_told = False  # by what came last
        self.is_connected = asyncio.Event()

    async def follow(self) -> None:
        while True:
            try:
                await self._read_once()
            except (OSError, EOFError) as error:
                self.story.failures.append(f"stream: {error!r}")
            self.is_connected.clear()
            await asyncio.sleep(0.05)

    async def _read_once(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**20)
        try:
            headers = self.headers | {"Last-Event-ID": str(self.last)}
            writer.write(request("GET", "/api/v1/sse/stream", headers, close=False))
            status, _ = parse_head(await reader.readuntil(b"\r\n\r\n"))
            if status != 200:
                raise ConnectionError(f"refused with {status}")
            self.is_connected.set()
            rest = b""
            while size := int(await reader.readline(), 16):
                *blocks, rest = (rest + (await reader.readexactly(size + 2))[:-2]).split(b"\n\n")
                for block in blocks:
                    self._take(block)
            if not self.was_told:
                raise ConnectionError("the stream ended without a word")
        finally:
            writer.close()

    def _take(self, block: bytes) -> None:
        self.was_told = b"retry: " in block
        self.told += self.was_told
        found = dict(line.partition(b": ")[::2] for line in block.split(b"\n"))
        if b"data" in found and json.loads(found[b"data"])["type"] != "connected":
            self.last = int(found[b"id"])
            self.ids.append(self.last)


async def run(service: Service, database: Database, *, rate: int, clients: int, streams: int, after: float) -> Story:
    """`rate` requests a second while everything is restarted, and for `after` seconds more."""
    account = await organisation(database)
    story = Story(wanted_rate=rate)
    headers = account.headers(service.settings)
    story.followers = [Follower(service.port, headers, story) for _ in range(streams)]
    following = [asyncio.create_task(follower.follow()) for follower in story.followers]
    for follower in story.followers:
        await follower.is_connected.wait()
    stop = asyncio.Event()
    working = [
        asyncio.create_task(_work(service, headers, story, stop, clients / rate, number)) for number in range(clients)
    ]
    try:
        await until(lambda: len(story.times) > rate, 60)
        await _restart(service, story)
        answered = len(story.times)
        await until(lambda: len(story.times) > answered + after * rate, 60 + 2 * after)
        stop.set()
        await asyncio.gather(*working)
        last_id = await _last_event(database, account)
        with suppress(TimeoutError):
            await until(lambda: all(follower.last >= last_id for follower in story.followers), 20)
        await _check(service, database, account, story, last_id)
    finally:
        for task in (*following, *working):
            task.cancel()
        await asyncio.gather(*following, *working, return_exceptions=True)
    return story


async def _work(
    service: Service, headers: dict[str, str], story: Story, stop: asyncio.Event, pause: float, number: int
) -> None:
    """Reads, creations, changes, and a mail that a job sends, at a pace that makes up for answers that took long."""
    dice = random.Random(number)  # noqa: S311
    due = time.monotonic()
    talker = Talker(service.port, story)
    mine: list[int] = []
    while not stop.is_set():
        kind = dice.choices(("list", "get", "post", "put", "reset"), (4, 2, 2, 1.7, 0.3))[0]
        if kind == "list" or (kind in ("get", "put") and not mine):
            await talker.ask("GET", "/api/v1/properties?page_size=5", headers)
        elif kind == "get":
            await talker.ask("GET", f"/api/v1/properties/{dice.choice(mine)}", headers)
        elif kind == "post":
            if made := await talker.ask("POST", "/api/v1/properties", headers, LISTING | {"description": "new"}):
                mine.append(made["id"])
                story.created[made["id"]] = "new"
        elif kind == "put":
            text = f"changed {dice.random()}"
            changed_id = dice.choice(mine)
            if await talker.ask("PUT", f"/api/v1/properties/{changed_id}", headers, {"description": text}):
                story.created[changed_id] = text
        else:
            await talker.ask("POST", "/api/v1/auth/password-reset-request", {}, {"email": "nobody@example.com"})
            story.resets_asked += 1
        due += dice.uniform(0.5, 1.5) * pause
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), max(0.0, due - time.monotonic()))
    talker.close()


async def _restart(service: Service, story: Story) -> None:
    """Renew all processes; when the first is another, migrate."""
    before = set(service.children())
    began, answered = time.monotonic(), len(story.times)
    service.process.send_signal(signal.SIGHUP)
    await until(lambda: before - set(service.children()), 60)
    await asyncio.to_thread(migrate_under_load, service, story)
    await until(lambda: not before & set(service.children()) and len(service.children()) == len(before), 120)
    story.seconds = time.monotonic() - began
    story.rate = (len(story.times) - answered) / story.seconds


def migrate_under_load(service: Service, story: Story) -> None:
    """`reos migrate`, once, of a version that adds a column to every table of the hot path.

    The command looks for migrations beside its own package, so that version is a folder with this package in it.
    """
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "reos").symlink_to(ROOT / "reos")
        shutil.copytree(ROOT / "migrations", directory / "migrations")
        for number, table in enumerate(TABLES):
            path = directory / "migrations" / f"9{number:03}.load-{table}.sql"
            path.write_text(ADDITION.format(table=table))
        settings = service.settings
        done = reos(
            directory, "migrate",
            DB_DSN=settings.db_dsn, DB_OWNER_DSN=service.owner_dsn, DATA_DIR=settings.data_dir,
            JWT_SECRET_KEY=settings.jwt_secret_key,
        )  # fmt: skip
    story.migrated = [line.removeprefix("applied ") for line in done.stdout.splitlines() if line.startswith("applied ")]
    if done.returncode:
        story.problems.append(f"reos migrate: {done.stderr.strip()}")


async def _last_event(database: Database, account: Account) -> int:
    async with tenant_transaction(database, account.organization_id) as conn:
        return int(await conn.fetchval("select last_id from event_counters"))


async def _check(service: Service, database: Database, account: Account, story: Story, last_id: int) -> None:
    """Compare what was acknowledged with what is there."""
    async with tenant_transaction(database, account.organization_id) as conn:
        rows = await conn.fetch("select id, description from properties where id = any($1)", list(story.created))
    kept = {row["id"]: row["description"] for row in rows}
    if kept != story.created:
        story.problems.append(f"{len(story.created.items() - kept.items())} acknowledged writes")
    for number, follower in enumerate(story.followers):
        if follower.ids != list(range(1, last_id + 1)):
            story.problems.append(f"stream {number}: {len(follower.ids)} events of {last_id}")
    conn = await asyncpg.connect(service.owner_dsn)
    try:
        await conn.execute("set role reos_owner; set search_path = public, procrastinate")
        jobs = "select status::text, count(*), max(attempts) from procrastinate_jobs where task_name = $1 group by 1"

        async def are_done() -> bool:
            rows = await conn.fetch(jobs, "send_password_reset_email")
            return {row["status"] for row in rows} <= {"succeeded", "failed", "aborted", "cancelled"}

        with suppress(TimeoutError):
            await until(are_done, 30)
        ended = [tuple(row) for row in await conn.fetch(jobs, "send_password_reset_email")]
    finally:
        await conn.close()
    if [(status, number) for status, number, _ in ended] != [("succeeded", story.resets_asked)]:
        story.problems.append(f"jobs: {ended} of {story.resets_asked}")
