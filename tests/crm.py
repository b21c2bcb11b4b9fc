"""What tests of deals, transactions and portfolios share: properties, leads and deals to begin with."""

from __future__ import annotations

import json
from typing import Any

from api import Api, Client

HOUSE: dict[str, Any] = {
    "address": "12 Oak Street",
    "city": "Austin",
    "state": "TX",
    "zip_code": "78701",
    "property_type": "condo",
    "price": "500000.00",
}
PERSON: dict[str, Any] = {"first_name": "Grace", "last_name": "Hopper", "source": "website"}


async def add_property(client: Client, **fields: Any) -> dict[str, Any]:
    created: dict[str, Any] = await client.post("/properties", json=HOUSE | fields)
    return created


async def add_lead(client: Client, **fields: Any) -> dict[str, Any]:
    created: dict[str, Any] = await client.post("/leads", json=PERSON | fields)
    return created


async def add_deal(client: Client, property_id: int | None = None, **fields: Any) -> dict[str, Any]:
    """A deal on the property, or on a new one."""
    if property_id is None:
        property_id = (await add_property(client))["id"]
    body = {"property_id": property_id, "deal_type": "sell", "value": "450000.00"} | fields
    created: dict[str, Any] = await client.post("/deals", json=body)
    return created


async def move(client: Client, deal: dict[str, Any], stage: str, **fields: Any) -> dict[str, Any]:
    """The deal in another stage."""
    changed: dict[str, Any] = await client.patch(f"/deals/{deal['id']}", json={"stage": stage} | fields)
    return changed


async def status_of(client: Client, property_id: int) -> str:
    return str((await client.get(f"/properties/{property_id}"))["status"])


async def happened(api: Api, client: Client, *, after: int = 0) -> list[tuple[str, Any]]:
    """Types and data of the organisation's events with a higher number, in order."""
    return [(row["type"], json.loads(row["data"])) for row in await api.events(client) if row["id"] > after]


async def newest_event(api: Api, client: Client) -> int:
    return max((row["id"] for row in await api.events(client)), default=0)


async def audited(api: Api, client: Client, *resource_types: str) -> list[tuple[str, str, int, dict[str, Any]]]:
    """The organisation's audit rows of these resources: action, resource, id, changes."""
    return [
        (row["action"], row["resource_type"], row["resource_id"], json.loads(row["changes"]))
        for row in await api.audits(client)
        if row["resource_type"] in resource_types
    ]
