"""Properties through HTTP: the resource itself, and what belongs to it but pictures."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
from decimal import Decimal
from typing import Any

import pytest
from api import Api, Client

pytestmark = pytest.mark.integration

LISTING: dict[str, Any] = {
    "address": "1 Main St", "city": "Austin", "state": "TX", "zip_code": "78701", "property_type": "condo",
    "price": "750000.00",
}  # fmt: skip

FULL: dict[str, Any] = {
    "address": "12 Ocean View Drive",
    "city": "Portland",
    "state": "Oregon",
    "zip_code": "97201",
    "country": "United States",
    "latitude": 45.5152,
    "longitude": -122.6784,
    "property_type": "single_family",
    "status": "off_market",
    "price": "1234567.89",
    "bedrooms": 4,
    "bathrooms": 2.5,
    "square_feet": 2400,
    "lot_size": 5000,
    "year_built": 1936,
    "description": "A house.\n\tWith a garden – and a “view”.",
    "features": ["garden", "fire place"],
    "metadata": {"mls": "X-1", "nested": {"list": [1, 2.5, None, True, "ä"]}, "": ""},
}

OUT_FIELDS = set(FULL) | {"id", "organization_id", "created_by", "created_at", "updated_at", "deleted_at"}


async def add(client: Client, **fields: Any) -> dict[str, Any]:
    created: dict[str, Any] = await client.post("/properties", json=LISTING | fields)
    return created


async def ids_of(client: Client, **params: Any) -> list[int]:
    page = await client.get("/properties", params=params)
    return [item["id"] for item in page["items"]]


# --- create and read -------------------------------------------------------------------------------------------


async def test_a_property_comes_back_as_it_was_sent(api: Api) -> None:
    admin = await api.register()
    response = await admin.request("POST", "/properties", json=FULL)
    created = response.json()
    assert response.status_code == 201
    assert response.headers["Location"] == f"/api/v1/properties/{created['id']}"
    assert set(created) == OUT_FIELDS
    assert {name: created[name] for name in FULL} == FULL
    assert created["organization_id"] == admin.organization_id
    assert created["created_by"] == admin.user_id
    assert created["deleted_at"] is None
    assert created["created_at"] == created["updated_at"]
    assert created["created_at"].endswith("Z")
    assert await admin.get(f"/properties/{created['id']}") == created


async def test_what_is_left_out_has_its_default(api: Api) -> None:
    admin = await api.register()
    created = await admin.post("/properties", json={name: LISTING[name] for name in LISTING if name != "price"})
    assert created["country"] == "USA"
    assert created["status"] == "available"
    assert created["features"] == []
    assert created["metadata"] == {}
    nullable = ("latitude", "longitude", "price", "bedrooms", "bathrooms", "square_feet", "lot_size", "year_built",
                "description")  # fmt: skip
    assert [created[name] for name in nullable] == [None] * len(nullable)


async def test_creating_leaves_one_audit_row_and_one_event(api: Api) -> None:
    admin = await api.register()
    created = await admin.post("/properties", json=FULL, headers={"X-Request-ID": "creating-1", "User-Agent": "tests"})
    (audit,) = await api.audits(admin)
    assert (audit["action"], audit["resource_type"], audit["resource_id"]) == ("create", "property", created["id"])
    assert (audit["user_id"], audit["request_id"], audit["user_agent"]) == (admin.user_id, "creating-1", "tests")
    changes = json.loads(audit["changes"])
    assert changes["price"] == [None, "1234567.89"]
    assert changes["features"] == [None, FULL["features"]]
    assert "created_at" not in changes
    (event,) = await api.events(admin)
    assert (event["type"], event["resource_id"]) == ("property.created", created["id"])
    assert json.loads(event["data"]) == created


@pytest.mark.parametrize("field", ["address", "city", "state", "zip_code", "property_type"])
async def test_required_fields_are_required(api: Api, field: str) -> None:
    admin = await api.register()
    body = {name: value for name, value in LISTING.items() if name != field}
    assert await admin.fields_refused("POST", "/properties", json=body) == {field: "missing"}
    assert await admin.fields_refused("POST", "/properties", json=LISTING | {field: None}) in (
        {field: "string_type"},
        {field: "enum"},
    )


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("address", "", "string_too_short"),
        ("address", " \t ", "control_character"),
        ("address", "   ", "string_too_short"),
        ("address", "x" * 501, "string_too_long"),
        ("city", "x" * 101, "string_too_long"),
        ("state", "x" * 51, "string_too_long"),
        ("zip_code", "x" * 21, "string_too_long"),
        ("country", "x" * 51, "string_too_long"),
        ("city", "Aus\ntin", "control_character"),
        ("city", "Aus\x00tin", "control_character"),
        ("latitude", 90.5, "less_than_equal"),
        ("latitude", -90.5, "greater_than_equal"),
        ("longitude", 180.5, "less_than_equal"),
        ("longitude", 1.12345678, "decimal_max_places"),
        ("latitude", "45", "decimal_type"),
        ("property_type", "castle", "enum"),
        ("status", "gone", "enum"),
        ("price", -1, "greater_than_equal"),
        ("price", "0.005", "decimal_max_places"),
        ("price", "10000000000", "decimal_whole_digits"),
        ("price", "1e5", "decimal_parsing"),
        ("price", True, "decimal_type"),
        ("bedrooms", 1.5, "int_from_float"),
        ("bedrooms", -1, "greater_than_equal"),
        ("bedrooms", 2**31, "less_than_equal"),
        ("bedrooms", True, "int_type"),
        ("bedrooms", "3", "int_type"),
        ("bathrooms", 2.25, "decimal_max_places"),
        ("bathrooms", 100, "decimal_whole_digits"),
        ("square_feet", -1, "greater_than_equal"),
        ("lot_size", -1, "greater_than_equal"),
        ("year_built", 1799, "greater_than_equal"),
        ("year_built", 2101, "less_than_equal"),
        ("description", "a\x00b", "control_character"),
        ("features", "garden", "list_type"),
        ("metadata", [], "dict_type"),
        ("owner", "me", "extra_forbidden"),
        ("id", 1, "extra_forbidden"),
        ("organization_id", 1, "extra_forbidden"),
    ],
)
async def test_bad_values_are_refused(api: Api, field: str, value: Any, code: str) -> None:
    admin = await api.register()
    assert await admin.fields_refused("POST", "/properties", json=LISTING | {field: value}) == {field: code}
    assert await api.value("select count(*) from properties where organization_id = $1", admin.organization_id) == 0


async def test_every_wrong_field_is_named_at_once(api: Api) -> None:
    admin = await api.register()
    body = LISTING | {"city": "", "price": -1, "features": ["ok", 3], "colour": "red"}
    del body["address"]
    assert set(await admin.fields_refused("POST", "/properties", json=body)) == {
        "address", "city", "price", "features.1", "colour",
    }  # fmt: skip


async def test_text_is_trimmed_and_lengths_count_characters(api: Api) -> None:
    admin = await api.register()
    created = await add(admin, address="  1 Rue de l'Été  ", city="ü" * 100, state="😀" * 50)
    assert created["address"] == "1 Rue de l'Été"
    assert (created["city"], created["state"]) == ("ü" * 100, "😀" * 50)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ('"0"', "0.00"),
        ("0.1", "0.10"),
        ("0.30", "0.30"),
        ("9999999999.99", "9999999999.99"),
        ('"9999999999.99"', "9999999999.99"),
        ("750000", "750000.00"),
        ("1e3", "1000.00"),
        ("70.10", "70.10"),
        ('"1.500"', "1.50"),
    ],
)
async def test_money_is_exact(api: Api, sent: str, kept: str) -> None:
    admin = await api.register()
    body = json.dumps(LISTING).replace('"750000.00"', sent)
    headers = {"Content-Type": "application/json"}
    created = await admin.post("/properties", content=body, headers=headers)
    assert created["price"] == kept
    assert (await admin.get("/properties"))["items"][0]["price"] == kept
    assert await api.value("select price from properties where id = $1", created["id"]) == Decimal(kept)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "1e-999999999"])
async def test_numbers_that_are_none_are_refused(api: Api, number: str) -> None:
    admin = await api.register()
    body = json.dumps(LISTING).replace('"750000.00"', number)
    headers = {"Content-Type": "application/json"}
    assert set(await admin.fields_refused("POST", "/properties", content=body, headers=headers)) == {"price"}


async def test_ids_that_lead_nowhere_are_all_the_same_404(api: Api) -> None:
    admin, other = await api.register(), await api.register()
    foreign = (await add(other))["id"]
    deleted = (await add(admin))["id"]
    await admin.delete(f"/properties/{deleted}")
    answers = set()
    for property_id in (foreign, deleted, 2**62, 2**63, 10**30, 0, -1, "abc", "1.0", "01", "%31", "%00", "1%20"):
        for method, body in (("GET", None), ("PUT", {}), ("DELETE", None)):
            error = await admin.error(method, f"/properties/{property_id}", status=404, json=body)
            del error["request_id"]
            answers.add(json.dumps(error))
    assert len(answers) == 1
    assert json.loads(answers.pop())["type"] == "ResourceNotFoundError"


# --- update ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_only_what_is_sent_changes(api: Api, method: str) -> None:
    admin = await api.register()
    created = await admin.post("/properties", json=FULL)
    path = f"/properties/{created['id']}"
    changes = {
        "price": "1.50",
        "description": None,
        "features": [],
        "metadata": {"a": 1},
        "latitude": 0,
        "status": "sold",
    }
    changed = await admin.call(method, path, status=200, json=changes)
    assert changed == created | changes | {"updated_at": changed["updated_at"]}
    assert changed["updated_at"] > created["updated_at"]
    assert await admin.get(path) == changed
    created_audit, audit = await api.audits(admin)
    assert (created_audit["action"], audit["action"], audit["resource_id"]) == ("create", "update", created["id"])
    assert json.loads(audit["changes"]) == {name: [FULL[name], changes[name]] for name in changes}
    assert [event["type"] for event in await api.events(admin)] == ["property.created", "property.updated"]
    assert json.loads((await api.events(admin))[1]["data"]) == changed


async def test_every_field_can_be_changed_and_every_nullable_one_cleared(api: Api) -> None:
    admin = await api.register()
    created = await add(admin)
    path = f"/properties/{created['id']}"
    changed = await admin.put(path, json=FULL)
    assert {name: changed[name] for name in FULL} == FULL
    cleared = dict.fromkeys(
        ("latitude", "longitude", "price", "bedrooms", "bathrooms", "square_feet", "lot_size", "year_built",
         "description")
    )  # fmt: skip
    changed = await admin.patch(path, json=cleared)
    assert {name: changed[name] for name in cleared} == cleared


@pytest.mark.parametrize(
    "field", ["address", "city", "state", "zip_code", "country", "property_type", "status", "features", "metadata"]
)
async def test_what_is_not_nullable_cannot_be_cleared(api: Api, field: str) -> None:
    admin = await api.register()
    path = f"/properties/{(await add(admin))['id']}"
    assert set(await admin.fields_refused("PATCH", path, json={field: None})) == {field}


@pytest.mark.parametrize("field", ["id", "organization_id", "created_by", "created_at", "deleted_at", "colour"])
async def test_what_clients_do_not_set_is_refused(api: Api, field: str) -> None:
    admin = await api.register()
    path = f"/properties/{(await add(admin))['id']}"
    assert await admin.fields_refused("PUT", path, json={field: None}) == {field: "extra_forbidden"}


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_an_update_that_changes_nothing_leaves_no_trace(api: Api, method: str) -> None:
    admin = await api.register()
    created = await admin.post("/properties", json=FULL)
    path = f"/properties/{created['id']}"
    same = FULL | {"metadata": dict(reversed(FULL["metadata"].items())), "price": 1234567.89, "bathrooms": 2.5}
    for body in ({}, same, {"address": f"  {FULL['address']} "}, {"features": FULL["features"]}):
        assert await admin.call(method, path, status=200, json=body) == created
    assert await admin.get(path) == created
    assert len(await api.audits(admin)) == len(await api.events(admin)) == 1


async def test_true_is_not_the_same_as_one(api: Api) -> None:
    admin = await api.register()
    created = await add(admin, metadata={"a": 1})
    changed = await admin.patch(f"/properties/{created['id']}", json={"metadata": {"a": True}})
    assert changed["metadata"]["a"] is True


async def test_a_change_that_waited_for_another_is_the_later_one(api: Api) -> None:
    """Its transaction began before the other's had ended, but its change came after."""
    admin = await api.register()
    property_id = (await add(admin))["id"]
    seen = []
    for _ in range(5):
        prices = [str(number) + ".00" for number in range(8)]
        answers = await asyncio.gather(
            *(admin.put(f"/properties/{property_id}", json={"price": price}) for price in prices)
        )
        by_event = [json.loads(event["data"])["updated_at"] for event in (await api.events(admin))[1:]]
        assert by_event == sorted(by_event)
        last = max(answers, key=lambda answer: answer["updated_at"])
        assert await admin.get(f"/properties/{property_id}") == last
        seen += answers
    assert len({answer["updated_at"] for answer in seen}) > 5


