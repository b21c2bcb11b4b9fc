"""What the tests of events share: accounts, concurrent writers, a serving app, and a client of the stream."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
from sanic import Sanic

from reos.app import create_app
from reos.auth.guard import Principal
from reos.auth.tokens import issue_access_token
from reos.db import Connection, Database, plain_transaction, tenant_transaction
from reos.queries.events import Event, record_changes
from reos.settings import Settings

_numbers = count(1)


def make_settings(dsn: str, data_dir: Path, **overrides: Any) -> Settings:
    """Settings for a database, without rate limits."""
    values: dict[str, Any] = {
        "db_dsn": dsn,
        "data_dir": data_dir,
        "jwt_secret_key": "a secret that only these tests know",
        "rate_limit_per_minute": 0,
        "rate_limit_per_hour": 0,
        "rate_limit_per_day": 0,
        "db_pool_max": 6,
    }
    return Settings(_env_file=None, **(values | overrides))  # type: ignore[call-arg]


# --- accounts --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Account:
    """A user with a session."""

    organization_id: int
    user_id: int
    session_id: int

    @property
    def principal(self) -> Principal:
        return Principal(self.organization_id, self.user_id, self.session_id)

    def headers(self, settings: Settings) -> dict[str, str]:
        """The Authorization header of the session."""
        token = issue_access_token(
            settings, user_id=self.user_id, organization_id=self.organization_id, session_id=self.session_id
        )
        return {"Authorization": f"Bearer {token}"}


async def register(database: Database) -> Account:
    """A new organisation with its Admin."""
    name = f"org-{uuid4().hex}"
    async with plain_transaction(database) as conn:
        row = await conn.fetchrow(
            "select * from register_organization($1, $1, $2, $2, 'x', 'Ada', 'Admin', null)",
            name,
            f"{name}@example.com",
        )
        assert row is not None
        session_id = await open_session(conn, row["organization_id"], row["user_id"])
    return Account(row["organization_id"], row["user_id"], session_id)


async def add_user(database: Database, account: Account, role: str | None = None) -> Account:
    """Another user of the organisation, with a role or none."""
    organization_id = account.organization_id
    async with tenant_transaction(database, organization_id) as conn:
        user_id = await conn.fetchval(
            "insert into users (organization_id, email, first_name, last_name) values ($1, $2, 'U', 'U') returning id",
            organization_id,
            f"{uuid4().hex}@example.com",
        )
        await conn.execute(
            "insert into user_roles select organization_id, $1, id from roles where name = $2", user_id, role
        )
        return Account(organization_id, user_id, await open_session(conn, organization_id, user_id))


async def open_session(conn: Connection, organization_id: int, user_id: int) -> int:
    session_id: int = await conn.fetchval(
        "insert into sessions (organization_id, user_id, expires_at) values ($1, $2, now() + interval '1 day')"
        " returning id",
        organization_id,
        user_id,
    )
    return session_id


async def change(database: Database, account: Account, statement: str, *args: Any) -> None:
    """Run a statement as the account's organisation, and commit."""
    async with tenant_transaction(database, account.organization_id) as conn:
        await conn.execute(statement, *args)


async def as_owner(owner_dsn: str, statement: str, *args: Any) -> Any:
    """Do what the service may not, such as moving times. The first value of the result."""
    conn = await asyncpg.connect(owner_dsn)
    try:
        await conn.execute("set role reos_owner")
        return await conn.fetchval(statement, *args)
    finally:
        await conn.close()


# --- events ----------------------------------------------------------------------------------------------------


def make_event(type: str = "property.created", **data: Any) -> Event:
    return Event(type=type, resource_type=type.partition(".")[0], resource_id=1, data=data)


async def publish(database: Database, account: Account, *published: Event) -> int:
    """Publish in one transaction; the number of the organisation's newest event."""
    async with tenant_transaction(database, account.organization_id) as conn:
        await record_changes(conn, [], list(published))
    return await newest_id(database, account)


async def newest_id(database: Database, account: Account) -> int:
    async with tenant_transaction(database, account.organization_id) as conn:
        last_id: int = await conn.fetchval("select last_id from event_counters")
    return last_id


async def kept_events(database: Database, account: Account) -> list[tuple[int, Any]]:
    """Numbers and data of all events of the organisation, in order."""
    async with tenant_transaction(database, account.organization_id) as conn:
        rows = await conn.fetch("select id, data from events order by id")
    return [(row["id"], row["data"]) for row in rows]


class _GiveUp(Exception):
    """Rolls a writer's transaction back."""


