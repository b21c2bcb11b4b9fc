"""Deals through HTTP: fields, filters, stages and what these do to the property."""

from __future__ import annotations

from typing import Any

from api import Api, Client

HOUSE = {"address": "12 Oak Street", "city": "Austin", "state": "TX", "zip_code": "78701", "property_type": "condo",
    "price": "500000.00"}  # fmt: skip


async def add_property(client: Client, **fields: Any) -> dict[str, Any]:
    created: dict[str, Any] = await client.post("/properties", json=HOUSE | fields)
    return created


async def add_deal(client: Client, property_id: int | None = None, **fields: Any) -> dict[str, Any]:
    if property_id is None:
        property_id = (await add_property(client))["id"]
    body = {"property_id": property_id, "deal_type": "sell", "value": "450000.00"} | fields
    created: dict[str, Any] = await client.post("/deals", json=body)
    return created


async def test_a_deal_is_created_with_defaults(api: Api) -> None:
    admin = await api.register()
    house = await add_property(admin)
    response = await admin.request(
        "POST", "/deals", json={"property_id": house["id"], "deal_type": "buy", "value": 450000}
    )
    created = response.json()
    assert response.status_code == 201, created
    assert response.headers["location"] == f"/api/v1/deals/{created['id']}"
    assert created | {"id": 0, "created_at": "", "updated_at": ""} == {
        "id": 0,
        "organization_id": admin.organization_id,
        "property_id": house["id"],
        "lead_id": None,
        "deal_type": "buy",
        "stage": "lead",
        "value": "450000.00",
        "commission_rate": None,
        "probability": 50,
        "expected_close_date": None,
        "assigned_to": None,
        "notes": None,
        "metadata": {},
        "created_by": admin.user_id,
        "closed_at": None,
        "created_at": "",
        "updated_at": "",
        "deleted_at": None,
    }
    read = await admin.request("GET", f"/deals/{created['id']}")
    assert read.json() == created
    assert read.headers["etag"] == response.headers["etag"]
