"""Idempotency-Key: the key, its answer and the work commit together."""

from __future__ import annotations

import asyncio
import io
import json
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from api import Api, Client, served_api
from conftest import TestDatabase
from event_streams import until
from PIL import Image
from webhook_receiver import receiving

pytestmark = pytest.mark.integration

LISTING = {"address": "1 Main St", "city": "Austin", "state": "TX", "zip_code": "78701", "property_type": "condo"}


def key() -> dict[str, str]:
    return {"Idempotency-Key": uuid4().hex}


def is_replay(response: httpx.Response) -> bool:
    return response.headers.get("Idempotency-Replayed") == "true"


async def twice(client: Client, method: str, path: str, **options: Any) -> tuple[httpx.Response, httpx.Response]:
    """Two answers to one request, of which the second must be the first again."""
    headers = options.pop("headers", None) or key()
    first, second = [await client.request(method, path, headers=headers, **options) for _ in range(2)]
    assert not is_replay(first)
    assert is_replay(second)
    assert (second.status_code, second.content) == (first.status_code, first.content)
    varying = {"x-request-id", "date", "idempotency-replayed"}
    assert {k: v for k, v in second.headers.items() if k not in varying} == {
        k: v for k, v in first.headers.items() if k not in varying
    }
    return first, second


async def count(api: Api, client: Client, table: str = "properties") -> int:
    value: int = await api.value(f"select count(*) from {table} where organization_id = $1", client.organization_id)
    return value


def picture(colour: str = "red") -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(written, "PNG")
    return written.getvalue()


# --- replays ---------------------------------------------------------------------------------------------------


async def test_a_replay_is_the_first_answer_again(api: Api) -> None:
    admin = await api.register()
    first, second = await twice(admin, "POST", "/properties", json=LISTING)
    assert first.status_code == 201
    assert second.headers["Location"] == f"/api/v1/properties/{first.json()['id']}"
    assert second.headers["ETag"] == first.headers["ETag"]
    assert (await admin.request("GET", f"/properties/{first.json()['id']}")).headers["ETag"] == first.headers["ETag"]
    assert (await count(api, admin), len(await api.audits(admin)), len(await api.events(admin))) == (1, 1, 1)


async def test_every_writing_method_takes_a_key(api: Api) -> None:
    admin = await api.register()
    path = f"/properties/{(await admin.post('/properties', json=LISTING))['id']}"
    for method, target, body, status in (
        ("PUT", path, {"price": 1}, 200),
        ("PATCH", path, {"price": 2}, 200),
        ("POST", f"{path}/notes", {"content": "x"}, 201),
        ("DELETE", path, None, 204),
        ("POST", f"{path}/restore", None, 200),
    ):
        first, _ = await twice(admin, method, target, json=body)
        assert first.status_code == status
    # A replayed PUT writes nothing, also when another has written meanwhile.
    headers = key()
    await admin.put(path, json={"price": 3}, headers=headers)
    await admin.put(path, json={"price": 4})
    assert (await admin.put(path, json={"price": 3}, headers=headers))["price"] == "3.00"
    assert (await admin.get(path))["price"] == "4.00"


async def test_a_get_ignores_the_header(api: Api) -> None:
    admin = await api.register()
    headers = key()
    for _ in range(2):
        response = await admin.request("GET", "/properties", headers=headers)
        assert (response.status_code, is_replay(response)) == (200, False)
    await admin.request("GET", "/properties", headers={"Idempotency-Key": "x" * 300})
    assert await count(api, admin, "idempotency_keys") == 0


@pytest.mark.parametrize("value", ["", "x" * 256, "tab\tin it", "ünïcode".encode()])
async def test_what_is_no_key_is_refused(api: Api, value: str | bytes) -> None:
    admin = await api.register()
    headers = [(b"Idempotency-Key", value if isinstance(value, bytes) else value.encode())]
    headers.append((b"Authorization", admin.headers["Authorization"].encode()))
    response = await api.http.post("/api/v1/properties", json=LISTING, headers=headers)
    assert response.status_code == 422
    assert response.json()["error"]["details"]["errors"][0]["field"] == "Idempotency-Key"
    assert await count(api, admin) == 0