# --- delete and restore ----------------------------------------------------------------------------------------


async def test_a_deleted_property_is_hidden_everywhere_until_it_is_restored(api: Api) -> None:
    admin = await api.register()
    created = await admin.post("/properties", json=FULL)
    path = f"/properties/{created['id']}"
    below = {
        "images": {"url": "https://example.com/a.jpg"},
        "valuations": {"value": 1, "valuation_date": "2024-01-01"},
        "notes": {"content": "x"},
        "activities": {"activity_type": "call", "description": "x"},
    }
    kept = {name: [await admin.post(f"{path}/{name}", json=body)] for name, body in below.items()}
    image_id = kept["images"][0]["id"]

    assert (await admin.request("DELETE", path)).content == b""
    assert [event["type"] for event in await api.events(admin)][-1] == "property.deleted"
    assert json.loads((await api.events(admin))[-1]["data"]) == {"property_id": created["id"]}
    for method in ("GET", "DELETE", "PUT", "PATCH"):
        await admin.error(method, path, status=404, json={"price": 1} if method.startswith("P") else None)
    for name, body in below.items():
        await admin.error("GET", f"{path}/{name}", status=404)
        await admin.error("POST", f"{path}/{name}", status=404, json=body)
    await admin.error("DELETE", f"{path}/images/{image_id}", status=404)
    for params in ({}, {"search": "ocean"}, {"search": "o"}, {"near": "45.5152,-122.6784"}, {"city": "port"},
                   {"updated_since": "2020-01-01"}):  # fmt: skip
        page = await admin.get("/properties", params=params)
        assert (page["items"], page["total"]) == ([], 0), params

    restored = await admin.post(f"{path}/restore", status=200)
    assert restored == created | {"updated_at": restored["updated_at"]}
    assert restored["updated_at"] > created["updated_at"]
    assert await admin.get(path) == restored
    for name, items in kept.items():
        assert await admin.get(f"{path}/{name}") == items
    assert await ids_of(admin, search="ocean") == [created["id"]]
    assert [row["action"] for row in await api.audits(admin)][-2:] == ["delete", "restore"]
    assert json.loads((await api.events(admin))[-1]["data"]) == restored
    assert (await api.events(admin))[-1]["type"] == "property.updated"


