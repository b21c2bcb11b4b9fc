"""The event stream over HTTP: tickets, filters, refusals, slow clients, disconnects and the end of the service."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import event_streams
import httpx
import pytest
from conftest import TestDatabase
from event_streams import (
    Account,
    Served,
    add_user,
    as_owner,
    change,
    connected,
    make_event,
    make_settings,
    publish,
    register,
    serving,
    until,
)

from reos import events, streams
from reos.auth.signing import Signer
from reos.db import Database
from reos.schemas.sse import EVENT_TYPES
from reos.settings import Settings

pytestmark = pytest.mark.integration

STREAM = "/api/v1/sse/stream"


@pytest.fixture(scope="module")
def settings(dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return make_settings(dsn, tmp_path_factory.mktemp("data"), cors_origins="https://app.example.com")


@pytest.fixture(scope="module")
async def pool(settings: Settings) -> AsyncIterator[Database]:
    """The pool of the writers."""
    opened = await Database.connect(settings)
    yield opened
    await opened.close()


@pytest.fixture(scope="module")
async def served(settings: Settings) -> AsyncIterator[Served]:
    async with serving(settings) as running:
        yield running


@pytest.fixture
async def http(served: Served) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=served.url, timeout=20, verify=False) as client:
        yield client


@pytest.fixture
async def account(pool: Database) -> Account:
    """The Admin of a new organisation."""
    return await register(pool)


@pytest.fixture
def auth(account: Account, settings: Settings) -> dict[str, str]:
    return account.headers(settings)


async def get_ticket(http: httpx.AsyncClient, auth: dict[str, str]) -> str:
    response = await http.post("/api/v1/sse/ticket", headers=auth)
    assert response.status_code == 201
    assert response.json().keys() == {"ticket", "expires_in"}
    assert response.json()["expires_in"] == 60
    return str(response.json()["ticket"])


def assert_refused(response: httpx.Response, status: int, type: str) -> None:
    assert response.status_code == status
    error = response.json()["error"]
    assert error["type"] == type
    assert error["request_id"] == response.headers["x-request-id"]
    assert status != 401 or response.headers["www-authenticate"] == "Bearer"


async def test_the_stream_says_where_it_starts_and_then_what_happens(
    served: Served, pool: Database, account: Account, auth: dict[str, str]
) -> None:
    await publish(pool, account, make_event(n=1))
    async with connected(served.url, auth) as client:
        first = await client.next()
        assert (first.id, first.names) == (1, ["id", "data"])
        assert first.data.keys() == {"type", "timestamp"}
        assert first.type == "connected"
        await publish(pool, account, make_event(n=2, text="é\n\u2028x"), make_event("lead.updated"))
        second, third = await client.take(2)
        assert (second.id, second.names) == (2, ["id", "data"])
        assert second.data.keys() == {"type", "data", "timestamp"}
        assert second.data["data"] == {"n": 2, "text": "é\n\u2028x"}
        assert (third.id, third.type) == (3, "lead.updated")


async def test_the_headers_of_the_stream(served: Served, auth: dict[str, str]) -> None:
    headers = {**auth, "Origin": "https://app.example.com", "X-Request-ID": "abc-1"}
    async with connected(served.url, headers) as client:
        got = client.response.headers
        assert got["content-type"] == "text/event-stream; charset=utf-8"
        assert got["cache-control"] == "no-cache"
        assert got["x-accel-buffering"] == "no"
        assert got["x-request-id"] == "abc-1"
        assert got["access-control-allow-origin"] == "https://app.example.com"
        assert got["x-content-type-options"] == "nosniff"
        assert "content-length" not in got


# --- who may open it -------------------------------------------------------------------------------------------


async def test_without_credentials_it_is_401(http: httpx.AsyncClient) -> None:
    for method in ("GET", "HEAD"):
        assert (await http.request(method, STREAM)).status_code == 401
    assert_refused(await http.get(STREAM), 401, "AuthenticationError")
    assert_refused(await http.get(STREAM, params={"ticket": ""}), 401, "AuthenticationError")
    assert_refused(await http.post("/api/v1/sse/ticket"), 401, "AuthenticationError")
    assert_refused(await http.get("/api/v1/sse/status"), 401, "AuthenticationError")


@pytest.mark.auth
async def test_a_ticket_opens_one_stream(
    served: Served, http: httpx.AsyncClient, pool: Database, account: Account, auth: dict[str, str]
) -> None:
    ticket = await get_ticket(http, auth)
    async with connected(served.url, ticket=ticket) as client:
        assert (await client.next()).type == "connected"
        assert_refused(await http.get(STREAM, params={"ticket": ticket}), 401, "InvalidTokenError")
        await publish(pool, account, make_event(n=1))
        assert (await client.next()).data["data"] == {"n": 1}
    assert_refused(await http.get(STREAM, params={"ticket": ticket}), 401, "InvalidTokenError")
    assert (await http.head(STREAM, params={"ticket": ticket})).status_code == 401


@pytest.mark.auth
async def test_of_parallel_requests_with_one_ticket_one_opens(
    http: httpx.AsyncClient, settings: Settings, served: Served, auth: dict[str, str]
) -> None:
    ticket = await get_ticket(http, auth)

    async def try_it() -> int:
        async with http.stream("GET", STREAM, params={"ticket": ticket}) as response:
            return response.status_code

    statuses = await asyncio.gather(*(try_it() for _ in range(10)))
    assert sorted(statuses) == [200] + [401] * 9


@pytest.mark.auth
async def test_head_opens_nothing_and_leaves_the_ticket_unused(
    served: Served, http: httpx.AsyncClient, auth: dict[str, str]
) -> None:
    ticket = await get_ticket(http, auth)
    for _ in range(2):
        response = await http.head(STREAM, params={"ticket": ticket})
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.headers["x-accel-buffering"] == "no"
    assert (await http.head(STREAM, headers=auth)).status_code == 200
    assert served.app.ctx.context.hub.stream_count == 0
    async with connected(served.url, ticket=ticket) as client:
        assert (await client.next()).type == "connected"


async def test_a_body_that_comes_along_is_read_first(
    served: Served, http: httpx.AsyncClient, auth: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    too_large = b"x" * (served.app.ctx.settings.max_body_bytes + 1)
    async with asyncio.timeout(10):
        assert (await http.request("HEAD", STREAM, headers=auth, content=b"{}")).status_code == 200
        assert (await http.request("GET", STREAM, headers=auth, content=too_large)).status_code == 413
    assert "body not consumed" not in caplog.text


@pytest.mark.auth
async def test_an_expired_ticket_is_401(
    http: httpx.AsyncClient, auth: dict[str, str], account: Account, owner_dsn: str
) -> None:
    ticket = await get_ticket(http, auth)
    left = await as_owner(
        owner_dsn,
        "update one_time_tokens t set expires_at = now() from one_time_tokens before"
        " where t.id = before.id and t.organization_id = $1 returning before.expires_at - now()",
        account.organization_id,
    )
    assert 50 < left.total_seconds() <= 60
    assert_refused(await http.get(STREAM, params={"ticket": ticket}), 401, "InvalidTokenError")


@pytest.mark.auth
@pytest.mark.parametrize("ending", ["update sessions set revoked_at = now()", "update users set is_active = false"])
async def test_an_ended_session_opens_nothing(
    http: httpx.AsyncClient, auth: dict[str, str], pool: Database, account: Account, ending: str
) -> None:
    ticket = await get_ticket(http, auth)
    await change(pool, account, ending)
    for method in ("GET", "HEAD"):
        assert (await http.request(method, STREAM, params={"ticket": ticket})).status_code == 401
        assert (await http.request(method, STREAM, headers=auth)).status_code == 401
    assert_refused(await http.get(STREAM, headers=auth), 401, "InvalidTokenError")


@pytest.mark.auth
async def test_other_texts_are_no_tickets(http: httpx.AsyncClient, settings: Settings, account: Account) -> None:
    signer = Signer(settings.jwt_secret_key)
    organization_id = account.organization_id
    wrong = [
        "x",
        "é\x00",
        "a" * 5000,
        signer.seal("verify_email", organization_id, 1, 1),
        signer.seal("stream_ticket"),
        signer.seal("stream_ticket", organization_id, 1),
        signer.seal("stream_ticket", organization_id, 2**63 - 1, 2**63 - 1),
        signer.seal("stream_ticket", 2**63 - 1, 1, 1),
        signer.seal("stream_ticket", 0, 0, 0),
    ]
    for ticket in wrong:
        assert_refused(await http.get(STREAM, params={"ticket": ticket}), 401, "InvalidTokenError")


@pytest.mark.auth
async def test_a_ticket_of_another_purpose_or_organisation_opens_nothing(
    http: httpx.AsyncClient, auth: dict[str, str], settings: Settings, pool: Database
) -> None:
    ticket = await get_ticket(http, auth)
    signer = Signer(settings.jwt_secret_key)
    numbers = signer.open("stream_ticket", ticket)
    assert numbers is not None
    foreign = await register(pool)
    forged = signer.seal("stream_ticket", foreign.organization_id, *numbers[1:])
    assert_refused(await http.get(STREAM, params={"ticket": forged}), 401, "InvalidTokenError")


async def test_a_refused_query_leaves_the_ticket_unused(
    served: Served, http: httpx.AsyncClient, auth: dict[str, str]
) -> None:
    ticket = await get_ticket(http, auth)
    for name, value, type in (
        ("types", "property.created,nothing", "enum"),
        ("types", ",", "enum"),
        ("other", "1", "extra_forbidden"),
    ):
        response = await http.get(STREAM, params={"ticket": ticket, name: value})
        assert_refused(response, 422, "ValidationError")
        assert response.json()["error"]["details"]["errors"][0]["field"] == name
        assert response.json()["error"]["details"]["errors"][0]["type"] == type
    async with connected(served.url, ticket=ticket) as client:
        assert (await client.next()).type == "connected"


@pytest.mark.auth
async def test_who_may_not_ask_is_told_so_before_the_query_is_judged(
    http: httpx.AsyncClient, auth: dict[str, str], pool: Database, account: Account
) -> None:
    await change(pool, account, "update sessions set revoked_at = now()")
    assert_refused(await http.get(STREAM, params={"types": "x"}, headers=auth), 401, "InvalidTokenError")
    assert_refused(await http.get(STREAM, params={"types": "x", "ticket": "y"}), 401, "InvalidTokenError")


async def test_the_streams_of_a_user_are_bounded(
    served: Served, http: httpx.AsyncClient, auth: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MAX_STREAMS_OF_USER", 1)
    ticket = await get_ticket(http, auth)
    async with connected(served.url, auth) as client:
        await client.next()
        response = await http.get(STREAM, params={"ticket": ticket})
        assert_refused(response, 429, "RateLimitExceededError")
        assert int(response.headers["retry-after"]) > 0
    await until(lambda: served.app.ctx.context.hub.stream_count == 0)
    async with connected(served.url, ticket=ticket) as client:
        assert (await client.next()).type == "connected"


async def test_the_streams_of_a_process_are_bounded(
    http: httpx.AsyncClient, auth: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MAX_STREAMS", 0)
    response = await http.get(STREAM, headers=auth)
    assert_refused(response, 503, "DatabaseError")
    assert int(response.headers["retry-after"]) > 0


# --- what it sends ---------------------------------------------------------------------------------------------


async def test_types_filter(served: Served, pool: Database, account: Account, auth: dict[str, str]) -> None:
    await publish(pool, account, *(make_event(type) for type in EVENT_TYPES))
    wanted = "lead.created, notification"
    async with connected(served.url, auth, types=wanted, last_event_id=0) as client:
        await publish(pool, account, *(make_event(type) for type in EVENT_TYPES))
        got = await client.take(5)
        assert [m.type for m in got] == ["connected"] + ["lead.created", "notification"] * 2
    async with connected(served.url, auth, types=",".join(EVENT_TYPES), last_event_id=0) as client:
        assert [m.type for m in await client.take(35)][1:] == [*EVENT_TYPES, *EVENT_TYPES]


async def test_permissions_filter(
    served: Served, pool: Database, account: Account, auth: dict[str, str], settings: Settings
) -> None:
    nobody = await add_user(pool, account)
    agent = await add_user(pool, account, "Agent")
    async with (
        connected(served.url, auth) as admin,
        connected(served.url, nobody.headers(settings)) as nothing,
        connected(served.url, agent.headers(settings)) as some,
    ):
        for client in (admin, nothing, some):
            await client.next()
        await publish(pool, account, *(make_event(type) for type in EVENT_TYPES))
        assert [m.type for m in await admin.take(len(EVENT_TYPES))] == list(EVENT_TYPES)
        assert [m.type for m in await some.take(len(EVENT_TYPES))] == list(EVENT_TYPES)
        assert (await nothing.next()).type == "notification"
        await change(pool, account, "delete from user_roles where user_id = $1", agent.user_id)
        await publish(pool, account, make_event(), make_event("notification", message="x"))
        assert (await some.next()).type == "notification"
        assert [m.type for m in await admin.take(2)] == ["property.created", "notification"]


async def test_missed_events_are_replayed(
    served: Served, pool: Database, account: Account, auth: dict[str, str]
) -> None:
    await publish(pool, account, *(make_event(n=n) for n in range(1, 6)))
    for headers, params, expected in (
        ({"Last-Event-ID": "3"}, {}, [3, 4, 5]),
        ({}, {"last_event_id": "3"}, [3, 4, 5]),
        ({"Last-Event-ID": "4"}, {"last_event_id": "2"}, [4, 5]),
        ({"Last-Event-ID": "0"}, {}, [0, 1, 2, 3, 4, 5]),
        ({"Last-Event-ID": "5"}, {}, [5]),
        ({}, {"last_event_id": ""}, [5]),
    ):
        async with connected(served.url, auth | headers, **params) as client:
            got = await client.take(len(expected))
            assert [m.id for m in got] == expected
            assert [m.type for m in got] == ["connected"] + ["property.created"] * (len(expected) - 1)


@pytest.mark.parametrize("asked", ["6", "9223372036854775807", "9223372036854775808", "-1", "1.0", "x", "%00", "01"])
async def test_a_number_that_cannot_be_is_told(
    served: Served, pool: Database, account: Account, auth: dict[str, str], asked: str
) -> None:
    await publish(pool, account, *(make_event(n=n) for n in range(1, 6)))
    async with connected(served.url, auth, last_event_id=asked) as client:
        first, second = await client.take(2)
        assert (first.id, first.type, second.id, second.type) == (5, "connected", 5, "resync")
        assert second.names == ["id", "data"]
        await publish(pool, account, make_event(n=6))
        assert (await client.next()).id == 6


async def test_a_revoked_session_closes_the_stream_in_time(
    served: Served, pool: Database, account: Account, auth: dict[str, str], settings: Settings
) -> None:
    user = await add_user(pool, account, "Agent")
    async with connected(served.url, auth) as other, connected(served.url, user.headers(settings)) as client:
        await client.next()
        await change(pool, account, "update sessions set revoked_at = now() where id = $1", user.session_id)
        assert await client.ended(15) == []
        assert (await other.next()).type == "connected"
        await publish(pool, account, make_event())
        assert (await other.next()).type == "property.created"


async def test_comments_keep_the_stream_alive(
    served: Served, auth: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert events.HEARTBEAT_SECONDS == 15
    monkeypatch.setattr(events, "HEARTBEAT_SECONDS", 0.05)
    async with connected(served.url, auth) as client:
        await until(lambda: len(client.comments) >= 3)
        assert (await client.next()).type == "connected"
        assert client.messages.empty()


# --- clients that come and go ----------------------------------------------------------------------------------


async def test_the_status_counts_the_streams_of_all_processes(
    served: Served, http: httpx.AsyncClient, settings: Settings, pool: Database, account: Account, auth: dict[str, str]
) -> None:
    async def status() -> dict[str, Any]:
        response = await http.get("/api/v1/sse/status", headers=auth)
        assert response.status_code == 200
        return dict(response.json())

    expected = {
        "organization_id": account.organization_id,
        "active_connections": 0,
        "listener_connected": True,
        "last_event_id": 0,
    }
    assert await status() == expected
    await publish(pool, account, make_event())
    async with serving(settings) as second, connected(served.url, auth) as one, connected(second.url, auth) as two:
        assert (await one.next()).id == (await two.next()).id == 1
        assert await status() == expected | {"active_connections": 2, "last_event_id": 1}
        await publish(pool, account, make_event())
        assert (await one.next()).id == (await two.next()).id == 2

    async def is_zero() -> bool:
        return bool((await status())["active_connections"] == 0)

    await until(is_zero, 3)


async def test_a_client_that_goes_is_forgotten(served: Served, auth: dict[str, str]) -> None:
    hub = served.app.ctx.context.hub
    async with connected(served.url, auth) as client:
        await client.next()
        assert hub.stream_count == 1
    await until(lambda: hub.stream_count == 0, 2)


async def open_lazily(served: Served, auth: dict[str, str], read: int = 1) -> socket.socket:
    """A stream on a bare socket with a small buffer, of which only the first bytes are read."""
    loop = asyncio.get_running_loop()
    lazy = socket.socket()
    lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    lazy.setblocking(False)
    host, port = served.url.removeprefix("http://").split(":")
    await loop.sock_connect(lazy, (host, int(port)))
    request = f"GET {STREAM} HTTP/1.1\r\nHost: x\r\nAuthorization: {auth['Authorization']}\r\n\r\n"
    await loop.sock_sendall(lazy, request.encode())
    received = b""
    while b"connected" not in received:
        received += await loop.sock_recv(lazy, 4096)
    return lazy


async def test_a_slow_client_is_dropped_while_another_gets_all(
    served: Served, pool: Database, account: Account, auth: dict[str, str]
) -> None:
    hub = served.app.ctx.context.hub
    with await open_lazily(served, auth) as lazy:
        async with connected(served.url, auth) as client:
            await client.next()
            assert hub.stream_count == 2
            published = 0
            async with asyncio.timeout(60):
                while hub.stream_count == 2:
                    await publish(pool, account, *(make_event(text="x" * 2000) for _ in range(100)))
                    published += 100
                    # A quick client is never behind for long.
                    assert [m.id for m in await client.take(100)] == list(range(published - 99, published + 1))
            assert streams.MAX_QUEUED < published < 3000
            loop = asyncio.get_running_loop()
            with pytest.raises(ConnectionResetError):
                while await loop.sock_recv(lazy, 65536):
                    pass


async def test_a_client_that_stops_reading_is_dropped(
    served: Served, pool: Database, account: Account, auth: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert events.STALL_SECONDS == 15
    monkeypatch.setattr(events, "STALL_SECONDS", 1)
    hub = served.app.ctx.context.hub
    with await open_lazily(served, auth):
        async with connected(served.url, auth) as client:
            await client.next()
            await publish(pool, account, *(make_event(text="x" * 20_000) for _ in range(20)))
            await client.take(20)
            await until(lambda: hub.stream_count == 1)
            await publish(pool, account, make_event())
            await client.next()


async def test_a_client_that_reads_slowly_is_kept(
    served: Served, pool: Database, account: Account, auth: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "STALL_SECONDS", 1)
    monkeypatch.setattr(events, "WATCH_SECONDS", 0.1)
    hub = served.app.ctx.context.hub
    loop = asyncio.get_running_loop()
    with await open_lazily(served, auth) as slow:
        await publish(pool, account, *(make_event(text="x" * 20_000) for _ in range(20)))
        began = time.monotonic()
        received = 0
        while time.monotonic() - began < 4:
            received += len(await loop.sock_recv(slow, 4096))
            await asyncio.sleep(0.2)
            assert hub.stream_count == 1
        assert received < 20 * 20_000


async def test_reconnects_at_random_get_exactly_the_committed_events(
    served: Served, settings: Settings, pool: Database, account: Account, auth: dict[str, str]
) -> None:
    dice = random.Random(3)
    got: list[tuple[int, Any]] = []
    position = "0"
    connections = 0
    async with serving(settings) as second:
        writing = asyncio.create_task(event_streams.write_concurrently(pool, [account], seed=3, each=15))
        while not writing.done() or len(got) < await event_streams.newest_id(pool, account):
            async with connected(dice.choice((served.url, second.url)), auth | {"Last-Event-ID": position}) as client:
                await asyncio.sleep(dice.random() * 0.05)
            connections += 1
            for message in client.received:
                position = str(message.id)
                if message.type != "connected":
                    got.append((message.id, message.data["data"]))
        await writing
    assert connections >= 5
    assert got == await event_streams.kept_events(pool, account)


# --- the end of the service ------------------------------------------------------------------------------------


async def test_the_streams_end_cleanly_when_the_service_stops(
    settings: Settings, pool: Database, account: Account, auth: dict[str, str]
) -> None:
    async with serving(settings) as stopping, connected(stopping.url, auth) as client:
        await client.next()
        began = time.monotonic()
        await stopping.stop()
        assert time.monotonic() - began < 1.5
        assert await client.ended(1) == []
        assert client.comments == [" the stream ends"]


async def test_a_draining_service_takes_no_new_streams(settings: Settings, auth: dict[str, str]) -> None:
    async with (
        serving(settings) as draining,
        httpx.AsyncClient(base_url=draining.url, verify=False) as http,
        connected(draining.url, auth) as client,
    ):
        await client.next()
        draining.app.ctx.draining = True
        response = await http.get(STREAM, headers=auth)
        assert_refused(response, 503, "DatabaseError")
        assert int(response.headers["retry-after"]) > 0
        draining.app.ctx.context.hub.drain()
        assert await client.ended(1) == []


async def test_the_listening_connection_comes_back(
    served: Served,
    http: httpx.AsyncClient,
    pool: Database,
    account: Account,
    auth: dict[str, str],
    database: TestDatabase,
) -> None:
    conn = await asyncpg.connect(database.superuser_dsn)
    hub = served.app.ctx.context.hub
    try:
        async with connected(served.url, auth) as client:
            await client.next()
            await conn.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where application_name = 'reos events' and datname = current_database()"
            )
            await until(lambda: not hub.is_listening)
            assert (await http.get("/api/v1/sse/status", headers=auth)).json()["listener_connected"] is False
            await publish(pool, account, make_event(n=1))
            await until(lambda: hub.is_listening)
            assert (await client.next(2)).data["data"] == {"n": 1}
    finally:
        await conn.close()
