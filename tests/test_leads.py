"""Leads through HTTP: list and search, assignment with its mail, activities, notes and documents."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

import pytest
from api import Api, Client, served_api
from conftest import TestDatabase
from event_streams import as_owner
from job_queue import running_worker
from mail_sink import MailSink

from reos.db import tenant_transaction
from reos.queries import leads
from reos.schemas.leads import LeadSource, LeadStatus

pytestmark = pytest.mark.integration

PERSON = {"first_name": "Grace", "last_name": "Hopper", "source": "website"}
FULL = PERSON | {
    "email": "Grace@Example.com",
    "phone": "+1 512 555 0100",
    "company": "Navy & Co",
    "status": "qualified",
    "score": 80,
    "budget": "750000.00",
    "timeline": "3 months",
    "notes": "Wants a garden.\nCalls back.",
    "metadata": {"rooms": 4, "tags": ["a", None, 1.5]},
}


async def create(client: Client, **fields: Any) -> dict[str, Any]:
    lead: dict[str, Any] = await client.post("/leads", json=PERSON | fields)
    return lead


async def names(client: Client, **params: Any) -> list[str]:
    page = await client.get("/leads", params=params)
    return [lead["last_name"] for lead in page["items"]]


# --- the resource ----------------------------------------------------------------------------------------------


async def test_a_lead_comes_back_as_it_was_sent(api: Api) -> None:
    admin = await api.register()
    response = await admin.request("POST", "/leads", json=FULL)
    lead = response.json()
    assert {name: lead[name] for name in FULL} == FULL
    assert lead["created_by"] == admin.user_id
    assert (lead["assigned_to"], lead["last_contacted_at"], lead["deleted_at"]) == (None, None, None)
    assert response.headers["Location"] == f"/api/v1/leads/{lead['id']}"
    read = await admin.request("GET", f"/leads/{lead['id']}")
    assert read.json() == lead
    assert read.headers["ETag"] == response.headers["ETag"]


async def test_defaults(api: Api) -> None:
    lead = await create(await api.register())
    assert (lead["status"], lead["score"], lead["metadata"], lead["budget"]) == ("new", 0, {}, None)


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_only_what_is_sent_changes(api: Api, method: str) -> None:
    admin = await api.register()
    lead = await admin.post("/leads", json=FULL)
    changed = await admin.call(method, f"/leads/{lead['id']}", json={"score": 90, "budget": None}, status=200)
    assert changed == lead | {"score": 90, "budget": None, "updated_at": changed["updated_at"]}
    assert changed["updated_at"] > lead["updated_at"]
    same = await admin.call(method, f"/leads/{lead['id']}", json={"score": 90}, status=200)
    assert same == changed
    audits = [(row["action"], row["changes"]) for row in await api.audits(admin)]
    assert [action for action, _ in audits] == ["create", "update"]
    assert [row["type"] for row in await api.events(admin)] == ["lead.created", "lead.updated"]


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("source", "rumour", "enum"),
        ("status", None, "enum"),
        ("score", 101, "less_than_equal"),
        ("score", -1, "greater_than_equal"),
        ("budget", "-1", "greater_than_equal"),
        ("budget", "0.005", "decimal_max_places"),
        ("email", "grace", "value_error.email"),
        ("first_name", " ", "string_too_short"),
        ("assigned_to", 2**62, "foreign_key"),
        ("colour", "red", "extra_forbidden"),
    ],
)
async def test_bad_fields_are_named(api: Api, field: str, value: Any, code: str) -> None:
    admin = await api.register()
    refused = await admin.fields_refused("POST", "/leads", json=PERSON | {field: value})
    assert refused == {field: code}


async def test_a_deleted_lead_is_hidden_until_it_is_restored(api: Api) -> None:
    admin = await api.register()
    lead = await create(admin)
    path = f"/leads/{lead['id']}"
    await admin.delete(path)
    for method in ("GET", "PUT", "DELETE"):
        await admin.error(method, path, status=404, **({"json": {}} if method == "PUT" else {}))
    for below in ("activities", "notes", "documents"):
        await admin.get(f"{path}/{below}", status=404)
    assert await names(admin) == []
    assert (await admin.get("/leads/stats"))["total_leads"] == 0
    restored = await admin.post(f"{path}/restore", status=200)
    assert restored == lead | {"updated_at": restored["updated_at"]}
    await admin.post(f"{path}/restore", status=404)
    assert [row["type"] for row in await api.events(admin)] == ["lead.created", "lead.deleted", "lead.updated"]


async def test_two_writers_with_one_tag(api: Api) -> None:
    admin = await api.register()
    lead = await create(admin)
    for score in range(10, 20):
        tag = (await admin.request("GET", f"/leads/{lead['id']}")).headers["ETag"]
        writes = [
            admin.request("PUT", f"/leads/{lead['id']}", json={"score": score + 10 * n}, headers={"If-Match": tag})
            for n in (1, 2)
        ]
        assert sorted([response.status_code for response in await asyncio.gather(*writes)]) == [200, 412]


# --- the list --------------------------------------------------------------------------------------------------


async def test_filters(api: Api) -> None:
    admin = await api.register()
    agent = await api.add_user(admin, "Agent")
    await create(admin, last_name="One", source="referral", status="lost", score=10)
    await create(admin, last_name="Two", source="event", status="new", score=50, assigned_to=agent.user_id)
    await create(admin, last_name="Three", source="event", status="qualified", score=90)
    assert await names(admin, source="event") == ["Three", "Two"]
    assert await names(admin, status="lost") == ["One"]
    assert await names(admin, assigned_to=agent.user_id) == ["Two"]
    assert await names(admin, min_score=50) == ["Three", "Two"]
    assert await names(admin, min_score=20, max_score=60) == ["Two"]
    assert await names(admin, source="event", status="lost") == []
    assert await admin.fields_refused("GET", "/leads?source=rumour") == {"source": "enum"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("HOPPER", {"Hopper"}),
        ("hop gra", {"Hopper"}),
        ("navy", {"Hopper"}),
        ("example.com", {"Hopper", "Turing"}),
        ("555", {"Hopper"}),
        ("ng al", {"Turing"}),
        ("100%", {"Percent"}),
        ("a_b", {"Percent"}),
        ("%", {"Percent"}),
        ("zzz", set()),
        ("", {"Hopper", "Turing", "Percent"}),
    ],
)
async def test_search(api: Api, text: str, found: set[str]) -> None:
    admin = await api.register()
    await admin.post("/leads", json=FULL)
    await create(admin, first_name="Alan", last_name="Turing", email="alan@example.com")
    await create(admin, first_name="100% a_b", last_name="Percent")
    assert set(await names(admin, search=text)) == found


@pytest.mark.parametrize("key", sorted(leads.LISTING.sort_keys))
@pytest.mark.parametrize("sign", ["", "-"])
async def test_a_cursor_visits_every_lead_once_in_order(api: Api, key: str, sign: str) -> None:
    admin = await api.register()
    dice = random.Random(7)
    for _ in range(12):
        fields = {
            "last_name": dice.choice("ABC"),
            "score": dice.choice((0, 50)),
            "status": dice.choice(("new", "lost")),
        }
        await create(admin, budget=dice.choice((None, 10, 20)), **fields)
    whole = await admin.get("/leads", params={"sort": sign + key})
    seen: list[int] = []
    params: dict[str, Any] = {"sort": sign + key, "page_size": 5}
    while True:
        page = await admin.get("/leads", params=params)
        seen += [lead["id"] for lead in page["items"]]
        if page["next_cursor"] is None:
            break
        params["cursor"] = page["next_cursor"]
    assert seen == [lead["id"] for lead in whole["items"]]
    values = [lead[key] for lead in whole["items"]]
    known = [value for value in values if value is not None]
    assert values == known + [None] * (len(values) - len(known))
    numbers = [Decimal(value) if key == "budget" else value for value in known]
    assert numbers == sorted(numbers, reverse=bool(sign))


async def test_statistics_against_a_model(api: Api) -> None:
    admin, stranger = await api.register(), await api.register()
    dice = random.Random(11)
    empty = await admin.get("/leads/stats")
    assert (empty["total_leads"], empty["avg_score"], empty["conversion_rate"]) == (0, 0, 0)
    await create(stranger)
    kept: list[dict[str, Any]] = []
    for _ in range(40):
        fields = {
            "status": dice.choice(get_args(LeadStatus)),
            "source": dice.choice(get_args(LeadSource)),
            "score": dice.randrange(101),
        }
        lead = await create(admin, **fields)
        if dice.random() < 0.2:
            await admin.delete(f"/leads/{lead['id']}")
        else:
            kept.append(lead)

    def rounded(value: Decimal) -> float:
        return float(value.quantize(Decimal("0.01"), ROUND_HALF_UP))

    converted = sum(lead["status"] == "converted" for lead in kept)
    assert await admin.get("/leads/stats") == {
        "total_leads": len(kept),
        "by_status": {name: sum(lead["status"] == name for lead in kept) for name in get_args(LeadStatus)},
        "by_source": {name: sum(lead["source"] == name for lead in kept) for name in get_args(LeadSource)},
        "avg_score": rounded(Decimal(sum(lead["score"] for lead in kept)) / len(kept)),
        "conversion_rate": rounded(Decimal(100 * converted) / len(kept)),
    }


@pytest.mark.slow
async def test_search_is_served_by_its_index_among_100_000_leads(api: Api) -> None:
    admin = await api.register()
    await as_owner(
        api.owner_dsn,
        "insert into leads (organization_id, first_name, last_name, source, email)"
        " select $1, 'First' || n, 'Last' || n, 'other', 'person' || n || '@example.com'"
        " from generate_series(1, 100000) n",
        admin.organization_id,
    )
    await as_owner(api.owner_dsn, "analyze leads")
    async with tenant_transaction(api.database, admin.organization_id, read_only=True) as conn:
        before = await _index_scans(api)
        rows = await conn.fetch("select search_lead_ids(array['%last77777%'], 1001) as id")
    assert len(rows) == 1
    assert await _index_scans(api) > before
    assert await names(admin, search="last77777") == ["Last77777"]
    # More hits than the index drives: the list's own index does, and the words filter.
    assert len(await names(admin, search="person", page_size=20)) == 20


async def _index_scans(api: Api) -> int:
    """How often the search index was used; statistics come when a session ends or after a second."""
    await as_owner(api.owner_dsn, "select pg_stat_force_next_flush()")
    return int(await api.value("select idx_scan from pg_stat_user_indexes where indexrelname = 'leads_search'"))


# --- assignment ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["user_id", "assigned_to"])
async def test_a_lead_is_assigned(api: Api, field: str) -> None:
    admin = await api.register()
    agent = await api.add_user(admin, "Agent")
    lead = await create(admin)
    assigned = await admin.post(f"/leads/{lead['id']}/assign", json={field: agent.user_id}, status=200)
    assert assigned["assigned_to"] == agent.user_id
    assert [row["action"] for row in await api.audits(admin)] == ["create", "assign"]
    events = [row["type"] for row in await api.events(admin)]
    assert events == ["lead.created", "lead.updated", "lead.assigned", "notification"]
    # Again changes nothing, and tells nobody.
    await admin.post(f"/leads/{lead['id']}/assign", json={field: agent.user_id}, status=200)
    assert len(await api.events(admin)) == 4


async def test_bad_assignments(api: Api) -> None:
    admin, stranger = await api.register(), await api.register()
    agent = await api.add_user(admin, "Agent")
    gone = await api.add_user(admin, "Agent")
    await as_owner(api.owner_dsn, "update users set is_active = false where id = $1", gone.user_id)
    path = f"/leads/{(await create(admin))['id']}/assign"
    for user_id in (stranger.user_id, gone.user_id, 2**62):
        for field in ("user_id", "assigned_to"):
            assert await admin.fields_refused("POST", path, json={field: user_id}) == {field: "foreign_key"}
    assert await admin.fields_refused("POST", path, json={}) == {"user_id": "missing"}
    both = {"user_id": agent.user_id, "assigned_to": agent.user_id}
    assert await admin.fields_refused("POST", path, json=both) == {"assigned_to": "conflicting_fields"}
    await agent.error("POST", path, json={"user_id": agent.user_id}, status=403)


@pytest.fixture
async def mailing(database: TestDatabase, tmp_path: Path) -> AsyncIterator[tuple[Api, MailSink]]:
    """A service with a real mail server, and a worker."""
    async with (
        MailSink() as sink,
        served_api(database, tmp_path, smtp_host="127.0.0.1", smtp_port=sink.port) as api,
        running_worker(api.settings),
    ):
        yield api, sink


async def test_the_agent_gets_a_mail(mailing: tuple[Api, MailSink]) -> None:
    api, sink = mailing
    admin = await api.register()
    quiet, agent = await api.add_user(admin, "Agent"), await api.add_user(admin, "Agent")
    await quiet.put("/auth/me", json={"preferences": {"email_notifications": False}})
    lead = await create(admin, company="<b>Navy</b>", assigned_to=quiet.user_id)
    await admin.post(f"/leads/{lead['id']}/assign", json={"user_id": agent.user_id}, status=200)
    address = (await agent.get("/auth/me"))["email"]
    mail = await sink.find(lambda mail: mail.recipient == address)
    assert "Grace Hopper is your lead now" in mail.text
    html = mail.message.get_body(("html",))
    assert html is not None
    assert "&lt;b&gt;Navy" in html.get_content()
    # Its job has run before, for the queue is served in order.
    assert (await quiet.get("/auth/me"))["email"] not in [mail.recipient for mail in sink.mails]


# --- activities and notes --------------------------------------------------------------------------------------


async def test_activities_and_the_last_contact(api: Api) -> None:
    admin = await api.register()
    lead = await create(admin)
    path = f"/leads/{lead['id']}"

    async def contacted_after(**fields: Any) -> str | None:
        await admin.post(f"{path}/activities", json={"activity_type": "call", "description": "x"} | fields)
        contacted_at: str | None = (await admin.get(path))["last_contacted_at"]
        return contacted_at

    assert await contacted_after(activity_type="note") is None
    assert await contacted_after(scheduled_at="2999-01-01T10:00:00Z") is None
    first = await contacted_after(completed_at="2026-01-02T10:00:00+02:00")
    assert first == "2026-01-02T08:00:00Z"
    assert await contacted_after(completed_at="2025-01-02T10:00:00Z") == first
    assert (await contacted_after(activity_type="sms") or "") > first
    response = await admin.request("GET", f"{path}/activities?page_size=2")
    assert response.headers["X-Total-Count"] == "5"
    assert [item["activity_type"] for item in response.json()] == ["sms", "call"]
    assert await admin.fields_refused(
        "POST", f"{path}/activities", json={"activity_type": "fax", "description": ""}
    ) == {"activity_type": "enum", "description": "string_too_short"}


async def test_pinned_notes_come_first(api: Api) -> None:
    admin = await api.register()
    path = f"/leads/{(await create(admin))['id']}/notes"
    for content, is_pinned in (("one", False), ("two", True), ("three", False), ("four", True)):
        await admin.post(path, json={"content": content, "is_pinned": is_pinned})
    assert [note["content"] for note in await admin.get(path)] == ["four", "two", "three", "one"]


# --- documents -------------------------------------------------------------------------------------------------


async def test_a_document_that_lies_elsewhere(api: Api) -> None:
    admin = await api.register()
    path = f"/leads/{(await create(admin))['id']}/documents"
    body = {
        "title": "Contract",
        "file_path": "s3://bucket/contract.pdf",
        "file_type": "application/pdf",
        "file_size": 7,
    }
    document = await admin.post(path, json=body)
    assert {name: document[name] for name in body} == body
    assert await admin.get(path) == [document]
    await admin.get(f"{path}/{document['id']}/download", status=404)


async def test_an_uploaded_document_is_private_and_given_out_by_links(api: Api) -> None:
    admin, stranger = await api.register(), await api.register()
    path = f"/leads/{(await create(admin))['id']}/documents"
    content = random.Random(1).randbytes(300_000)
    name = '../Vertrag "Müller".html'
    document = await admin.post(path, data={"title": "Contract"}, files={"file": (name, content)})
    assert (document["file_path"], document["file_size"]) == (None, len(content))
    assert document["file_name"] == "Vertrag Müller.html"
    download = f"{path}/{document['id']}/download"
    await stranger.get(download, status=404)
    await api.anonymous.get(download, status=401)
    await admin.request("HEAD", download)
    link = await admin.get(download)
    response = await api.http.get(urlsplit(link["url"]).path)
    assert response.content == content
    assert response.headers["Content-Disposition"] == (
        "attachment; filename=\"Vertrag M_ller.html\"; filename*=UTF-8''Vertrag%20M%C3%BCller.html"
    )
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cache-Control"] == "private, no-store"
    actions = [row["action"] for row in await api.audits(admin)]
    assert actions.count("download") == 1


async def test_a_link_expires_and_ends_with_its_lead(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    admin = await api.register()
    lead = await create(admin)
    path = f"/leads/{lead['id']}/documents"
    document = await admin.post(path, data={"title": "x"}, files={"file": ("x.txt", b"text")})
    download = f"{path}/{document['id']}/download"

    async def status_of(url: str) -> int:
        return (await api.http.get(urlsplit(url).path)).status_code

    fresh = (await admin.get(download))["url"]
    assert await status_of(fresh) == 200
    assert await status_of(fresh + "A") == 404
    with monkeypatch.context() as patched:
        patched.setattr("reos.handlers.documents.LINK_SECONDS", -1)
        expired = (await admin.get(download))["url"]
    assert await status_of(expired) == 404
    await admin.delete(f"/leads/{lead['id']}")
    assert await status_of(fresh) == 404


async def test_uploads_have_a_limit_of_their_own(api: Api) -> None:
    admin = await api.register()
    path = f"/leads/{(await create(admin))['id']}/documents"
    large = bytes(25 * 1024 * 1024)
    document = await admin.post(path, data={"title": "large"}, files={"file": ("large.bin", large)})
    assert document["file_size"] == len(large)
    error = await admin.error(
        "POST", path, data={"title": "larger"}, files={"file": ("larger.bin", large + bytes(1))}, status=413
    )
    assert error["type"] == "FileTooLargeError"
    assert await admin.fields_refused("POST", path, files={"file": ("x", b"x")}) == {"title": "missing"}
    await admin.post("/leads/999999/documents", data={"title": "x"}, files={"file": ("x", b"x")}, status=404)