async def test_only_what_is_deleted_can_be_restored_and_only_once(api: Api) -> None:
    admin, other = await api.register(), await api.register()
    property_id = (await add(admin))["id"]
    await admin.error("POST", f"/properties/{property_id}/restore", status=404)
    await admin.delete(f"/properties/{property_id}")
    await other.error("POST", f"/properties/{property_id}/restore", status=404)
    answers = await asyncio.gather(*(admin.request("POST", f"/properties/{property_id}/restore") for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] + [404] * 7


async def test_a_property_is_deleted_once(api: Api) -> None:
    admin = await api.register()
    property_id = (await add(admin))["id"]
    answers = await asyncio.gather(*(admin.request("DELETE", f"/properties/{property_id}") for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [204] + [404] * 7
    assert [row["action"] for row in await api.audits(admin)].count("delete") == 1


# --- permissions -----------------------------------------------------------------------------------------------


@pytest.mark.auth
async def test_each_route_needs_its_permission(api: Api) -> None:
    admin = await api.register()
    path = f"/properties/{(await add(admin))['id']}"
    gone = f"/properties/{(await add(admin))['id']}"
    await admin.delete(gone)
    image = (await admin.post(f"{path}/images", json={"url": "https://example.com/a"}))["id"]
    routes: list[tuple[str, str, str, Any]] = [
        ("property:read", "GET", "/properties", None),
        ("property:create", "POST", "/properties", LISTING),
        ("property:read", "GET", path, None),
        ("property:update", "PUT", path, {"price": 5}),
        ("property:update", "PATCH", path, {"price": 6}),
        ("property:update", "POST", f"{gone}/restore", None),
        ("property:read", "GET", f"{path}/images", None),
        ("property:update", "POST", f"{path}/images", {"url": "https://example.com/b"}),
        ("property:update", "DELETE", f"{path}/images/{image}", None),
        ("property:read", "GET", f"{path}/valuations", None),
        ("property:update", "POST", f"{path}/valuations", {"value": 1, "valuation_date": "2024-01-01"}),
        ("property:read", "GET", f"{path}/notes", None),
        ("property:update", "POST", f"{path}/notes", {"content": "x"}),
        ("property:read", "GET", f"{path}/activities", None),
        ("property:update", "POST", f"{path}/activities", {"activity_type": "call", "description": "x"}),
        ("property:delete", "DELETE", path, None),
    ]
    kinds = ("property:create", "property:read", "property:update", "property:delete")
    only = {kind: await api.add_user_with(admin, [kind]) for kind in kinds}
    for needed, method, route, body in routes:
        for kind, user in only.items():
            if kind != needed:
                error = await user.error(method, route, status=403, json=body)
                assert (error["type"], error["details"]) == (
                    "InsufficientPermissionsError",
                    {"required_permission": needed},
                )
        assert (await only[needed].request(method, route, json=body)).status_code < 300, (method, route)
        await api.anonymous.error(method, route, status=401, json=body)


# --- lists: envelope and paging --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
async def market(api: Api) -> Client:
    """An organisation whose properties differ in everything, with nulls and ties in every sort key."""
    admin = await api.register()
    cities = ["Austin", "austin heights", "Boston", "Boston", "Zürich", "100%_sure"]
    for number in range(30):
        await add(
            admin,
            address=f"{number} Main St",
            city=cities[number % 6],
            state=["TX", "Texas", "MA"][number % 3],
            zip_code=f"{78700 + number % 4}",
            price=None if number % 5 == 0 else f"{(number % 7) * 100}.50",
            bedrooms=None if number % 4 == 0 else number % 3,
            bathrooms=None if number % 3 == 0 else (number % 4) + 0.5,
            square_feet=None if number % 6 == 0 else 1000 + number % 5,
            year_built=None if number % 2 == 0 else 1900 + number % 8,
            status=["available", "sold", "rented"][number % 3],
            property_type=["condo", "land"][number % 2],
            latitude=30 + number / 100 if number % 2 else None,
            longitude=-97 if number % 2 else None,
            description=f"Nice place number {number}" if number % 2 else None,
        )
    return admin


async def everything(client: Client) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await client.get("/properties", params={"page_size": 100}))["items"]
    return items


async def test_the_envelope(market: Client) -> None:
    page = await market.get("/properties")
    assert set(page) == {"items", "total", "page", "page_size", "pages", "has_more", "next_cursor"}
    assert (page["total"], page["page"], page["page_size"], page["pages"]) == (30, 1, 50, 1)
    assert (page["has_more"], page["next_cursor"], len(page["items"])) == (False, None, 30)
    assert all(set(item) == OUT_FIELDS for item in page["items"])
    newest_first = sorted(page["items"], key=lambda item: (item["created_at"], item["id"]), reverse=True)
    assert page["items"] == newest_first


async def test_a_list_item_is_what_get_gives(market: Client) -> None:
    item = (await market.get("/properties", params={"page_size": 1}))["items"][0]
    assert await market.get(f"/properties/{item['id']}") == item


async def test_pages_by_number_and_by_offset(market: Client) -> None:
    whole = [item["id"] for item in await everything(market)]
    for size in (1, 7, 10, 30, 100):
        paged = []
        for number in itertools.count(1):
            page = await market.get("/properties", params={"page": number, "page_size": size})
            assert (page["page"], page["page_size"], page["total"], page["pages"]) == (number, size, 30, -(-30 // size))
            assert page["has_more"] == (number * size < 30)
            paged += [item["id"] for item in page["items"]]
            if not page["has_more"]:
                break
        assert paged == whole
    page = await market.get("/properties", params={"skip": 12, "limit": 5})
    assert [item["id"] for item in page["items"]] == whole[12:17]
    assert page["page_size"] == 5
    assert await ids_of(market, skip=28) == whole[28:]


@pytest.mark.parametrize("params", [{"page": 5}, {"page": 10**12, "page_size": 100}, {"skip": 30}, {"skip": 10**14}])
async def test_a_page_past_the_end_is_empty(market: Client, params: dict[str, int]) -> None:
    page = await market.get("/properties", params={"page_size": 10} | params if "page" in params else params)
    assert (page["items"], page["total"], page["has_more"], page["next_cursor"]) == ([], 30, False, None)


async def test_the_count_can_be_left_out(market: Client) -> None:
    page = await market.get("/properties", params={"include_total": "false", "page_size": 10})
    assert (page["total"], page["pages"], page["page"], page["has_more"]) == (None, None, 1, True)
    assert len(page["items"]) == 10
    past = await market.get("/properties", params={"include_total": "false", "skip": 40})
    assert (past["total"], past["items"]) == (None, [])


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"page": 0}, "page"),
        ({"page": -1}, "page"),
        ({"page": "x"}, "page"),
        ({"page": "1.0"}, "page"),
        ({"page": 10**19}, "page"),
        ({"page_size": 0}, "page_size"),
        ({"page_size": 101}, "page_size"),
        ({"limit": 101}, "limit"),
        ({"skip": -1}, "skip"),
        ({"skip": 1, "page": 2}, "skip"),
        ({"limit": 1, "page_size": 2}, "limit"),
        ({"cursor": "abc"}, "cursor"),
        ({"cursor": ""}, "cursor"),
        ({"sort": "rooms"}, "sort"),
        ({"sort": "price,-price"}, "sort"),
        ({"sort": "price,,city"}, "sort"),
        ({"sort": "distance"}, "sort"),
        ({"sort": "price;drop table properties"}, "sort"),
        ({"include_total": "maybe"}, "include_total"),
        ({"fields": "id,secret"}, "fields"),
        ({"fields": ""}, "fields"),
        ({"updated_since": "yesterday"}, "updated_since"),
        ({"property_type": "castle"}, "property_type"),
        ({"status": "gone"}, "status"),
        ({"min_price": "NaN"}, "min_price"),
        ({"min_price": "-1"}, "min_price"),
        ({"max_price": "1e99"}, "max_price"),
        ({"min_bedrooms": "1.5"}, "min_bedrooms"),
        ({"max_bedrooms": 2**31}, "max_bedrooms"),
        ({"min_bathrooms": "x"}, "min_bathrooms"),
        ({"min_square_feet": "-1"}, "min_square_feet"),
        ({"near": "91,0"}, "near"),
        ({"near": "0,181"}, "near"),
        ({"near": "1,2,3"}, "near"),
        ({"near": "nan,nan"}, "near"),
        ({"near": "1_0,2"}, "near"),
        ({"near": "30"}, "near"),
        ({"near": "30,-97", "radius_km": "-1"}, "radius_km"),
        ({"near": "30,-97", "radius_km": "NaN"}, "radius_km"),
        ({"radius_km": "1"}, "radius_km"),
        ({"search": "\x00"}, "search"),
        ({"search": "x" * 201}, "search"),
        ({"city": "a\x1fb"}, "city"),
        ({"colour": "red"}, "colour"),
        ({"deleted_at": "2020-01-01"}, "deleted_at"),
    ],
)
async def test_bad_list_parameters_are_refused(market: Client, params: dict[str, Any], field: str) -> None:
    assert set(await market.fields_refused("GET", "/properties", params=params)) == {field}


