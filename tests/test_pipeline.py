"""From a lead to a closed deal: conversion, stages, what they do to the property, and who is told."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import asyncpg
import pytest
from api import Api, Client, served_api
from conftest import TestDatabase
from crm import add_deal, add_lead, add_property, audited, happened, move, newest_event, status_of
from event_streams import until
from job_queue import running_worker
from mail_sink import MailSink

from reos.schemas.deals import DealStage

pytestmark = pytest.mark.integration

STAGES = get_args(DealStage)
EARLY = ("lead", "qualified", "proposal", "negotiation")
HOLDING = ("contract", "inspection", "financing", "closing")
CLOSED = ("closed_won", "closed_lost")


def given_by(stage: str, deal_type: str) -> str | None:
    """The status that the contract says a deal gives its property."""
    if stage in HOLDING:
        return "under_contract"
    if stage == "closed_won":
        return "rented" if deal_type in ("lease", "rental") else "sold"
    return None


async def refused(client: Client, method: str, path: str, **options: Any) -> str:
    """The type of a 409."""
    return str((await client.error(method, path, status=409, **options))["type"])


# --- the whole way ---------------------------------------------------------------------------------------------


async def test_from_registration_to_a_closed_deal(api: Api) -> None:
    response = await api.anonymous.request(
        "POST",
        "/auth/register",
        json={
            "email": f"pipeline-{datetime.now(UTC).timestamp()}@example.com",
            "password": "Correct-Horse-7!",
            "first_name": "Ada",
            "last_name": "Lovelace",
        },
    )
    assert response.status_code == 201, response.text
    admin = Client(api.http, {"Authorization": f"Bearer {response.json()['access_token']}"})
    house = await add_property(admin)
    lead = await add_lead(admin)
    deal = await admin.post(
        f"/leads/{lead['id']}/convert",
        json={"property_id": house["id"], "deal_type": "purchase", "value": "480000.00", "commission_rate": "3.00"},
    )
    assert (deal["lead_id"], deal["deal_type"], deal["stage"]) == (lead["id"], "buy", "lead")
    assert (await admin.get(f"/leads/{lead['id']}"))["status"] == "converted"
    for stage in STAGES[1:9]:
        deal = await move(admin, deal, stage)
        expected = given_by(stage, "buy") or "available"
        assert await status_of(admin, house["id"]) == expected, stage
    assert deal["closed_at"] is not None
    booked = await admin.post(
        f"/deals/{deal['id']}/transactions",
        json={"transaction_type": "commission", "amount": "14400.00", "transaction_date": "2027-05-01"},
    )
    assert booked["deal_id"] == deal["id"]
    history = await admin.get(f"/deals/{deal['id']}/history")
    assert [change["new_stage"] for change in history] == list(STAGES[8::-1])
    assert (await admin.get("/deals/stats"))["won_deals"] == 1
    assert (await admin.get("/leads/stats"))["conversion_rate"] == 100


# --- conversion ------------------------------------------------------------------------------------------------


async def test_a_conversion_changes_the_lead_and_makes_a_deal_of_all_fields(api: Api) -> None:
    admin = await api.register()
    agent, other = await api.add_user(admin, "Agent"), await api.add_user(admin, "Agent")
    house = await add_property(admin)
    lead = await add_lead(admin, assigned_to=agent.user_id, status="qualified")
    before = await newest_event(api, admin)
    body = {
        "property_id": house["id"],
        "lead_id": lead["id"],
        "deal_type": "rental",
        "stage": "contract",
        "value": "1200.00",
        "commission_rate": "8.25",
        "probability": 90,
        "expected_close_date": "2027-02-28",
        "assigned_to": other.user_id,
        "notes": "Keys on Monday.",
        "metadata": {"floor": 3},
    }
    response = await admin.request("POST", f"/leads/{lead['id']}/convert", json=body)
    deal = response.json()
    assert response.status_code == 201, deal
    assert response.headers["Location"] == f"/api/v1/deals/{deal['id']}"
    assert response.headers["ETag"] == (await admin.request("GET", f"/deals/{deal['id']}")).headers["ETag"]
    assert {name: deal[name] for name in body} == body
    converted = await admin.get(f"/leads/{lead['id']}")
    assert converted | {"updated_at": ""} == lead | {"status": "converted", "updated_at": ""}
    assert await happened(api, admin, after=before) == [
        ("lead.updated", converted),
        ("lead.converted", converted),
        ("deal.created", deal),
        ("property.updated", await admin.get(f"/properties/{house['id']}")),
        (
            "notification",
            {
                "user_id": other.user_id,
                "message": f"Deal {deal['id']} was assigned to you.",
                "type": "deal_assigned",
            },
        ),
    ]
    rows = await audited(api, admin, "lead", "deal", "property")
    assert [row[:3] for row in rows[-3:]] == [
        ("convert", "lead", lead["id"]), ("create", "deal", deal["id"]), ("update", "property", house["id"]),
    ]  # fmt: skip
    assert rows[-3][3] == {"status": ["qualified", "converted"]}
    assert rows[-1][3] == {"status": ["available", "under_contract"]}


async def test_the_deal_stays_with_the_leads_agent_unless_it_is_told_otherwise(api: Api) -> None:
    admin = await api.register()
    agent = await api.add_user(admin, "Agent")
    house = await add_property(admin)
    body = {"property_id": house["id"], "deal_type": "buy", "value": 1}
    for given, expected in (({}, agent.user_id), ({"assigned_to": None}, None)):
        lead = await add_lead(admin, assigned_to=agent.user_id)
        deal = await admin.post(f"/leads/{lead['id']}/convert", json=body | given)
        assert deal["assigned_to"] == expected


async def test_a_deal_does_not_begin_with_an_agent_who_has_left(api: Api) -> None:
    admin = await api.register()
    agent = await api.add_user(admin, "Agent")
    house, lead = await add_property(admin), await add_lead(admin, assigned_to=agent.user_id)
    await admin.delete(f"/users/{agent.user_id}")
    body = {"property_id": house["id"], "deal_type": "buy", "value": 1}
    path = f"/leads/{lead['id']}/convert"
    assert await admin.fields_refused("POST", path, json=body | {"assigned_to": agent.user_id}) == {
        "assigned_to": "foreign_key"
    }
    assert (await admin.post(path, json=body))["assigned_to"] is None
    assert (await admin.get(f"/leads/{lead['id']}"))["assigned_to"] == agent.user_id


async def test_a_lead_is_converted_once_also_when_twenty_try(api: Api) -> None:
    admin = await api.register()
    for _ in range(3):
        lead, house = await add_lead(admin), await add_property(admin)
        body = {"property_id": house["id"], "deal_type": "buy", "value": 1}
        answers = await asyncio.gather(
            *(admin.request("POST", f"/leads/{lead['id']}/convert", json=body) for _ in range(20))
        )
        assert sorted(answer.status_code for answer in answers) == [201] + [409] * 19
        types = {answer.json()["error"]["type"] for answer in answers if answer.status_code == 409}
        assert types == {"LeadAlreadyConvertedError"}
        assert (await admin.get("/deals", params={"lead_id": lead["id"]}))["total"] == 1
        converted = [data for type, data in await happened(api, admin) if type == "lead.converted"]
        assert [data["id"] for data in converted].count(lead["id"]) == 1


async def test_a_conversion_that_fails_leaves_nothing(api: Api) -> None:
    admin = await api.register()
    lead = await add_lead(admin)
    sold = await add_property(admin, status="sold")
    before = await newest_event(api, admin)
    body = {"property_id": sold["id"], "deal_type": "buy", "value": 1}
    assert await refused(admin, "POST", f"/leads/{lead['id']}/convert", json=body) == "PropertyNotAvailableError"
    absent = body | {"property_id": 2**62}
    assert await admin.fields_refused("POST", f"/leads/{lead['id']}/convert", json=absent) == {
        "property_id": "foreign_key"
    }
    assert await admin.fields_refused("POST", f"/leads/{lead['id']}/convert", json=body | {"lead_id": 1 << 40}) == {
        "lead_id": "other_lead"
    }
    assert await admin.get(f"/leads/{lead['id']}") == lead
    assert (await admin.get("/deals"))["total"] == 0
    assert await happened(api, admin, after=before) == []


async def test_only_a_lead_that_is_there_is_converted(api: Api) -> None:
    admin, stranger = await api.register(), await api.register()
    house, foreign, gone = await add_property(admin), await add_lead(stranger), await add_lead(admin)
    await admin.delete(f"/leads/{gone['id']}")
    body = {"property_id": house["id"], "deal_type": "buy", "value": 1}
    for lead_id in (foreign["id"], gone["id"], 2**62):
        await admin.error("POST", f"/leads/{lead_id}/convert", status=404, json=body)


@pytest.mark.auth
async def test_a_conversion_takes_both_permissions(api: Api) -> None:
    admin = await api.register()
    lead, house = await add_lead(admin), await add_property(admin)
    body = {"property_id": house["id"], "deal_type": "buy", "value": 1}
    path = f"/leads/{lead['id']}/convert"
    for held, missing in (
        (["lead:update"], "deal:create"), (["deal:create"], "lead:update"), (["lead:read"], "lead:update"),
    ):  # fmt: skip
        user = await api.add_user_with(admin, held)
        error = await user.error("POST", path, status=403, json=body)
        assert (error["type"], error["details"]) == (
            "InsufficientPermissionsError", {"required_permission": missing},
        )  # fmt: skip
        denied = [row for row in await api.audits(admin) if row["action"] == "denied"]
        assert json.loads(denied[-1]["changes"]) == {"permission": [None, missing]}
        assert denied[-1]["resource_type"] == missing.partition(":")[0]
    user = await api.add_user_with(admin, ["deal:create", "lead:update"])
    await user.post(path, json=body)
    document = (await api.http.get("/openapi.json")).json()
    operation = document["paths"]["/api/v1/leads/{lead_id}/convert"]["post"]
    assert "`lead:update` and `deal:create`" in operation["description"]


# --- stages ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deal_type", ["sell", "rental"])
@pytest.mark.parametrize("stage", STAGES)
async def test_a_deal_may_begin_in_any_stage(api: Api, stage: str, deal_type: str) -> None:
    admin = await api.register()
    house = await add_property(admin)
    before = await newest_event(api, admin)
    deal = await add_deal(admin, house["id"], stage=stage, deal_type=deal_type)
    expected = given_by(stage, deal_type)
    after = await admin.get(f"/properties/{house['id']}")
    assert after["status"] == (expected or "available")
    assert (deal["closed_at"] is not None) == (stage in CLOSED)
    changes = [("property.updated", after)] if expected else []
    assert await happened(api, admin, after=before) == [("deal.created", deal), *changes]
    (first,) = await admin.get(f"/deals/{deal['id']}/history")
    assert (first["old_stage"], first["new_stage"], first["duration_seconds"]) == (None, stage, None)
    assert first["changed_by"] == admin.user_id


@pytest.mark.parametrize("old", STAGES)
async def test_any_stage_may_follow_any_other(api: Api, old: str) -> None:
    admin = await api.register()
    for new in STAGES:
        house = await add_property(admin)
        deal = await add_deal(admin, house["id"], stage=old)
        before = await newest_event(api, admin)
        reached = new
        if new == old:
            assert await move(admin, deal, new) == deal
        elif old in CLOSED and new in CLOSED:
            path = f"/deals/{deal['id']}"
            assert await refused(admin, "PATCH", path, json={"stage": new}) == "DealClosedError"
            assert await admin.get(path) == deal
            reached = old
        else:
            moved = await move(admin, deal, new)
            assert (moved["closed_at"] is not None) == (new in CLOSED)
            was, now = given_by(old, "sell"), given_by(new, "sell")
            changed = (await admin.get(f"/properties/{house['id']}"),) if was != now else ()
            assert await happened(api, admin, after=before) == [
                ("deal.updated", moved),
                ("deal.stage_changed", {"deal_id": deal["id"], "old_stage": old, "new_stage": new}),
                *(("property.updated", data) for data in changed),
            ]
            if changed:
                *_, row = await audited(api, admin, "property")
                assert row == (
                    "update", "property", house["id"], {"status": [was or "available", now or "available"]},
                )  # fmt: skip
        assert await status_of(admin, house["id"]) == (given_by(reached, "sell") or "available")


@pytest.mark.parametrize("status", ["available", "under_contract", "sold", "rented", "off_market"])
async def test_what_a_property_by_its_status_may_begin_with(api: Api, status: str) -> None:
    admin = await api.register()
    for stage in STAGES:
        house = await add_property(admin, status=status)
        body = {"property_id": house["id"], "deal_type": "lease", "value": 1, "stage": stage}
        is_refused = status in ("sold", "off_market") or (given_by(stage, "lease") and status != "available")
        if is_refused:
            assert await refused(admin, "POST", "/deals", json=body) == "PropertyNotAvailableError"
        else:
            await admin.post("/deals", json=body)
        expected = None if is_refused else given_by(stage, "lease")
        assert await status_of(admin, house["id"]) == (expected or status)


async def test_a_property_that_another_deal_holds_is_not_to_be_had(api: Api) -> None:
    admin = await api.register()
    house = await add_property(admin)
    first, second = await add_deal(admin, house["id"]), await add_deal(admin, house["id"])
    await move(admin, first, "contract")
    for stage in (*HOLDING, "closed_won"):
        path, body = f"/deals/{second['id']}", {"stage": stage, "notes": "x"}
        assert await refused(admin, "PATCH", path, json=body) == "PropertyNotAvailableError"
    assert await admin.get(f"/deals/{second['id']}") == second
    assert len(await admin.get(f"/deals/{second['id']}/history")) == 1
    # Early stages, and being lost, take nothing; a third deal may begin too.
    second = await move(admin, second, "negotiation")
    third = await add_deal(admin, house["id"])
    await move(admin, third, "closed_lost")
    assert await status_of(admin, house["id"]) == "under_contract"
    await admin.delete(f"/deals/{third['id']}")
    assert await status_of(admin, house["id"]) == "under_contract"
    await move(admin, first, "closed_lost")
    assert await status_of(admin, house["id"]) == "available"
    await move(admin, second, "closing")
    path = f"/deals/{first['id']}"
    assert await refused(admin, "PATCH", path, json={"stage": "contract"}) == "PropertyNotAvailableError"
    await move(admin, first, "proposal")
    assert await status_of(admin, house["id"]) == "under_contract"


async def test_while_it_is_held_a_status_is_not_set_by_hand(api: Api) -> None:
    admin = await api.register()
    house = await add_property(admin)
    path = f"/properties/{house['id']}"
    deal = await add_deal(admin, house["id"], stage="inspection")
    for method in ("PUT", "PATCH"):
        for status in ("available", "sold", "rented", "off_market"):
            body = {"status": status, "price": "1.00"}
            assert await refused(admin, method, path, json=body) == "PropertyNotAvailableError"
    same = await admin.put(path, json={"status": "under_contract", "price": "1.00"})
    assert (same["status"], same["price"]) == ("under_contract", "1.00")
    await move(admin, deal, "negotiation")
    assert (await admin.patch(path, json={"status": "off_market"}))["status"] == "off_market"


async def test_a_status_set_by_hand_outlasts_the_deal_that_was_won(api: Api) -> None:
    admin = await api.register()
    house = await add_property(admin)
    path = f"/properties/{house['id']}"
    first = await add_deal(admin, house["id"], stage="closed_won")
    # Years later it is for sale again, and sold again.
    await admin.patch(path, json={"status": "available"})
    second = await add_deal(admin, house["id"], stage="closed_won")
    assert await status_of(admin, house["id"]) == "sold"
    await move(admin, first, "negotiation")
    assert await status_of(admin, house["id"]) == "sold", "the first deal has nothing to free"
    assert await refused(admin, "PATCH", f"/deals/{first['id']}", json={"stage": "closed_won"}) == (
        "PropertyNotAvailableError"
    )
    await move(admin, second, "negotiation")
    assert await status_of(admin, house["id"]) == "available"
    # Sold by hand, it is nobody's.
    await admin.patch(path, json={"status": "sold"})
    await admin.delete(f"/deals/{second['id']}")
    assert await status_of(admin, house["id"]) == "sold"


async def test_a_closed_deal_changes_only_by_being_reopened(api: Api) -> None:
    admin = await api.register()
    for stage in CLOSED:
        deal = await add_deal(admin, stage=stage)
        path = f"/deals/{deal['id']}"
        for change in ({"notes": "x"}, {"value": 1}, {"deal_type": "lease"}, {"stage": stage, "probability": 1}):
            for method in ("PUT", "PATCH"):
                assert await refused(admin, method, path, json=change) == "DealClosedError"
        assert await admin.put(path, json={"stage": stage, "value": deal["value"]}) == deal
        reopened = await move(admin, deal, "negotiation", notes="Again.", value="1.00", deal_type="lease")
        assert (reopened["closed_at"], reopened["notes"], reopened["value"]) == (None, "Again.", "1.00")
        await move(admin, deal, "closed_won")
        assert await status_of(admin, deal["property_id"]) == "rented"
        closed = await admin.get(path)
        assert closed["closed_at"] > deal["closed_at"]


async def test_the_type_decides_what_a_won_deal_makes_of_the_property(api: Api) -> None:
    admin = await api.register()
    for deal_type in ("buy", "sell", "lease", "wholesale", "flip", "rental"):
        deal = await add_deal(admin, stage="closing", deal_type="sell")
        await move(admin, deal, "closed_won", deal_type=deal_type)
        assert await status_of(admin, deal["property_id"]) == given_by("closed_won", deal_type)
        await move(admin, deal, "closing")
        assert await status_of(admin, deal["property_id"]) == "under_contract"
        await admin.delete(f"/deals/{deal['id']}")
        assert await status_of(admin, deal["property_id"]) == "available"


async def test_a_deal_takes_its_hold_along_to_another_property(api: Api) -> None:
    admin = await api.register()
    old, new, sold, taken = [(await add_property(admin))["id"] for _ in range(4)]
    await admin.patch(f"/properties/{sold}", json={"status": "sold"})
    await add_deal(admin, taken, stage="contract")
    deal = await add_deal(admin, old, stage="contract")
    path = f"/deals/{deal['id']}"
    for elsewhere in (sold, taken):
        assert await refused(admin, "PATCH", path, json={"property_id": elsewhere}) == "PropertyNotAvailableError"
    assert [await status_of(admin, number) for number in (old, sold, taken)] == [
        "under_contract", "sold", "under_contract",
    ]  # fmt: skip
    before = await newest_event(api, admin)
    moved = await admin.patch(path, json={"property_id": new})
    assert [await status_of(admin, number) for number in (old, new)] == ["available", "under_contract"]
    events = await happened(api, admin, after=before)
    assert [(type, data["id"]) for type, data in events] == [
        ("deal.updated", deal["id"]), ("property.updated", old), ("property.updated", new),
    ]  # fmt: skip
    assert moved["property_id"] == new
    # Back, and to a stage that holds nothing, at once.
    await admin.patch(path, json={"property_id": old, "stage": "proposal"})
    assert [await status_of(admin, number) for number in (old, new)] == ["available", "available"]
    # An early deal may be about a property that another holds, but not about one that is sold.
    await admin.patch(path, json={"property_id": taken})
    assert await refused(admin, "PATCH", path, json={"property_id": sold}) == "PropertyNotAvailableError"


async def test_a_deleted_deal_frees_its_property_and_takes_it_again_if_it_can(api: Api) -> None:
    admin = await api.register()
    for stage in ("financing", "closed_won"):
        house = await add_property(admin)
        deal = await add_deal(admin, house["id"], stage=stage)
        status = given_by(stage, "sell")
        before = await newest_event(api, admin)
        await admin.delete(f"/deals/{deal['id']}")
        freed = await admin.get(f"/properties/{house['id']}")
        assert freed["status"] == "available"
        assert await happened(api, admin, after=before) == [
            ("deal.deleted", {"deal_id": deal["id"]}), ("property.updated", freed),
        ]  # fmt: skip
        before = await newest_event(api, admin)
        restored = await admin.post(f"/deals/{deal['id']}/restore", status=200)
        taken = await admin.get(f"/properties/{house['id']}")
        assert taken["status"] == status
        assert await happened(api, admin, after=before) == [("deal.updated", restored), ("property.updated", taken)]
        await admin.delete(f"/deals/{deal['id']}")
        other = await add_deal(admin, house["id"], stage="contract")
        assert await refused(admin, "POST", f"/deals/{deal['id']}/restore") == "PropertyNotAvailableError"
        await admin.error("GET", f"/deals/{deal['id']}", status=404)
        await move(admin, other, "closed_lost")
        await admin.post(f"/deals/{deal['id']}/restore", status=200)
        assert await status_of(admin, house["id"]) == status


async def test_a_deleted_property_is_left_alone_and_loses_its_deal(api: Api) -> None:
    admin = await api.register()
    house = await add_property(admin)
    deal = await add_deal(admin, house["id"], stage="closed_won")
    await admin.delete(f"/properties/{house['id']}")
    before = await newest_event(api, admin)
    await admin.delete(f"/deals/{deal['id']}")
    assert await happened(api, admin, after=before) == [("deal.deleted", {"deal_id": deal["id"]})]
    assert await refused(admin, "POST", f"/deals/{deal['id']}/restore") == "PropertyNotAvailableError"
    restored = await admin.post(f"/properties/{house['id']}/restore", status=200)
    assert restored["status"] == "available"


# --- history ---------------------------------------------------------------------------------------------------


async def test_history_tells_who_when_and_how_long(api: Api) -> None:
    admin = await api.register()
    agent = await api.add_user(admin, "Agent")
    deal = await add_deal(admin)
    await api.value(
        "update deal_stage_changes set changed_at = changed_at - interval '3 days 2 seconds' where deal_id = $1"
        " returning id",
        deal["id"],
    )
    await move(agent, deal, "qualified")
    await move(admin, deal, "closed_lost")
    await admin.patch(f"/deals/{deal['id']}", json={"stage": "lead", "notes": "again"})
    response = await admin.request("GET", f"/deals/{deal['id']}/history")
    changes = response.json()
    assert response.headers["X-Total-Count"] == "4"
    assert [(change["old_stage"], change["new_stage"], change["changed_by"]) for change in changes] == [
        ("closed_lost", "lead", admin.user_id),
        ("qualified", "closed_lost", admin.user_id),
        ("lead", "qualified", agent.user_id),
        (None, "lead", admin.user_id),
    ]
    assert [change["duration_seconds"] for change in changes] == [0, 0, 3 * 86400 + 2, None]
    assert {change["deal_id"] for change in changes} == {deal["id"]}
    page = await admin.request("GET", f"/deals/{deal['id']}/history", params={"page": 2, "page_size": 3})
    assert (page.json(), page.headers["X-Total-Count"]) == (changes[3:], "4")


# --- races -----------------------------------------------------------------------------------------------------


async def test_of_two_deals_that_race_for_a_property_one_gets_it(api: Api) -> None:
    admin = await api.register()
    for turn in range(10):
        house = await add_property(admin)
        deals = [await add_deal(admin, house["id"]) for _ in range(4)]
        stage = "closed_won" if turn % 2 else "contract"
        body = {"property_id": house["id"], "deal_type": "sell", "value": 1, "stage": stage}
        requests = [admin.request("PATCH", f"/deals/{deal['id']}", json={"stage": stage}) for deal in deals]
        answers = await asyncio.gather(*requests, *(admin.request("POST", "/deals", json=body) for _ in range(2)))
        won = [answer for answer in answers if answer.status_code < 300]
        lost = [answer for answer in answers if answer.status_code == 409]
        assert (len(won), len(lost)) == (1, 5)
        assert {answer.json()["error"]["type"] for answer in lost} == {"PropertyNotAvailableError"}
        assert (await admin.get("/deals", params={"property_id": house["id"], "stage": stage}))["total"] == 1
        assert await status_of(admin, house["id"]) == given_by(stage, "sell")


async def test_deals_that_swap_their_properties_do_not_block_each_other(api: Api) -> None:
    """Both change to what the other has, and both wait until the property with the lower id is let go.

    Would one hold the other property meanwhile, they would end in a deadlock, which takes a second to be found.
    """
    admin = await api.register()
    owner = await asyncpg.connect(api.owner_dsn)
    await owner.execute("set role reos_owner")
    for is_held in (False, True):
        one, two = (await add_property(admin))["id"], (await add_property(admin))["id"]
        first = await add_deal(admin, one, stage="contract")
        second = await add_deal(admin, two, stage="contract" if is_held else "lead")
        async with owner.transaction():
            await owner.execute("select 1 from properties where id = $1 for update", one)
            swap = asyncio.gather(
                admin.request("PATCH", f"/deals/{first['id']}", json={"property_id": two}),
                admin.request("PATCH", f"/deals/{second['id']}", json={"property_id": one}),
            )
            await until(lambda: owner.fetchval("select count(*) = 2 from pg_locks where not granted"))
        started = asyncio.get_running_loop().time()
        answers = await swap
        assert asyncio.get_running_loop().time() - started < 0.9
        # Two that hold cannot both move, for neither frees its own before it has the other's.
        assert [answer.status_code for answer in answers] == ([409, 409] if is_held else [200, 200])
    await owner.close()


async def test_a_status_set_by_hand_and_a_deal_exclude_each_other(api: Api) -> None:
    admin = await api.register()
    for _ in range(15):
        house = await add_property(admin)
        deal = await add_deal(admin, house["id"])
        by_deal, by_hand = await asyncio.gather(
            admin.request("PATCH", f"/deals/{deal['id']}", json={"stage": "contract"}),
            admin.request("PATCH", f"/properties/{house['id']}", json={"status": "off_market"}),
        )
        assert sorted((by_deal.status_code, by_hand.status_code)) == [200, 409]
        expected = "under_contract" if by_deal.status_code == 200 else "off_market"
        assert await status_of(admin, house["id"]) == expected


# What must hold of all deals of an organisation: the number of those for which it does not.
DISAGREEMENTS = """
select
    count(*) filter (where d.deleted_at is null and d.stage in ('contract', 'closing')
        and (p.status_deal_id is distinct from d.id or p.status <> 'under_contract')) as held_by_none,
    count(*) filter (where p.status_deal_id = d.id
        and (d.deleted_at is not null or d.stage not in ('contract', 'closing', 'closed_won'))) as held_for_nothing,
    count(*) filter (where d.deleted_at is null and d.closed_at is null
        and p.deleted_at is not null) as without_property,
    count(*) filter (where s.text is distinct from lower(concat_ws(' ',
        case when p.deleted_at is null then p.address end,
        case when l.deleted_at is null then l.first_name || ' ' || l.last_name end, d.notes))) as found_by_old_text,
    count(*) filter (where d.stage is distinct from (select c.new_stage from deal_stage_changes c
        where c.deal_id = d.id order by c.id desc limit 1)) as without_history
