"""Leads through HTTP: list and search, assignment with its mail, activities, notes and documents."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

import asyncpg
import httpx
import pytest
from api import Api, Client, served_api
from conftest import TestDatabase
from crm import add_property, audited, happened
from event_streams import connected, until
from job_queue import running_worker
from mail_sink import MailSink

from reos.handlers.images import FILE_PURPOSE
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
    assert await happened(api, admin) == [("lead.created", lead), ("lead.updated", changed)]
    (created, *_, first), updated = await audited(api, admin, "lead")
    assert (created, first) == ("create", {name: [None, value] for name, value in FULL.items()})
    changes = {"score": [80, 90], "budget": ["750000.00", None]}
    assert updated == ("update", "lead", lead["id"], changes)


async def test_a_change_that_waited_is_younger_than_the_one_before(api: Api) -> None:
    admin = await api.register()
    lead = await admin.post("/leads", json=PERSON)
    conn = await asyncpg.connect(api.owner_dsn)
    try:
        await conn.execute("set role reos_owner; begin")
        await conn.execute("select from leads where id = $1 for update", lead["id"])
        changing = asyncio.create_task(admin.put(f"/leads/{lead['id']}", json={"score": 7}))
        await until(lambda: _is_one(conn, "select count(*) from pg_locks where not granted"))
        change = "update leads set updated_at = clock_timestamp() where id = $1 returning updated_at"
        before = await conn.fetchval(change, lead["id"])
        await conn.execute("commit")
        after = await changing
    finally:
        await conn.close()
    assert datetime.fromisoformat(after["updated_at"]) > before


async def _is_one(conn: asyncpg.Connection, statement: str) -> bool:
    return bool(await conn.fetchval(statement))


async def test_every_field_changes_and_every_nullable_one_is_cleared(api: Api) -> None:
    admin = await api.register()
    lead = await create(admin)
    path = f"/leads/{lead['id']}"
    whole = FULL | {"assigned_to": admin.user_id}
    changed = await admin.put(path, json=whole)
    assert {name: changed[name] for name in whole} == whole
    nullable = ("email", "phone", "company", "budget", "timeline", "notes", "assigned_to")
    cleared = await admin.put(path, json=dict.fromkeys(nullable))
    assert {name: cleared[name] for name in nullable} == dict.fromkeys(nullable)
    for name in set(whole) - set(nullable):
        assert list(await admin.fields_refused("PATCH", path, json={name: None})) == [name]
    assert await admin.get(path) == cleared


async def test_what_is_sent_is_judged_before_the_lead_and_the_lead_before_its_tag(api: Api) -> None:
    admin, stranger = await api.register(), await api.register()
    path, foreign = f"/leads/{(await create(admin))['id']}", {"assigned_to": stranger.user_id}
    stale = {"If-Match": '"stale"'}
    for where in (path, f"/leads/{2**62}", f"/leads/{(await create(stranger))['id']}"):
        refused = await admin.fields_refused("PUT", where, json=foreign, headers=stale)
        assert refused == {"assigned_to": "foreign_key"}
        refused = await admin.fields_refused("POST", f"{where}/assign", json=foreign)
        assert refused == {"assigned_to": "foreign_key"}
        mine, status = {"assigned_to": admin.user_id}, 404 if where != path else 200
        await admin.post(f"{where}/assign", json=mine, status=status)
        await admin.put(where, json={"score": 1}, headers=stale, status=404 if where != path else 412)
        await admin.delete(where, headers=stale, status=404 if where != path else 412)
    tag = (await admin.request("GET", path)).headers["ETag"]
    await admin.delete(path, headers={"If-Match": tag})


async def test_a_lead_that_is_converted_by_hand_is_not_converted_again(api: Api) -> None:
    admin = await api.register()
    house = await add_property(admin)
    made = await create(admin, status="converted")
    changed = await admin.put(f"/leads/{(await create(admin))['id']}", json={"status": "converted"})
    body = {"property_id": house["id"], "deal_type": "sell", "value": 1}
    for lead in (made, changed):
        assert lead["status"] == "converted"
        error = await admin.error("POST", f"/leads/{lead['id']}/convert", json=body, status=409)
        assert error["type"] == "LeadAlreadyConvertedError"
    await admin.put(f"/leads/{made['id']}", json={"status": "nurturing"})
    await admin.post(f"/leads/{made['id']}/convert", json=body)


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
    assert await names(admin) == ["Hopper"]
    lead_id = lead["id"]
    assert await happened(api, admin) == [
        ("lead.created", lead), ("lead.deleted", {"lead_id": lead_id}), ("lead.updated", restored),
    ]  # fmt: skip
    assert [row[:3] for row in await audited(api, admin, "lead")] == [
        (action, "lead", lead_id) for action in ("create", "delete", "restore")
    ]


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
    for field, value in (("source", "rumour"), ("status", "won"), ("min_score", 101), ("assigned_to", 0), ("other", 1)):
        assert list(await admin.fields_refused("GET", "/leads", params={field: value})) == [field]


async def test_filters_against_a_model(api: Api) -> None:
    admin = await api.register()
    dice = random.Random(3)
    everything = [
        await create(
            admin,
            source=dice.choice(get_args(LeadSource)),
            status=dice.choice(get_args(LeadStatus)),
            score=dice.choice((0, 1, 50, 99, 100)),
            assigned_to=dice.choice((None, admin.user_id)),
            email=dice.choice((None, "a_b%c@example.com", "other@example.org")),
        )
        for _ in range(30)
    ]

    async def check(wanted: Callable[[dict[str, Any]], bool], **params: Any) -> None:
        page = await admin.get("/leads", params={"sort": "created_at", "page_size": 100} | params)
        expected = [lead for lead in everything if wanted(lead)]
        assert (page["items"], page["total"]) == (expected, len(expected)), params

    for source in get_args(LeadSource):
        await check(lambda lead, source=source: lead["source"] == source, source=source)
    for status in get_args(LeadStatus):
        await check(lambda lead, status=status: lead["status"] == status, status=status)
    for score in (0, 1, 50, 100):
        await check(lambda lead, score=score: lead["score"] >= score, min_score=score)
        await check(lambda lead, score=score: lead["score"] <= score, max_score=score)
    await check(lambda lead: lead["assigned_to"] is not None, assigned_to=admin.user_id)
    await check(lambda lead: False, assigned_to=2**62)
    await check(lambda lead: lead["score"] == 99 and lead["assigned_to"] is not None, min_score=99, max_score=99,
                assigned_to=admin.user_id)  # fmt: skip
    await check(lambda lead: "a_b%" in (lead["email"] or "") and lead["score"] > 50, search="A_B%", min_score=51)
    await check(lambda lead: "@e" in (lead["email"] or ""), search="@e")
    middle = everything[12]["updated_at"]
    await check(lambda lead: lead["updated_at"] >= middle, updated_since=middle)
    page = await admin.get("/leads", params={"fields": "id,score", "include_total": "false", "page_size": 3})
    assert page["items"] == [{"id": lead["id"], "score": lead["score"]} for lead in everything[:-4:-1]]
    assert (page["total"], page["pages"], page["has_more"]) == (None, None, True)


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


async def test_whatever_part_of_its_text_is_searched_the_lead_is_found(api: Api) -> None:
    """Long words are looked up by a part of their trigrams, which must never lose one."""
    admin = await api.register()
    dice = random.Random(5)
    texts = [
        {"first_name": "Wolfeschlegelstein", "last_name": "Hausenbergerdorff", "email": "w.h-1234567@mail.example.com"},
        {"first_name": "Ἀριστοτέλης", "last_name": "Ξενοκράτης-Δημόκριτος", "phone": "+1(512)555-0100x123"},
        {
            "first_name": "%%%under_scores_100%",
            "last_name": "back\\slash\\\\es'quotes",
            "company": "___________abc____",
        },
        {
            "first_name": "東京都千代田区丸の内一丁目九番一号",
            "last_name": "İstanbulİstanbul",
            "company": "ǅǈǋ-ǅǈǋ-ǅǈǋ-ǅǈǋ",
        },
        {"first_name": "a", "last_name": "b", "email": "person12@example.com"},
    ]
    everything = [await create(admin, **fields) for fields in texts for _ in range(2)]
    for fields in texts:
        whole = [lead["id"] for lead in everything if lead["last_name"] == fields["last_name"]]
        for _ in range(40):
            words = [dice.choice(list(fields.values())) for _ in range(dice.choice((1, 1, 2, 5)))]
            parts = []
            for word in words:
                start = dice.randrange(len(word))
                part = word[start : start + dice.choice((1, 3, 8, 13, 50))]
                parts.append(dice.choice((part, part.upper(), part.lower())) if part.isascii() else part)
            page = await admin.get("/leads", params={"search": " ".join(parts)})
            assert set(whole) <= {lead["id"] for lead in page["items"]}, parts
    for absent in ("person123@example.com", "person12@example.org", "Wolfeschlegelsteen", "rsoxn12xxamxplexcom"):
        assert await names(admin, search=absent) == []


KEYS = [*sorted(leads.LISTING.sort_keys), "status,-budget", "score,last_name,-created_at"]


@pytest.mark.parametrize("key", KEYS)
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
        lead = await create(admin, budget=dice.choice((None, 10, 20)), **fields)
        for day in dice.choice(((), ("2026-01-02",), ("2026-01-03",))):
            call = {"activity_type": "call", "description": "x", "completed_at": day}
            await admin.post(f"/leads/{lead['id']}/activities", json=call)
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
    assert len(set(seen)) == 12
    if "," in key:
        return
    values = [lead[key] for lead in whole["items"]]
    known = [value for value in values if value is not None]
    assert values == known + [None] * (len(values) - len(known))
    numbers = [Decimal(value) if key == "budget" else value for value in known]
    assert numbers == sorted(numbers, reverse=bool(sign))
    assert len(known) in ((12,) if key not in ("budget", "last_contacted_at") else range(1, 12))


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


async def test_averages_and_rates_are_rounded_half_up(api: Api) -> None:
    admin = await api.register()
    for number in range(32):
        await create(admin, score=4 if number == 0 else 0, status="converted" if number == 1 else "new")
    stats = await admin.get("/leads/stats")
    # 0.125 and 3.125
    assert (stats["avg_score"], stats["conversion_rate"]) == (0.13, 3.13)


async def test_more_hits_than_the_index_drives_are_listed_too(api: Api) -> None:
    admin = await api.register()
    await api.value(
        "insert into leads (organization_id, first_name, last_name, source, email)"
        " select $1, 'First', 'Last' || n, 'other', 'person' || n || '@example.com' from generate_series(1, 1500) n",
        admin.organization_id,
    )
    page = await admin.get("/leads", params={"search": "person @example.com", "page": 30})
    assert (page["total"], len(page["items"])) == (1500, 50)
    assert await names(admin, search="person1234@example.com") == ["Last1234"]


# --- assignment ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["user_id", "assigned_to"])
async def test_a_lead_is_assigned(api: Api, field: str) -> None:
    admin = await api.register()
    agent = await api.add_user(admin, "Agent")
    lead = await create(admin)
    assigned = await admin.post(f"/leads/{lead['id']}/assign", json={field: agent.user_id}, status=200)
    assert assigned == lead | {"assigned_to": agent.user_id, "updated_at": assigned["updated_at"]}
    assert (await audited(api, admin, "lead"))[1:] == [
        ("assign", "lead", lead["id"], {"assigned_to": [None, agent.user_id]})
    ]
    assert await happened(api, admin) == [("lead.created", lead), ("lead.updated", assigned), *told(lead, agent)]
    # Again changes nothing, and tells nobody.
    await admin.post(f"/leads/{lead['id']}/assign", json={field: agent.user_id}, status=200)
    assert len(await api.events(admin)) == 4
    assert await mailed(api, admin) == [(agent.user_id, lead["id"])]


def told(lead: dict[str, Any], user: Client) -> list[tuple[str, Any]]:
    """The events of an assignment to somebody else."""
    message = f"Lead {lead['id']} was assigned to you."
    return [
        ("lead.assigned", {"lead_id": lead["id"], "assigned_to": user.user_id}),
        ("notification", {"user_id": user.user_id, "message": message, "type": "lead_assigned"}),
    ]


async def mailed(api: Api, admin: Client) -> list[tuple[int, int]]:
    """Users and leads of the organisation's jobs that mail an assignment."""
    jobs = await api.fetch(
        "select args from procrastinate.procrastinate_jobs where task_name = 'send_lead_assigned_email'"
        " and args @> jsonb_build_object('organization_id', $1::bigint) order by id",
        admin.organization_id,
    )
    return [(args["user_id"], args["lead_id"]) for args in (json.loads(job["args"]) for job in jobs)]


