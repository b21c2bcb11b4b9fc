"""Cross-origin requests: none unless CORS_ORIGINS names origins."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from api import Api, served_api
from conftest import TestDatabase

pytestmark = pytest.mark.integration

ORIGIN = "https://crm.example.com"
OTHER = "https://evil.example.com"
LISTING = {"address": "1 Main St", "city": "Austin", "state": "TX", "zip_code": "78701", "property_type": "condo"}

ALLOWED = {"Authorization", "Content-Type", "Idempotency-Key", "If-Match", "If-None-Match", "Last-Event-ID",
           "X-Request-ID"}  # fmt: skip
EXPOSED = {"ETag", "Location", "Retry-After", "X-Request-ID", "X-Total-Count", "Idempotency-Replayed",
           "Content-Disposition", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "RateLimit",
           "RateLimit-Policy"}  # fmt: skip


@pytest.fixture(scope="module")
async def open_api(database: TestDatabase, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    """The service with two origins and a rate limit of three."""
    directory = tmp_path_factory.mktemp("cors")
    async with served_api(
        database, directory, cors_origins=f"{ORIGIN},http://localhost:3000", rate_limit_per_minute=3
    ) as api:
        yield api


def parts(header: str) -> set[str]:
    return {part.strip() for part in header.split(",")}


def allows_nothing(response: httpx.Response) -> bool:
    return not [name for name in response.headers if name.lower().startswith("access-control-")]


async def test_without_origins_nothing_is_allowed(api: Api) -> None:
    admin = await api.register()
    response = await admin.request("GET", "/properties", headers={"Origin": ORIGIN})
    assert response.status_code == 200
    assert allows_nothing(response)
    assert response.headers["Vary"] == "Authorization"
    preflight = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
    response = await admin.request("OPTIONS", "/properties", headers=preflight)
    assert response.status_code == 405
    assert allows_nothing(response)


@pytest.mark.parametrize("path", ["/properties", "/properties/7", "/auth/login", "/sse/stream", "/nothing"])
async def test_a_preflight_needs_no_auth_and_does_not_count(open_api: Api, path: str) -> None:
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        for _ in range(2):
            response = await open_api.anonymous.request(
                "OPTIONS",
                path,
                headers={
                    "Origin": ORIGIN,
                    "Access-Control-Request-Method": method,
                    "Access-Control-Request-Headers": "authorization,content-type",
                },
            )
            assert (response.status_code, response.content) == (204, b"")
            assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
            assert response.headers["Access-Control-Allow-Credentials"] == "true"
            assert method in parts(response.headers["Access-Control-Allow-Methods"])
            assert parts(response.headers["Access-Control-Allow-Headers"]) == ALLOWED
            assert int(response.headers["Access-Control-Max-Age"]) > 0
            assert {"Origin", "Access-Control-Request-Method"} <= parts(response.headers["Vary"])
            assert "X-RateLimit-Limit" not in response.headers


async def test_a_body_of_a_preflight_is_ignored(open_api: Api, caplog: pytest.LogCaptureFixture) -> None:
    headers = {"Origin": ORIGIN, "Access-Control-Request-Method": "GET"}
    for _ in range(2):
        response = await open_api.anonymous.request("OPTIONS", "/properties", headers=headers, content=b"{}")
        assert (response.status_code, response.content) == (204, b"")
    assert "body not consumed" not in caplog.text


@pytest.mark.parametrize(
    "origin", [OTHER, "null", "http://crm.example.com", f"{ORIGIN}.evil.com", f"{ORIGIN}:8443", ORIGIN.upper(), "", "*"]
)
async def test_other_origins_get_nothing(open_api: Api, origin: str) -> None:
    preflight = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    response = await open_api.anonymous.request("OPTIONS", "/properties", headers=preflight)
    assert response.status_code == 204
    assert allows_nothing(response)
    response = await open_api.http.get("/healthz", headers={"Origin": origin})
    assert allows_nothing(response)
    assert "Origin" in parts(response.headers["Vary"])


async def test_responses_say_who_may_read_what(open_api: Api) -> None:
    admin = await open_api.register()
    response = await admin.request("POST", "/properties", json=LISTING, headers={"Origin": ORIGIN})
    assert response.status_code == 201
    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert response.headers["Access-Control-Allow-Credentials"] == "true"
    assert parts(response.headers["Access-Control-Expose-Headers"]) == EXPOSED
    assert response.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    response = await admin.request("GET", "/properties", headers={"Origin": "http://localhost:3000"})
    assert response.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
    assert parts(response.headers["Vary"]) == {"Authorization", "Origin"}
    response = await admin.request("GET", "/properties")
    assert allows_nothing(response)
    assert parts(response.headers["Vary"]) == {"Authorization", "Origin"}


async def test_errors_are_marked_too(open_api: Api) -> None:
    admin = await open_api.register()
    origin = {"Origin": ORIGIN}
    responses = [
        await open_api.anonymous.request("GET", "/properties", headers=origin),
        await admin.request("GET", "/properties/999999999", headers=origin),
        await admin.request("POST", "/properties", json={}, headers=origin),
        await admin.request("POST", "/properties", content=b"x", headers=origin | {"Content-Type": "text/plain"}),
        await admin.request("GET", "/properties", headers=origin),
        await admin.request("GET", "/nothing", headers=origin),
        await admin.request("TRACE", "/properties", headers=origin),
    ]
    assert [response.status_code for response in responses] == [401, 404, 422, 415, 429, 404, 405]
    for response in responses:
        assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert parts(response.headers["Access-Control-Expose-Headers"]) == EXPOSED


async def test_the_event_stream_is_marked(open_api: Api) -> None:
    admin = await open_api.register()
    headers = {**admin.headers, "Origin": ORIGIN}
    async with open_api.http.stream("GET", "/api/v1/sse/stream", headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert "Origin" in parts(response.headers["Vary"])


async def test_a_star_is_without_credentials(database: TestDatabase, tmp_path: Path) -> None:
    async with served_api(database, tmp_path, cors_origins="*") as api:
        admin = await api.register()
        for origin in (ORIGIN, OTHER, "null"):
            preflight = {"Origin": origin, "Access-Control-Request-Method": "PUT"}
            for response in (
                await api.anonymous.request("OPTIONS", "/properties", headers=preflight),
                await admin.request("GET", "/properties", headers={"Origin": origin}),
            ):
                assert response.headers["Access-Control-Allow-Origin"] == "*"
                assert "Access-Control-Allow-Credentials" not in response.headers


async def test_an_options_request_that_is_no_preflight_is_none(open_api: Api) -> None:
    response = await open_api.anonymous.request("OPTIONS", "/properties", headers={"Origin": ORIGIN})
    assert response.status_code == 405
    assert response.headers["Allow"] == "GET, HEAD, POST"