async def test_a_parameter_is_given_once(market: Client) -> None:
    refused = await market.fields_refused("GET", "/properties?status=sold&status=available")
    assert refused == {"status": "duplicate_parameter"}


# --- lists: sorting --------------------------------------------------------------------------------------------

SORT_KEYS = ["created_at", "updated_at", "price", "bedrooms", "square_feet", "year_built", "city", "status"]


def in_order(items: list[dict[str, Any]], sort: str) -> list[int]:
    """The ids in the order that the contract asks for: nulls last, ties by id in the direction of the last key."""
    keys = sort.split(",")
    ordered = sorted(items, key=lambda item: item["id"], reverse=keys[-1].startswith("-"))
    for key in reversed(keys):
        name = key.removeprefix("-")
        present = [item for item in ordered if item[name] is not None]

        def rank(item: dict[str, Any], name: str = name) -> Any:
            return Decimal(item[name]) if name == "price" else item[name]

        # Equal ones keep their order also in reverse.
        present.sort(key=rank, reverse=key.startswith("-"))
        ordered = present + [item for item in ordered if item[name] is None]
    return [item["id"] for item in ordered]


SORTS = [sign + key for key in SORT_KEYS for sign in ("", "-")]
MULTI_SORTS = ["price,-created_at", "-price,created_at", "-bedrooms,price", "status,-square_feet,year_built",
               "-year_built,-price,-bedrooms,city"]  # fmt: skip