async def test_an_assignee_given_with_other_fields_is_told_too(api: Api) -> None:
    admin = await api.register()
    one, other = await api.add_user(admin, "Agent"), await api.add_user(admin, "Agent")
    lead = await create(admin, assigned_to=one.user_id)
    path = f"/leads/{lead['id']}"
    # An agent may not assign by the route for it, but may hand a lead on with a change.
    changed = await one.patch(path, json={"assigned_to": other.user_id, "score": 5})
    unassigned = await admin.put(path, json={"assigned_to": None})
    assert await happened(api, admin) == [
        ("lead.created", lead), *told(lead, one),
        ("lead.updated", changed), *told(lead, other),
        ("lead.updated", unassigned),
    ]  # fmt: skip
    assert await mailed(api, admin) == [(one.user_id, lead["id"]), (other.user_id, lead["id"])]


async def test_who_takes_a_lead_needs_no_message_about_it(api: Api) -> None:
    admin = await api.register()
    lead = await create(admin)
    await admin.post(f"/leads/{lead['id']}/assign", json={"user_id": admin.user_id}, status=200)
    assert [type for type, _ in await happened(api, admin)] == ["lead.created", "lead.updated", "lead.assigned"]


async def test_an_assignee_who_has_left_keeps_the_lead_until_it_is_assigned_again(api: Api) -> None:
    admin = await api.register()
    agent = await api.add_user(admin, "Agent")
    lead = await create(admin, assigned_to=agent.user_id)
    await admin.delete(f"/users/{agent.user_id}")
    kept = await admin.put(f"/leads/{lead['id']}", json={"assigned_to": agent.user_id, "score": 7})
    assert (kept["assigned_to"], kept["score"]) == (agent.user_id, 7)


