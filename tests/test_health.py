"""The state of the service and of the parts that it may do without."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from api import Api, served_api
from conftest import TestDatabase
from job_queue import running_worker, until
from mail_sink import MailSink

from reos.handlers import health

pytestmark = pytest.mark.integration


async def test_every_part_tells_how_it_is(api: Api) -> None:
    async with running_worker(api.settings):

        async def is_healthy() -> bool:
            response = await api.http.get("/health")
            return bool(response.status_code == 200 and response.json()["status"] == "healthy")

        await until(is_healthy)
        content = (await api.http.get("/health")).json()
    assert set(content) == {"status", "timestamp", "service", "version", "checks", "response_time_ms"}
    assert content["service"] == "Real Estate OS API"
    assert set(content["checks"]) == {"database", "jobs", "storage"}
    for check in content["checks"].values():
        assert set(check) == {"status", "response_time_ms", "details"}
    assert content["checks"]["database"]["details"]["connection"] == "ok"
    assert content["checks"]["jobs"]["details"]["workers"] >= 1
    assert content["checks"]["storage"]["details"]["provider"] == "local"


async def test_a_mail_server_that_is_away_degrades(database: TestDatabase, tmp_path: Path) -> None:
    async with MailSink() as sink:
        async with served_api(database, tmp_path, smtp_host="127.0.0.1", smtp_port=sink.port) as api:
            assert (await api.http.get("/health")).json()["checks"]["email"]["status"] == "healthy"
            admin = await api.register()
        port = sink.port
    async with served_api(database, tmp_path, smtp_host="127.0.0.1", smtp_port=port) as api:
        response = await api.http.get("/health")
        assert (response.status_code, response.json()["status"]) == (200, "degraded")
        assert response.json()["checks"]["email"] == {
            "status": "unhealthy",
            "response_time_ms": response.json()["checks"]["email"]["response_time_ms"],
            "details": {"error": "EmailServiceError"},
        }
        assert admin.account is not None
        await api.client(admin.account).get("/properties")


async def test_however_many_ask_the_parts_are_asked_once(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0
    check = api.context.storage.check

    async def counted() -> dict[str, Any]:
        nonlocal asked
        asked += 1
        return await check()

    monkeypatch.setattr(api.context.storage, "check", counted)
    monkeypatch.setattr(health, "KEPT_SECONDS", 3600)
    api.app.ctx.health = None
    answers = await asyncio.gather(*(api.http.get("/health") for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert asked == 1
    monkeypatch.setattr(health, "KEPT_SECONDS", 0)
    await api.http.get("/health")
    assert asked == 2
