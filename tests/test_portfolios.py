"""Portfolios through HTTP: their properties, sums and numbers."""

from __future__ import annotations

import asyncio
import random
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import pytest
from api import Api, Client
from crm import add_property, audited, happened, newest_event

pytestmark = pytest.mark.integration


async def add(client: Client, *property_ids: int, **fields: Any) -> dict[str, Any]:
    body = {"name": "Core", "property_ids": list(property_ids)} | fields
    created: dict[str, Any] = await client.post("/portfolios", json=body)
    return created


async def ids_of(client: Client, **params: Any) -> list[int]:
    page = await client.get("/portfolios", params=params)
    return [item["id"] for item in page["items"]]


# --- create and read -------------------------------------------------------------------------------------------


async def test_a_portfolio_comes_back_with_its_properties(api: Api) -> None:
    admin = await api.register()
    houses = [await add_property(admin, price=price) for price in ("100.10", None, "0.05")]
    body = {
        "name": "Core & more",
        "description": "All that stays.\n",
        "metadata": {"owner": "fund"},
        "property_ids": [houses[2]["id"], houses[0]["id"], houses[1]["id"], houses[2]["id"]],
    }
    response = await admin.request("POST", "/portfolios", json=body)
    created = response.json()
    assert response.status_code == 201, created
    assert response.headers["Location"] == f"/api/v1/portfolios/{created['id']}"
    assert created == {
        "id": created["id"],
        "organization_id": admin.organization_id,
        "name": "Core & more",
        "description": "All that stays.",
        "metadata": {"owner": "fund"},
        "created_by": admin.user_id,
        "created_at": created["created_at"],
        "updated_at": created["created_at"],
        "deleted_at": None,
        "property_count": 3,
        "total_value": "100.15",
        "properties": houses,
    }
    read = await admin.request("GET", f"/portfolios/{created['id']}")
    assert read.json() == created
    assert read.headers["ETag"] == response.headers["ETag"]
    item = {name: value for name, value in created.items() if name != "properties"}
    assert (await admin.get("/portfolios"))["items"] == [item]


async def test_a_portfolio_may_be_empty(api: Api) -> None:
    admin = await api.register()
    created = await admin.post("/portfolios", json={"name": "Later"})
    assert (created["description"], created["metadata"]) == (None, {})
    assert (created["property_count"], created["total_value"], created["properties"]) == (0, "0.00", [])
    (item,) = (await admin.get("/portfolios"))["items"]
    assert (item["property_count"], item["total_value"]) == (0, "0.00")


@pytest.mark.parametrize(
    ("field", "value", "refused"),
    [
        ("name", "", {"name": "string_too_short"}),
        ("name", "x" * 201, {"name": "string_too_long"}),
        ("name", "a\nb", {"name": "control_character"}),
        ("name", None, {"name": "string_type"}),
        ("metadata", None, {"metadata": "dict_type"}),
        ("property_ids", None, {"property_ids": "list_type"}),
        ("property_ids", 1, {"property_ids": "list_type"}),
        ("property_ids", list(range(1, 1002)), {"property_ids": "too_long"}),
        ("property_ids", ["x", 1.5], {"property_ids.0": "foreign_key", "property_ids.1": "foreign_key"}),
        ("total_value", "1.00", {"total_value": "extra_forbidden"}),
    ],
)
async def test_what_does_not_fit_is_refused(api: Api, field: str, value: Any, refused: dict[str, str]) -> None:
    admin = await api.register()
    assert await admin.fields_refused("POST", "/portfolios", json={"name": "Core"} | {field: value}) == refused
    assert (await admin.get("/portfolios"))["total"] == 0


async def test_properties_that_are_not_there_are_told_by_their_place(api: Api) -> None:
    admin, stranger = await api.register(), await api.register()
    house, gone, foreign = await add_property(admin), await add_property(admin), await add_property(stranger)
    await admin.delete(f"/properties/{gone['id']}")
    answers = []
    for number in (foreign["id"], gone["id"], 2**62):
        body = {"name": "Core", "property_ids": [number, house["id"], number]}
        error = await admin.error("POST", "/portfolios", status=422, json=body)
        answers.append(error["details"]["errors"])
    assert [entry["field"] for entry in answers[0]] == ["property_ids.0", "property_ids.2"]
    assert all(answer == answers[0] for answer in answers)
    assert (await admin.get("/portfolios"))["total"] == 0