async def test_events_reach_those_who_may_read_leads_and_messages_their_user(api: Api) -> None:
    admin = await api.register()
    reader = await api.add_user_with(admin, ["lead:read"])
    other = await api.add_user_with(admin, ["property:read", "lead:create", "lead:update"])
    async with (
        connected(api.url, reader.headers) as reading,
        connected(api.url, other.headers) as deaf,
    ):
        await reading.next()
        await deaf.next()
        lead = await create(admin, assigned_to=reader.user_id)
        path = f"/leads/{lead['id']}"
        await admin.post(f"{path}/assign", json={"user_id": other.user_id}, status=200)
        await admin.delete(path)
        seen = [(message.type, message.data["data"]) for message in await reading.take(6)]
        changed = seen[3][1]
        assert changed["assigned_to"] == other.user_id
        assert seen == [
            ("lead.created", lead), *told(lead, reader),
            ("lead.updated", changed), *told(lead, other)[:1], ("lead.deleted", {"lead_id": lead["id"]}),
        ]  # fmt: skip
        (message,) = await deaf.take(1)
        assert (message.type, message.data["data"]) == told(lead, other)[1]
        assert deaf.messages.empty()


async def test_bad_assignments(api: Api) -> None:
    admin, stranger = await api.register(), await api.register()
    agent = await api.add_user(admin, "Agent")
    gone = await api.add_user(admin, "Agent")
    await api.value("update users set is_active = false where id = $1", gone.user_id)
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
    await create(admin, assigned_to=quiet.user_id)
    lead = await create(admin, company="<b>Navy</b>")
    await admin.post(f"/leads/{lead['id']}/assign", json={"user_id": agent.user_id}, status=200)
    address = (await agent.get("/auth/me"))["email"]
    mail = await sink.find(lambda mail: mail.recipient == address)
    assert mail.message["Subject"] == "Grace Hopper is your lead now"
    assert "Grace Hopper is your lead now" in mail.text
    html = mail.message.get_body(("html",))
    assert html is not None
    assert "&lt;b&gt;Navy" in html.get_content()
    await until(lambda: _are_done(api, admin))
    assert (await quiet.get("/auth/me"))["email"] not in [mail.recipient for mail in sink.mails]


