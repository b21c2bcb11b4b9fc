"""Campaigns on their way: a real worker sends them to a real mail server.

The long test kills the worker again and again; what it promises is at most one message for each recipient.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
import math
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from api import Api, Client, served_api
from conftest import TestDatabase
from crm import add_lead, happened
from job_queue import running_worker, until
from mail_sink import MailSink
from test_campaigns import LETTER
from test_jobs import worker_process

from reos.db import tenant_transaction
from reos.jobs import campaigns as job_module
from reos.jobs import worker as worker_module
from reos.queries import campaign_sending as queries
from reos.settings import Settings

pytestmark = pytest.mark.integration

ENDS = {"sent", "failed", "suppressed", "unknown"}
COUNTERS = {
    "sent_count": ("sent", "bounced"),
    "delivered_count": ("sent",),
    "bounced_count": ("bounced",),
    "failed_count": ("failed",),
    "suppressed_count": ("suppressed",),
    "unknown_count": ("unknown",),
}


@pytest.fixture
async def sink() -> AsyncIterator[MailSink]:
    async with MailSink() as sink:
        yield sink


@pytest.fixture
async def crm(fresh_database: TestDatabase, tmp_path: Path, sink: MailSink) -> AsyncIterator[Api]:
    """The API on a database of its own, with the sink as its mail server."""
    async with served_api(fresh_database, tmp_path, smtp_host="127.0.0.1", smtp_port=sink.port) as api:
        yield api


async def add_leads(client: Client, api: Api, number: int) -> None:
    """Leads with addresses of their own, in one statement."""
    await api.value(
        "insert into leads (organization_id, first_name, last_name, source, email)"
        " select $1, 'Lead', n::text, 'website', 'lead' || n || '@example.com' from generate_series(1, $2::int) n",
        client.organization_id,
        number,
    )


async def add_campaign(client: Client, **fields: Any) -> str:
    """The path of a new campaign."""
    return f"/campaigns/{(await client.post('/campaigns', json=LETTER | fields))['id']}"


async def send(client: Client, path: str, **body: Any) -> dict[str, Any]:
    sent: dict[str, Any] = await client.post(f"{path}/send", status=200, json=body)
    return sent


async def until_status(client: Client, path: str, status: str, timeout: float = 30) -> dict[str, Any]:
    async def is_so() -> bool:
        return bool((await client.get(path))["status"] == status)

    await until(is_so, timeout)
    campaign: dict[str, Any] = await client.get(path)
    return campaign


async def recipients(client: Client, path: str) -> list[dict[str, Any]]:
    """All of them, oldest first."""
    found: list[dict[str, Any]] = []
    params: dict[str, Any] = {"page_size": 100, "sort": "created_at", "include_total": "false"}
    while True:
        page = await client.get(f"{path}/recipients", params=params)
        found += page["items"]
        if not page["has_more"]:
            return found
        params["cursor"] = page["next_cursor"]


async def assert_counters_equal_rows(client: Client, path: str) -> Counter[str]:
    campaign = await client.get(path)
    rows = await recipients(client, path)
    counted = Counter(row["status"] for row in rows)
    assert campaign["total_recipients"] == len(rows)
    for counter, statuses in COUNTERS.items():
        assert campaign[counter] == sum(counted[status] for status in statuses), counter
    for counter in ("opened", "clicked", "unsubscribed"):
        assert campaign[f"{counter}_count"] == sum(row[f"{counter}_at"] is not None for row in rows)
    return counted


# Choosing recipients


async def test_recipients_are_frozen_one_for_each_address(crm: Api) -> None:
    admin = await crm.register()
    first = await add_lead(admin, email="Ann@Example.com")
    await add_lead(admin, email="ann@example.COM")
    await add_lead(admin, email="bob@example.com")
    nobody = await add_lead(admin)
    gone = await add_lead(admin, email="gone@example.com")
    await admin.delete(f"/leads/{gone['id']}")
    await admin.post("/suppressions", json={"email": "BOB@example.com"})
    path = await add_campaign(admin)
    sent = await send(admin, path)
    assert (sent["status"], sent["total_recipients"], sent["suppressed_count"]) == ("in_progress", 3, 2)
    assert sent["started_at"] is not None
    rows = {
        row["address"]: (row["status"], row["error_message"], row["lead_id"]) for row in await recipients(admin, path)
    }
    assert rows["Ann@Example.com"] == ("pending", None, first["id"])
    assert rows["bob@example.com"][:2] == ("suppressed", "The address is suppressed.")
    assert rows[None] == ("suppressed", "The lead has no address.", nobody["id"])
    await add_lead(admin, email="late@example.com")
    assert len(await recipients(admin, path)) == 3
    only = await admin.get(f"{path}/recipients", params={"status": "suppressed"})
    assert (only["total"], {item["status"] for item in only["items"]}) == (2, {"suppressed"})
    assert ("campaign.started", sent) in await happened(crm, admin)


async def test_leads_are_chosen_by_id_and_by_filter(crm: Api) -> None:
    admin = await crm.register()
    a = await add_lead(admin, email="a@example.com", status="qualified", score=90)
    b = await add_lead(admin, email="b@example.com", status="qualified", score=10, company="Harbour Ltd")
    c = await add_lead(admin, email="c@example.com", status="new", score=95)

    async def chosen(**body: Any) -> set[int]:
        path = await add_campaign(admin)
        await send(admin, path, **body)
        return {row["lead_id"] for row in await recipients(admin, path)}

    ids = [lead["id"] for lead in (a, b, c)]
    assert await chosen() == set(ids)
    assert await chosen(lead_ids=[ids[0], ids[2], ids[0]]) == {ids[0], ids[2]}
    assert await chosen(filters={"status": "qualified"}) == {ids[0], ids[1]}
    assert await chosen(filters={"min_score": 50}) == {ids[0], ids[2]}
    assert await chosen(filters={"search": "harb"}) == {ids[1]}
    assert await chosen(lead_ids=ids[1:], filters={"min_score": 50}) == {ids[2]}
    path = await add_campaign(admin)
    for body in (
        {"filters": {"status": "lost"}},
        {"lead_ids": []},
        {"lead_ids": [ids[1]], "filters": {"min_score": 50}},
    ):
        error = await admin.error("POST", f"{path}/send", status=409, json=body)
        assert error["type"] == "BusinessLogicError"
    assert await recipients(admin, path) == []
    foreign = await add_lead(await crm.register())
    for wrong, field in (
        ({"lead_ids": [ids[0], foreign["id"]]}, "lead_ids.1"),
        ({"lead_ids": [2**62]}, "lead_ids.0"),
        ({"filters": {"assigned_to": 2**62}}, "filters.assigned_to"),
    ):
        assert await admin.fields_refused("POST", f"{path}/send", json=wrong) == {field: "foreign_key"}
    assert (await admin.get(path))["status"] == "draft"


async def test_what_cannot_be_sent_is_refused(crm: Api) -> None:
    admin = await crm.register()
    await add_lead(admin, email="a@example.com")
    path = await add_campaign(admin, subject=None)
    error = await admin.error("POST", f"{path}/send", status=422)
    assert (error["type"], error["details"]["errors"][0]["field"]) == ("MissingRequiredFieldError", "subject")
    await admin.patch(path, json={"subject": "S"})
    now = datetime.now(UTC)
    for body, expected in (
        ({"send_now": False}, {"send_at": "missing"}),
        ({"send_now": True, "send_at": (now + timedelta(days=1)).isoformat()}, {"send_at": "conflicting_fields"}),
        ({"send_at": (now - timedelta(hours=1)).isoformat()}, {"send_at": "datetime_future"}),
        ({"filters": {"color": "red"}}, {"filters.color": "extra_forbidden"}),
    ):
        assert await admin.fields_refused("POST", f"{path}/send", json=body) == expected
    for action in ("pause", "resume", "cancel"):
        assert (await admin.error("POST", f"{path}/{action}", status=409))["type"] == "BusinessLogicError"
    await send(admin, path)
    assert (await admin.error("POST", f"{path}/send", status=409))["type"] == "CampaignAlreadySentError"
    assert (await admin.error("DELETE", path, status=409))["type"] == "ResourceDeletionError"
    await admin.error("PATCH", path, status=409, json={"name": "X"})
    await admin.post(f"{path}/cancel", status=200)
    assert (await admin.error("POST", f"{path}/send", status=409))["type"] == "CampaignAlreadySentError"
    reader = await crm.add_user_with(admin, ["campaign:read", "campaign:update"])
    for action in ("send", "pause", "resume", "cancel"):
        error = await reader.error("POST", f"{path}/{action}", status=403)
        assert error["details"]["required_permission"] == "campaign:send"


# Sending


async def test_a_campaign_is_sent_and_completes(crm: Api, sink: MailSink) -> None:
    admin = await crm.register()
    await add_leads(admin, crm, 30)
    await add_lead(admin, first_name="<i>Zoë</i>", email="zoe@example.com")
    await add_lead(admin)
    path = await add_campaign(
        admin, content='<p>Dear {{first_name}}</p><a href="https://example.com/a?b=1&amp;c=2">x</a>'
    )
    async with running_worker(crm.settings):
        await send(admin, path)
        campaign = await until_status(admin, path, "completed")
    assert (campaign["sent_count"], campaign["delivered_count"], campaign["suppressed_count"]) == (31, 31, 1)
    assert campaign["completed_at"] is not None
    assert await assert_counters_equal_rows(admin, path) == {"sent": 31, "suppressed": 1}
    assert Counter(mail.recipient for mail in sink.mails).most_common(1)[0][1] == 1
    assert sink.connections <= job_module.CONNECTIONS
    mail = next(mail for mail in sink.mails if mail.recipient == "zoe@example.com")
    message = mail.message
    assert message["Subject"] == "Hello <i>Zoë</i>"
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    link = message["List-Unsubscribe"]
    assert link.startswith(f"<{crm.settings.base_url}/t/u/")
    html = message.get_body(("html",)).get_content()
    assert "Dear &lt;i&gt;Zoë&lt;/i&gt;" in html
    assert "https://example.com/a" not in html, "links are counted"
    assert f"{crm.settings.base_url}/t/c/" in html
    assert f"{crm.settings.base_url}/t/o/" in html
    assert "Dear <i>Zoë</i>" in mail.text
    assert "x (https://example.com/a?b=1&c=2)" in mail.text
    assert link.strip("<>") in mail.text
    events = await happened(crm, admin)
    assert ("campaign.completed", campaign) in events
    told = [data for type, data in events if type == "notification"]
    assert told == [
        {
            "user_id": admin.user_id,
            "message": f"Campaign {campaign['id']} is completed.",
            "type": "campaign_completed",
        }
    ]


async def test_who_is_suppressed_or_deleted_meanwhile_gets_nothing(crm: Api, sink: MailSink) -> None:
    admin = await crm.register()
    await add_leads(admin, crm, 2)
    lead = await add_lead(admin, email="gone@example.com")
    path = await add_campaign(admin)
    await send(admin, path)
    await admin.post("/suppressions", json={"email": "LEAD1@example.com"})
    await admin.delete(f"/leads/{lead['id']}")
    async with running_worker(crm.settings):
        await until_status(admin, path, "completed")
    assert [mail.recipient for mail in sink.mails] == ["lead2@example.com"]
    assert {row["address"]: row["error_message"] for row in await recipients(admin, path)} == {
        "lead1@example.com": "The address is suppressed.",
        "lead2@example.com": None,
        "gone@example.com": "The lead was deleted.",
    }


async def test_a_scheduled_campaign_waits_for_its_time(crm: Api, sink: MailSink) -> None:
    admin = await crm.register()
    await add_leads(admin, crm, 2)
    path = await add_campaign(admin)
    at = datetime.now(UTC) + timedelta(seconds=2)
    scheduled = await send(admin, path, send_at=at.isoformat(), send_now=False)
    assert (scheduled["status"], scheduled["started_at"], scheduled["total_recipients"]) == ("scheduled", None, 2)
    assert "campaign.started" not in [type for type, _ in await happened(crm, admin)]
    await admin.patch(path, json={"subject": "Later"})
    assert await admin.fields_refused("PATCH", path, json={"subject": None}) == {"subject": "missing"}
    async with running_worker(crm.settings):
        await until_status(admin, path, "completed")
    assert {mail.message["Subject"] for mail in sink.mails} == {"Later"}
    events = [type for type, _ in await happened(crm, admin)]
    assert events.index("campaign.started") < events.index("campaign.completed")


async def test_pause_resume_and_cancel_act_within_a_batch(crm: Api, sink: MailSink) -> None:
    admin = await crm.register()
    await add_leads(admin, crm, 100)
    path = await add_campaign(admin)
    sink.gate = asyncio.Event()
    async with running_worker(crm.settings):
        await send(admin, path)
        await sink.received(job_module.CONNECTIONS)
        paused = await admin.post(f"{path}/pause", status=200)
        assert (paused["status"], paused["pause_reason"]) == ("paused", None)
        sink.gate.set()

        async def is_quiet() -> bool:
            return Counter(row["status"] for row in await recipients(admin, path))["sending"] == 0

        await until(is_quiet)
        # What was taken may still go out until the first outcome that is kept tells of the pause.
        assert len(sink.mails) <= job_module.BATCH + job_module.AT_HAND + job_module.CONNECTIONS
        counted = await assert_counters_equal_rows(admin, path)
        assert set(counted) == {"sent", "pending"}
        sink.gate.clear()
        before = len(sink.mails)
        resumed = await admin.post(f"{path}/resume", status=200)
        assert resumed["status"] == "in_progress"
        await sink.received(before + job_module.CONNECTIONS)
        cancelled = await admin.post(f"{path}/cancel", status=200)
        assert cancelled["status"] == "cancelled"
        sink.gate.set()
        await until(is_quiet)
    counted = await assert_counters_equal_rows(admin, path)
    assert set(counted) == {"sent", "cancelled"}
    assert counted["sent"] == len(sink.mails) == len({mail.recipient for mail in sink.mails})
    types = [type for type, _ in await happened(crm, admin)]
    assert types.count("campaign.started") == 2
    assert types.count("campaign.paused") == 1
    assert "campaign.completed" not in types


async def test_temporary_errors_are_tried_again(crm: Api, sink: MailSink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_module, "RECIPIENT_WAITS", (0.5, 1.0))
    admin = await crm.register()
    await add_leads(admin, crm, 3)
    path = await add_campaign(admin)
    sink.answers["RCPT"] = "450 greylisted"

    async def is_put_off() -> bool:
        rows = await recipients(admin, path)
        return all(row["attempts"] and row["status"] == "pending" for row in rows)

    async with running_worker(crm.settings):
        await send(admin, path)
        await until(is_put_off)
        rows = await recipients(admin, path)
        assert {row["error_message"] for row in rows} == {"The mail server put off the mail (450)."}
        assert all(row["next_attempt_at"] for row in rows)
        sink.answers.clear()
        campaign = await until_status(admin, path, "completed")
        assert campaign["sent_count"] == len(sink.mails) == 3
        other = await add_campaign(admin)
        sink.answers["DATA"] = "451 try later"
        await send(admin, other)
        campaign = await until_status(admin, other, "completed")
    assert campaign["failed_count"] == 3
    assert {row["attempts"] for row in await recipients(admin, other)} == {3}


async def test_permanent_errors_fail_and_too_many_pause(crm: Api, sink: MailSink) -> None:
    admin = await crm.register()
    await add_leads(admin, crm, 60)
    path = await add_campaign(admin)
    sink.answers["RCPT"] = "550 nobody here"
    async with running_worker(crm.settings):
        await send(admin, path)
        campaign = await until_status(admin, path, "paused")

        async def is_quiet() -> bool:
            return Counter(row["status"] for row in await recipients(admin, path))["sending"] == 0

        await until(is_quiet)
        counted = await assert_counters_equal_rows(admin, path)
        assert counted["failed"] >= job_module.MIN_FAILURES
        assert counted["pending"] > 0
        assert "messages failed. The mail server refused the mail (550)." in campaign["pause_reason"]
        sink.answers.clear()
        resumed = await admin.post(f"{path}/resume", status=200)
        assert resumed["pause_reason"] is None
        done = await until_status(admin, path, "completed")
    assert done["failed_count"] == counted["failed"]
    assert done["sent_count"] == 60 - counted["failed"] == len(sink.mails)
    told = [data["type"] for type, data in await happened(crm, admin) if type == "notification"]
    assert told == ["campaign_paused", "campaign_completed"]


async def test_a_server_that_is_away_burns_nobody(crm: Api, sink: MailSink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_module, "AWAY_SECONDS", 0.5)
    monkeypatch.setattr(job_module.MAIL_RETRY, "waits", (0.5,) * 20)
    admin = await crm.register()
    await add_leads(admin, crm, 5)
    path = await add_campaign(admin)
    port = sink.port
    await sink.__aexit__()
    async with running_worker(crm.settings):
        await send(admin, path)

        async def has_tried() -> bool:
            runs = await crm.fetch("select error from job_runs where kind = 'send_campaign' and error is not null")
            return len(runs) >= 2

        await until(has_tried)
        rows = await recipients(admin, path)
        assert {row["status"] for row in rows} <= {"pending", "sending"}
        assert (await admin.get(path))["status"] == "in_progress"
        async with MailSink(port=port) as again:
            await until_status(admin, path, "completed")
            assert len(again.mails) == 5
    assert {row["attempts"] for row in await recipients(admin, path)} == {1}


async def test_a_server_that_stays_away_pauses_the_campaign(
    crm: Api, sink: MailSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_module.MAIL_RETRY, "waits", (0.1, 0.1))
    admin = await crm.register()
    await add_leads(admin, crm, 2)
    path = await add_campaign(admin)
    await sink.__aexit__()
    async with running_worker(crm.settings):
        await send(admin, path)
        campaign = await until_status(admin, path, "paused")
    assert campaign["pause_reason"] == "The mail server could not be reached. It was tried 3 times."
    assert await assert_counters_equal_rows(admin, path) == {"pending": 2}


async def test_a_mail_without_an_answer_is_unknown_and_not_sent_again(crm: Api, sink: MailSink) -> None:
    admin = await crm.register()
    await add_leads(admin, crm, 3)
    path = await add_campaign(admin)
    sink.hang_up_after_data = True
    async with running_worker(crm.settings):
        await send(admin, path)
        campaign = await until_status(admin, path, "completed")
    assert (campaign["unknown_count"], campaign["sent_count"]) == (3, 0)
    assert len(sink.mails) == 3
    assert {row["error_message"] for row in await recipients(admin, path)} == {"The mail server could not be reached."}


async def test_a_deadlock_over_an_outcome_is_no_reason_to_forget_it(
    crm: Api, sink: MailSink, fresh_database: TestDatabase
) -> None:
    admin = await crm.register()
    await add_leads(admin, crm, 1)
    path = await add_campaign(admin)
    sink.gate = asyncio.Event()
    conn = await asyncpg.connect(fresh_database.superuser_dsn)
    try:
        async with running_worker(crm.settings):
            await send(admin, path)
            await sink.received(1)
            # It is the worker that notices, and that Postgres ends.
            await conn.execute("set deadlock_timeout = '60s'; begin; select from campaign_recipients for update")
            sink.gate.set()
            await until(lambda: conn.fetchval("select exists (select from pg_locks where not granted)"))
            await conn.execute("select from campaigns for no key update; commit")
            campaign = await until_status(admin, path, "completed")
    finally:
        await conn.close()
    assert (campaign["sent_count"], campaign["unknown_count"]) == (1, 0)


async def test_the_pace_is_kept(fresh_database: TestDatabase, tmp_path: Path, sink: MailSink) -> None:
    settings = {"smtp_host": "127.0.0.1", "smtp_port": sink.port, "campaign_messages_per_second": 10}
    async with served_api(fresh_database, tmp_path, **settings) as api:
        admin = await api.register()
        await add_leads(admin, api, 15)
        paths = [await add_campaign(admin), await add_campaign(admin)]
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with running_worker(api.settings):
            for path in paths:
                await send(admin, path)
            for path in paths:
                await until_status(admin, path, "completed")
    assert len(sink.mails) == 30
    assert loop.time() - began >= 2.8, "both together keep to ten a second"


# Letters and posts


@pytest.mark.parametrize("kind", ["direct_mail", "social_media"])
async def test_what_the_service_does_not_send_is_exported(crm: Api, sink: MailSink, kind: str) -> None:
    admin = await crm.register()
    await add_lead(admin, first_name="=cmd()", last_name='Ha"rt', company="A, B\nC".replace("\n", " "))
    await add_lead(admin, first_name="Bob", last_name="Lee", email="bob@example.com", phone="+1 512")
    path = await add_campaign(
        admin, campaign_type=kind, subject=None, content="Dear {{first_name}},\nhello {{company}}"
    )
    await admin.error("GET", f"{path}/export", status=404)
    async with running_worker(crm.settings):
        await send(admin, path)
        campaign = await until_status(admin, path, "completed")
    assert (campaign["total_recipients"], campaign["sent_count"], sink.mails) == (2, 0, [])
    link = await admin.get(f"{path}/export")
    response = await crm.http.get(link["url"].removeprefix(crm.settings.base_url))
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    assert "attachment" in response.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(response.text, newline="")))
    assert [row["text"] for row in rows] == ["Dear =cmd(),\nhello A, B C", "Dear Bob,\nhello"]
    assert [(row["first_name"], row["last_name"], row["phone"]) for row in rows] == [
        ("'=cmd()", 'Ha"rt', ""),
        ("Bob", "Lee", "'+1 512"),
    ]
    exported = [dict(row) for row in await crm.audits(admin) if row["action"] == "export"]
    assert [json.loads(row["changes"]) for row in exported] == [{}]
    reader = await crm.add_user_with(admin, ["campaign:read"])
    await reader.error("GET", f"{path}/export", status=403)


async def test_an_export_of_two_jobs_at_a_time_is_completed_once(
    crm: Api, sink: MailSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker stood still for so long that its job was rescued; then both came to their end."""
    admin = await crm.register()
    await add_lead(admin)
    path = await add_campaign(admin, campaign_type="direct_mail", subject=None)
    await send(admin, path)
    campaign_id = int(path.rpartition("/")[2])
    number = await crm.value("select job_number from campaigns where id = $1", campaign_id)
    async with tenant_transaction(crm.database, admin.organization_id) as conn:
        await queries.defer(conn, campaign_id, number)
    both = asyncio.Barrier(2)
    store = job_module.store_export

    async def store_together(*given: Any) -> int:
        file_id = await store(*given)
        await both.wait()
        return file_id

    monkeypatch.setattr(job_module, "store_export", store_together)
    done = "select count(*) from job_runs where kind = 'send_campaign' and finished_at is not null and error is null"

    async def are_both_done() -> bool:
        return bool(await crm.value(done) == 2)

    async with running_worker(crm.settings):
        await until(are_both_done, 30)
    ends = [kind for kind, _ in await happened(crm, admin) if kind in ("campaign.completed", "notification")]
    assert sorted(ends) == ["campaign.completed", "notification"]
    assert await crm.value("select count(*) from stored_files where is_pending") == 1, "nobody uses the other file"