@pytest.mark.parametrize("sort", SORTS + MULTI_SORTS)
async def test_sorting_pages_and_cursors_agree(market: Client, sort: str) -> None:
    expected = in_order(await everything(market), sort)
    assert await ids_of(market, sort=sort, page_size=100) == expected
    for size in (1, 4, 29, 30):
        assert await follow(market, size, sort=sort) == expected
        by_page = []
        for number in range(1, -(-30 // size) + 1):
            by_page += await ids_of(market, sort=sort, page=number, page_size=size)
        assert by_page == expected


async def follow(client: Client, size: int, **params: Any) -> list[int]:
    """The ids of a whole list, page after page by cursor."""
    found: list[int] = []
    page = await client.get("/properties", params=params | {"page_size": size})
    while True:
        found += [item["id"] for item in page["items"]]
        assert page["has_more"] == (page["next_cursor"] is not None)
        if not page["has_more"]:
            return found
        page = await client.get("/properties", params=params | {"page_size": size, "cursor": page["next_cursor"]})
        assert (page["page"], page["pages"]) == (None, None)
        assert page["items"]


async def test_a_cursor_goes_on_where_rows_were_added_and_removed(api: Api) -> None:
    admin = await api.register()
    ids = [(await add(admin, price=str(price)))["id"] for price in range(6)]
    page = await admin.get("/properties", params={"sort": "price", "page_size": 3})
    await admin.delete(f"/properties/{ids[2]}")
    await add(admin, price="0.50")
    late = (await add(admin, price="3.50"))["id"]
    rest = await admin.get("/properties", params={"sort": "price", "page_size": 9, "cursor": page["next_cursor"]})
    assert [item["id"] for item in rest["items"]] == [ids[3], late, ids[4], ids[5]]


async def test_a_cursor_belongs_to_its_list(api: Api, market: Client) -> None:
    cursor = (await market.get("/properties", params={"sort": "price", "status": "sold", "page_size": 2}))[
        "next_cursor"
    ]
    same = {"sort": "price", "status": "sold", "cursor": cursor}
    page = await market.get("/properties", params=same | {"page_size": 5, "include_total": "false", "fields": "id"})
    assert len(page["items"]) == 5
    colleague = await api.add_user(market, "Agent")
    assert await colleague.get("/properties", params=same | {"page_size": 5}) != page
    for change in ({"sort": "-price"}, {"sort": "price,city"}, {"status": "rented"}, {"city": "a"}, {"search": "main"},
                   {"updated_since": "2020-01-01"}, {"near": "30,-97"}):  # fmt: skip
        assert await market.fields_refused("GET", "/properties", params=same | change) == {"cursor": "cursor"}
    for left_out in ("sort", "status"):
        params = {name: value for name, value in same.items() if name != left_out}
        assert await market.fields_refused("GET", "/properties", params=params) == {"cursor": "cursor"}
    other = await api.register()
    assert await other.fields_refused("GET", "/properties", params=same) == {"cursor": "cursor"}
    forged = cursor[:-2] + ("AA" if cursor[-2:] != "AA" else "BB")
    assert await market.fields_refused("GET", "/properties", params=same | {"cursor": forged}) == {"cursor": "cursor"}
    refused = await market.fields_refused("GET", "/properties", params=same | {"page": 2})
    assert refused == {"cursor": "conflicting_parameters"}


# --- lists: filters --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "is_wanted"),
    [
        ({"city": "AUSTIN"}, lambda p: "austin" in p["city"].lower()),
        ({"city": "ürIC"}, lambda p: p["city"] == "Zürich"),
        ({"city": "%"}, lambda p: p["city"] == "100%_sure"),
        ({"city": "_"}, lambda p: p["city"] == "100%_sure"),
        ({"city": "\\"}, lambda p: False),
        ({"state": "tex"}, lambda p: p["state"] == "Texas"),
        ({"state": "t"}, lambda p: p["state"] in ("TX", "Texas")),
        ({"zip_code": "78701"}, lambda p: p["zip_code"] == "78701"),
        ({"zip_code": "787"}, lambda p: False),
        ({"property_type": "land"}, lambda p: p["property_type"] == "land"),
        ({"status": "sold"}, lambda p: p["status"] == "sold"),
        ({"min_price": "300.50"}, lambda p: p["price"] and Decimal(p["price"]) >= Decimal("300.50")),
        ({"min_price": "300.51"}, lambda p: p["price"] and Decimal(p["price"]) >= Decimal("300.51")),
        ({"max_price": "300.5"}, lambda p: p["price"] and Decimal(p["price"]) <= Decimal("300.50")),
        ({"min_price": 100, "max_price": 400}, lambda p: p["price"] and 100 <= Decimal(p["price"]) <= 400),
        ({"min_bedrooms": 1}, lambda p: p["bedrooms"] is not None and p["bedrooms"] >= 1),
        ({"max_bedrooms": 0}, lambda p: p["bedrooms"] == 0),
        ({"min_bathrooms": "2.5"}, lambda p: p["bathrooms"] is not None and p["bathrooms"] >= 2.5),
        ({"min_square_feet": 1002}, lambda p: p["square_feet"] is not None and p["square_feet"] >= 1002),
        ({"max_square_feet": 1002}, lambda p: p["square_feet"] is not None and p["square_feet"] <= 1002),
        ({"min_price": 500, "max_price": 100}, lambda p: False),
        ({"status": "sold", "city": "bos", "property_type": "land"},
         lambda p: p["status"] == "sold" and p["city"] == "Boston" and p["property_type"] == "land"),
        ({"updated_since": "2020-01-01"}, lambda p: True),
        ({"updated_since": "2999-01-01T00:00:00+02:00"}, lambda p: False),
        ({"search": ""}, lambda p: True),
        ({"search": "  "}, lambda p: True),
    ],
)  # fmt: skip
async def test_filters(market: Client, params: dict[str, Any], is_wanted: Any) -> None:
    expected = [item["id"] for item in await everything(market) if is_wanted(item)]
    page = await market.get("/properties", params=params | {"page_size": 100})
    assert ([item["id"] for item in page["items"]], page["total"]) == (expected, len(expected))
    assert await follow(market, 2, **params) == expected


async def test_updated_since_includes_the_moment_itself(api: Api) -> None:
    admin = await api.register()
    old, new = await add(admin), await add(admin)
    changed = await admin.patch(f"/properties/{old['id']}", json={"price": 1})
    assert await ids_of(admin, updated_since=changed["updated_at"]) == [old["id"]]
    assert await ids_of(admin, updated_since=new["updated_at"]) == [new["id"], old["id"]]
    # Without an offset a time is UTC.
    assert await ids_of(admin, updated_since=changed["updated_at"].removesuffix("Z")) == [old["id"]]


async def test_only_the_wanted_fields(market: Client) -> None:
    page = await market.get("/properties", params={"fields": "address,id,price", "page_size": 3, "sort": "city"})
    assert [list(item) for item in page["items"]] == [["address", "id", "price"]] * 3
    page = await market.get("/properties", params={"fields": "id,distance_km", "near": "30,-97", "page_size": 1})
    assert set(page["items"][0]) == {"id", "distance_km"}


# --- lists: search ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
async def houses(api: Api) -> tuple[Client, dict[str, int]]:
    """An organisation with houses that are told apart by name."""
    admin = await api.register()
    texts: dict[str, dict[str, Any]] = {
        "lighthouse": {"address": "7 Beacon Road", "description": "An old LIGHTHOUSE by the sea"},
        "percent": {"address": "100% Lane", "description": "snake_case house"},
        "plain": {"address": "1000 Lane", "description": "snakeXcase house"},
        "accent": {"address": "5 Café Straße", "city": "Besançon", "description": "ΟΔΟΣ"},
        "maine": {"address": "3 Oak Ave", "city": "Portland", "state": "Maine", "zip_code": "04101"},
        "backslash": {"address": "C:\\Temp 9", "description": "quote ' and \" and ; --"},
    }
    return admin, {name: (await add(admin, price=None, **fields))["id"] for name, fields in texts.items()}


@pytest.mark.parametrize(
    ("search", "names"),
    [
        ("lighthouse", ["lighthouse"]),
        ("LightHouse", ["lighthouse"]),
        ("sea beacon", ["lighthouse"]),
        ("beacon sea", ["lighthouse"]),
        ("ighthou eac", ["lighthouse"]),
        ("road, austin", ["lighthouse"]),
        ("lighthouse unicorn", []),
        ("100%", ["percent"]),
        ("%", ["percent"]),
        ("%%%", []),
        ("snake_case", ["percent"]),
        ("_", ["percent"]),
        ("___", []),
        ("\\", ["backslash"]),
        ("c:\\temp", ["backslash"]),
        ("';", ["backslash"]),
        (";", ["backslash"]),
        ("road; road,", ["lighthouse"]),
        ("?", []),
        ("--", ["backslash"]),
        ("café", ["accent"]),
        ("CAFÉ", ["accent"]),
        ("BESANÇON", ["accent"]),
        ("οδοσ", ["accent"]),
        ("ΟΔΟΣ", ["accent"]),
        ("me", []),
        ("ma", ["maine"]),
        ("04101", ["maine"]),
        ("oak 04101 port maine", ["maine"]),
        ("ma oak", ["maine"]),
        ("oa", ["lighthouse", "maine"]),
        ("house", ["lighthouse", "percent", "plain"]),
        ("house se", ["lighthouse", "percent", "plain"]),
        ("house sea", ["lighthouse"]),
        ("house house HOUSE", ["lighthouse", "percent", "plain"]),
    ],
)
async def test_search(houses: tuple[Client, dict[str, int]], search: str, names: list[str]) -> None:
    admin, ids = houses
    page = await admin.get("/properties", params={"search": search, "sort": "created_at"})
    assert ([item["id"] for item in page["items"]], page["total"]) == ([ids[name] for name in names], len(names))
    assert await follow(admin, 1, search=search, sort="created_at") == [ids[name] for name in names]


async def test_search_goes_with_filters_and_the_text_that_changes(houses: tuple[Client, dict[str, int]]) -> None:
    admin, ids = houses
    assert await ids_of(admin, search="house", city="aus", sort="-created_at", page_size=2) == [
        ids["plain"], ids["percent"],
    ]  # fmt: skip
    await admin.patch(f"/properties/{ids['maine']}", json={"description": "with a windmill"})
    assert await ids_of(admin, search="windmill") == [ids["maine"]]
    await admin.patch(f"/properties/{ids['maine']}", json={"description": None})
    assert await ids_of(admin, search="windmill") == []


async def test_search_beyond_a_thousand_hits(api: Api) -> None:
    admin = await api.register()
    statement = (
        "insert into properties (organization_id, address, city, state, zip_code, property_type, price)"
        " select $1, n || ' Common Way', 'Gotham', 'NJ', '07001', 'land', n from generate_series(1, $2::int) n"
    )
    for number, total in ((1000, 1000), (1, 1001), (199, 1200)):
        await api.value(statement, admin.organization_id, number)
        page = await admin.get("/properties", params={"search": "way COMM", "sort": "price", "page_size": 100})
        assert page["total"] == total
        prices = [Decimal(item["price"]) for item in page["items"]]
        assert prices == sorted(prices)
    found = await follow(admin, 100, search="common go", sort="-price")
    assert len(found) == len(set(found)) == 1200
    page = await admin.get("/properties", params={"search": "common 987"})
    assert [item["address"] for item in page["items"]] == ["987 Common Way"]


# --- lists: near -----------------------------------------------------------------------------------------------

BERLIN = (52.5200066, 13.404954)


def great_circle_km(a: tuple[float, float], b: tuple[float, float]) -> float:
    """By the formula of Vincenty for a sphere, which is another than the service's."""
    (lat1, lng1), (lat2, lng2) = ((math.radians(degrees) for degrees in point) for point in (a, b))
    turn = lng2 - lng1
    across = math.hypot(
        math.cos(lat2) * math.sin(turn),
        math.cos(lat1) * math.sin(lat2) - math.sin(lat1) * math.cos(lat2) * math.cos(turn),
    )
    along = math.sin(lat1) * math.sin(lat2) + math.cos(lat1) * math.cos(lat2) * math.cos(turn)
    return 6371.0088 * math.atan2(across, along)


async def test_near_sorts_by_distance_and_tells_it(api: Api) -> None:
    admin = await api.register()
    places = {
        "Berlin": BERLIN,
        "Potsdam": (52.3905689, 13.0644729),
        "Hamburg": (53.5510846, 9.9936818),
        "München": (48.1371079, 11.5753822),
        "Sydney": (-33.8688, 151.2093),
    }
    for city, (latitude, longitude) in reversed(places.items()):
        await add(admin, city=city, latitude=latitude, longitude=longitude)
    await add(admin, city="Nowhere")
    await add(admin, city="Half", latitude=52.5)

    def params(**more: Any) -> dict[str, Any]:
        return {"near": f"{BERLIN[0]},{BERLIN[1]}"} | more

    page = await admin.get("/properties", params=params(radius_km=600))
    assert [item["city"] for item in page["items"]] == ["Berlin", "Potsdam", "Hamburg", "München"]
    assert [item["distance_km"] for item in page["items"]] == [
        round(great_circle_km(BERLIN, places[city]), 2) for city in ("Berlin", "Potsdam", "Hamburg", "München")
    ]
    assert page["total"] == 4
    assert [item["city"] for item in (await admin.get("/properties", params=params()))["items"]] == ["Berlin"]
    page = await admin.get("/properties", params=params(radius_km="27.2", sort="-distance"))
    assert [item["city"] for item in page["items"]] == ["Potsdam", "Berlin"]
    assert len(await ids_of(admin, **params(radius_km=20040))) == 5
    assert await follow(admin, 1, **params(radius_km=20040)) == await ids_of(admin, **params(radius_km=20040))
    page = await admin.get("/properties", params=params(radius_km=600, sort="city", search="am", fields="city"))
    assert page["items"] == [{"city": "Hamburg"}, {"city": "Potsdam"}]


async def test_near_reaches_over_the_date_line_and_the_pole(api: Api) -> None:
    admin = await api.register()
    west = (await add(admin, latitude=-17, longitude=179.9))["id"]
    east = (await add(admin, latitude=-17, longitude=-179.9))["id"]
    pole = (await add(admin, latitude=90, longitude=0))["id"]
    beyond = (await add(admin, latitude=89.9, longitude=180))["id"]
    assert await ids_of(admin, near="-17,179.95", radius_km=50) == [west, east]
    assert await ids_of(admin, near="90,123", radius_km=12) == [pole, beyond]


# --- valuations, notes, activities -----------------------------------------------------------------------------


async def test_valuations_newest_first(api: Api) -> None:
    admin = await api.register()
    path = f"/properties/{(await add(admin))['id']}/valuations"
    bodies = [
        {"value": "500000.10", "valuation_date": "2024-03-01", "source": "bank", "notes": "line 1\nline 2"},
        {"value": 499999, "valuation_date": "2024-01-01"},
        {"value": 0, "valuation_date": "2024-03-01"},
    ]
    first, second, third = [await admin.post(path, json=body) for body in bodies]
    assert set(first) == {
        "id", "property_id", "value", "valuation_date", "source", "notes", "created_by", "created_at",
    }  # fmt: skip
    assert (first["value"], first["valuation_date"], first["source"]) == ("500000.10", "2024-03-01", "bank")
    assert (second["value"], second["source"], second["notes"]) == ("499999.00", None, None)
    assert first["created_by"] == admin.user_id
    assert await admin.get(path) == [third, first, second]


@pytest.mark.parametrize(
    ("sent", "zone", "day"),
    [
        ("2024-03-01", "America/New_York", "2024-03-01"),
        ("2024-03-01T00:00:00Z", "America/New_York", "2024-03-01"),
        ("2024-03-01T00:00:00+14:00", "America/New_York", "2024-03-01"),
        ("2024-03-01T03:00:00Z", "America/New_York", "2024-02-29"),
        ("2024-03-01T05:00:00Z", "America/New_York", "2024-03-01"),
        ("2024-03-01T20:00:00", "Asia/Tokyo", "2024-03-02"),
        ("2024-03-01T20:00:00", "UTC", "2024-03-01"),
        ("2024-07-01T23:30:00-05:00", "Europe/Berlin", "2024-07-02"),
    ],
)
async def test_a_date_field_takes_a_time(api: Api, sent: str, zone: str, day: str) -> None:
    admin = await api.register()
    await api.value(
        "update organizations set settings = settings || jsonb_build_object('timezone', $2::text) where id = $1",
        admin.organization_id,
        zone,
    )
    path = f"/properties/{(await add(admin))['id']}/valuations"
    assert (await admin.post(path, json={"value": 1, "valuation_date": sent}))["valuation_date"] == day


@pytest.mark.parametrize(
    "sent",
    ["2024-02-30", "0000-01-01", "10000-01-01", "2024-1-1", "today", "", 20240101, None, True, "2024-01-01T25:00Z"],
)
async def test_dates_that_are_none_are_refused(api: Api, sent: Any) -> None:
    admin = await api.register()
    path = f"/properties/{(await add(admin))['id']}/valuations"
    refused = await admin.fields_refused("POST", path, json={"value": 1, "valuation_date": sent})
    assert set(refused) == {"valuation_date"}


async def test_notes(api: Api) -> None:
    admin = await api.register()
    path = f"/properties/{(await add(admin))['id']}/notes"
    notes = [await admin.post(path, json={"content": f"Note {number}\n\tä"}) for number in range(3)]
    assert set(notes[0]) == {"id", "property_id", "content", "created_by", "created_at"}
    assert await admin.get(path) == notes[::-1]
    for body, code in (
        ({}, "missing"),
        ({"content": " "}, "string_too_short"),
        ({"content": "x" * 20001}, "string_too_long"),
    ):
        assert await admin.fields_refused("POST", path, json=body) == {"content": code}


async def test_activities(api: Api) -> None:
    admin = await api.register()
    path = f"/properties/{(await add(admin))['id']}/activities"
    body = {"activity_type": "showing", "description": "Two people came", "metadata": {"people": 2}}
    first = await admin.post(path, json=body)
    second = await admin.post(path, json={"activity_type": "call", "description": "x"})
    assert {name: first[name] for name in body} == body
    assert second["metadata"] == {}
    assert await admin.get(path) == [second, first]
    refused = await admin.fields_refused("POST", path, json={"activity_type": "x" * 51, "metadata": None})
    assert set(refused) == {"activity_type", "description", "metadata"}


@pytest.mark.parametrize("kind", ["valuations", "notes", "activities", "images"])
async def test_sub_lists_are_arrays_with_their_count_in_a_header(api: Api, kind: str) -> None:
    admin = await api.register()
    path = f"/properties/{(await add(admin))['id']}/{kind}"
    bodies: dict[str, dict[str, Any]] = {
        "valuations": {"value": 1, "valuation_date": "2024-01-01"},
        "notes": {"content": "x"},
        "activities": {"activity_type": "call", "description": "x"},
        "images": {"url": "https://example.com/x.png"},
    }
    empty = await admin.request("GET", path)
    assert (empty.json(), empty.headers["X-Total-Count"]) == ([], "0")
    location = ""
    for _ in range(5):
        response = await admin.request("POST", path, json=bodies[kind])
        location = response.headers["Location"]
        assert location == f"/api/v1{path}/{response.json()['id']}"
    whole = await admin.get(path)
    assert len(whole) == 5
    for page, expected in ((1, whole[:2]), (2, whole[2:4]), (3, whole[4:]), (4, []), (10**12, [])):
        response = await admin.request("GET", path, params={"page": page, "page_size": 2})
        assert (response.json(), response.headers["X-Total-Count"]) == (expected, "5")
    for params, field in (({"page": 0}, "page"), ({"page_size": 101}, "page_size"), ({"skip": 1}, "skip")):
        assert set(await admin.fields_refused("GET", path, params=params)) == {field}
    other = await api.register()
    await other.error("GET", path, status=404)
    await other.error("POST", path, status=404, json=bodies[kind])
    singular = {"activities": "activity"}.get(kind, kind.removesuffix("s"))
    audits = [row for row in await api.audits(admin) if row["resource_type"] == f"property_{singular}"]
    assert [row["action"] for row in audits] == ["create"] * 5


# --- free objects ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "metadata",
    [
        "{}",
        '{"a": 9007199254740992, "b": -9223372036854775808, "c": 18446744073709551616}',
        '{"a": 0.1, "b": 1e300, "c": -5, "d": 1.0}',
        '{"a": {"b": [[], {}, null, "", "\\ud83d\\ude00", "\\n"]}}',
        '{"z": 1, "a": 2, "long name with spaces": 3}',
    ],
)
async def test_metadata_comes_back_as_it_was_sent(api: Api, metadata: str) -> None:
    admin = await api.register()
    body = json.dumps(LISTING | {"metadata": "here"}).replace('"here"', metadata)
    created = await admin.post("/properties", content=body, headers={"Content-Type": "application/json"})
    assert created["metadata"] == json.loads(metadata)
    assert (await admin.get(f"/properties/{created['id']}"))["metadata"] == json.loads(metadata)


@pytest.mark.parametrize(
    "metadata",
    [
        '{"a": 9007199254740993}',
        '{"a": 9223372036854775807}',
        '{"a": 0.1000000000000000000001}',
        '{"a": 123456789012345678901234567890.5}',
        '{"a": NaN}',
        '{"a": 1e999}',
        '{"a": "\\u0000"}',
        '{"a": "\\ud800"}',
        '{"\\u0000": 1}',
        '{"a": ' + "[" * 40 + "]" * 40 + "}",
        "null",
        '"text"',
    ],
)
async def test_metadata_that_would_change_is_refused(api: Api, metadata: str) -> None:
    admin = await api.register()
    body = json.dumps(LISTING | {"metadata": "here"}).replace('"here"', metadata)
    refused = await admin.fields_refused(
        "POST", "/properties", content=body, headers={"Content-Type": "application/json"}
    )
    assert set(refused) == {"metadata"}