async def _are_done(api: Api, admin: Client) -> bool:
    """Whether both mail jobs of the organisation have run to their end."""
    done = "select count(*) from job_runs where organization_id = $1 and finished_at is not null and error is null"
    return bool(await api.value(done, admin.organization_id) == 2)


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
    assert await contacted_after(completed_at="2999-01-01", scheduled_at="2026-02-01") == first
    assert await contacted_after(activity_type="email", scheduled_at="2026-02-01") == "2026-02-01T00:00:00Z"
    assert await contacted_after(activity_type="meeting", scheduled_at="2027-01-01", completed_at="2026-02-02") == (
        "2026-02-02T00:00:00Z"
    )
    assert (await contacted_after(activity_type="sms") or "") > first
    response = await admin.request("GET", f"{path}/activities?page_size=2")
    assert response.headers["X-Total-Count"] == "8"
    assert [item["activity_type"] for item in response.json()] == ["sms", "meeting"]
    assert await admin.fields_refused(
        "POST", f"{path}/activities", json={"activity_type": "fax", "description": ""}
    ) == {"activity_type": "enum", "description": "string_too_short"}


async def test_a_contact_is_a_change_of_the_lead(api: Api) -> None:
    admin = await api.register()
    lead = await create(admin)
    path = f"/leads/{lead['id']}"
    body = {
        "activity_type": "call", "subject": "Viewing", "description": "Wants to see it.\nOn Monday.",
        "outcome": "interested", "scheduled_at": "2026-01-01T09:00:00Z", "completed_at": "2026-01-01T09:30:00Z",
        "metadata": {"minutes": 12},
    }  # fmt: skip
    activity = await admin.post(f"{path}/activities", json=body)
    assert {name: activity[name] for name in body} == body
    assert (activity["lead_id"], activity["created_by"]) == (lead["id"], admin.user_id)
    assert await admin.get(f"{path}/activities") == [activity]
    changed = await admin.get(path)
    assert await happened(api, admin) == [("lead.created", lead), ("lead.updated", changed)]
    rows = (await audited(api, admin, "lead", "lead_activity"))[1:]
    assert rows[0] == ("update", "lead", lead["id"], {"last_contacted_at": [None, "2026-01-01T09:30:00Z"]})
    assert rows[1][:3] == ("create", "lead_activity", activity["id"])
    # The same moment again is none.
    await admin.post(f"{path}/activities", json=body)
    assert await admin.get(path) == changed


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
    for name, value in (("title", "x" * 201), ("file_path", "x" * 1001), ("file_path", ""), ("file_size", -1)):
        assert list(await admin.fields_refused("POST", path, json=body | {name: value})) == [name]