# --- change ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_a_change_changes_what_is_sent_and_is_audited(api: Api, method: str) -> None:
    admin = await api.register()
    house = await add_property(admin)
    portfolio = await add(admin, house["id"], description="Old", metadata={"a": 1})
    path = f"/portfolios/{portfolio['id']}"
    before = await newest_event(api, admin)
    changed = await admin.call(method, path, status=200, json={"name": "New", "description": None})
    assert changed | {"updated_at": ""} == portfolio | {"name": "New", "description": None, "updated_at": ""}
    assert await admin.get(path) == changed
    assert await admin.call(method, path, status=200, json={"name": "New", "metadata": {"a": 1}}) == changed
    assert await admin.fields_refused(method, path, json={"property_ids": []}) == {"property_ids": "extra_forbidden"}
    for field in ("name", "metadata"):
        assert list(await admin.fields_refused(method, path, json={field: None})) == [field]
    await admin.delete(path)
    await admin.post(f"{path}/restore", status=200)
    rows = await audited(api, admin, "portfolio")
    assert [row[0] for row in rows] == ["create", "update", "delete", "restore"]
    assert rows[0][3] == {
        "name": [None, "Core"], "description": [None, "Old"], "metadata": [None, {"a": 1}],
        "property_ids": [None, [house["id"]]],
    }  # fmt: skip
    assert rows[1][3] == {"name": ["Core", "New"], "description": ["Old", None]}
    assert await happened(api, admin, after=before) == []


async def test_a_tag_is_of_all_that_get_gives(api: Api) -> None:
    admin = await api.register()
    house = await add_property(admin)
    portfolio = await add(admin, house["id"])
    path = f"/portfolios/{portfolio['id']}"

    async def tag() -> str:
        return str((await admin.request("GET", path)).headers["ETag"])

    stale = await tag()
    await admin.patch(f"/properties/{house['id']}", json={"price": "1.00"})
    await admin.error("PUT", path, status=412, json={"name": "x"}, headers={"If-Match": stale})
    await admin.error("DELETE", path, status=412, headers={"If-Match": stale})
    answer = await admin.request("PUT", path, json={"name": "x"}, headers={"If-Match": await tag()})
    assert (answer.status_code, answer.headers["ETag"]) == (200, await tag())
    for _ in range(5):
        fresh = await tag()
        answers = await asyncio.gather(
            *(
                admin.request("PATCH", path, json={"description": str(random.random())}, headers={"If-Match": fresh})
                for _ in range(4)
            )
        )
        assert sorted(answer.status_code for answer in answers) == [200, 412, 412, 412]
    await admin.delete(path, headers={"If-Match": await tag()})


async def test_a_deleted_portfolio_is_hidden_until_it_is_restored(api: Api) -> None:
    admin = await api.register()
    house = await add_property(admin)
    portfolio = await add(admin, house["id"], name="Zyzzyva")
    path = f"/portfolios/{portfolio['id']}"
    await admin.delete(path)
    for method, where, body in (
        ("GET", path, None), ("PUT", path, {"name": "x"}), ("DELETE", path, None),
        ("POST", f"{path}/properties/{house['id']}", None), ("DELETE", f"{path}/properties/{house['id']}", None),
    ):  # fmt: skip
        await admin.error(method, where, status=404, json=body)
    assert await ids_of(admin) == []
    assert await ids_of(admin, search="zyzzyva") == []
    assert (await admin.get("/portfolios/stats"))["total_portfolios"] == 0
    assert (await admin.get(f"/properties/{house['id']}")) == house
    restored = await admin.post(f"{path}/restore", status=200)
    assert restored | {"updated_at": ""} == portfolio | {"updated_at": ""}
    await admin.error("POST", f"{path}/restore", status=404)


# --- properties ------------------------------------------------------------------------------------------------


