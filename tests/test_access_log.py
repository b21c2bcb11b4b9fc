"""One line a request in the log, and what the lines between it and the next tell of it."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from api import Api, served_api
from conftest import TestDatabase
from event_streams import until
from loguru import logger
from PIL import Image

from reos import log

pytestmark = pytest.mark.integration

LISTING = {"address": "1 Main St", "city": "Austin", "state": "TX", "zip_code": "78701", "property_type": "condo"}


class Lines:
    """The lines of the access log, oldest first, and all others."""

    def __init__(self) -> None:
        self.all: list[dict[str, Any]] = []

    @property
    def access(self) -> list[dict[str, Any]]:
        return [line for line in self.all if "status" in line]

    async def next(self, request_id: str) -> dict[str, Any]:
        """The one line of a request, once it is there."""
        await until(lambda: [line for line in self.access if line["request_id"] == request_id])
        (line,) = [line for line in self.access if line["request_id"] == request_id]
        return line


@pytest.fixture
def lines() -> Iterator[Lines]:
    """What is logged while the test runs, as JSON lines."""
    found = Lines()

    def add(text: str) -> None:
        found.all += [json.loads(line) for line in text.splitlines()]

    number = logger.add(add, format=log._json_line, level="INFO")
    logger.configure(patcher=log._add_context)
    yield found
    logger.remove(number)
    logger.configure(patcher=lambda record: None)


async def test_what_the_line_tells(api: Api, lines: Lines) -> None:
    admin = await api.register()
    response = await admin.request("GET", "/properties?page=1&city=a%20b", headers={"X-Request-ID": "line-1"})
    line = await lines.next("line-1")
    assert line["method"] == "GET"
    assert line["path"] == "/api/v1/properties"
    assert line["query"] == "page=1&city=a%20b"
    assert line["client"] == "127.0.0.1"
    assert line["status"] == 200
    assert line["bytes"] == len(response.content)
    assert 0 < line["duration_ms"] < 10_000
    assert (line["user_id"], line["organization_id"]) == (admin.user_id, admin.organization_id)
    assert line["level"] == "INFO"
    assert "authorization" not in json.dumps(line).lower()


@pytest.mark.parametrize(
    ("method", "path", "options", "status"),
    [
        ("POST", "/properties", {"json": LISTING}, 201),
        ("POST", "/properties", {"json": {}}, 422),
        ("POST", "/properties", {"content": b"x"}, 415),
        ("GET", "/properties", {"headers": {"If-None-Match": "*"}}, 304),
        ("HEAD", "/properties", {}, 200),
        ("GET", "/properties/999999999", {}, 404),
        ("TRACE", "/properties", {}, 405),
        ("GET", "/nothing", {}, 404),
        ("GET", "/properties", {"headers": {"Authorization": "Bearer x"}}, 401),
    ],
)
async def test_every_request_has_one_line(
    api: Api, lines: Lines, method: str, path: str, options: dict[str, Any], status: int
) -> None:
    admin = await api.register()
    headers = options.pop("headers", {}) | {"X-Request-ID": "one-line"}
    response = await admin.request(method, path, headers=headers, **options)
    assert response.status_code == status
    line = await lines.next("one-line")
    assert (line["method"], line["status"]) == (method, status)
    assert line["bytes"] == (0 if method == "HEAD" else len(response.content))
    assert ("user_id" in line) == (status not in (401, 405) and path != "/nothing")


async def test_what_is_no_request_has_a_line_too(api: Api, lines: Lines) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(api.url.rpartition(":")[2]))
    writer.write(b"GARBAGE\r\n\r\n")
    await reader.read()
    writer.close()
    await until(lambda: [line for line in lines.access if line["status"] == 400])


async def test_secrets_in_addresses_are_masked(api: Api, lines: Lines) -> None:
    queries = {
        "ticket=abc&types=x": "ticket=***&types=x",
        "a=1&token=abc": "a=1&token=***",
        "X-Amz-Signature=abc&sig=abc&signature=": "X-Amz-Signature=***&sig=***&signature=***",
        "refresh_token=abc&ticketing=1": "refresh_token=***&ticketing=1",
    }
    for number, (query, masked) in enumerate(queries.items()):
        await api.http.get(f"/verify-email?{query}", headers={"X-Request-ID": f"masked-{number}"})
        assert (await lines.next(f"masked-{number}"))["query"] == masked
    await api.http.get("/files/secret-token", headers={"X-Request-ID": "masked-path"})
    assert (await lines.next("masked-path"))["path"] == "/files/***"
    assert "secret-token" not in json.dumps(lines.all)


async def test_a_file_has_its_line_when_it_is_sent(api: Api, lines: Lines) -> None:
    admin = await api.register()
    path = f"/properties/{(await admin.post('/properties', json=LISTING))['id']}/images"
    written = io.BytesIO()
    Image.effect_noise((600, 600), 50).save(written, "PNG")
    created = await admin.post(path, files={"file": ("a.png", written.getvalue())})
    response = await api.http.get(created["url"].removeprefix(api.settings.base_url), headers={"X-Request-ID": "file"})
    line = await lines.next("file")
    assert (line["status"], line["bytes"]) == (200, len(response.content))
    assert line["bytes"] == len(written.getvalue())


async def test_a_stream_has_its_line_when_it_ends(api: Api, lines: Lines) -> None:
    admin = await api.register()
    headers = admin.headers | {"X-Request-ID": "stream"}
    async with api.http.stream("GET", "/api/v1/sse/stream", headers=headers) as response:
        assert response.status_code == 200
        received = await anext(response.aiter_bytes())
        assert not [line for line in lines.access if line["request_id"] == "stream"]
    line = await lines.next("stream")
    assert line["status"] == 200
    assert line["bytes"] >= len(received)
    assert (line["user_id"], line["organization_id"]) == (admin.user_id, admin.organization_id)


async def test_a_client_that_does_not_wait_has_its_line(api: Api, lines: Lines) -> None:
    admin = await api.register()
    property_id = (await admin.post("/properties", json=LISTING))["id"]
    async with api.database.acquire() as conn:
        await conn.execute(
            f"begin; set local reos.organization_id = '{admin.organization_id}';"
            f" select from properties where id = {property_id} for update"
        )
        with pytest.raises(httpx.ReadTimeout):
            await admin.request(
                "PUT", f"/properties/{property_id}", json={"price": 1}, timeout=0.2, headers={"X-Request-ID": "gone"}
            )
        line = await lines.next("gone")
        assert (line["status"], line["bytes"], line["user_id"]) == (499, 0, admin.user_id)
        await conn.execute("rollback")


async def test_other_lines_tell_whom_they_are_about(fresh_database: TestDatabase, tmp_path: Path, lines: Lines) -> None:
    async with served_api(fresh_database, tmp_path) as api:
        admin = await api.register()
        await api.value("alter table properties rename column city to town")
        response = await admin.request("GET", "/properties", headers={"X-Request-ID": "broken"})
        assert response.status_code == 500
        (error,) = [line for line in lines.all if line["level"] == "ERROR"]
        assert (error["request_id"], error["user_id"], error["organization_id"]) == (
            "broken", admin.user_id, admin.organization_id,
        )  # fmt: skip
        assert "UndefinedColumnError" in error["exception"]
        # The next request on the connection is another's.
        response = await api.http.get("/nothing")
        line = await lines.next(response.headers["X-Request-ID"])
        assert "user_id" not in line
