"""What an organisation sees of its jobs, with a real worker that fails because the mail server is away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, get_args

import pytest
from api import Api, Client, served_api
from conftest import TestDatabase
from event_streams import until
from job_queue import running_worker
from mail_sink import MailSink

from reos.db import tenant_transaction
from reos.jobs.task import TASKS
from reos.queries import jobs
from reos.schemas.jobs import JobKind

pytestmark = pytest.mark.integration


async def defer(api: Api, client: Client, task: str = "send_welcome_email") -> int:
    """A job of the client's organisation, about the client."""
    async with tenant_transaction(api.database, client.organization_id) as conn:
        job_id = await jobs.defer(conn, task, {"user_id": client.user_id})
    assert job_id is not None
    return job_id


async def until_state(client: Client, job_id: int, state: str) -> dict[str, Any]:
    found: dict[str, Any] = {}

    async def has_come() -> bool:
        found.update(await client.get(f"/jobs/{job_id}"))
        return bool(found["state"] == state)

    await until(has_come)
    return found


async def test_jobs_are_listed_newest_first_and_only_ones_own(api: Api) -> None:
    admin, stranger = await api.register(), await api.register()
    ids = [await defer(api, admin) for _ in range(5)]
    await defer(api, stranger)
    page = await admin.get("/jobs")
    assert [job["id"] for job in page["items"]] == ids[::-1]
    assert page["total"] == 5
    assert {job["state"] for job in page["items"]} == {"queued"}
    assert {job["attempts"] for job in page["items"]} == {0}
    upwards = await admin.get("/jobs", params={"sort": "created_at", "page": 2, "page_size": 2})
    assert [job["id"] for job in upwards["items"]] == ids[2:4]
    assert (await admin.get("/jobs", params={"page": 9}))["total"] == 5
    assert (await admin.get("/jobs", params={"include_total": "false"}))["total"] is None
    await stranger.get(f"/jobs/{ids[0]}", status=404)
    await stranger.post(f"/jobs/{ids[0]}/retry", status=404)


@pytest.mark.parametrize("sort", ["created_at", "-created_at"])
async def test_a_cursor_goes_through_all(api: Api, sort: str) -> None:
    admin = await api.register()
    ids = [await defer(api, admin) for _ in range(5)]
    seen: list[int] = []
    params: dict[str, Any] = {"sort": sort, "page_size": 2}
    while True:
        page = await admin.get("/jobs", params=params)
        seen += [job["id"] for job in page["items"]]
        if page["next_cursor"] is None:
            break
        params["cursor"] = page["next_cursor"]
    assert seen == (ids if sort == "created_at" else ids[::-1])


async def test_filters(api: Api) -> None:
    admin = await api.register()
    welcome, verification = await defer(api, admin), await defer(api, admin, "send_verification_email")

    async def ids(**params: str) -> list[int]:
        return [job["id"] for job in (await admin.get("/jobs", params=params))["items"]]

    assert await ids(kind="send_welcome_email") == [welcome]
    assert await ids(kind="send_verification_email", state="queued") == [verification]
    assert await ids(state="failed") == []
    assert await ids(updated_since="2999-01-01") == []
    assert await ids(kind="send_campaign") == []
    assert await admin.fields_refused("GET", "/jobs?state=gone&kind=send_nothing") == {"state": "enum", "kind": "enum"}
    error = await admin.error("GET", "/jobs?kind=", status=422)
    assert "'send_campaign', 'send_welcome_email', " in error["details"]["errors"][0]["message"]


def test_the_kinds_of_the_filter_are_the_tasks() -> None:
    # Other test files declare tasks of their own.
    assert sorted(get_args(JobKind)) == sorted(name for name in TASKS if not name.startswith("test_"))


@pytest.fixture
async def failing(database: TestDatabase, tmp_path: Path) -> AsyncIterator[Api]:
    """A service whose mail server refuses every mail for good."""
    async with MailSink() as sink:
        sink.answers["RCPT"] = "550 No such mailbox"
        async with served_api(database, tmp_path, smtp_host="127.0.0.1", smtp_port=sink.port) as api:
            yield api


async def test_a_failed_job_says_why_and_runs_again(failing: Api) -> None:
    admin = await failing.register()
    job_id = await defer(failing, admin)
    async with running_worker(failing.settings):
        failed = await until_state(admin, job_id, "failed")
        assert failed["attempts"] == 1
        assert failed["last_error"]
        assert failed["started_at"] < failed["finished_at"]
        assert (await admin.get("/jobs", params={"state": "failed"}))["total"] == 1
    retried = await admin.post(f"/jobs/{job_id}/retry", status=200)
    assert (retried["state"], retried["finished_at"]) == ("queued", None)
    error = await admin.error("POST", f"/jobs/{job_id}/retry", status=409)
    assert error["type"] == "BusinessLogicError"
    async with running_worker(failing.settings):
        assert (await until_state(admin, job_id, "failed"))["attempts"] == 2
    assert [row["action"] for row in await failing.audits(admin)] == ["retry"]
    told = await failing.events(admin)
    assert [row["type"] for row in told] == ["notification", "notification"]
    assert f"The job {job_id} (send_welcome_email) has failed for good" in told[0]["data"]