async def test_who_unsubscribes_by_a_letter_gets_no_other(crm: Api, sink: MailSink) -> None:
    admin = await crm.register()
    ann = await add_lead(admin, first_name="Ann", email="ann@example.com")
    bob = await add_lead(admin, first_name="Bob", phone="+1 512 555 0100")
    eve = await add_lead(admin, first_name="Eve", email="eve@example.com")
    ida = await add_lead(admin, first_name="Ida")
    await add_lead(admin, first_name="Joe")
    await admin.post("/suppressions", json={"email": "EVE@example.com", "reason": "bounced"})
    letter = {"campaign_type": "direct_mail", "subject": None, "content": "{{first_name}} {{unsubscribe_url}}"}

    async def addressees() -> dict[str, str]:
        """Who is written to, and the path of the link to unsubscribe."""
        path = await add_campaign(admin, **letter)
        await send(admin, path)
        await until_status(admin, path, "completed")
        link = await admin.get(f"{path}/export")
        text = (await crm.http.get(link["url"].removeprefix(crm.settings.base_url))).text
        return {row["first_name"]: urlsplit(row["text"].split()[1]).path for row in csv.DictReader(io.StringIO(text))}

    async with running_worker(crm.settings):
        links = await addressees()
        assert set(links) == {"Ann", "Bob", "Eve", "Ida", "Joe"}, "that mails bounce says nothing about letters"
        for name in ("Ann", "Bob", "Ida"):
            assert (await crm.http.post(links[name])).status_code == 200
        assert set(links := await addressees()) == {"Eve", "Joe"}
    newest = (await admin.get("/campaigns"))["items"][0]["id"]
    listed = await recipients(admin, f"/campaigns/{newest}")
    by_lead = {row["lead_id"]: (row["status"], row["error_message"]) for row in listed}
    refused = ("suppressed", "The lead has unsubscribed, or is suppressed.")
    assert [by_lead[lead["id"]] for lead in (ann, bob, ida)] == [refused] * 3
    assert by_lead[eve["id"]][0] == "pending"
    # By her letter, though mails to her bounce.
    assert '<form method="post">' in (await crm.http.get(links["Eve"])).text
    assert (await crm.http.post(links["Eve"])).status_code == 200
    async with running_worker(crm.settings):
        assert set(await addressees()) == {"Joe"}


