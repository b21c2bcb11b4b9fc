"""Two hosts behind one pooler, with a replica and an S3 server: what one does holds on the other with the next request.

docs/scaling.md tells how to set this up; the settings here are those that it names.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import httpx
import psycopg
import pytest
from crm import HOUSE, PERSON
from event_streams import connected
from hosts import Host, Hosts, hosts
from PIL import Image
from running import until

from reos.integrations.email import list_outbox, read_outbox

pytestmark = [pytest.mark.integration, pytest.mark.slow]

LIMIT = 60
PASSWORD = "correct Horse 7"


@dataclass
class Somebody:
    """An Admin, with a client for each host."""

    email: str
    token: str
    clients: list[httpx.AsyncClient]

    async def on(self, host: int, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}", **options.pop("headers", {})}
        return await self.clients[host].request(method, f"/api/v1{path}", headers=headers, **options)


@pytest.fixture(scope="module")
def pair() -> Iterator[Hosts]:
    with hosts(2, RATE_LIMIT_PER_MINUTE=0, RATE_LIMIT_PER_HOUR=0, RATE_LIMIT_PER_DAY=0) as pair:
        yield pair


@pytest.fixture
async def clients(pair: Hosts) -> AsyncIterator[list[httpx.AsyncClient]]:
    async with AsyncExitStack() as stack:
        opened = [httpx.AsyncClient(base_url=host.url, timeout=30, verify=False) for host in pair.hosts]
        for client in opened:
            await stack.enter_async_context(client)
        yield opened


async def register(clients: list[httpx.AsyncClient], email: str) -> Somebody:
    body = {"email": email, "password": PASSWORD, "first_name": "Ann", "last_name": "Lee"}
    response = await clients[0].post("/api/v1/auth/register", json=body)
    assert response.status_code == 201, response.text
    return Somebody(email, response.json()["access_token"], clients)


async def test_what_is_written_on_one_is_read_on_the_other(clients: list[httpx.AsyncClient]) -> None:
    ann = await register(clients, "read@example.com")
    created = await ann.on(0, "POST", "/properties", json=HOUSE)
    there = await ann.on(1, "GET", f"/properties/{created.json()['id']}")
    assert (there.status_code, there.content, there.headers["ETag"]) == (200, created.content, created.headers["ETag"])
    body = {"status": "off_market"}
    changed = await ann.on(1, "PATCH", f"/properties/{created.json()['id']}", json=body,
                           headers={"If-Match": created.headers["ETag"]})  # fmt: skip
    assert changed.status_code == 200
    late = await ann.on(0, "PATCH", f"/properties/{created.json()['id']}", json=body,
                        headers={"If-Match": created.headers["ETag"]})  # fmt: skip
    assert late.status_code == 412


async def test_a_repeated_request_is_known_on_the_other(clients: list[httpx.AsyncClient]) -> None:
    ann = await register(clients, "repeat@example.com")
    key = {"Idempotency-Key": "once"}
    answers = await asyncio.gather(
        *(ann.on(turn % 2, "POST", "/leads", json=PERSON, headers=key) for turn in range(20))
    )
    assert {answer.status_code for answer in answers} <= {201, 409}
    again = await ann.on(1, "POST", "/leads", json=PERSON, headers=key)
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (201, "true")
    assert (await ann.on(0, "GET", "/leads")).json()["total"] == 1


async def test_who_is_out_on_one_is_out_on_the_other(pair: Hosts, clients: list[httpx.AsyncClient]) -> None:
    """With the next request, each time after the other host has let them in: whatever it keeps of that is not asked."""
    ann = await register(clients, "out@example.com")
    roles = {role["name"]: role["id"] for role in (await ann.on(0, "GET", "/roles")).json()}
    bob = {"email": "bob@example.com", "password": PASSWORD, "first_name": "Bob", "last_name": "Lee"}
    created = await ann.on(0, "POST", "/users", json={**bob, "role_ids": [roles["Agent"]]})
    bob_path = f"/users/{created.json()['id']}"

    async def session(email: str, password: str = PASSWORD) -> Somebody:
        """Of a log-in on the second host, which goes by its token there."""
        answer = await clients[1].post("/api/v1/auth/login", json={"email": email, "password": password})
        somebody = Somebody(email, answer.json()["access_token"], clients)
        assert await seen(somebody) == (200, 200)
        return somebody

    async def seen(somebody: Somebody) -> tuple[int, int]:
        """What the second host says to who is asked for, and to a permission."""
        answers = [await somebody.on(1, "GET", path) for path in ("/auth/me", "/properties")]
        return answers[0].status_code, answers[1].status_code

    async def told(somebody: Somebody, method: str, path: str, **body: Any) -> None:
        """On the first host."""
        answer = await somebody.on(0, method, path, json=body or None)
        assert answer.status_code in (200, 204), answer.text

    ended = await session(ann.email)
    await told(ended, "POST", "/auth/logout")
    assert await seen(ended) == (401, 401)

    other, third = await session(ann.email), await session(ann.email)
    listed = (await third.on(0, "GET", "/auth/sessions")).json()
    await told(third, "DELETE", f"/auth/sessions/{max(row['id'] for row in listed if not row['is_current'])}")
    assert await seen(other) == (401, 401)
    changed = "correct Horse 8"
    await told(third, "POST", "/auth/change-password", current_password=PASSWORD, new_password=changed)
    assert await seen(ann) == (401, 401)
    assert await seen(third) == (200, 200)

    agent = await session(bob["email"])
    await told(third, "PUT", bob_path, role_ids=[])
    assert await seen(agent) == (200, 403)
    await told(third, "PUT", bob_path, role_ids=[roles["Agent"]])
    assert await seen(agent) == (200, 200)
    await told(third, "PUT", bob_path, password=changed)
    assert await seen(agent) == (401, 401)
    for method, body in (("PUT", {"is_active": False}), ("DELETE", {})):
        agent = await session(bob["email"], changed)
        await told(third, method, bob_path, **body)
        assert await seen(agent) == (401, 401)
        await told(third, "PUT", bob_path, is_active=True)

    agent = await session(bob["email"], changed)
    await told(third, "POST", "/auth/password-reset-request", email=bob["email"])
    token = await asyncio.to_thread(reset_token, pair, bob["email"])
    await told(third, "POST", "/auth/password-reset-confirm", token=token, new_password=PASSWORD)
    assert await seen(agent) == (401, 401)


def reset_token(pair: Hosts, email: str) -> str:
    """What the mail that either worker writes into its outbox says."""
    found: list[str] = []

    def has_come() -> bool:
        for host in pair.hosts:
            outbox = host.directory / "data" / "outbox"
            for mail in list_outbox(outbox):
                if email in mail.recipient and "Set a new password" in mail.subject:
                    whole = read_outbox(outbox, mail.name)
                    assert whole is not None
                    found.extend(re.findall(r"token=([\w-]+)", whole.text))
        return bool(found)

    until(has_come, 30)
    return found[0]


async def test_events_of_one_are_streamed_by_the_other(pair: Hosts, clients: list[httpx.AsyncClient]) -> None:
    """LISTEN goes past the pooler, on DB_LISTEN_DSN."""
    ann = await register(clients, "events@example.com")
    headers = {"Authorization": f"Bearer {ann.token}"}
    async with connected(pair.hosts[1].url, headers) as stream:
        assert (await stream.next()).type == "connected"
        created = await ann.on(0, "POST", "/properties", json=HOUSE)
        message = await stream.next()
    assert (message.type, message.data["data"]["id"]) == ("property.created", created.json()["id"])


async def test_files_are_served_by_both_and_jobs_done_by_either(pair: Hosts, clients: list[httpx.AsyncClient]) -> None:
    ann = await register(clients, "files@example.com")
    house = (await ann.on(0, "POST", "/properties", json=HOUSE)).json()["id"]
    picture = BytesIO()
    Image.new("RGB", (40, 30), "teal").save(picture, "PNG")
    added = await ann.on(0, "POST", f"/properties/{house}/images",
                         files={"file": ("a.png", picture.getvalue(), "image/png")})  # fmt: skip
    assert added.status_code == 201, added.text
    path = httpx.URL(added.json()["url"]).path
    served = [await client.get(path) for client in clients]
    assert [response.status_code for response in served] == [200, 200]
    assert served[0].content == served[1].content

    async def has_ended() -> bool:
        jobs = (await ann.on(1, "GET", "/jobs?kind=send_welcome_email")).json()["items"]
        return [job["state"] for job in jobs] == ["succeeded"]

    async with asyncio.timeout(30):
        while not await has_ended():
            await asyncio.sleep(0.05)


async def test_numbers_come_from_the_replica(pair: Hosts, clients: list[httpx.AsyncClient]) -> None:
    ann = await register(clients, "numbers@example.com")
    await ann.on(0, "POST", "/leads", json=PERSON)

    async def total(host: int) -> int:
        return int((await ann.on(host, "GET", "/analytics/dashboard")).json()["total_leads"])

    async with asyncio.timeout(30):
        while [await total(0), await total(1)] != [1, 1]:
            await asyncio.sleep(0.05)
    pair.replica.ask("select pg_wal_replay_pause()")
    try:
        await ann.on(0, "POST", "/leads", json=PERSON)
        assert [await total(0), await total(1)] == [1, 1]
        assert (await ann.on(1, "GET", "/leads")).json()["total"] == 2
    finally:
        pair.replica.ask("select pg_wal_replay_resume()")


async def test_one_limit_counts_on_both(pair: Hosts, clients: list[httpx.AsyncClient]) -> None:
    ann = await register(clients, "limit@example.com")
    limited = [Host(pair.hosts[0].directory, {**pair.settings, "RATE_LIMIT_PER_MINUTE": LIMIT}) for _ in range(2)]
    try:
        for host in limited:
            host.start("serve")
        for host in limited:
            await asyncio.to_thread(host.wait_ready)
        await _at_the_start_of_a_minute(pair)
        async with AsyncExitStack() as stack:
            opened = [httpx.AsyncClient(base_url=host.url, timeout=30, verify=False) for host in limited]
            for client in opened:
                await stack.enter_async_context(client)
            same = Somebody(ann.email, ann.token, opened)
            answers = await asyncio.gather(*(same.on(turn % 2, "GET", "/auth/me") for turn in range(2 * LIMIT)))
        assert sorted(answer.status_code for answer in answers) == [200] * LIMIT + [429] * LIMIT
    finally:
        for host in limited:
            host.stop()


async def _at_the_start_of_a_minute(pair: Hosts) -> None:
    """Wait while the window that the requests would begin in might end before the last of them."""
    with psycopg.connect(pair.cluster.dsn(pair.database, "postgres"), autocommit=True) as conn:
        async with asyncio.timeout(30):
            while conn.execute("select extract(second from clock_timestamp()) > 45").fetchone() == (True,):
                await asyncio.sleep(0.1)


async def test_when_one_dies_the_other_goes_on(pair: Hosts, clients: list[httpx.AsyncClient]) -> None:
    """The last test: it leaves one host only."""
    ann = await register(clients, "survivor@example.com")
    created = await ann.on(0, "POST", "/properties", json=HOUSE, headers={"Idempotency-Key": "before"})
    for process in pair.hosts[0].processes.values():
        process.kill()
        process.wait()
    again = await ann.on(1, "POST", "/properties", json=HOUSE, headers={"Idempotency-Key": "before"})
    assert (again.json(), again.headers["Idempotency-Replayed"]) == (created.json(), "true")
    assert (await ann.on(1, "POST", "/properties", json=HOUSE)).status_code == 201
