"""The transactions of deals through HTTP."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from api import Api, Client
from crm import add_deal, audited, happened, newest_event

pytestmark = pytest.mark.integration

FULL: dict[str, Any] = {
    "transaction_type": "commission",
    "amount": "13500.00",
    "description": "First half.\nThe rest at closing.",
    "transaction_date": "2027-04-30",
    "metadata": {"invoice": "R-7"},
}


async def book(client: Client, deal: dict[str, Any], **fields: Any) -> dict[str, Any]:
    created: dict[str, Any] = await client.post(f"/deals/{deal['id']}/transactions", json=FULL | fields)
    return created


async def test_a_transaction_comes_back_as_it_was_sent(api: Api) -> None:
    admin = await api.register()
    deal = await add_deal(admin)
    response = await admin.request("POST", f"/deals/{deal['id']}/transactions", json=FULL | {"deal_id": deal["id"]})
    booked = response.json()
    assert response.status_code == 201, booked
    assert response.headers["Location"] == f"/api/v1/deals/{deal['id']}/transactions/{booked['id']}"
    assert set(booked) == set(FULL) | {"id", "deal_id", "created_by", "created_at", "updated_at"}
    assert {name: booked[name] for name in FULL} == FULL
    assert (booked["deal_id"], booked["created_by"]) == (deal["id"], admin.user_id)
    page = await admin.get(f"/deals/{deal['id']}/transactions")
    assert (page["items"], page["total"], page["page"], page["pages"]) == ([booked], 1, 1, 1)


async def test_what_is_left_out_has_its_default(api: Api) -> None:
    admin = await api.register()
    deal = await add_deal(admin)
    body = {name: FULL[name] for name in ("transaction_type", "amount", "transaction_date")}
    booked = await admin.post(f"/deals/{deal['id']}/transactions", json=body)
    assert (booked["description"], booked["metadata"]) == (None, {})
    for name in body:
        less = {field: value for field, value in body.items() if field != name}
        assert await admin.fields_refused("POST", f"/deals/{deal['id']}/transactions", json=less) == {name: "missing"}


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("transaction_type", "gift", "enum"),
        ("transaction_type", None, "enum"),
        ("amount", "0.001", "decimal_max_places"),
        ("amount", "-10000000000", "decimal_whole_digits"),
        ("amount", "NaN", "decimal_parsing"),
        ("amount", True, "decimal_type"),
        ("amount", None, "decimal_type"),
        ("transaction_date", "yesterday", "datetime_parsing"),
        ("transaction_date", None, "datetime_type"),
        ("description", "a\u0001", "control_character"),
        ("metadata", "x", "dict_type"),
        ("deal_id", "x", "foreign_key"),
        ("id", 1, "extra_forbidden"),
    ],
)
async def test_what_does_not_fit_is_refused(api: Api, field: str, value: Any, code: str) -> None:
    admin = await api.register()
    deal = await add_deal(admin)
    booked = await book(admin, deal)
    path = f"/deals/{deal['id']}/transactions"
    assert await admin.fields_refused("POST", path, json=FULL | {field: value}) == {field: code}
    assert await admin.fields_refused("PUT", f"{path}/{booked['id']}", json={field: value}) == {field: code}
    assert (await admin.get(path))["items"] == [booked]


async def test_another_deal_in_the_body_is_refused(api: Api) -> None:
    admin, stranger = await api.register(), await api.register()
    deal, other, foreign = await add_deal(admin), await add_deal(admin), await add_deal(stranger)
    booked = await book(admin, deal)
    path = f"/deals/{deal['id']}/transactions"
    for deal_id in (other["id"], foreign["id"], 2**62):
        for method, where in (("POST", path), ("PUT", f"{path}/{booked['id']}"), ("PATCH", f"{path}/{booked['id']}")):
            assert await admin.fields_refused(method, where, json=FULL | {"deal_id": deal_id}) == {
                "deal_id": "other_deal"
            }
    assert await admin.put(f"{path}/{booked['id']}", json={"deal_id": deal["id"]}) == booked


async def test_amounts_may_be_negative_and_dates_are_the_organisations(api: Api) -> None:
    admin = await api.register()
    await admin.put("/organization", json={"settings": {"timezone": "America/New_York"}})
    deal = await add_deal(admin)
    booked = await book(admin, deal, amount=-0.01, transaction_date="2027-05-01T03:30:00Z")
    assert (booked["amount"], booked["transaction_date"]) == ("-0.01", "2027-04-30")
    changed = await admin.patch(
        f"/deals/{deal['id']}/transactions/{booked['id']}", json={"transaction_date": "2027-05-01T04:30:00Z"}
    )
    assert changed["transaction_date"] == "2027-05-01"


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_a_change_changes_what_is_sent_and_is_audited(api: Api, method: str) -> None:
    admin = await api.register()
    deal = await add_deal(admin)
    booked = await book(admin, deal)
    path = f"/deals/{deal['id']}/transactions/{booked['id']}"
    before = await newest_event(api, admin)
    changed = await admin.call(method, path, status=200, json={"amount": "1.50", "description": None})
    assert changed | {"updated_at": ""} == booked | {"amount": "1.50", "description": None, "updated_at": ""}
    assert changed["updated_at"] > booked["updated_at"]
    assert await admin.call(method, path, status=200, json={"amount": 1.5}) == changed
    await admin.delete(path)
    for again, body in (("DELETE", None), (method, {"amount": 1})):
        await admin.error(again, path, status=404, json=body)
    assert (await admin.get(f"/deals/{deal['id']}/transactions"))["items"] == []
    rows = await audited(api, admin, "transaction")
    assert [row[0] for row in rows] == ["create", "update", "delete"]
    assert rows[1][3] == {"amount": ["13500.00", "1.50"], "description": [FULL["description"], None]}
    assert rows[2][3]["amount"] == ["1.50", None]
    assert await happened(api, admin, after=before) == []


async def test_a_closed_deal_takes_transactions(api: Api) -> None:
    admin = await api.register()
    deal = await add_deal(admin, stage="closed_won")
    booked = await book(admin, deal)
    await admin.patch(f"/deals/{deal['id']}/transactions/{booked['id']}", json={"amount": 1})
    await admin.delete(f"/deals/{deal['id']}/transactions/{booked['id']}")


async def test_a_transaction_belongs_to_its_deal_alone(api: Api) -> None:
    admin, stranger = await api.register(), await api.register()
    deal, other, foreign = await add_deal(admin), await add_deal(admin), await add_deal(stranger)
    booked, theirs = await book(admin, other), await book(stranger, foreign)
    for number in (booked["id"], theirs["id"], 2**62):
        path = f"/deals/{deal['id']}/transactions/{number}"
        await admin.error("PUT", path, status=404, json={"amount": 1})
        await admin.error("DELETE", path, status=404)
    for path in (f"/deals/{foreign['id']}/transactions", f"/deals/{foreign['id']}/transactions/{theirs['id']}"):
        method = "PUT" if path.endswith(str(theirs["id"])) else "POST"
        await admin.error(method, path, status=404, json=FULL)
    assert (await stranger.get(f"/deals/{foreign['id']}/transactions"))["items"] == [theirs]


async def test_the_list_is_newest_first_and_pages(api: Api) -> None:
    admin = await api.register()
    deal, other = await add_deal(admin), await add_deal(admin)
    days = ["2027-01-02", "2026-12-31", "2027-01-02", "2027-03-01", "2026-12-31", "2027-01-01"]
    amounts = ["5.00", "-1.00", "0.00", "100.00", "99.99", "5.00"]
    booked = [
        await book(admin, deal, transaction_date=day, amount=amount, transaction_type=("sale", "expense")[n % 2])
        for n, (day, amount) in enumerate(zip(days, amounts, strict=True))
    ]
    await book(admin, other)
    path = f"/deals/{deal['id']}/transactions"

    async def ids(**params: Any) -> list[int]:
        found, params = [], params | {"page_size": 2}
        while True:
            page = await admin.get(path, params=params)
            found += [item["id"] for item in page["items"]]
            if page["next_cursor"] is None:
                return found
            params["cursor"] = page["next_cursor"]

    def ordered(key: Any, *, reverse: bool) -> list[int]:
        return [item["id"] for item in sorted(booked, key=lambda item: (key(item), item["id"]), reverse=reverse)]

    assert await ids() == ordered(lambda item: item["transaction_date"], reverse=True)
    for sign, reverse in (("", False), ("-", True)):
        assert await ids(sort=f"{sign}transaction_date") == ordered(lambda i: i["transaction_date"], reverse=reverse)
        assert await ids(sort=f"{sign}created_at") == ordered(lambda i: i["created_at"], reverse=reverse)
        assert await ids(sort=f"{sign}amount") == ordered(lambda i: Decimal(i["amount"]), reverse=reverse)
    sales = [item["id"] for item in booked if item["transaction_type"] == "sale"]
    assert sorted(await ids(transaction_type="sale")) == sales
    assert await ids(updated_since=booked[4]["updated_at"], sort="created_at") == [item["id"] for item in booked[4:]]
    page = await admin.get(path, params={"fields": "id", "page": 3, "page_size": 4})
    assert (page["items"], page["total"]) == ([], 6)
    # The cursor of one deal is none of another's.
    cursor = (await admin.get(path, params={"page_size": 1}))["next_cursor"]
    refused = await admin.fields_refused("GET", f"/deals/{other['id']}/transactions", params={"cursor": cursor})
    assert refused == {"cursor": "cursor"}


async def test_there_is_no_tag_to_match(api: Api) -> None:
    admin = await api.register()
    deal = await add_deal(admin)
    booked = await book(admin, deal)
    path = f"/deals/{deal['id']}/transactions/{booked['id']}"
    answer = await admin.request("PUT", path, json={"amount": 1})
    assert "ETag" not in answer.headers
    await admin.error("PUT", path, status=412, json={"amount": 2}, headers={"If-Match": '"x"'})
    assert (await admin.put(path, json={"amount": 3}, headers={"If-Match": "*"}))["amount"] == "3.00"