async def test_properties_come_and_go(api: Api) -> None:
    admin = await api.register()
    one, two = await add_property(admin, price="1.10"), await add_property(admin, price="2.20")
    portfolio = await add(admin, one["id"])
    path = f"/portfolios/{portfolio['id']}"
    before = await newest_event(api, admin)
    await admin.post(f"{path}/properties/{two['id']}", status=204)
    fuller = await admin.get(path)
    assert (fuller["properties"], fuller["property_count"], fuller["total_value"]) == ([one, two], 2, "3.30")
    assert fuller["updated_at"] > portfolio["updated_at"]
    assert await ids_of(admin, updated_since=fuller["updated_at"]) == [portfolio["id"]]
    error = await admin.error("POST", f"{path}/properties/{two['id']}", status=409)
    assert error["type"] == "ResourceAlreadyExistsError"
    await admin.delete(f"{path}/properties/{one['id']}")
    await admin.error("DELETE", f"{path}/properties/{one['id']}", status=404)
    assert (await admin.get(path))["properties"] == [two]
    assert (await admin.get(f"/properties/{one['id']}")) == one
    rows = await audited(api, admin, "portfolio")
    assert [row[3] for row in rows[1:]] == [{"property_id": [None, two["id"]]}, {"property_id": [one["id"], None]}]
    assert await happened(api, admin, after=before) == []


async def test_only_properties_that_are_there_are_added(api: Api) -> None:
    admin, stranger = await api.register(), await api.register()
    gone, foreign = await add_property(admin), await add_property(stranger)
    await admin.delete(f"/properties/{gone['id']}")
    mine, theirs = await add(admin), await add(stranger, foreign["id"])
    for number in (gone["id"], foreign["id"], 2**62):
        await admin.error("POST", f"/portfolios/{mine['id']}/properties/{number}", status=404)
        await admin.error("DELETE", f"/portfolios/{mine['id']}/properties/{number}", status=404)
    own = await add_property(admin)
    for portfolio_id in (theirs["id"], 2**62):
        await admin.error("POST", f"/portfolios/{portfolio_id}/properties/{own['id']}", status=404)
        for method, body in (("GET", None), ("PUT", {"name": "x"}), ("DELETE", None)):
            await admin.error(method, f"/portfolios/{portfolio_id}", status=404, json=body)
    assert await stranger.get(f"/portfolios/{theirs['id']}") == theirs


async def test_a_deleted_property_neither_shows_nor_counts(api: Api) -> None:
    admin = await api.register()
    one, two = await add_property(admin, price="1.10"), await add_property(admin, price="2.20")
    portfolio = await add(admin, one["id"], two["id"])
    path = f"/portfolios/{portfolio['id']}"
    await admin.delete(f"/properties/{one['id']}")
    less = await admin.get(path)
    assert (less["properties"], less["property_count"], less["total_value"]) == ([two], 1, "2.20")
    (item,) = (await admin.get("/portfolios"))["items"]
    assert (item["property_count"], item["total_value"]) == (1, "2.20")
    stats = await admin.get("/portfolios/stats")
    assert (stats["total_properties"], stats["total_value"]) == (1, "2.20")
    await admin.error("DELETE", f"{path}/properties/{one['id']}", status=404)
    restored = await admin.post(f"/properties/{one['id']}/restore", status=200)
    assert (await admin.get(path))["properties"] == [restored, two]


