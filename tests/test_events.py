"""The event hub against a real Postgres: nothing lost, doubled, out of order or foreign, whatever goes wrong."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import event_streams
import pytest
from conftest import TestDatabase
from event_streams import Account, add_user, change, make_event, publish, register, until

from reos import encoding, events, streams
from reos.auth.guard import Principal
from reos.db import Database, plain_transaction, tenant_transaction
from reos.errors import OverloadedError, RateLimitExceededError
from reos.events import Hub
from reos.locks import SessionLocks
from reos.queries import events as queries
from reos.streams import Line, Message, Start, Stream, find_start

ADMIN_SEES = ("property:read", "lead:read")


class Wire:
    """A transport that takes what it is told to take."""

    def __init__(self) -> None:
        self.waiting = 0
        self.is_aborted = False

    def get_extra_info(self, name: str) -> None:
        return None

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def abort(self) -> None:
        self.is_aborted = True


class Follower:
    """A stream and everything that was written to it."""

    def __init__(self, stream: Stream, start: Start, chunks: AsyncIterator[bytes]):
        self.stream = stream
        self.start = start
        self.text = b""
        self._chunks = chunks

    async def read(self) -> None:
        async for chunk in self._chunks:
            self.text += chunk

    @property
    def messages(self) -> list[tuple[int, Any]]:
        """The numbers and contents of all messages so far."""
        found = []
        for block in self.text.decode().split("\n\n")[:-1]:
            fields = dict(line.split(": ", 1) for line in block.split("\n") if line[0] != ":")
            if "data" in fields:
                found.append((int(fields["id"]), encoding.loads(fields["data"])))
        return found

    @property
    def events(self) -> list[tuple[int, Any]]:
        """The numbers and data of the events so far."""
        return [(number, m["data"]) for number, m in self.messages if m["type"] not in ("connected", "resync")]

    @property
    def position(self) -> int:
        """What a client would send as Last-Event-ID."""
        return self.messages[-1][0]


@asynccontextmanager
async def following(
    hub: Hub, account: Account, last_event_id: object = None, *, types: frozenset[str] | None = None
) -> AsyncIterator[Follower]:
    """A stream that is read until the block ends."""
    async with plain_transaction(hub._database) as conn:
        alive = await queries.list_live_sessions(conn, [(account.organization_id, account.session_id)])
    stream = hub.admit(account.principal, alive[0]["permissions"], types, Wire())
    try:
        start = await hub.place(stream, None if last_event_id is None else str(last_event_id))
        async with aclosing(hub.chunks(stream, start)) as chunks:
            follower = Follower(stream, start, chunks)
            reading = asyncio.create_task(follower.read())
            await until(lambda: follower.messages or reading.done())
            try:
                yield follower
            finally:
                reading.cancel()
                await asyncio.wait([reading])
    finally:
        hub.release(stream)


@pytest.fixture(scope="module")
async def pool(dsn: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Database]:
    """The pool of the writers."""
    opened = await Database.connect(event_streams.make_settings(dsn, tmp_path_factory.mktemp("data"), db_pool_max=20))
    yield opened
    await opened.close()


@asynccontextmanager
async def running_hub(dsn: str, **settings: Any) -> AsyncIterator[Hub]:
    """A hub with a pool of its own, as a process has it."""
    chosen = event_streams.make_settings(dsn, Path("unused"), **settings)
    database = await Database.connect(chosen)
    hub = Hub(chosen, database, SessionLocks())
    await hub.start()
    try:
        yield hub
    finally:
        await hub.stop()
        await database.close()


@pytest.fixture
async def hub(dsn: str, loop: asyncio.AbstractEventLoop) -> AsyncIterator[Hub]:
    async with running_hub(dsn) as running:
        yield running


@pytest.fixture
async def account(pool: Database) -> Account:
    """The Admin of a new organisation."""
    return await register(pool)


async def until_has(follower: Follower, expected: list[tuple[int, Any]]) -> None:
    """Wait until the follower has as many events, and compare."""
    await until(lambda: len(follower.events) >= len(expected))
    assert follower.events == expected


# --- where a stream starts -------------------------------------------------------------------------------------


@pytest.mark.unit
@pytest.mark.parametrize(
    ("asked", "first_id", "last_id", "position", "is_resync"),
    [
        (None, 1, 9, 9, False),
        ("4", 1, 9, 4, False),
        ("9", 1, 9, 9, False),
        ("10", 1, 9, 9, True),
        ("0", 1, 9, 0, False),
        ("0", 5, 9, 4, False),
        ("4", 5, 9, 4, False),
        ("3", 5, 9, 9, True),
        ("0", 1, 0, 0, False),
        ("1", 1, 0, 0, True),
        ("", 1, 9, 9, True),
        ("-1", 1, 9, 9, True),
        ("+4", 1, 9, 9, True),
        ("04", 1, 9, 9, True),
        ("4.0", 1, 9, 9, True),
        ("٤", 1, 9, 9, True),
        ("abc", 1, 9, 9, True),
        ("9" * 19, 1, 9, 9, True),
        ("9" * 5000, 1, 9, 9, True),
    ],
)
def test_where_a_stream_starts(asked: str | None, first_id: int, last_id: int, position: int, is_resync: bool) -> None:
    assert find_start(asked, first_id, last_id) == Start(position, is_resync)


# --- one stream ------------------------------------------------------------------------------------------------


def make_message(number: int, type: str = "property.created", user_id: int | None = None) -> Message:
    permission = None if type == "notification" else f"{type.partition('.')[0]}:read"
    return Message(number, type, permission, user_id, b"%d" % number, time.time())


def make_stream(types: frozenset[str] | None = None) -> tuple[Stream, Wire]:
    wire: Any = Wire()
    return Stream(Principal(1, 2, 3), ADMIN_SEES, types, Line(wire)), wire


@pytest.mark.unit
def test_a_stream_shows_what_its_user_may_read_and_wants() -> None:
    stream, _ = make_stream()
    assert stream.may_see(make_message(1))
    assert not stream.may_see(make_message(1, "deal.created"))
    assert stream.may_see(make_message(1, "notification"))
    assert stream.may_see(make_message(1, "notification", user_id=2))
    assert not stream.may_see(make_message(1, "notification", user_id=4))
    stream, _ = make_stream(frozenset({"lead.created", "deal.created"}))
    assert stream.may_see(make_message(1, "lead.created"))
    assert not stream.may_see(make_message(1, "lead.updated"))
    assert not stream.may_see(make_message(1, "deal.created"))
    assert not stream.may_see(make_message(1, "notification"))


@pytest.mark.unit
def test_a_message_comes_once_and_a_permission_lost_meanwhile_holds_it_back() -> None:
    stream, _ = make_stream()
    for number in (1, 2, 2, 1, 3):
        stream.put(make_message(number))
    assert stream.take() == b"123"
    stream.put(make_message(4))
    stream.permissions = frozenset()
    assert stream.take() == b""


@pytest.mark.unit
def test_a_stream_with_too_many_queued_messages_is_cut_off() -> None:
    stream, wire = make_stream()
    for number in range(1, streams.MAX_QUEUED + 1):
        stream.put(make_message(number))
    assert not wire.is_aborted
    stream.put(make_message(streams.MAX_QUEUED + 1))
    assert wire.is_aborted
    assert stream.is_cut
    assert stream.take() == b""


@pytest.mark.unit
def test_a_client_stalls_when_it_takes_nothing_of_what_waits() -> None:
    wire: Any = Wire()
    line = Line(wire)
    began = time.monotonic()
    assert line.stalled_for(began + 100) == 0
    line.wrote(100)  # 100 bytes in a frame of 6
    wire.waiting = 106
    assert line.stalled_for(began + 10) == pytest.approx(10, abs=1)
    line.wrote(100)
    wire.waiting = 212
    assert line.stalled_for(began + 14) == pytest.approx(14, abs=1)
    wire.waiting = 211
    assert line.stalled_for(began + 16) == 0
    assert line.stalled_for(began + 20) == 4
    wire.waiting = 0
    assert line.stalled_for(began + 30) == 0
    assert line.stalled_for(began + 90) == 0


# --- the hub ---------------------------------------------------------------------------------------------------


@pytest.mark.integration
async def test_a_stream_gets_what_is_published_from_its_start_on(hub: Hub, pool: Database, account: Account) -> None:
    await publish(pool, account, make_event(n=1))
    async with following(hub, account) as follower:
        assert follower.messages[0][0] == 1
        assert follower.messages[0][1]["type"] == "connected"
        await publish(pool, account, make_event(n=2), make_event("lead.updated", n=3))
        await until_has(follower, [(2, {"n": 2}), (3, {"n": 3})])
        assert follower.messages[2][1].keys() == {"type", "data", "timestamp"}
        assert follower.messages[2][1]["type"] == "lead.updated"
        assert follower.messages[2][1]["timestamp"].endswith("Z")


@pytest.mark.integration
async def test_nobody_is_notified_where_nobody_listens(
    hub: Hub, pool: Database, account: Account, superuser_conn: asyncpg.Connection
) -> None:
    heard: list[Any] = []
    await superuser_conn.add_listener(events.CHANNEL, lambda *message: heard.append(message[3]))
    await publish(pool, account, make_event())
    async with following(hub, account) as follower:
        await publish(pool, account, make_event())
        await until_has(follower, [(2, {})])
        await until(lambda: heard)
    assert heard == [f"{account.organization_id}:2"]


@pytest.fixture
async def superuser_conn(database: TestDatabase, loop: asyncio.AbstractEventLoop) -> AsyncIterator[asyncpg.Connection]:
    conn = await asyncpg.connect(database.superuser_dsn)
    yield conn
    await conn.close()


@pytest.mark.integration
async def test_twenty_concurrent_writers_are_seen_in_the_order_of_their_commits(
    hub: Hub, pool: Database, account: Account
) -> None:
    other = await register(pool)
    async with following(hub, account) as first, following(hub, other) as foreign:
        committed = await event_streams.write_concurrently(pool, [account, other], seed=7)
        for owner, follower in ((account, first), (other, foreign)):
            kept = await event_streams.kept_events(pool, owner)
            assert kept
            assert [number for number, _ in kept] == list(range(1, len(kept) + 1))
            await until_has(follower, kept)
        assert {data["mark"] for _, data in first.events + foreign.events} == committed


@pytest.mark.integration
async def test_nothing_is_lost_when_the_listening_connection_is_killed(
    hub: Hub, pool: Database, account: Account, superuser_conn: asyncpg.Connection
) -> None:
    async with following(hub, account) as follower:
        writing = asyncio.create_task(event_streams.write_concurrently(pool, [account], seed=8, each=20))
        killed = 0
        while not writing.done():
            killed += await superuser_conn.fetchval(
                "select count(pg_terminate_backend(pid)) from pg_stat_activity"
                " where application_name = 'reos events' and datname = current_database()"
            )
            await asyncio.sleep(0.1)
        committed = await writing
        assert killed >= 2
        await until_has(follower, await event_streams.kept_events(pool, account))
        assert {data["mark"] for _, data in follower.events} == committed
        await until(lambda: hub.is_listening)


@pytest.mark.integration
async def test_a_client_that_reconnects_at_random_gets_exactly_the_committed_events(
    dsn: str, hub: Hub, pool: Database, account: Account
) -> None:
    other = await register(pool)
    dice = random.Random(9)
    got: list[tuple[int, Any]] = []
    position = 0
    async with running_hub(dsn) as second:
        writing = asyncio.create_task(event_streams.write_concurrently(pool, [account, other], seed=9, each=30))
        connections = 0
        while not writing.done() or len(got) < await event_streams.newest_id(pool, account):
            async with following(dice.choice((hub, second)), account, position) as follower:
                await asyncio.sleep(dice.random() * 0.05)
            got += follower.events
            position = follower.position
            connections += 1
        await writing
    assert connections >= 10
    assert got == await event_streams.kept_events(pool, account)


@pytest.mark.integration
async def test_an_event_is_found_without_its_notification(
    hub: Hub, pool: Database, account: Account, superuser_conn: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "CHECK_SECONDS", 0.1)
    async with following(hub, account) as follower:
        await superuser_conn.execute("update event_counters set listened_until = '-infinity'")
        await publish(pool, account, make_event(n=1))
        await until_has(follower, [(1, {"n": 1})])


@pytest.mark.integration
async def test_a_long_replay_meets_the_live_events_without_gap_or_double(
    hub: Hub, pool: Database, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "PAGE_ROWS", 7)
    await publish(pool, account, *(make_event(n=n) for n in range(500)))
    async with following(hub, account), following(hub, account, 0) as follower:
        committed = await event_streams.write_concurrently(pool, [account], seed=10, each=5)
        await until_has(follower, await event_streams.kept_events(pool, account))
        assert len(follower.events) == 500 + len(committed)


@pytest.mark.integration
async def test_pages_are_bounded_in_bytes(pool: Database, account: Account) -> None:
    text = "x" * 200_000
    await publish(pool, account, *(make_event(text=text) for _ in range(5)))
    async with tenant_transaction(pool, account.organization_id) as conn:
        assert [row["id"] for row in await queries.list_after(conn, 0, 100)] == [1, 2, 3]
        await queries.record_changes(conn, [], [make_event(text="x" * 900_000), make_event()])
        assert [row["id"] for row in await queries.list_after(conn, 5, 100)] == [6]


@pytest.mark.integration
async def test_what_was_purged_makes_a_new_start(
    hub: Hub, pool: Database, account: Account, superuser_conn: asyncpg.Connection
) -> None:
    await publish(pool, account, *(make_event(n=n) for n in range(1, 10)))
    await superuser_conn.execute("delete from events where organization_id = $1 and id < 5", account.organization_id)
    for asked, start in ((3, 9), (10, 9), ("x", 9)):
        async with following(hub, account, asked) as follower:
            await until(lambda f=follower: len(f.messages) == 2)
            assert [(number, m["type"]) for number, m in follower.messages] == [(start, "connected"), (start, "resync")]
            assert follower.messages[1][1]["data"] == {"last_event_id": 9}
    for asked in (0, 4):
        async with following(hub, account, asked) as follower:
            await until_has(follower, [(n, {"n": n}) for n in range(5, 10)])
            assert [m["type"] for _, m in follower.messages][:2] == ["connected", "property.created"]


@pytest.mark.integration
async def test_what_is_purged_during_a_replay_makes_a_new_start(
    hub: Hub, pool: Database, account: Account, superuser_conn: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "PAGE_ROWS", 2)
    await publish(pool, account, *(make_event(n=n) for n in range(1, 10)))
    stream = hub.admit(account.principal, ADMIN_SEES, None, Wire())
    try:
        start = await hub.place(stream, "0")
        async with aclosing(hub.chunks(stream, start)) as chunks:
            follower = Follower(stream, start, chunks)
            follower.text += await anext(chunks) + await anext(chunks)
            assert follower.position == 2
            await superuser_conn.execute(
                "delete from events where organization_id = $1 and id < 7", account.organization_id
            )
            follower.text += await anext(chunks)
            assert follower.messages[-1][0] == 9
            assert follower.messages[-1][1]["type"] == "resync"
    finally:
        hub.release(stream)


@pytest.mark.integration
async def test_a_client_that_does_not_read_is_cut_off_and_the_others_get_all(
    hub: Hub, pool: Database, account: Account
) -> None:
    wire = Wire()
    lazy = hub.admit(account.principal, ADMIN_SEES, None, wire)
    try:
        async with (
            following(hub, account) as follower,
            aclosing(hub.chunks(lazy, await hub.place(lazy, None))) as chunks,
        ):
            await anext(chunks)
            going_live = asyncio.create_task(anext(chunks))
            await until(lambda: lazy.is_live)
            await publish(pool, account, make_event())
            await going_live
            for part in range(12):
                await publish(pool, account, *(make_event(n=part) for _ in range(100)))
            await until_has(follower, await event_streams.kept_events(pool, account))
            assert len(follower.events) == 1201
            assert wire.is_aborted
            assert [chunk async for chunk in chunks] == []
    finally:
        hub.release(lazy)


@pytest.mark.integration
async def test_a_client_that_takes_nothing_is_cut_off(
    hub: Hub, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "WATCH_SECONDS", 0.01)
    monkeypatch.setattr(events, "STALL_SECONDS", 0.1)
    async with running_hub(hub._dsn) as watched:
        wire = Wire()
        stuck = watched.admit(account.principal, ADMIN_SEES, None, wire)
        async with following(watched, account) as follower:
            stuck.line.wrote(10)
            wire.waiting = 15
            await until(lambda: wire.is_aborted)
            assert not follower.stream.is_cut
        watched.release(stuck)


@pytest.mark.integration
async def test_a_lost_role_stops_events_at_once(hub: Hub, pool: Database, account: Account) -> None:
    agent = await add_user(pool, account, "Agent")
    async with following(hub, account) as admin, following(hub, agent) as follower:
        await publish(pool, account, make_event(n=1))
        await until_has(follower, [(1, {"n": 1})])
        await change(pool, account, "delete from user_roles where user_id = $1", agent.user_id)
        await publish(pool, account, make_event(n=2), make_event("notification", user_id=agent.user_id))
        await until_has(admin, [(1, {"n": 1}), (2, {"n": 2})])
        await until_has(follower, [(1, {"n": 1}), (3, {"user_id": agent.user_id})])
    async with following(hub, agent, 0) as replayed:
        await until_has(replayed, [(3, {"user_id": agent.user_id})])


@pytest.mark.integration
async def test_a_notification_is_for_its_user_only(hub: Hub, pool: Database, account: Account) -> None:
    agent = await add_user(pool, account)
    async with following(hub, account) as admin, following(hub, agent) as follower:
        await publish(
            pool,
            account,
            make_event("notification", user_id=agent.user_id, message="a"),
            make_event("notification", user_id=account.user_id, message="b"),
            make_event("notification", user_id=None, message="c"),
        )
        await until(lambda: len(follower.events) == 2 and len(admin.events) == 2)
        assert [data["message"] for _, data in follower.events] == ["a", "c"]
        assert [data["message"] for _, data in admin.events] == ["b", "c"]


ENDINGS = [
    "update sessions set revoked_at = now() where id = $1",
    "update sessions set expires_at = now() where id = $1",
    "update users set is_active = false from sessions s where s.user_id = users.id and s.id = $1",
]


@pytest.mark.integration
@pytest.mark.parametrize("statement", ENDINGS)
async def test_a_stream_ends_with_its_session_without_any_event(
    hub: Hub, pool: Database, account: Account, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    monkeypatch.setattr(events, "CHECK_SECONDS", 0.05)
    user = await add_user(pool, account, "Agent")
    async with running_hub(hub._dsn) as checking, following(checking, account) as other:
        async with following(checking, user) as follower:
            await change(pool, account, statement, user.session_id)
            await until(lambda: follower.text.endswith(streams_end()))
        assert other.stream.ended_at is None


@pytest.mark.integration
async def test_no_event_reaches_a_session_that_has_ended(hub: Hub, pool: Database, account: Account) -> None:
    user = await add_user(pool, account, "Agent")
    async with following(hub, account) as other, following(hub, user) as follower:
        await change(pool, account, ENDINGS[0], user.session_id)
        await publish(pool, account, make_event(n=1))
        await until_has(other, [(1, {"n": 1})])
        await until(lambda: follower.text.endswith(streams_end()))
        assert follower.events == []


def streams_end() -> bytes:
    return events.GOODBYE


@pytest.mark.integration
async def test_heartbeats_come_whether_or_not_events_do(
    hub: Hub, pool: Database, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "HEARTBEAT_SECONDS", 0.05)
    async with following(hub, account) as follower:
        await until(lambda: follower.text.count(events.HEARTBEAT) >= 3)
        seen = follower.text.count(events.HEARTBEAT)
        for _ in range(20):
            await publish(pool, account, make_event())
        await until(lambda: follower.text.count(events.HEARTBEAT) >= seen + 3)


@pytest.mark.integration
async def test_stopping_ends_the_streams_within_a_second(dsn: str, pool: Database, account: Account) -> None:
    async with running_hub(dsn) as hub:
        wire = Wire()
        stuck = hub.admit(account.principal, ADMIN_SEES, None, wire)
        await hub.place(stuck, None)
        reading = asyncio.create_task(_read_all(hub, account))
        await until(lambda: hub.stream_count == 2)
        await until_streams(pool, account, 2)
        began = time.monotonic()
        await hub.stop()
        assert time.monotonic() - began < 1
        assert (await reading).endswith(events.GOODBYE)
        assert wire.is_aborted
        assert await count_streams(pool, account) == 0
        hub.release(stuck)
        with pytest.raises(OverloadedError):
            hub.admit(account.principal, ADMIN_SEES, None, Wire())


async def _read_all(hub: Hub, account: Account) -> bytes:
    stream = hub.admit(account.principal, ADMIN_SEES, None, Wire())
    try:
        return b"".join([chunk async for chunk in hub.chunks(stream, await hub.place(stream, None))])
    finally:
        hub.release(stream)


async def count_streams(pool: Database, account: Account) -> int:
    async with tenant_transaction(pool, account.organization_id) as conn:
        return await queries.count_streams(conn)


async def until_streams(pool: Database, account: Account, number: int) -> None:
    async def are_so_many() -> bool:
        return await count_streams(pool, account) == number

    await until(are_so_many)


@pytest.mark.integration
async def test_streams_are_counted_over_processes(dsn: str, hub: Hub, pool: Database, account: Account) -> None:
    foreign = await register(pool)
    async with running_hub(dsn) as second:
        async with following(hub, account), following(second, account), following(second, account):
            assert await count_streams(pool, account) == 3
            async with following(hub, foreign):
                assert await count_streams(pool, foreign) == 1
                assert await count_streams(pool, account) == 3
        await until_streams(pool, account, 0)
        await until_streams(pool, foreign, 0)


@pytest.mark.integration
async def test_streams_of_a_process_that_died_are_forgotten(
    hub: Hub, pool: Database, account: Account, superuser_conn: asyncpg.Connection
) -> None:
    await superuser_conn.execute(
        "insert into stream_listeners values ($1, $2, 5, now() - interval '59 seconds')",
        account.organization_id,
        uuid4(),
    )
    assert await count_streams(pool, account) == 5
    await superuser_conn.execute("update stream_listeners set seen_at = seen_at - interval '1 second'")
    assert await count_streams(pool, account) == 0
    async with following(hub, account):
        assert await superuser_conn.fetchval("select count(*) from stream_listeners") == 1


@pytest.mark.integration
async def test_an_announcement_waits_for_the_publishers_under_way(hub: Hub, pool: Database, account: Account) -> None:
    async with tenant_transaction(pool, account.organization_id) as conn:
        await queries.record_changes(conn, [], [make_event(n=1)])
        opening = asyncio.create_task(_start_of(hub, account))
        await until(lambda: hub.stream_count == 1)
        await asyncio.wait([opening], timeout=0.2)
        assert not opening.done()
    assert await opening == 1


async def _start_of(hub: Hub, account: Account) -> int:
    async with following(hub, account) as follower:
        return follower.start.position


@pytest.mark.integration
async def test_streams_are_bounded(hub: Hub, pool: Database, account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MAX_STREAMS", 3)
    monkeypatch.setattr(events, "MAX_STREAMS_OF_USER", 2)
    other = await add_user(pool, account)
    admitted = [hub.admit(account.principal, (), None, Wire()) for _ in range(2)]
    with pytest.raises(RateLimitExceededError) as too_many:
        hub.admit(account.principal, (), None, Wire())
    assert too_many.value.details.keys() == {"limit", "window", "retry_after"}
    admitted.append(hub.admit(other.principal, (), None, Wire()))
    with pytest.raises(OverloadedError) as no_room:
        hub.admit(other.principal, (), None, Wire())
    assert "Retry-After" in no_room.value.headers
    for stream in admitted:
        hub.release(stream)
    assert hub.stream_count == 0


@pytest.mark.integration
async def test_an_idle_stream_holds_no_connection(hub: Hub, account: Account) -> None:
    async with following(hub, account) as follower:
        await until(lambda: follower.stream.is_live)
        await until(lambda: hub._database.busy == 0)


@pytest.mark.integration
async def test_a_stream_is_refused_while_the_database_is_away(
    hub: Hub, pool: Database, account: Account, superuser_conn: asyncpg.Connection
) -> None:
    async with following(hub, account) as follower:
        await superuser_conn.execute(
            "revoke execute on function announce_streams(uuid, bigint[], integer[]) from reos_app"
        )
        try:
            with pytest.raises(Exception, match="The database is not available"):
                await _start_of(hub, account)
        finally:
            await superuser_conn.execute(
                "grant execute on function announce_streams(uuid, bigint[], integer[]) to reos_app"
            )
        await publish(pool, account, make_event(n=1))
        await until_has(follower, [(1, {"n": 1})])
    await until_streams(pool, account, 0)