@pytest.mark.parametrize(
    ("name", "declared", "kept"),
    [
        ("contract.pdf", None, ("contract.pdf", "application/pdf")),
        ("contract.pdf", "application/octet-stream", ("contract.pdf", "application/pdf")),
        ("contract.pdf", "Text/HTML; charset=utf-8", ("contract.pdf", "text/html")),
        ("offer.DOCX", None, ("offer.DOCX", "application/vnd.openxmlformats-officedocument.wordprocessingml.document")),
        ("contract", "not a type", ("contract", "application/octet-stream")),
        ("contract", "x/" + "y" * 100, ("contract", "application/octet-stream")),
        ("C:\\\\temp\\\\plan.txt", None, ("plan.txt", "text/plain")),
        ("../../etc/passwd", None, ("passwd", "application/octet-stream")),
        ("..", None, ("document", "application/octet-stream")),
        ("a\u202efdp.exe", "application/pdf", ("afdp.exe", "application/pdf")),
        ("x" * 300 + ".txt", None, ("x" * 251 + ".txt", "text/plain")),
        ("Grundriß 東京.txt", None, ("Grundriß 東京.txt", "text/plain")),
    ],
)
async def test_names_and_types_of_uploads(api: Api, name: str, declared: str | None, kept: tuple[str, str]) -> None:
    admin = await api.register()
    path = f"/leads/{(await create(admin))['id']}/documents"
    head = f'Content-Disposition: form-data; name="file"; filename="{name}"\r\n'
    head += f"Content-Type: {declared}\r\n" if declared else ""
    title = 'Content-Disposition: form-data; name="title"\r\n\r\nx'
    body = f"--b\r\n{title}\r\n--b\r\n{head}\r\ncontent\r\n--b--\r\n".encode()
    document = await admin.post(path, content=body, headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert (document["file_name"], document["file_type"]) == kept
    response = await fetch(api, await admin.get(f"{path}/{document['id']}/download"))
    assert (response.content, response.headers["Content-Type"].partition(";")[0]) == (b"content", kept[1])
    assert response.headers["Content-Disposition"].startswith("attachment; ")


async def fetch(api: Api, link: dict[str, Any], method: str = "GET") -> httpx.Response:
    """What a link leads to, without any log-in."""
    return await api.http.request(method, urlsplit(link["url"]).path)


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
    assert (await admin.request("HEAD", download)).status_code == 200
    link = await admin.get(download)
    response = await fetch(api, link)
    assert response.content == content
    head = await fetch(api, link, "HEAD")
    assert (head.status_code, head.headers["Content-Length"], head.content) == (200, "300000", b"")
    assert response.headers["Content-Disposition"] == (
        "attachment; filename=\"Vertrag M_ller.html\"; filename*=UTF-8''Vertrag%20M%C3%BCller.html"
    )
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cache-Control"] == "private, no-store"
    assert response.headers["Content-Security-Policy"].endswith("frame-ancestors 'none'; sandbox")
    downloads = [row for row in await audited(api, admin, "lead_document") if row[0] == "download"]
    assert downloads == [("download", "lead_document", document["id"], {})]


async def test_nothing_else_gives_a_document_out(api: Api) -> None:
    admin, stranger = await api.register(), await api.register()
    lead, other = await create(admin), await create(admin)
    path = f"/leads/{lead['id']}/documents"
    document = await admin.post(path, data={"title": "x"}, files={"file": ("x.txt", b"text")})
    await admin.get(f"/leads/{other['id']}/documents/{document['id']}/download", status=404)
    stored = (await api.fetch("select * from stored_files where organization_id = $1", admin.organization_id))[0]
    assert (stored["is_public"], stored["is_pending"]) == (False, False)
    for purpose, *numbers in (
        (FILE_PURPOSE, admin.organization_id, stored["id"]),
        ("document", admin.organization_id, document["id"]),
        ("document", stranger.organization_id, document["id"], 2**40),
        ("document", admin.organization_id, document["id"] + 1000, 2**40),
    ):
        token = api.context.signer.seal(str(purpose), *map(int, numbers))
        assert (await api.http.get(f"/files/{token}")).status_code == 404
    deaf = await api.add_user_with(admin, ["lead:update"])
    await deaf.get(f"{path}/{document['id']}/download", status=403)


async def test_an_upload_that_is_sent_twice_is_kept_once(api: Api) -> None:
    admin = await api.register()
    path = f"/leads/{(await create(admin))['id']}/documents"

    async def send(content: bytes) -> httpx.Response:
        files, headers = {"file": ("x.txt", content)}, {"Idempotency-Key": "one"}
        return await admin.request("POST", path, data={"title": "x"}, files=files, headers=headers)

    first, second = await send(b"text"), await send(b"text")
    assert (first.status_code, second.status_code, second.content) == (201, 201, first.content)
    assert (await send(b"other")).status_code == 422
    assert len(await admin.get(path)) == 1
    stored = "select count(*) from stored_files where organization_id = $1"
    assert await api.value(stored, admin.organization_id) == 1


async def test_an_empty_file_is_a_document_too(api: Api) -> None:
    admin = await api.register()
    path = f"/leads/{(await create(admin))['id']}/documents"
    document = await admin.post(path, data={"title": "x"}, files={"file": ("x.txt", b"")})
    assert document["file_size"] == 0
    response = await fetch(api, await admin.get(f"{path}/{document['id']}/download"))
    assert (response.status_code, response.content) == (200, b"")


async def test_a_link_expires_and_ends_with_its_lead(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    admin = await api.register()
    lead = await create(admin)
    path = f"/leads/{lead['id']}/documents"
    document = await admin.post(path, data={"title": "x"}, files={"file": ("x.txt", b"text")})
    download = f"{path}/{document['id']}/download"

    async def status_of(link: dict[str, Any]) -> int:
        return (await fetch(api, link)).status_code

    asked = datetime.now(UTC)
    fresh = await admin.get(download)
    lasts = datetime.fromisoformat(fresh["expires_at"]) - asked
    assert timedelta(seconds=298) < lasts < timedelta(seconds=310)
    assert await status_of(fresh) == 200
    assert await status_of({"url": fresh["url"] + "A"}) == 404
    with monkeypatch.context() as patched:
        patched.setattr("reos.handlers.documents.LINK_SECONDS", -1)
        expired = await admin.get(download)
    assert await status_of(expired) == 404
    await admin.delete(f"/leads/{lead['id']}")
    assert await status_of(fresh) == 404
    await admin.get(download, status=404)
    await admin.post(f"/leads/{lead['id']}/restore", status=200)
    assert await status_of(fresh) == 200


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
    assert await admin.fields_refused("POST", path, files={"title": (None, "x")}) == {"file": "missing"}
    await admin.post("/leads/999999/documents", data={"title": "x"}, files={"file": ("x", b"x")}, status=404)
    stored = "select count(*) from stored_files where organization_id = $1"
    assert await api.value(stored, admin.organization_id) == 1