async def test_a_property_is_added_once_also_when_twenty_try(api: Api) -> None:
    admin = await api.register()
    house = await add_property(admin)
    portfolio = await add(admin)
    path = f"/portfolios/{portfolio['id']}/properties/{house['id']}"
    answers = await asyncio.gather(*(admin.request("POST", path) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [204] + [409] * 19
    answers = await asyncio.gather(*(admin.request("DELETE", path) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [204] + [404] * 19
    assert len(await audited(api, admin, "portfolio")) == 3


# --- list and numbers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["created_at", "updated_at", "name"])
@pytest.mark.parametrize("sign", ["", "-"])
async def test_every_sort_key_pages_by_cursor(api: Api, key: str, sign: str) -> None:
    admin = await api.register()
    portfolios = [await add(admin, name=name) for name in ("b", "a", "C", "b", "ä", "B")]
    await admin.patch(f"/portfolios/{portfolios[0]['id']}", json={"description": "x"})
    current = [await admin.get(f"/portfolios/{portfolio['id']}") for portfolio in portfolios]
    ordered = sorted(current, key=lambda item: (item[key], item["id"]), reverse=sign == "-")
    found: list[int] = []
    params: dict[str, Any] = {"sort": f"{sign}{key}", "page_size": 2}
    while True:
        page = await admin.get("/portfolios", params=params)
        found += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        params["cursor"] = page["next_cursor"]
    assert found == [item["id"] for item in ordered]


async def test_search_and_fields(api: Api) -> None:
    admin, stranger = await api.register(), await api.register()
    one = await add(admin, name="Core 100%", description="Offices_in Town")
    two = await add(admin, name="Growth")
    await add(stranger, name="Core")
    for text in ("core", "TOWN offices", "100%", "s_in core", "ore 10", "in"):
        assert await ids_of(admin, search=text) == [one["id"]], text
    assert await ids_of(admin, search="core growth") == []
    assert await ids_of(admin, sort="name") == [one["id"], two["id"]]
    page = await admin.get("/portfolios", params={"fields": "id,property_count"})
    assert page["items"][0] == {"id": two["id"], "property_count": 0}
    assert await admin.fields_refused("GET", "/portfolios", params={"fields": "properties"}) == {
        "fields": "unknown_field"
    }


async def test_stats_of_nothing_are_zero(api: Api) -> None:
    admin = await api.register()
    expected = {"total_portfolios": 0, "total_properties": 0, "total_value": "0.00", "avg_portfolio_value": "0.00"}
    assert await admin.get("/portfolios/stats") == expected
    await add(admin)
    assert await admin.get("/portfolios/stats") == expected | {"total_portfolios": 1}


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_sums_and_stats_agree_with_a_model(api: Api, seed: int) -> None:
    dice = random.Random(seed)
    admin, stranger = await api.register(), await api.register()
    await add(stranger, (await add_property(stranger))["id"])
    prices = [None, "0.00", "0.01", "9999999999.99", "1234.56"]
    houses = [await add_property(admin, price=dice.choice(prices)) for _ in range(20)]
    members = [dice.sample(houses, dice.randrange(12)) for _ in range(9)]
    portfolios = [await add(admin, *(house["id"] for house in group)) for group in members]
    gone = {house["id"] for house in dice.sample(houses, 5)}
    for house_id in gone:
        await admin.delete(f"/properties/{house_id}")
    await admin.delete(f"/portfolios/{portfolios[0]['id']}")
    kept = [[house for house in group if house["id"] not in gone] for group in members[1:]]
    sums = [sum((Decimal(house["price"] or 0) for house in group), Decimal("0.00")) for group in kept]
    items = (await admin.get("/portfolios", params={"sort": "created_at"}))["items"]
    assert [(item["property_count"], item["total_value"]) for item in items] == [
        (len(group), str(total)) for group, total in zip(kept, sums, strict=True)
    ]
    assert await admin.get("/portfolios/stats") == {
        "total_portfolios": 8,
        "total_properties": sum(len(group) for group in kept),
        "total_value": str(sum(sums)),
        "avg_portfolio_value": str((sum(sums, Decimal(0)) / 8).quantize(Decimal("0.01"), ROUND_HALF_UP)),
    }


async def test_the_average_of_the_dearest_is_rounded_once(api: Api) -> None:
    admin = await api.register()
    await add(admin, (await add_property(admin, price="0.50"))["id"])
    # Eleven of the hundred others are full, so that the average ends in 0.495… of a cent.
    for statement in (
        "insert into portfolios (organization_id, name) select $1, 'Palaces' from generate_series(1, 100)",
        """
        insert into properties (organization_id, address, city, state, zip_code, property_type, price)
        select $1, '1 Palace Road', 'Austin', 'TX', '78701', 'condo', 9999999999.99 from generate_series(1, 1000)
        """,
        """
        insert into portfolio_properties (organization_id, portfolio_id, property_id)
        select $1, f.id, p.id
        from properties p, (select id from portfolios where organization_id = $1 order by id desc limit 11) f
        where p.organization_id = $1 and p.price > 1
        """,
    ):
        await api.value(statement, admin.organization_id)
    stats = await admin.get("/portfolios/stats")
    assert (stats["total_portfolios"], stats["total_value"]) == (101, "109999999999890.50")
    assert stats["avg_portfolio_value"] == "1089108910890.00"