async def write_concurrently(
    database: Database, accounts: list[Account], seed: int, *, writers: int = 20, each: int = 15
) -> set[str]:
    """Writers whose transactions overlap, commit out of order, and now and then roll back.

    The marks (`data.mark`) of the events whose transactions have committed.
    """
    dice = random.Random(seed)
    committed: set[str] = set()

    async def write(number: int) -> None:
        for turn in range(each):
            account = dice.choice(accounts)
            marks = [f"{seed}-{number}-{turn}-{part}" for part in range(dice.choice((1, 1, 1, 2, 5)))]
            with suppress(_GiveUp):
                async with tenant_transaction(database, account.organization_id) as conn:
                    await asyncio.sleep(dice.random() * 0.02)  # the work before the last statement
                    await record_changes(conn, [], [make_event(mark=mark) for mark in marks])
                    await asyncio.sleep(dice.choice((0, 0, 0, 0.005)))  # the way to the commit
                    if dice.random() < 0.1:
                        raise _GiveUp
                committed.update(marks)

    await asyncio.gather(*(write(number) for number in range(writers)))
    return committed


# --- HTTP ------------------------------------------------------------------------------------------------------


@dataclass
class Served:
    """A running app."""

    app: Sanic
    url: str
    stop: Callable[[], Any]


@asynccontextmanager
async def serving(settings: Settings, protocol: type | None = None) -> AsyncIterator[Served]:
    """An app of its own on a free port, in this event loop; `protocol` is Sanic's own unless given."""
    app = create_app(settings, name=f"reos_events_{next(_numbers)}")
    sock = socket.create_server(("127.0.0.1", 0))  # Sanic takes port=0 for its default port
    server: Any = await app.create_server(sock=sock, protocol=protocol, return_asyncio_server=True)
    await server.startup()
    await server.before_start()
    await server.start_serving()
    await server.after_start()
    stopped = False

    async def stop() -> None:
        nonlocal stopped
        if not stopped:
            stopped = True
            server.server.close()
            await server.before_stop()
            for connection in list(server.connections):
                connection.abort()
            await server.server.wait_closed()
            await server.after_stop()

    try:
        yield Served(app, f"http://127.0.0.1:{sock.getsockname()[1]}", stop)
    finally:
        await stop()


@dataclass
class Message:
    """What a client has got; the data is parsed."""

    id: int
    data: dict[str, Any]
    names: list[str]  # of the fields

    @property
    def type(self) -> str:
        return str(self.data["type"])


@dataclass
class Client:
    """A reader of an event stream, which parses as the HTML standard says (9.2.6)."""

    response: httpx.Response
    messages: asyncio.Queue[Message | None] = field(default_factory=asyncio.Queue)  # None: the stream has ended
    received: list[Message] = field(default_factory=list)  # all that came
    comments: list[str] = field(default_factory=list)

    async def next(self, seconds: float = 10) -> Message:
        """The next message; fails when the stream ends instead."""
        async with asyncio.timeout(seconds):
            message = await self.messages.get()
        assert message is not None, "the stream has ended"
        return message

    async def take(self, number: int) -> list[Message]:
        return [await self.next() for _ in range(number)]

    async def ended(self, seconds: float = 10) -> list[Message]:
        """The messages until the stream ends."""
        rest = []
        async with asyncio.timeout(seconds):
            while (message := await self.messages.get()) is not None:
                rest.append(message)
        return rest

    async def read(self) -> None:
        """Read until the stream ends. A line ends with a line feed only, unlike in httpx's `aiter_lines`."""
        rest = b""
        try:
            async for data in self.response.aiter_bytes():
                *blocks, rest = (rest + data).split(b"\n\n")
                for block in blocks:
                    self._dispatch(block.decode().split("\n"))
        except httpx.HTTPError:
            pass  # The connection was cut; what matters is that it ended.
        self.messages.put_nowait(None)

    def _dispatch(self, lines: list[str]) -> None:
        fields = [line.partition(":")[::2] for line in lines]
        self.comments += [value for name, value in fields if not name]
        found = {name: value.removeprefix(" ") for name, value in fields if name}
        if "data" in found:
            message = Message(int(found["id"]), json.loads(found["data"]), list(found))
            self.received.append(message)
            self.messages.put_nowait(message)


@asynccontextmanager
async def connected(url: str, headers: dict[str, str] | None = None, **params: str | int) -> AsyncIterator[Client]:
    """An open stream. Fails unless the answer is 200."""
    # Without TLS there is nothing to verify, and loading the certificates takes longer than most tests.
    async with (
        httpx.AsyncClient(timeout=httpx.Timeout(10, read=60), verify=False) as http,
        http.stream("GET", f"{url}/api/v1/sse/stream", headers=headers, params=params) as response,
    ):
        assert response.status_code == 200, await response.aread()
        client = Client(response)
        reading = asyncio.create_task(client.read())
        try:
            yield client
        finally:
            reading.cancel()
            await asyncio.wait([reading])


async def until(is_so: Callable[[], Any], seconds: float = 10) -> None:
    """Wait until a condition holds; it may be a coroutine function."""
    async with asyncio.timeout(seconds):
        while True:
            result = is_so()
            if asyncio.iscoroutine(result):
                result = await result
            if result:
                return
            await asyncio.sleep(0.01)