from deals d
join properties p on p.id = d.property_id
left join leads l on l.id = d.lead_id
left join deal_search_texts s on s.deal_id = d.id
where d.organization_id = $1
"""


@pytest.mark.slow
@pytest.mark.property
async def test_after_a_storm_of_changes_everything_agrees(api: Api) -> None:
    admin = await api.register()
    houses = [(await add_property(admin))["id"] for _ in range(4)]
    leads = [(await add_lead(admin))["id"] for _ in range(3)]
    deals = [(await add_deal(admin, house))["id"] for house in houses + houses]
    stages = ["lead", "qualified", "contract", "closing", "closed_won", "closed_lost"]

    def act(dice: random.Random) -> tuple[str, str, Any]:
        deal, house, lead = dice.choice(deals), dice.choice(houses), dice.choice(leads)
        text, stage = str(dice.random()), dice.choice(stages)
        actions: list[tuple[str, str, Any]] = [
            ("PATCH", f"/deals/{deal}", {"stage": stage}),
            ("PATCH", f"/deals/{deal}", {"stage": stage, "property_id": house, "lead_id": lead}),
            ("PATCH", f"/deals/{deal}", {"notes": text, "lead_id": lead}),
            ("PATCH", f"/properties/{house}", {"address": text}),
            ("PATCH", f"/properties/{house}", {"status": dice.choice(["available", "off_market"])}),
            ("PATCH", f"/leads/{lead}", {"last_name": text, "status": "new"}),
            ("POST", f"/leads/{lead}/convert", {"property_id": house, "deal_type": "buy", "value": 1, "stage": stage}),
            ("DELETE", f"/deals/{deal}", None),
            ("POST", f"/deals/{deal}/restore", None),
            ("DELETE", f"/leads/{lead}", None),
            ("POST", f"/leads/{lead}/restore", None),
            ("DELETE", f"/properties/{house}", None),
            ("POST", f"/properties/{house}/restore", None),
        ]
        return dice.choice(actions)

    async def work(seed: int) -> set[int]:
        dice = random.Random(seed)
        requests = (act(dice) for _ in range(50))
        return {(await admin.request(method, path, json=body)).status_code for method, path, body in requests}

    statuses = set().union(*await asyncio.gather(*(work(seed) for seed in range(12))))
    assert statuses == {200, 201, 204, 404, 409, 422}
    (row,) = await api.fetch(DISAGREEMENTS, admin.organization_id)
    assert dict(row) == dict.fromkeys(row.keys(), 0)


class Market:
    """Three properties and some deals that change at random, and a model that says what each answer has to be."""

    def __init__(self, api: Api, client: Client, seed: int):
        self.api, self.client, self.dice = api, client, random.Random(seed)
        self.houses: dict[int, dict[str, Any]] = {}  # status, by (the deal that gave it), deleted
        self.deals: dict[int, dict[str, Any]] = {}  # property_id, stage, deal_type, deleted

    async def open(self) -> None:
        for _ in range(3):
            house = await add_property(self.client)
            self.houses[house["id"]] = {"status": "available", "by": None, "deleted": False}

    def allows(self, deal: dict[str, Any], number: int | None, *, is_new: bool) -> bool:
        """Whether the deal may be what it is about to be."""
        house = self.houses[deal["property_id"]]
        if is_new and house["status"] in ("sold", "off_market"):
            return False
        if house["deleted"]:
            return bool(deal["stage"] == "closed_lost")
        wanted = given_by(deal["stage"], deal["deal_type"])
        return wanted is None or house["status"] == "available" or (number is not None and house["by"] == number)

    def settle(self, number: int, deal: dict[str, Any]) -> None:
        """The deal is so now."""
        self.deals[number] = deal
        for house in self.houses.values():
            if house["by"] == number:
                house |= {"status": "available", "by": None}
        wanted = None if deal["deleted"] else given_by(deal["stage"], deal["deal_type"])
        if wanted:
            self.houses[deal["property_id"]] |= {"status": wanted, "by": number}

    async def ask(self, method: str, path: str, body: Any, expected: int) -> Any:
        response = await self.client.request(method, path, json=body)
        assert response.status_code == expected, response.text
        return response.json() if expected in (200, 201) else None

    def pick_deal(self, *, deleted: bool) -> tuple[int, dict[str, Any]] | None:
        return self.dice.choice([item for item in self.deals.items() if item[1]["deleted"] == deleted] or [None])

    def pick_house(self) -> int:
        return self.dice.choice([number for number, house in self.houses.items() if not house["deleted"]] or [0])

    async def create(self) -> None:
        house_id = self.pick_house()
        if not house_id or len(self.deals) >= 8:
            return
        body = {
            "property_id": house_id,
            "stage": self.dice.choice(STAGES),
            "deal_type": self.dice.choice(["sell", "lease"]),
        }
        is_ok = self.allows(body, None, is_new=True)
        if created := await self.ask("POST", "/deals", body | {"value": 1}, 201 if is_ok else 409):
            self.settle(created["id"], body | {"deleted": False})

    async def change(self) -> None:
        picked, house_id = self.pick_deal(deleted=False), self.pick_house()
        if picked is None:
            return
        number, deal = picked
        patch: dict[str, Any] = {"stage": self.dice.choice(STAGES)}
        if house_id and self.dice.random() < 0.3:
            patch["property_id"] = house_id
        wanted = deal | patch
        moves = wanted["property_id"] != deal["property_id"]
        is_closed = deal["stage"] in CLOSED and wanted["stage"] in CLOSED
        is_ok = wanted == deal or (not is_closed and self.allows(wanted, number, is_new=moves))
        if await self.ask("PATCH", f"/deals/{number}", patch, 200 if is_ok else 409) and wanted != deal:
            self.settle(number, wanted)

    async def delete(self) -> None:
        if picked := self.pick_deal(deleted=False):
            await self.ask("DELETE", f"/deals/{picked[0]}", None, 204)
            self.settle(picked[0], picked[1] | {"deleted": True})

    async def restore(self) -> None:
        if picked := self.pick_deal(deleted=True):
            is_ok = self.allows(picked[1], None, is_new=False)
            if await self.ask("POST", f"/deals/{picked[0]}/restore", None, 200 if is_ok else 409):
                self.settle(picked[0], picked[1] | {"deleted": False})

    async def set_by_hand(self) -> None:
        if not (house_id := self.pick_house()):
            return
        house = self.houses[house_id]
        status = self.dice.choice(["available", "available", "under_contract", "sold", "rented", "off_market"])
        is_same, is_held = status == house["status"], house["status"] == "under_contract" and house["by"] is not None
        is_ok = is_same or not is_held
        await self.ask("PATCH", f"/properties/{house_id}", {"status": status}, 200 if is_ok else 409)
        if is_ok and not is_same:
            house |= {"status": status, "by": None}

    async def drop(self) -> None:
        """Delete a property, or restore it."""
        house_id = self.dice.choice(list(self.houses))
        house = self.houses[house_id]
        if house["deleted"]:
            await self.ask("POST", f"/properties/{house_id}/restore", None, 200)
            house["deleted"] = False
            return
        open_deals = [deal for deal in self.deals.values() if deal["stage"] not in CLOSED and not deal["deleted"]]
        is_needed = house_id in [deal["property_id"] for deal in open_deals]
        await self.ask("DELETE", f"/properties/{house_id}", None, 409 if is_needed else 204)
        house["deleted"] = not is_needed

    async def check(self) -> None:
        rows = await self.api.fetch(
            "select id, status, status_deal_id as by, deleted_at is not null as deleted from properties"
            " where organization_id = $1",
            self.client.organization_id,
        )
        assert {row["id"]: {name: row[name] for name in ("status", "by", "deleted")} for row in rows} == self.houses


@pytest.mark.slow
@pytest.mark.property
@pytest.mark.parametrize("seed", range(6))
async def test_random_moves_agree_with_a_model(api: Api, seed: int) -> None:
    market = Market(api, await api.register(), seed)
    await market.open()
    actions = [market.create, market.change, market.delete, market.restore, market.set_by_hand, market.drop]
    for _ in range(150):
        (action,) = market.dice.choices(actions, weights=[2, 5, 1, 1, 2, 1])
        await action()
        await market.check()


# --- who is told -----------------------------------------------------------------------------------------------


async def test_the_assignee_is_told_of_what_others_move(api: Api) -> None:
    admin = await api.register()
    agent = await api.add_user(admin, "Agent")
    deal = await add_deal(admin, assigned_to=agent.user_id)
    before = await newest_event(api, admin)
    await move(agent, deal, "qualified")
    await move(admin, deal, "proposal", notes="x")
    await admin.patch(f"/deals/{deal['id']}", json={"notes": "y"})
    await admin.patch(f"/deals/{deal['id']}", json={"assigned_to": None, "stage": "contract"})
    told = [data for type, data in await happened(api, admin, after=before) if type == "notification"]
    message = f"Deal {deal['id']} moved from qualified to proposal."
    assert told == [{"user_id": agent.user_id, "message": message, "type": "deal_stage_changed"}]
    jobs = await api.fetch(
        "select args from procrastinate.procrastinate_jobs where task_name = 'send_deal_stage_changed_email'"
        " and args @> jsonb_build_object('organization_id', $1::bigint) order by id",
        admin.organization_id,
    )
    history = await admin.get(f"/deals/{deal['id']}/history")
    changes = {change["new_stage"]: change["id"] for change in history}
    assert [json.loads(job["args"]) for job in jobs] == [
        {"user_id": agent.user_id, "change_id": changes[stage], "organization_id": admin.organization_id}
        for stage in ("qualified", "proposal")
    ]


@pytest.fixture
async def mailing(fresh_database: TestDatabase, tmp_path: Path) -> AsyncIterator[tuple[Api, MailSink]]:
    """A served app with a worker that sends to a real mail server."""
    async with (
        MailSink() as sink,
        served_api(fresh_database, tmp_path, smtp_host="127.0.0.1", smtp_port=sink.port) as api,
        running_worker(api.settings),
    ):
        yield api, sink


async def test_a_stage_change_is_mailed_to_the_assignee(mailing: tuple[Api, MailSink]) -> None:
    api, sink = mailing
    admin = await api.register()
    quiet, agent = await api.add_user(admin, "Agent"), await api.add_user(admin, "Agent")
    await quiet.put("/auth/me", json={"preferences": {"email_notifications": False}})
    address = "1 <b>Bold</b> Street"
    first = await add_deal(admin, (await add_property(admin))["id"], assigned_to=quiet.user_id)
    second = await add_deal(admin, (await add_property(admin, address=address))["id"], assigned_to=agent.user_id)
    await move(admin, first, "contract")
    await move(admin, second, "closed_won")
    email = (await agent.get("/auth/me"))["email"]
    mail = await sink.find(lambda mail: mail.recipient == email)
    assert mail.message["Subject"] == f"Deal {second['id']} is now in the stage closed won"
    assert f"deal {second['id']} on {address}, Austin moved from lead to closed won." in mail.text
    assert "Value: 450000.00" in mail.text
    assert "Moved by: Ada Admin" in mail.text
    html = mail.message.get_body(("html",))
    assert html is not None
    assert "1 &lt;b&gt;Bold&lt;/b&gt; Street" in html.get_content()
    # Its job has run before, for the queue is served in order.
    assert (await quiet.get("/auth/me"))["email"] not in [mail.recipient for mail in sink.mails]