@pytest.mark.parametrize("value", ["x", "x" * 255, "a b !\"#$%&'()*+,-./:;<=>?@[]^_`{|}~"])
async def test_what_is_a_key(api: Api, value: str) -> None:
    admin = await api.register()
    await twice(admin, "POST", "/properties", json=LISTING, headers={"Idempotency-Key": value})


# --- one at a time ---------------------------------------------------------------------------------------------


async def test_fifty_parallel_posts_with_one_key_are_one(api: Api) -> None:
    for _ in range(4):
        admin = await api.register()
        headers = key()
        answers = await asyncio.gather(
            *(admin.request("POST", "/properties", json=LISTING, headers=headers) for _ in range(50))
        )
        results = [answer for answer in answers if answer.status_code == 201]
        assert len({answer.content for answer in results}) == 1
        assert len([answer for answer in results if not is_replay(answer)]) == 1
        for answer in answers:
            if answer.status_code != 201:
                assert answer.status_code == 409
                assert answer.json()["error"]["type"] == "IdempotencyConflictError"
                assert answer.headers["Retry-After"] == "1"
        assert (await count(api, admin), len(await api.audits(admin)), len(await api.events(admin))) == (1, 1, 1)
        assert await count(api, admin, "idempotency_keys") == 1
        final = await admin.request("POST", "/properties", json=LISTING, headers=headers)
        assert (final.content, is_replay(final)) == (results[0].content, True)