# Death


def hand_over_settings(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    """To a worker in a process of its own, which reads them from its environment."""
    for name in ("smtp_host", "smtp_port", "jwt_secret_key"):
        monkeypatch.setenv(name.upper(), str(getattr(settings, name)))


async def test_a_worker_that_is_stopped_lets_go_of_what_it_has_not_begun(crm: Api, sink: MailSink) -> None:
    admin = await crm.register()
    await add_leads(admin, crm, 60)
    path = await add_campaign(admin)
    sink.gate = asyncio.Event()
    await send(admin, path)
    async with running_worker(crm.settings) as worker:
        await sink.received(job_module.CONNECTIONS)
        # The worker waits for its jobs, and the job for what is on its way.
        asyncio.get_running_loop().call_later(worker_module.GRACE_SECONDS + 1, sink.gate.set)
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began < worker_module.GRACE_SECONDS + job_module.STOP_SECONDS
    assert worker.done()
    assert await assert_counters_equal_rows(admin, path) == {"sent": 4, "pending": 56}
    async with running_worker(crm.settings):
        await until_status(admin, path, "completed")
    assert await assert_counters_equal_rows(admin, path) == {"sent": 60}
    assert len({mail.recipient for mail in sink.mails}) == len(sink.mails) == 60


async def test_a_worker_that_was_taken_for_dead_leaves_nobody_waiting_in_a_completed_campaign(
    crm: Api, sink: MailSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "GRACE_SECONDS", 0.1)
    monkeypatch.setattr(job_module, "STOP_SECONDS", 0.1)
    admin = await crm.register()
    await add_leads(admin, crm, job_module.BATCH)
    path = await add_campaign(admin)
    sink.gate = asyncio.Event()
    await send(admin, path)
    async with running_worker(crm.settings):
        await sink.received(job_module.CONNECTIONS)
        # What the next job does, while this one stands still for so long that it was rescued.
        campaign_id = int(path.rpartition("/")[2])
        number = await crm.value("select job_number from campaigns where id = $1", campaign_id)
        async with tenant_transaction(crm.database, admin.organization_id) as conn:
            assert await queries.lock(conn, campaign_id)
            await queries.give_up_taken(conn, campaign_id, number)
            await job_module.completed(conn, campaign_id)
    counted = await assert_counters_equal_rows(admin, path)
    assert counted == {"unknown": job_module.CONNECTIONS, "failed": job_module.BATCH - job_module.CONNECTIONS}
    assert (await admin.get(path))["status"] == "completed"


@pytest.mark.slow
@pytest.mark.timeout(300)  # On a busy machine each worker takes seconds to start.
async def test_a_thousand_recipients_while_the_worker_is_killed_every_two_seconds(
    crm: Api, sink: MailSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most one mail each, every recipient in an end state, counters that add up."""
    admin = await crm.register()
    await add_leads(admin, crm, 1000)
    path = await add_campaign(admin)
    hand_over_settings(monkeypatch, crm.settings)
    await send(admin, path)
    kills, dies_at, enough = 0, math.inf, 0

    async def is_its_time() -> bool:
        """Two seconds after its first mail; sooner where the machine is fast, so that it dies in the middle."""
        nonlocal dies_at
        now = asyncio.get_running_loop().time()
        if dies_at == math.inf and len(sink.mails) > enough - 300:
            dies_at = now + 2
        return now >= dies_at or len(sink.mails) >= enough or await is_completed()

    async def is_completed() -> bool:
        return bool((await admin.get(path))["status"] == "completed")

    while not await is_completed():
        dies_at, enough = math.inf, len(sink.mails) + 300
        with worker_process(crm.settings, "quick"):
            await until(is_its_time, 60)
        kills += 1
    sent = Counter(mail.recipient for mail in sink.mails)
    assert max(sent.values()) == 1
    counted = await assert_counters_equal_rows(admin, path)
    assert set(counted) <= ENDS
    assert sum(counted.values()) == 1000
    states = {row["address"]: row["status"] for row in await recipients(admin, path)}
    assert {address for address, status in states.items() if status == "sent"} <= set(sent)
    assert {states[address] for address in sent} <= {"sent", "unknown"}
    assert kills >= 2, "or nothing was tried"
    print(f"killed {kills} times: {dict(counted)}, {len(sink.mails)} mails")
