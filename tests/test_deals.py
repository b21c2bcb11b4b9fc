"""Deals through HTTP: the resource, its list and search, its numbers. What stages do is in test_pipeline.py."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, get_args

import pytest
from api import Api, Client
from crm import add_deal, add_lead, add_property, audited, happened, newest_event

from reos.schemas.deals import DealStage, DealType

pytestmark = pytest.mark.integration

STAGES = get_args(DealStage)
TYPES = get_args(DealType)

FULL: dict[str, Any] = {
    "deal_type": "lease",
    "stage": "proposal",
    "value": "1234567.89",
    "commission_rate": "2.50",
    "probability": 75,
    "expected_close_date": "2027-03-31",
    "notes": "Wants to move in May.\n\tCalls back – “soon”.",
    "metadata": {"source": "fair", "rooms": [1, 2.5, None, True]},
}


async def ids_of(client: Client, **params: Any) -> list[int]:
    page = await client.get("/deals", params=params)
    return [item["id"] for item in page["items"]]


# --- create and read -------------------------------------------------------------------------------------------


async def test_a_deal_comes_back_as_it_was_sent(api: Api) -> None:
    admin = await api.register()
    house, lead, agent = await add_property(admin), await add_lead(admin), await api.add_user(admin, "Agent")
    body = FULL | {"property_id": house["id"], "lead_id": lead["id"], "assigned_to": agent.user_id}
    response = await admin.request("POST", "/deals", json=body)
    deal = response.json()
    assert response.status_code == 201, deal
    assert response.headers["Location"] == f"/api/v1/deals/{deal['id']}"
    assert {name: deal[name] for name in body} == body
    assert (deal["organization_id"], deal["created_by"]) == (admin.organization_id, admin.user_id)
    assert (deal["closed_at"], deal["deleted_at"]) == (None, None)
    read = await admin.request("GET", f"/deals/{deal['id']}")
    assert read.json() == deal
    assert read.headers["ETag"] == response.headers["ETag"]


async def test_what_is_left_out_has_its_default(api: Api) -> None:
    admin = await api.register()
    house = await add_property(admin)
    deal = await admin.post("/deals", json={"property_id": house["id"], "deal_type": "buy", "value": 450000})
    assert (deal["stage"], deal["probability"], deal["metadata"]) == ("lead", 50, {})
    assert deal["value"] == "450000.00"
    nullable = ("lead_id", "commission_rate", "expected_close_date", "assigned_to", "notes", "closed_at")
    assert [deal[name] for name in nullable] == [None] * len(nullable)


@pytest.mark.parametrize("field", ["property_id", "deal_type", "value"])
async def test_required_fields_are_required(api: Api, field: str) -> None:
    admin = await api.register()
    body = {"property_id": 1, "deal_type": "buy", "value": 1}
    del body[field]
    assert await admin.fields_refused("POST", "/deals", json=body) == {field: "missing"}


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("deal_type", "gift", "enum"),
        ("stage", "won", "enum"),
        ("stage", None, "enum"),
        ("value", -0.01, "greater_than_equal"),
        ("value", "10000000000", "decimal_whole_digits"),
        ("value", "0.005", "decimal_max_places"),
        ("value", None, "decimal_type"),
        ("commission_rate", "100.01", "less_than_equal"),
        ("commission_rate", -1, "greater_than_equal"),
        ("commission_rate", "1.005", "decimal_max_places"),
        ("probability", 101, "less_than_equal"),
        ("probability", -1, "greater_than_equal"),
        ("probability", 50.5, "int_from_float"),
        ("probability", True, "int_type"),
        ("expected_close_date", "2027-02-30", "datetime_parsing"),
        ("notes", "a\u0000b", "control_character"),
        ("metadata", [], "dict_type"),
        ("closed_at", "2027-01-01", "extra_forbidden"),
        ("organization_id", 1, "extra_forbidden"),
    ],
)
async def test_what_does_not_fit_is_refused(api: Api, field: str, value: Any, code: str) -> None:
    admin = await api.register()
    deal = await add_deal(admin)
    body = {"property_id": deal["property_id"], "deal_type": "buy", "value": 1}
    assert await admin.fields_refused("POST", "/deals", json=body | {field: value}) == {field: code}
    assert await admin.fields_refused("PATCH", f"/deals/{deal['id']}", json={field: value}) == {field: code}
    assert await admin.get(f"/deals/{deal['id']}") == deal


@pytest.mark.parametrize(("alias", "meant"), [("sale", "sell"), ("purchase", "buy")])
async def test_other_names_of_types_are_understood(api: Api, alias: str, meant: str) -> None:
    admin = await api.register()
    deal = await add_deal(admin, deal_type=alias)
    other = await add_deal(admin, deal_type="flip")
    assert deal["deal_type"] == meant
    assert await ids_of(admin, deal_type=alias) == [deal["id"]]
    assert (await admin.put(f"/deals/{other['id']}", json={"deal_type": alias}))["deal_type"] == meant
    # What it is already is no change.
    assert await admin.put(f"/deals/{deal['id']}", json={"deal_type": alias}) == deal


async def test_ids_that_lead_nowhere_are_all_told_and_all_alike(api: Api) -> None:
    admin, stranger = await api.register(), await api.register()
    deal = await add_deal(admin)
    foreign = {
        "property_id": (await add_property(stranger))["id"],
        "lead_id": (await add_lead(stranger))["id"],
        "assigned_to": stranger.user_id,
    }
    gone_property, gone_lead = await add_property(admin), await add_lead(admin)
    await admin.delete(f"/properties/{gone_property['id']}")
    await admin.delete(f"/leads/{gone_lead['id']}")
    disabled = await api.add_user(admin)
    await api.value("update users set is_active = false where id = $1 returning id", disabled.user_id)
    gone = {"property_id": gone_property["id"], "lead_id": gone_lead["id"], "assigned_to": disabled.user_id}
    answers = []
    for ids in (foreign, gone, dict.fromkeys(gone, 2**62), dict.fromkeys(gone, 0), dict.fromkeys(gone, "x")):
        for method, path in (("POST", "/deals"), ("PATCH", f"/deals/{deal['id']}"), ("PATCH", "/deals/4611686018")):
            body = ids if method == "PATCH" else {"deal_type": "buy", "value": 1} | ids
            error = await admin.error(method, path, status=422, json=body)
            answers.append(sorted(error["details"]["errors"], key=str))
    assert len(answers[0]) == 3
    assert all(answer == answers[0] for answer in answers)
    assert await admin.get(f"/deals/{deal['id']}") == deal


async def test_another_organisations_deal_is_as_absent_as_none(api: Api) -> None:
    admin, stranger = await api.register(), await api.register()
    deal = await add_deal(stranger)
    for deal_id in (deal["id"], 2**62):
        for method, path, body in (
            ("GET", "", None), ("PUT", "", {"notes": "x"}), ("PATCH", "", {"stage": "contract"}), ("DELETE", "", None),
            ("POST", "/restore", None), ("GET", "/history", None), ("GET", "/transactions", None),
            ("POST", "/transactions", {"transaction_type": "sale", "amount": 1, "transaction_date": "2027-01-01"}),
        ):  # fmt: skip
            error = await admin.error(method, f"/deals/{deal_id}{path}", status=404, json=body)
            assert error["type"] == "ResourceNotFoundError"
    assert await admin.get("/deals") == {
        "items": [], "total": 0, "page": 1, "page_size": 50, "pages": 0, "has_more": False, "next_cursor": None,
    }  # fmt: skip
    assert await stranger.get(f"/deals/{deal['id']}") == deal


# --- change ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_a_change_changes_what_is_sent_and_null_clears(api: Api, method: str) -> None:
    admin = await api.register()
    lead, agent = await add_lead(admin), await api.add_user(admin, "Agent")
    deal = await add_deal(admin, **FULL, lead_id=lead["id"], assigned_to=agent.user_id)
    patch = {"value": 0, "notes": "", "probability": 0, "metadata": {}, "commission_rate": 100}
    changed = await admin.call(method, f"/deals/{deal['id']}", status=200, json=patch)
    expected = deal | {"value": "0.00", "notes": "", "probability": 0, "metadata": {}, "commission_rate": "100.00"}
    assert changed | {"updated_at": ""} == expected | {"updated_at": ""}
    assert changed["updated_at"] > deal["updated_at"]
    cleared = dict.fromkeys(("lead_id", "commission_rate", "expected_close_date", "assigned_to", "notes"))
    after = await admin.call(method, f"/deals/{deal['id']}", status=200, json=cleared)
    assert after | {"updated_at": ""} == changed | cleared | {"updated_at": ""}
    assert await admin.get(f"/deals/{deal['id']}") == after


@pytest.mark.parametrize("field", ["property_id", "deal_type", "stage", "value", "probability", "metadata"])
async def test_what_has_to_be_there_is_not_cleared(api: Api, field: str) -> None:
    admin = await api.register()
    deal = await add_deal(admin)
    assert list(await admin.fields_refused("PATCH", f"/deals/{deal['id']}", json={field: None})) == [field]


async def test_a_change_that_changes_nothing_writes_nothing(api: Api) -> None:
    admin = await api.register()
    deal = await add_deal(admin, **FULL)
    event = await newest_event(api, admin)
    assert await admin.put(f"/deals/{deal['id']}", json=FULL | {"property_id": deal["property_id"]}) == deal
    assert await admin.patch(f"/deals/{deal['id']}", json={}) == deal
    assert await happened(api, admin, after=event) == []
    assert [action for action, *_ in await audited(api, admin, "deal")] == ["create"]


async def test_a_reference_that_has_gone_since_may_stay(api: Api) -> None:
    admin = await api.register()
    lead, agent = await add_lead(admin), await api.add_user(admin, "Agent")
    deal = await add_deal(admin, lead_id=lead["id"], assigned_to=agent.user_id)
    await admin.delete(f"/leads/{lead['id']}")
    await admin.delete(f"/users/{agent.user_id}")
    same = {"lead_id": lead["id"], "assigned_to": agent.user_id, "notes": "Still theirs."}
    assert (await admin.put(f"/deals/{deal['id']}", json=same))["notes"] == "Still theirs."


@pytest.mark.parametrize(
    ("sent", "day"),
    [
        ("2027-03-31", "2027-03-31"),
        ("2027-03-31T00:00:00Z", "2027-03-31"),
        ("2027-03-31T00:00:00+14:00", "2027-03-31"),
        ("2027-03-31T16:30:00Z", "2027-04-01"),
        ("2027-03-31T23:30:00-05:00", "2027-04-01"),
        ("2027-03-31T08:00:00Z", "2027-03-31"),
    ],
)
async def test_a_time_is_the_day_that_it_is_where_the_organisation_is(api: Api, sent: str, day: str) -> None:
    admin = await api.register()
    await admin.put("/organization", json={"settings": {"timezone": "Asia/Tokyo"}})
    deal = await add_deal(admin, expected_close_date=sent)
    assert deal["expected_close_date"] == day
    other = await add_deal(admin)
    patched = await admin.patch(f"/deals/{other['id']}", json={"expected_close_date": sent})
    assert patched["expected_close_date"] == day


async def test_of_two_writers_with_the_same_tag_one_succeeds(api: Api) -> None:
    admin = await api.register()
    deal = await add_deal(admin)
    for round_number in range(5):
        tag = (await admin.request("GET", f"/deals/{deal['id']}")).headers["ETag"]
        answers = await asyncio.gather(
            *(
                admin.request(
                    "PATCH", f"/deals/{deal['id']}", json={"notes": f"{round_number} {n}"}, headers={"If-Match": tag}
                )
                for n in range(4)
            )
        )
        assert sorted(answer.status_code for answer in answers) == [200, 412, 412, 412]
        (winner,) = (answer for answer in answers if answer.status_code == 200)
        again = await admin.request("GET", f"/deals/{deal['id']}")
        assert again.json() == winner.json()
        assert again.headers["ETag"] == winner.headers["ETag"]
    assert (await admin.error("DELETE", f"/deals/{deal['id']}", status=412, headers={"If-Match": '"x"'}))["type"] == (
        "PreconditionFailedError"
    )
    await admin.delete(f"/deals/{deal['id']}", headers={"If-Match": "*"})


async def test_every_change_leaves_an_audit_row_and_an_event(api: Api) -> None:
    admin = await api.register()
    deal = await add_deal(admin, commission_rate=2)
    changed = await admin.patch(f"/deals/{deal['id']}", json={"value": "1.50", "notes": "x", "commission_rate": 2.5})
    await admin.delete(f"/deals/{deal['id']}")
    restored = await admin.post(f"/deals/{deal['id']}/restore", status=200)
    number = deal["id"]
    rows = await audited(api, admin, "deal")
    assert [(action, deal_id) for action, _, deal_id, _ in rows] == [
        (action, number) for action in ("create", "update", "delete", "restore")
    ]
    created = {"property_id", "deal_type", "stage", "value", "commission_rate", "probability", "metadata"}
    assert set(rows[0][3]) == created
    assert rows[0][3]["value"] == [None, "450000.00"]
    assert rows[1][3] == {
        "value": ["450000.00", "1.50"], "notes": [None, "x"], "commission_rate": ["2.00", "2.50"],
    }  # fmt: skip
    assert [event for event in await happened(api, admin) if event[0] != "property.created"] == [
        ("deal.created", deal),
        ("deal.updated", changed),
        ("deal.deleted", {"deal_id": number}),
        ("deal.updated", restored),
    ]


async def test_a_user_is_told_what_others_assign_to_them(api: Api) -> None:
    admin = await api.register()
    agent = await api.add_user(admin, "Agent")
    house = await add_property(admin)
    own = await add_deal(agent, house["id"], assigned_to=agent.user_id)
    first = await add_deal(admin, house["id"], assigned_to=agent.user_id)
    second = await add_deal(admin, house["id"], assigned_to=admin.user_id)
    await admin.patch(f"/deals/{second['id']}", json={"assigned_to": agent.user_id})
    await admin.patch(f"/deals/{second['id']}", json={"assigned_to": agent.user_id, "notes": "No news."})
    await admin.patch(f"/deals/{own['id']}", json={"assigned_to": None})
    told = [data for type, data in await happened(api, admin) if type == "notification"]
    assert told == [
        {"user_id": agent.user_id, "message": f"Deal {number} was assigned to you.", "type": "deal_assigned"}
        for number in (first["id"], second["id"])
    ]


# --- delete and restore ----------------------------------------------------------------------------------------


async def test_a_deleted_deal_is_hidden_until_it_is_restored(api: Api) -> None:
    admin = await api.register()
    deal = await add_deal(admin, notes="Something rare: zyzzyva")
    await admin.post(
        f"/deals/{deal['id']}/transactions",
        json={"transaction_type": "deposit", "amount": 1, "transaction_date": "2027-01-01"},
    )
    await admin.delete(f"/deals/{deal['id']}")
    for path in ("", "/history", "/transactions"):
        await admin.error("GET", f"/deals/{deal['id']}{path}", status=404)
    await admin.error("PATCH", f"/deals/{deal['id']}", status=404, json={"notes": "x"})
    await admin.error("DELETE", f"/deals/{deal['id']}", status=404)
    assert await ids_of(admin) == []
    assert await ids_of(admin, search="zyzzyva") == []
    assert (await admin.get("/deals/stats"))["total_deals"] == 0
    restored = await admin.post(f"/deals/{deal['id']}/restore", status=200)
    assert restored | {"updated_at": ""} == deal | {"updated_at": ""}
    assert await ids_of(admin, search="zyzzyva") == [deal["id"]]
    await admin.error("POST", f"/deals/{deal['id']}/restore", status=404)
    assert (await admin.get(f"/deals/{deal['id']}/transactions"))["total"] == 1


# --- list ------------------------------------------------------------------------------------------------------


async def fill(admin: Client, seed: int, number: int = 30) -> list[dict[str, Any]]:
    """Random deals, a few of them deleted; those that are left."""
    dice = random.Random(seed)
    houses = [await add_property(admin, price=dice.choice([None, "1.00"])) for _ in range(number)]
    leads = [await add_lead(admin) for _ in range(3)]
    deals = []
    for house in houses:
        fields: dict[str, Any] = {
            "deal_type": dice.choice(TYPES),
            "stage": dice.choice(STAGES),
            "value": str(Decimal(dice.choice([0, 1, 99999, 123456, 10**11])) / 100),
            "probability": dice.choice([0, 10, 50, 100]),
            "lead_id": dice.choice([None, *(lead["id"] for lead in leads)]),
            "assigned_to": dice.choice([None, admin.user_id]),
            "expected_close_date": dice.choice([None, "2027-01-01", "2027-06-30"]),
        }
        deals.append(await add_deal(admin, house["id"], **fields))
    for deal in dice.sample(deals, number // 6):
        await admin.delete(f"/deals/{deal['id']}")
        deals.remove(deal)
    return deals


async def test_filters(api: Api) -> None:
    admin = await api.register()
    deals = await fill(admin, 1)

    async def check(wanted: Any, **params: Any) -> None:
        assert sorted(await ids_of(admin, **params, page_size=100)) == [deal["id"] for deal in deals if wanted(deal)]

    for stage in STAGES:
        await check(lambda deal, stage=stage: deal["stage"] == stage, stage=stage)
    for deal_type in TYPES:
        await check(lambda deal, deal_type=deal_type: deal["deal_type"] == deal_type, deal_type=deal_type)
    some = next(deal for deal in deals if deal["lead_id"])
    await check(lambda deal: deal["lead_id"] == some["lead_id"], lead_id=some["lead_id"])
    await check(lambda deal: deal["property_id"] == some["property_id"], property_id=some["property_id"])
    await check(lambda deal: deal["assigned_to"] == admin.user_id, assigned_to=admin.user_id)
    await check(lambda deal: Decimal(deal["value"]) >= Decimal("999.99"), min_value="999.99")
    await check(lambda deal: Decimal(deal["value"]) <= Decimal("0.01"), max_value="0.01")
    await check(
        lambda deal: deal["stage"] == "closed_won" and Decimal(deal["value"]) > 0, stage="closed_won", min_value="0.01"
    )
    await check(lambda deal: False, lead_id=2**62)
    middle = sorted(deal["updated_at"] for deal in deals)[10]
    await check(lambda deal: deal["updated_at"] >= middle, updated_since=middle)
    for field, value in (("stage", "won"), ("deal_type", "gift"), ("min_value", "-1"), ("lead_id", "x"), ("other", 1)):
        assert list(await admin.fields_refused("GET", "/deals", params={field: value})) == [field]


SORT_KEYS = ["created_at", "updated_at", "value", "probability", "expected_close_date", "closed_at", "stage"]


@pytest.mark.parametrize("key", SORT_KEYS)
@pytest.mark.parametrize("sign", ["", "-"])
async def test_every_sort_key_pages_by_offset_and_by_cursor(api: Api, key: str, sign: str) -> None:
    admin = await api.register()
    deals = await fill(admin, 2, 20)

    def rank(deal: dict[str, Any]) -> tuple[Any, int]:
        value = deal[key]
        return (Decimal(value) if key == "value" else value), deal["id"]

    some = sorted((deal for deal in deals if deal[key] is not None), key=rank, reverse=sign == "-")
    none = sorted((deal for deal in deals if deal[key] is None), key=lambda deal: deal["id"], reverse=sign == "-")
    expected = [deal["id"] for deal in some + none]
    by_offset: list[int] = []
    for page in range(1, 5):
        by_offset += await ids_of(admin, sort=f"{sign}{key}", page=page, page_size=5)
    assert by_offset == expected
    by_cursor: list[int] = []
    params = {"sort": f"{sign}{key}", "page_size": 4}
    while True:
        page = await admin.get("/deals", params=params)
        by_cursor += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        params["cursor"] = page["next_cursor"]
    assert by_cursor == expected


async def test_the_list_has_the_items_of_the_single_get(api: Api) -> None:
    admin = await api.register()
    deal = await add_deal(admin, **FULL)
    assert (await admin.get("/deals"))["items"] == [deal]
    page = await admin.get("/deals", params={"fields": "id,value", "include_total": "false"})
    assert page["items"] == [{"id": deal["id"], "value": deal["value"]}]
    assert page["total"] is None
    assert await admin.fields_refused("GET", "/deals", params={"fields": "id,secret"}) == {"fields": "unknown_field"}
    assert await admin.fields_refused("GET", "/deals", params={"sort": "notes"}) == {"sort": "unknown_sort_key"}


# --- search ----------------------------------------------------------------------------------------------------


async def test_words_may_be_spread_over_notes_address_and_name(api: Api) -> None:
    admin, stranger = await api.register(), await api.register()
    house = await add_property(admin, address="7 Magnolia Crescent")
    lead = await add_lead(admin, first_name="Ada", last_name="Lovelace")
    deal = await add_deal(admin, house["id"], lead_id=lead["id"], notes="Needs 100% parking_space")
    await add_deal(admin, notes="Needs 100 parkingXspace")
    await add_deal(stranger, (await add_property(stranger, address="7 Magnolia Crescent"))["id"])
    for text in (
        "magnolia", "MAGNOLIA cresc", "lovelace", "ada lovelace", "lace ada", "parking magnolia lovelace", "7 ada",
        "100%", "g_space", "da 7", "  crescent   ada ",
    ):  # fmt: skip
        assert await ids_of(admin, search=text) == [deal["id"]], text
    for text in ("magnolia babbage", "100% x", "austin"):
        assert await ids_of(admin, search=text) == [], text
    assert len(await ids_of(admin, search="")) == 2
    assert await ids_of(admin, search="magnolia", stage="proposal") == []


async def test_search_follows_what_the_deal_is_about(api: Api) -> None:
    admin = await api.register()
    house = await add_property(admin, address="1 Before Way")
    lead = await add_lead(admin, last_name="Oldname")
    deal = await add_deal(admin, house["id"], lead_id=lead["id"], notes="first words", stage="closed_lost")

    async def finds(*texts: str) -> list[bool]:
        return [await ids_of(admin, search=text) == [deal["id"]] for text in texts]

    assert await finds("before", "oldname", "first") == [True, True, True]
    await admin.patch(f"/properties/{house['id']}", json={"address": "1 After Way"})
    await admin.patch(f"/leads/{lead['id']}", json={"last_name": "Newname"})
    assert await finds("before", "oldname", "after", "newname", "first") == [False, False, True, True, True]
    # What is deleted is hidden, and so is what it is called.
    await admin.delete(f"/leads/{lead['id']}")
    await admin.delete(f"/properties/{house['id']}")
    assert await finds("newname", "after", "first") == [False, False, True]
    await admin.post(f"/leads/{lead['id']}/restore", status=200)
    await admin.post(f"/properties/{house['id']}/restore", status=200)
    assert await finds("newname", "after", "newname after first") == [True, True, True]
    other_house, other_lead = await add_property(admin, address="2 Elsewhere"), await add_lead(admin, last_name="Third")
    await admin.patch(
        f"/deals/{deal['id']}",
        json={"stage": "lead", "property_id": other_house["id"], "lead_id": other_lead["id"], "notes": "second"},
    )
    assert await finds("newname", "after", "first", "third elsewhere second") == [False, False, False, True]
    await admin.patch(f"/deals/{deal['id']}", json={"lead_id": None, "notes": None})
    assert await finds("third", "second", "elsewhere") == [False, False, True]


@pytest.mark.slow
async def test_search_misses_no_change_of_many_at_once(api: Api) -> None:
    """Notes, address, name and the deal's own property and lead change at the same time, again and again."""
    admin = await api.register()
    houses = [await add_property(admin) for _ in range(2)]
    leads = [await add_lead(admin) for _ in range(2)]
    deals = [await add_deal(admin, houses[n % 2]["id"], lead_id=leads[n // 2]["id"]) for n in range(4)]
    for turn in range(12):
        changes = [
            *(admin.patch(f"/properties/{house['id']}", json={"address": f"house{turn}"}) for house in houses),
            *(admin.patch(f"/leads/{lead['id']}", json={"last_name": f"name{turn}"}) for lead in leads),
            *(
                admin.patch(
                    f"/deals/{deal['id']}",
                    json={
                        "notes": f"note{turn}",
                        "property_id": houses[(turn + n) % 2]["id"],
                        "lead_id": leads[(turn + n // 2) % 2]["id"],
                    },
                )
                for n, deal in enumerate(deals)
            ),
        ]
        random.Random(turn).shuffle(changes)
        await asyncio.gather(*changes)
        found = await ids_of(admin, search=f"house{turn} note{turn} name{turn}")
        assert sorted(found) == [deal["id"] for deal in deals], turn


@pytest.mark.slow
async def test_search_beyond_a_thousand_hits(api: Api) -> None:
    admin = await api.register()
    house = await add_property(admin, address="1 Popular Road")
    one = await add_deal(admin, house["id"], notes="needle")
    await api.value(
        "insert into deals (organization_id, property_id, deal_type, value)"
        " select $1, $2, 'buy', 1 from generate_series(1, 1100)",
        admin.organization_id,
        house["id"],
    )
    page = await admin.get("/deals", params={"search": "popular", "page_size": 100})
    assert (page["total"], len(page["items"])) == (1101, 100)
    assert await ids_of(admin, search="popular needle") == [one["id"]]
    assert await ids_of(admin, search="1 po needle") == [one["id"]]


# --- numbers ---------------------------------------------------------------------------------------------------


def money(value: Decimal) -> str:
    return str(value.quantize(Decimal("0.01"), ROUND_HALF_UP))


async def test_stats_of_nothing_are_zero(api: Api) -> None:
    admin = await api.register()
    assert await admin.get("/deals/stats") == {
        "total_deals": 0,
        "total_value": "0.00",
        "avg_deal_value": "0.00",
        "won_deals": 0,
        "lost_deals": 0,
        "win_rate": 0,
        "by_stage": dict.fromkeys(STAGES, 0),
        "by_type": dict.fromkeys(TYPES, 0),
    }


@pytest.mark.parametrize("seed", [11, 12, 13])
async def test_stats_agree_with_a_model(api: Api, seed: int) -> None:
    admin, stranger = await api.register(), await api.register()
    await add_deal(stranger, stage="closed_won")
    deals = await fill(admin, seed, 40)
    total = sum(Decimal(deal["value"]) for deal in deals)
    stages, types = Counter(deal["stage"] for deal in deals), Counter(deal["deal_type"] for deal in deals)
    won, lost = stages["closed_won"], stages["closed_lost"]
    assert await admin.get("/deals/stats") == {
        "total_deals": len(deals),
        "total_value": money(total),
        "avg_deal_value": money(total / len(deals)),
        "won_deals": won,
        "lost_deals": lost,
        "win_rate": float(money(Decimal(100 * won) / (won + lost))) if won + lost else 0,
        "by_stage": {stage: stages[stage] for stage in STAGES},
        "by_type": {deal_type: types[deal_type] for deal_type in TYPES},
    }


async def test_a_rate_is_rounded_half_up(api: Api) -> None:
    admin = await api.register()
    for stage, number in (("closed_won", 1), ("closed_lost", 15)):
        for _ in range(number):
            await add_deal(admin, stage=stage, value="0.01")
    stats = await admin.get("/deals/stats")
    assert stats["win_rate"] == 6.25
    await add_deal(admin, value="0.09")
    stats = await admin.get("/deals/stats")
    assert (stats["total_value"], stats["avg_deal_value"]) == ("0.25", "0.01")
    for _ in range(16):
        await add_deal(admin, stage="closed_lost", value="0.00")
    assert (await admin.get("/deals/stats"))["win_rate"] == 3.13  # 3.125


# --- properties ------------------------------------------------------------------------------------------------


async def test_a_property_with_an_open_deal_stays(api: Api) -> None:
    admin = await api.register()
    house = await add_property(admin)
    deal = await add_deal(admin, house["id"])
    error = await admin.error("DELETE", f"/properties/{house['id']}", status=409)
    assert error["type"] == "ResourceDeletionError"
    assert await admin.get(f"/properties/{house['id']}") == house
    await admin.patch(f"/deals/{deal['id']}", json={"stage": "closed_lost"})
    await admin.delete(f"/properties/{house['id']}")
    # Nothing makes an open deal of one whose property is gone.
    error = await admin.error("PATCH", f"/deals/{deal['id']}", status=409, json={"stage": "lead"})
    assert error["type"] == "PropertyNotAvailableError"
    await admin.delete(f"/deals/{deal['id']}")
    await admin.post(f"/deals/{deal['id']}/restore", status=200)
    await admin.post(f"/properties/{house['id']}/restore", status=200)
    await admin.patch(f"/deals/{deal['id']}", json={"stage": "lead"})
    await admin.delete(f"/deals/{deal['id']}")
    await admin.delete(f"/properties/{house['id']}")
    error = await admin.error("POST", f"/deals/{deal['id']}/restore", status=409)
    assert error["type"] == "PropertyNotAvailableError"


async def test_a_deal_and_the_end_of_its_property_exclude_each_other(api: Api) -> None:
    admin = await api.register()
    for _ in range(15):
        house = await add_property(admin)
        body = {"property_id": house["id"], "deal_type": "buy", "value": 1}
        created, deleted = await asyncio.gather(
            admin.request("POST", "/deals", json=body), admin.request("DELETE", f"/properties/{house['id']}")
        )
        assert (created.status_code, deleted.status_code) in ((201, 409), (409, 204), (422, 204))
    orphans = (
        "select count(*) from deals d join properties p on p.id = d.property_id"
        " where d.organization_id = $1 and p.deleted_at is not null"
    )
    assert await api.value(orphans, admin.organization_id) == 0
