"""Clients that go away in the midst of a request: nothing is half done, and no connection is lost."""

from __future__ import annotations

import asyncio
import json
import random
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest
from api import Api, Client
from event_streams import until

from reos.db import Database, tenant_transaction

pytestmark = pytest.mark.integration

LISTING = {"address": "1 Main St", "city": "Austin", "state": "TX", "zip_code": "78701", "property_type": "condo"}


async def send_and_go(api: Api, client: Client, seconds: float, body: dict[str, Any], key: str) -> bytes:
    """Send a POST, go away after so long, without a word; what had come until then."""
    address = urlsplit(api.url)
    content = json.dumps(body).encode()
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(
        f"POST /api/v1/properties HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Authorization: {client.headers['Authorization']}\r\nIdempotency-Key: {key}\r\n"
        f"Content-Length: {len(content)}\r\n\r\n".encode()
        + content
    )
    await writer.drain()
    try:
        return await asyncio.wait_for(reader.read(16), seconds)
    except TimeoutError:
        return b""
    finally:
        writer.transport.abort()


def idle(database: Database) -> bool:
    """Whether every connection is back in the pool, whole."""
    return database.busy == database.waiting == 0


@pytest.mark.slow
async def test_what_a_client_left_behind_is_whole_and_can_be_asked_for(api: Api) -> None:
    admin = await api.register()
    dice = random.Random(1)
    for _ in range(12):
        keys = {uuid4().hex: dice.random() ** 3 * 0.04 for _ in range(25)}
        answers = await asyncio.gather(
            *(send_and_go(api, admin, wait, LISTING | {"city": key}, key) for key, wait in keys.items())
        )
        await until(lambda: idle(api.database))
        rows = await api.fetch("select city from properties where organization_id = $1", admin.organization_id)
        done = {row["city"] for row in rows} & set(keys)
        told = {key for key, answer in zip(keys, answers, strict=True) if answer}
        assert told <= done
        for key in keys:
            response = await admin.request(
                "POST",
                "/properties",
                content=json.dumps(LISTING | {"city": key}),
                headers={"Content-Type": "application/json", "Idempotency-Key": key},
            )
            assert response.status_code == 201
            assert ("Idempotency-Replayed" in response.headers) == (key in done)
    total = await api.value("select count(*) from properties where organization_id = $1", admin.organization_id)
    assert total == 12 * 25
    assert len(await api.audits(admin)) == len(await api.events(admin)) == total
    counter = "select last_id from event_counters where organization_id = $1"
    assert await api.value(counter, admin.organization_id) == total


async def test_a_client_that_goes_while_its_request_waits_undoes_it(api: Api) -> None:
    admin = await api.register()
    property_id = (await admin.post("/properties", json=LISTING))["id"]
    async with api.database.acquire() as conn:
        await conn.execute(
            f"begin; set local reos.organization_id = '{admin.organization_id}';"
            f" select from properties where id = {property_id} for update"
        )
        waiting = [
            asyncio.create_task(admin.request("PUT", f"/properties/{property_id}", json={"price": price}))
            for price in range(10)
        ]
        await until(lambda: api.database.busy == api.settings.db_pool_max)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        # Their statements are cancelled, while the lock they waited for is still held.
        await until(lambda: api.database.busy == 1)
        await conn.execute("rollback")
    await until(lambda: idle(api.database))
    assert (await admin.get(f"/properties/{property_id}"))["price"] is None
    assert len(await api.events(admin)) == 1


async def test_a_commit_on_its_way_is_finished(api: Api) -> None:
    """A task that is cancelled while it commits ends only when it is known that it has."""
    admin = await api.register()
    insert = (
        "insert into teams (organization_id, name) values ($1, $2)"
        if await api.value("select to_regclass('teams') is not null")
        else "insert into roles (organization_id, name) values ($1, $2)"
    )
    table = insert.split()[2]
    committed = 0
    for number in range(40):
        name = f"T{number}"
        committing = asyncio.Event()

        async def work(name: str = name, committing: asyncio.Event = committing) -> None:
            async with tenant_transaction(api.database, admin.organization_id) as conn:
                await conn.execute(insert, admin.organization_id, name)
                committing.set()

        task = asyncio.create_task(work())
        await committing.wait()
        for _ in range(number % 4):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        found = f"select count(*) from {table} where organization_id = $1 and name = $2"
        committed += await api.value(found, admin.organization_id, name)
        assert idle(api.database)
        async with tenant_transaction(api.database, admin.organization_id) as conn:
            assert await conn.fetchval("select 1") == 1
    assert committed >= 30


async def test_a_transaction_that_failed_unnoticed_is_not_taken_for_committed(api: Api) -> None:
    admin = await api.register()
    with pytest.raises(RuntimeError, match="nothing was committed"):
        async with tenant_transaction(api.database, admin.organization_id) as conn:
            with suppress(asyncpg.DivisionByZeroError):
                await conn.execute("select 1 / 0")
    async with tenant_transaction(api.database, admin.organization_id) as conn:
        assert await conn.fetchval("select 1") == 1
    assert idle(api.database)
