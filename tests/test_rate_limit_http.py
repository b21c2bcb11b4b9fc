"""The rate limit as clients meet it: headers, 429, and whom a request counts on."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from api import Api, Client, served_api
from conftest import TestDatabase

pytestmark = pytest.mark.integration

LISTING = {"address": "1 Main St", "city": "Austin", "state": "TX", "zip_code": "78701", "property_type": "condo"}
NAMES = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "RateLimit", "RateLimit-Policy")


def limits(minute: int = 0, hour: int = 0, day: int = 0) -> dict[str, int]:
    return {"rate_limit_per_minute": minute, "rate_limit_per_hour": hour, "rate_limit_per_day": day}


def remaining(response: httpx.Response) -> int:
    return int(response.headers["X-RateLimit-Remaining"])


async def test_every_answer_tells_what_is_left(database: TestDatabase, tmp_path: Path) -> None:
    async with served_api(database, tmp_path, **limits(60, 1000, 10000)) as api:
        admin = await api.register()
        began = int(time.time())
        responses = [
            await admin.request("GET", "/properties"),
            await admin.request("HEAD", "/properties"),
            await admin.request("POST", "/properties", json=LISTING),
            await admin.request("GET", "/properties", headers={"If-None-Match": "*"}),
            await admin.request("GET", "/properties/999999999"),
            await admin.request("POST", "/properties", json={}),
            await admin.request("POST", "/properties", content=b"{"),
            await (await api.add_user(admin)).request("GET", "/properties"),
        ]
        assert [response.status_code for response in responses] == [200, 200, 201, 304, 404, 422, 415, 403]
        assert [remaining(response) for response in responses] == [59, 58, 57, 56, 55, 54, 53, 59]
        for response in responses:
            assert response.headers["X-RateLimit-Limit"] == "60"
            assert began < int(response.headers["X-RateLimit-Reset"]) <= time.time() + 61
            policy = '"minute";q=60;w=60, "hour";q=1000;w=3600, "day";q=10000;w=86400'
            assert response.headers["RateLimit-Policy"] == policy
            name, left, seconds = response.headers["RateLimit"].split(";")
            assert (name, left) == ('"minute"', f"r={remaining(response)}")
            assert 0 < int(seconds.removeprefix("t=")) <= 60


async def test_beyond_the_limit_is_429(database: TestDatabase, tmp_path: Path) -> None:
    async with served_api(database, tmp_path, **limits(5)) as api:
        admin = await api.register()
        for left in (4, 3, 2, 1, 0):
            assert remaining(await admin.request("GET", "/properties")) == left
        for method, path in (("GET", "/properties"), ("POST", "/properties"), ("HEAD", "/auth/me")):
            response = await admin.request(method, path)
            assert response.status_code == 429
            seconds = int(response.headers["Retry-After"])
            assert 0 < seconds <= 60
            assert remaining(response) == 0
            if method != "HEAD":
                error = response.json()["error"]
                assert error["type"] == "RateLimitExceededError"
                assert error["details"] == {"limit": 5, "window": 60, "retry_after": seconds}
        assert (await admin.error("DELETE", "/properties/1", status=429))["type"] == "RateLimitExceededError"
        other = await api.add_user(admin, "Agent")
        assert (await other.request("GET", "/properties")).status_code == 200


async def test_the_tightest_window_is_told(database: TestDatabase, tmp_path: Path) -> None:
    async with served_api(database, tmp_path, **limits(10, 3, 100)) as api:
        admin = await api.register()
        answers = [await admin.request("GET", "/properties") for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert answers[0].headers["X-RateLimit-Limit"] == "3"
        assert answers[0].headers["RateLimit"].startswith('"hour";r=2;')
        error = answers[3].json()["error"]
        assert (error["details"]["limit"], error["details"]["window"]) == (3, 3600)
        assert 0 < error["details"]["retry_after"] <= 3600


async def test_zero_is_off(api: Api) -> None:
    admin = await api.register()
    answers = await asyncio.gather(*(admin.request("GET", "/properties") for _ in range(100)))
    assert {answer.status_code for answer in answers} == {200}
    assert not [name for name in NAMES if name in answers[0].headers]


async def test_after_log_in_requests_count_on_the_user_before_on_the_address(
    database: TestDatabase, tmp_path: Path
) -> None:
    async with served_api(database, tmp_path, **limits(4)) as api:
        await api.value("delete from rate_limits")
        admin = await api.register()
        stranger = await api.register()
        assert [remaining(await client.request("GET", "/properties")) for client in (admin, stranger, admin)] == [
            3,
            3,
            2,
        ]
        login = {"email": "nobody@example.com", "password": "x"}
        wrong = Client(api.http, {"Authorization": "Bearer not.a.token"})
        anonymous = [
            await api.anonymous.request("GET", "/properties"),
            await wrong.request("GET", "/properties"),
            await api.anonymous.request("POST", "/auth/login", json=login | {"email": 1}),
            await api.anonymous.request("POST", "/auth/refresh", json={"refresh_token": "x"}),
            await api.anonymous.request("POST", "/auth/register", json={}),
            await wrong.request("GET", "/properties"),
        ]
        assert [answer.status_code for answer in anonymous] == [401, 401, 422, 401, 429, 429]
        assert [remaining(answer) for answer in anonymous] == [3, 2, 1, 0, 0, 0]
        # An address that has used up its own does not stand in the way of its users.
        assert (await admin.request("GET", "/properties")).status_code == 200


@pytest.mark.parametrize(
    "path", ["/healthz", "/live", "/ready", "/health", "/metrics", "/docs", "/redoc", "/openapi.json"]
)
async def test_health_and_docs_do_not_count(database: TestDatabase, tmp_path: Path, path: str) -> None:
    async with served_api(database, tmp_path, **limits(1)) as api:
        await api.value("delete from rate_limits")
        for _ in range(5):
            response = await api.http.get(path)
            assert response.status_code == 200
            assert not [name for name in NAMES if name in response.headers]
        assert (await api.anonymous.request("GET", "/properties")).status_code == 401
        assert (await api.anonymous.request("GET", "/properties")).status_code == 429
        assert (await api.http.get(path)).status_code == 200


async def from_address(api: Api, *forwarded: str) -> httpx.Response:
    headers = [("X-Forwarded-For", value) for value in forwarded]
    return await api.http.get("/api/v1/properties", headers=headers)


async def test_without_proxies_the_header_means_nothing(database: TestDatabase, tmp_path: Path) -> None:
    async with served_api(database, tmp_path, **limits(3)) as api:
        await api.value("delete from rate_limits")
        statuses = [(await from_address(api, f"10.0.0.{number}")).status_code for number in range(5)]
        assert statuses == [401, 401, 401, 429, 429]
        for name in ("Forwarded", "X-Real-IP", "True-Client-IP", "X-Client-IP"):
            response = await api.http.get("/api/v1/properties", headers={name: "for=10.1.1.1"})
            assert response.status_code == 429


async def test_behind_proxies_the_address_is_what_the_outermost_of_ours_saw(
    database: TestDatabase, tmp_path: Path
) -> None:
    async with served_api(database, tmp_path, **limits(2), proxies_count=2) as api:
        await api.value("delete from rate_limits")
        # What a client claims itself stands before that, and is not believed.
        for claimed in ("", "1.1.1.1, ", "2.2.2.2, 3.3.3.3, "):
            response = await from_address(api, f"{claimed}10.0.0.1, 192.168.0.1")
            assert response.status_code == (401 if claimed != "2.2.2.2, 3.3.3.3, " else 429)
        assert (await from_address(api, "10.0.0.2, 192.168.0.1")).status_code == 401
        assert (await from_address(api, "6.6.6.6", "10.0.0.2", "192.168.0.1")).status_code == 401
        assert (await from_address(api, "6.6.6.6, 10.0.0.2", "192.168.0.1")).status_code == 429
        admin = await api.register()
        await api.value("delete from rate_limits")
        await admin.post("/properties", json=LISTING, headers={"X-Forwarded-For": "10.0.0.9, 192.168.0.1"})
        (audit,) = await api.audits(admin)
        assert audit["ip_address"] == "10.0.0.9"


async def test_of_ipv6_a_network_counts_as_one_client(database: TestDatabase, tmp_path: Path) -> None:
    async with served_api(database, tmp_path, **limits(2), proxies_count=1) as api:
        await api.value("delete from rate_limits")
        asked = ["2001:db8:1:2::1", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::99", "2001:db8:1:3::1", "::ffff:10.0.0.1"]
        statuses = [(await from_address(api, address)).status_code for address in asked]
        assert statuses == [401, 401, 429, 401, 401]
        assert [(await from_address(api, "10.0.0.1")).status_code for _ in range(2)] == [401, 429]


@pytest.mark.slow
async def test_of_200_parallel_requests_exactly_60_pass(database: TestDatabase, tmp_path: Path) -> None:
    """Also when they come to several processes at once."""
    async with AsyncExitStack() as stack:
        apis = [
            await stack.enter_async_context(
                served_api(database, tmp_path / str(number), **limits(60, 1000, 10000), db_pool_max=3)
            )
            for number in range(4)
        ]
        for _ in range(3):
            admin = await apis[0].register()
            clients = [Client(api.http, admin.headers, admin.account) for api in apis]
            answers = await asyncio.gather(*(clients[n % 4].request("GET", "/properties") for n in range(200)))
            statuses = [answer.status_code for answer in answers]
            assert (statuses.count(200), statuses.count(429)) == (60, 140)
            assert min(remaining(answer) for answer in answers) == 0
