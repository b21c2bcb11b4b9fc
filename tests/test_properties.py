"""Properties through HTTP."""

from __future__ import annotations

from api import Api

LISTING = {
    "address": "1 Main St", "city": "Austin", "state": "TX", "zip_code": "78701", "property_type": "condo",
    "price": "750000.00",
}  # fmt: skip


async def test_a_property_is_created_and_read(api: Api) -> None:
    admin = await api.register()
    created = await admin.post("/properties", json=LISTING)
    assert created["price"] == "750000.00"
    assert await admin.get(f"/properties/{created['id']}") == created