async def test_fifty_parallel_posts_of_a_picture_with_one_key_are_one(api: Api) -> None:
    admin = await api.register()
    path = f"/properties/{(await admin.post('/properties', json=LISTING))['id']}/images"
    headers = key()
    upload = {"file": ("a.png", picture(), "image/png")}
    answers = await asyncio.gather(*(admin.request("POST", path, files=upload, headers=headers) for _ in range(30)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len({answer.content for answer in answers if answer.status_code == 201}) == 1
    assert len(await admin.get(path)) == 1
    used = await api.value(
        "select count(*) from stored_files where organization_id = $1 and not is_pending", admin.organization_id
    )
    assert used == 2


async def test_while_the_first_still_runs_the_second_is_409_at_once(api: Api) -> None:
    admin = await api.register()
    path = f"/properties/{(await admin.post('/properties', json=LISTING))['id']}"
    headers = key()
    async with api.database.acquire() as conn:
        await conn.execute(
            f"begin; set local reos.organization_id = '{admin.organization_id}';"
            f" select from properties where id = {path.rpartition('/')[2]} for update"
        )
        first = asyncio.create_task(admin.request("PUT", path, json={"price": 1}, headers=headers))
        claimed = (
            "select count(*) from pg_locks where locktype = 'advisory' and database = (select oid from pg_database"
        )
        await until(lambda: api.value(f"{claimed} where datname = current_database())"))
        # Also for another body: what the first asks for is not known yet to be something else.
        for price in (1, 2):
            error = await admin.error("PUT", path, status=409, json={"price": price}, headers=headers)
            assert error["type"] == "IdempotencyConflictError"
        assert not first.done()
        await conn.execute("rollback")
    assert (await first).status_code == 200
    assert is_replay(await admin.request("PUT", path, json={"price": 1}, headers=headers))


async def test_what_is_done_between_transactions_is_done_once(
    database: TestDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A webhook's test goes out while no transaction is open; here and on another process the second one is refused."""
    async with (
        served_api(database, tmp_path, webhook_allow_private=True) as here,
        served_api(database, tmp_path, webhook_allow_private=True) as there,
        receiving() as receiver,
    ):
        admin = await here.register()
        fields = {"url": receiver.url, "event_types": ["property.created"]}
        path = f"/webhooks/{(await admin.post('/webhooks', json=fields))['id']}/test"
        headers, receiver.gate = key(), asyncio.Event()
        first = asyncio.create_task(admin.request("POST", path, headers=headers))

        async def has_come() -> bool:
            return bool(receiver.requests)

        await until(has_come)
        for api in (here, there):
            error = await Client(api.http, admin.headers).error("POST", path, status=409, headers=headers)
            assert error["type"] == "IdempotencyConflictError"
        assert not first.done()
        receiver.gate.set()
        answer = await first
        assert answer.status_code == 200
        for api in (here, there):
            again = await Client(api.http, admin.headers).request("POST", path, headers=headers)
            assert (again.content, is_replay(again)) == (answer.content, True)
        assert len(receiver.requests) == 1


async def test_what_is_no_key_leaves_the_locks_alone(api: Api) -> None:
    """What is no text would cost the process the connection on which it holds the locks of all its keys."""
    statement = "select pid from pg_locks where (classid::bigint << 32) + objid::bigint = hashtextextended($1, 4)"

    async def connection_of_locks() -> int | None:
        name = uuid4().hex
        async with api.context.locks.hold(name):
            pid: int | None = await api.value(statement, name)
            return pid

    async def is_connected() -> bool:
        return await connection_of_locks() is not None

    await until(is_connected)
    before = await connection_of_locks()
    for value in (b"\xff\xfe", b"", b"x" * 300):
        headers = [(b"Idempotency-Key", value), (b"Content-Type", b"application/json")]
        response = await api.http.post("/api/v1/auth/register", content=b"{}", headers=headers)
        assert response.status_code == 422
    await until(is_connected)
    assert await connection_of_locks() == before


async def test_a_preparation_that_fails_leaves_the_key_unused(api: Api) -> None:
    admin = await api.register()
    path = f"/properties/{(await admin.post('/properties', json=LISTING))['id']}/images"
    headers = key()
    for _ in range(2):
        await admin.error("POST", path, status=415, files={"file": ("a.png", b"GIF", "image/png")}, headers=headers)
    right = {"file": ("a.png", picture(), "image/png")}
    assert not is_replay(await admin.request("POST", path, files=right, headers=headers))


# --- another request -------------------------------------------------------------------------------------------


async def test_another_request_with_the_key_is_422(api: Api) -> None:
    admin = await api.register()
    headers = key()
    created = await admin.post("/properties", json=LISTING, headers=headers)
    path = f"/properties/{created['id']}"
    await admin.put(path, json={"price": 1}, headers=key())
    others: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "/properties", {"json": LISTING | {"price": 1}}),
        ("POST", "/properties", {"json": dict(reversed(LISTING.items()))}),
        ("POST", "/properties?x=1", {"json": LISTING}),
        ("POST", f"{path}/notes", {"json": {"content": "x"}}),
        ("PUT", path, {"json": LISTING}),
        ("PATCH", path, {"json": LISTING}),
        ("DELETE", path, {}),
    ]
    for method, target, options in others:
        error = await admin.error(method, target, status=422, headers=headers, **options)
        assert error["type"] == "IdempotencyKeyReusedError"
    for target in ("/properties", "/properties/"):
        assert is_replay(await admin.request("POST", target, json=LISTING, headers=headers))
    assert (await count(api, admin), await count(api, admin, "property_notes")) == (1, 0)


async def test_put_and_patch_are_two_requests(api: Api) -> None:
    admin = await api.register()
    path = f"/properties/{(await admin.post('/properties', json=LISTING))['id']}"
    headers = key()
    await admin.put(path, json={"price": 1}, headers=headers)
    await admin.error("PATCH", path, status=422, json={"price": 1}, headers=headers)


async def test_keys_are_the_users_own(api: Api) -> None:
    admin, stranger = await api.register(), await api.register()
    colleague = await api.add_user(admin, "Admin")
    headers = key()
    ids = [
        (await user.post("/properties", json=LISTING, headers=headers))["id"] for user in (admin, colleague, stranger)
    ]
    assert len(set(ids)) == 3
    for user, own in zip((admin, colleague, stranger), ids, strict=True):
        assert (await user.post("/properties", json=LISTING, headers=headers))["id"] == own


async def test_a_replay_is_for_who_may_still_do_it(api: Api) -> None:
    admin = await api.register()
    agent = await api.add_user_with(admin, ["property:create"])
    headers = key()
    await agent.post("/properties", json=LISTING, headers=headers)
    await api.value("delete from user_roles where user_id = $1", agent.user_id)
    await agent.error("POST", "/properties", status=403, json=LISTING, headers=headers)


async def test_a_key_is_kept_for_a_day(api: Api) -> None:
    admin = await api.register()
    headers = key()
    first = await admin.post("/properties", json=LISTING, headers=headers)
    age = "update idempotency_keys set created_at = now() - $2::interval where organization_id = $1"
    await api.value(age, admin.organization_id, timedelta(hours=23, minutes=59))
    assert await admin.post("/properties", json=LISTING, headers=headers) == first
    await api.value(age, admin.organization_id, timedelta(hours=24, seconds=1))
    second = await admin.post("/properties", json=LISTING | {"price": 1}, headers=headers)
    assert second["id"] != first["id"]
    assert await admin.post("/properties", json=LISTING | {"price": 1}, headers=headers) == second


# --- what is kept and what not ---------------------------------------------------------------------------------


async def test_refusals_of_the_work_are_kept(api: Api) -> None:
    admin = await api.register()
    created = await admin.post("/properties", json=LISTING)
    path = f"/properties/{created['id']}"
    stale = key() | {"If-Match": '"stale"'}
    first, _ = await twice(admin, "PUT", path, json={"price": 1}, headers=stale)
    assert first.status_code == 412
    absent = key()
    await admin.delete(path)
    first, _ = await twice(admin, "PUT", path, json={"price": 1}, headers=absent)
    assert first.status_code == 404
    await admin.post(f"{path}/restore", status=200)
    # What was answered is answered again, also when it would now be otherwise.
    assert (await admin.request("PUT", path, json={"price": 1}, headers=absent)).status_code == 404
    assert (await admin.get(path))["price"] is None
    upload = {"file": ("a.png", picture(), "image/png")}
    first, _ = await twice(admin, "POST", "/properties/999999999/images", files=upload)
    assert first.status_code == 404
    actions = [row["action"] for row in await api.audits(admin)]
    assert actions == ["create", "delete", "restore"]


async def test_a_422_of_the_work_is_kept(api: Api) -> None:
    admin = await api.register()
    first, _ = await twice(admin, "POST", "/deals", json={"property_id": 2**40, "deal_type": "buy", "value": 1})
    assert first.status_code == 422
    assert first.json()["error"]["details"]["errors"][0]["type"] == "foreign_key"


async def test_a_409_of_the_work_is_kept(api: Api) -> None:
    admin = await api.register()
    property_id = (await admin.post("/properties", json=LISTING))["id"]
    await admin.post("/deals", json={"property_id": property_id, "deal_type": "buy", "value": 1})
    first, _ = await twice(admin, "DELETE", f"/properties/{property_id}")
    assert first.status_code == 409
    assert first.json()["error"]["type"] == "ResourceDeletionError"


async def test_refusals_before_the_work_leave_the_key_unused(api: Api) -> None:
    admin = await api.register()
    reader = await api.add_user_with(admin, ["property:read"])
    headers = key()
    refused: list[tuple[int, Client, dict[str, Any]]] = [
        (401, api.anonymous, {"json": LISTING}),
        (403, reader, {"json": LISTING}),
        (413, admin, {"content": b" " * 1_100_000, "headers": {"Content-Type": "application/json"}}),
        (415, admin, {"content": b"{}", "headers": {"Content-Type": "text/plain"}}),
        (400, admin, {"content": b"{", "headers": {"Content-Type": "application/json"}}),
        (422, admin, {"json": LISTING | {"price": -1}}),
    ]
    for status, client, options in refused:
        for _ in range(2):
            response = await client.request(
                "POST", "/properties", **options | {"headers": headers | options.get("headers", {})}
            )
            assert (response.status_code, is_replay(response)) == (status, False)
    assert await count(api, admin, "idempotency_keys") == 0
    response = await admin.request("POST", "/properties", json=LISTING, headers=headers)
    assert (response.status_code, is_replay(response)) == (201, False)
    await api.value(
        "insert into user_roles (organization_id, user_id, role_id)"
        " select organization_id, $2, id from roles where organization_id = $1 and name = 'Admin'",
        admin.organization_id,
        reader.user_id,
    )
    response = await reader.request("POST", "/properties", json=LISTING, headers=headers)
    assert (response.status_code, is_replay(response)) == (201, False)


async def test_a_picture_that_is_none_leaves_the_key_unused(api: Api) -> None:
    admin = await api.register()
    path = f"/properties/{(await admin.post('/properties', json=LISTING))['id']}/images"
    headers = key()
    for files in ({"file": ("a.png", b"<html>")}, {"other": ("a.png", picture())}):
        response = await admin.request("POST", path, files=files, headers=headers)
        assert response.status_code in (400, 415)
    refused = await admin.fields_refused("POST", path, files={"title": (None, b"x")}, headers=headers)
    assert refused == {"file": "missing"}
    await admin.post(path, files={"file": ("a.png", picture())}, headers=headers)


async def test_429_leaves_the_key_unused(database: TestDatabase, tmp_path: Path) -> None:
    async with served_api(database, tmp_path, rate_limit_per_minute=3) as api:
        admin = await api.register()
        headers = key()
        answers = [await admin.request("POST", "/properties", json=LISTING, headers=key()) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [201, 201, 201, 429]
        assert (await admin.request("POST", "/properties", json=LISTING, headers=headers)).status_code == 429
        await api.value("delete from rate_limits")
    async with served_api(database, tmp_path) as api:
        admin = Client(api.http, admin.headers, admin.account)
        response = await admin.request("POST", "/properties", json=LISTING, headers=headers)
        assert (response.status_code, is_replay(response)) == (201, False)


async def test_a_5xx_leaves_neither_work_nor_key(fresh_database: TestDatabase, tmp_path: Path) -> None:
    async with served_api(fresh_database, tmp_path) as api:
        admin = await api.register()
        headers = key()
        # The very last statement of the transaction fails.
        await api.value("alter table events rename to events_elsewhere")
        response = await admin.request("POST", "/properties", json=LISTING, headers=headers)
        assert response.status_code == 500
        await api.value("alter table events_elsewhere rename to events")
        assert (await count(api, admin), await count(api, admin, "idempotency_keys")) == (0, 0)
        assert len(await api.audits(admin)) == 0
        response = await admin.request("POST", "/properties", json=LISTING, headers=headers)
        assert (response.status_code, is_replay(response)) == (201, False)


# --- multipart -------------------------------------------------------------------------------------------------


def form(boundary: str, *parts: tuple[str, bytes]) -> dict[str, Any]:
    """A multipart body by hand: header lines and content of each part."""
    body = b"".join(
        b"--" + boundary.encode() + b"\r\n" + head.encode() + b"\r\n\r\n" + content + b"\r\n" for head, content in parts
    )
    return {
        "content": body + b"--" + boundary.encode() + b"--\r\n",
        "headers": {"Content-Type": f"multipart/form-data; boundary={boundary}"},
    }


async def test_the_boundary_of_a_form_makes_no_difference_its_parts_do(api: Api) -> None:
    admin = await api.register()
    path = f"/properties/{(await admin.post('/properties', json=LISTING))['id']}/images"
    headers = key()

    async def send(boundary: str, title: bytes, content: bytes, *more: tuple[str, bytes]) -> httpx.Response:
        options = form(
            boundary,
            ('Content-Disposition: form-data; name="title"', title),
            ('Content-Disposition: form-data; name="file"; filename="a.png"\r\nContent-Type: image/png', content),
            *more,
        )
        return await admin.request("POST", path, content=options["content"], headers=options["headers"] | headers)

    red, blue = picture("red"), picture("blue")
    first = await send("first", b"A", red)
    assert first.status_code == 201
    second = await send("second-boundary", b"A", red)
    assert (second.content, is_replay(second)) == (first.content, True)
    order = ('Content-Disposition: form-data; name="order"', b"0")
    for other in (send("b", b"B", red), send("b", b"A", blue), send("b", b"A", red, order)):
        response = await other
        assert response.status_code == 422
        assert response.json()["error"]["type"] == "IdempotencyKeyReusedError"
    assert len(await admin.get(path)) == 1


# --- secrets and scopes ----------------------------------------------------------------------------------------


async def test_secrets_are_kept_encrypted(api: Api) -> None:
    admin = await api.register()
    first, _ = await twice(admin, "POST", "/sse/ticket")
    ticket = first.json()["ticket"]
    row = (await api.fetch("select * from idempotency_keys where organization_id = $1", admin.organization_id))[0]
    assert ticket.encode() not in row["body"]
    assert b"ticket" not in row["body"]
    assert ticket not in json.dumps(row["headers"])


async def test_before_log_in_the_scope_is_the_address(database: TestDatabase, tmp_path: Path) -> None:
    async with served_api(database, tmp_path, proxies_count=1) as api:
        headers = key()

        def body() -> dict[str, str]:
            return {"email": f"{uuid4().hex}@example.com", "password": "Correct-horse-1", "first_name": "A",
                    "last_name": "B"}  # fmt: skip

        def as_from(address: str) -> dict[str, str]:
            return headers | {"X-Forwarded-For": address}

        ada, bob = body(), body()
        first, second = await twice(api.anonymous, "POST", "/auth/register", json=ada, headers=as_from("10.0.0.1"))
        assert first.status_code == 201
        assert second.json()["access_token"] == first.json()["access_token"]
        await api.anonymous.error("POST", "/auth/register", status=422, json=bob, headers=as_from("10.0.0.1"))
        await api.anonymous.post("/auth/register", json=bob, headers=as_from("10.0.0.2"))
        rows = await api.fetch("select scope, headers, body from public_idempotency_keys")
        kept = b" ".join(row["body"] for row in rows)
        assert first.json()["access_token"].encode() not in kept
        assert ada["email"].encode() not in kept
        assert all(b"10.0.0" not in row["scope"] and len(row["scope"]) == 32 for row in rows)


async def test_log_in_and_its_like_ignore_the_key(api: Api) -> None:
    credentials = {"email": f"{uuid4().hex}@example.com", "password": "Correct-horse-1"}
    registered = await api.anonymous.post("/auth/register", json=credentials | {"first_name": "A", "last_name": "B"})
    headers = key()
    tokens = []
    for _ in range(2):
        response = await api.anonymous.request("POST", "/auth/login", json=credentials, headers=headers)
        assert (response.status_code, is_replay(response)) == (200, False)
        tokens.append(response.json())
    assert tokens[0]["refresh_token"] != tokens[1]["refresh_token"]
    for _ in range(2):
        response = await api.anonymous.request(
            "POST", "/auth/refresh", json={"refresh_token": tokens[0]["refresh_token"]}, headers=headers
        )
        assert (response.status_code, is_replay(response)) == (200, False)
    bearer = {"Authorization": f"Bearer {registered['access_token']}"}
    response = await api.anonymous.request("POST", "/auth/logout", headers=headers | bearer)
    assert (response.status_code, is_replay(response)) == (204, False)
    assert (await api.anonymous.request("POST", "/auth/logout", headers=headers | bearer)).status_code == 401
