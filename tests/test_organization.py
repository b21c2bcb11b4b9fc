"""The organisation through HTTP."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from api import Api

from reos.schemas.organizations import CURRENCIES

pytestmark = pytest.mark.integration


async def test_the_organisation_is_read_and_changed_in_part(api: Api) -> None:
    admin = await api.register()
    before = await admin.get("/organization")
    assert before["id"] == admin.organization_id
    assert before["settings"] == {}
    slug = f"lee-{uuid4().hex}"
    changed = await admin.put("/organization", json={"name": " Lee & Söhne ", "slug": slug})
    expected = before | {"name": "Lee & Söhne", "slug": slug, "updated_at": changed["updated_at"]}
    assert changed == expected
    assert await admin.get("/organization") == expected
    assert await admin.patch("/organization", json={"slug": slug}) == expected
    assert (await admin.get("/auth/me"))["organization"]["slug"] == slug


async def test_settings_change_one_by_one(api: Api) -> None:
    admin = await api.register()
    steps: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"timezone": "America/New_York"}, {"timezone": "America/New_York"}),
        ({"currency": "EUR"}, {"timezone": "America/New_York", "currency": "EUR"}),
        ({"timezone": None, "logo": {"x": [1.5, None]}}, {"currency": "EUR", "logo": {"x": [1.5, None]}}),
        ({}, {"currency": "EUR", "logo": {"x": [1.5, None]}}),
        ({"currency": None, "logo": None}, {}),
    ]
    for sent, expected in steps:
        assert (await admin.put("/organization", json={"settings": sent}))["settings"] == expected
        assert (await admin.get("/organization"))["settings"] == expected


async def test_the_time_zone_decides_what_day_it_is(api: Api) -> None:
    admin = await api.register()
    listing = {"address": "1 Main St", "city": "Austin", "state": "TX", "zip_code": "1", "property_type": "condo"}
    path = f"/properties/{(await admin.post('/properties', json=listing))['id']}/valuations"
    body = {"value": "1.00", "valuation_date": "2024-03-01T02:00:00Z"}
    assert (await admin.post(path, json=body))["valuation_date"] == "2024-03-01"
    await admin.put("/organization", json={"settings": {"timezone": "America/New_York"}})
    assert (await admin.post(path, json=body))["valuation_date"] == "2024-02-29"


@pytest.mark.parametrize(
    "zone", ["Nowhere/City", "EST5EDT4", "localtime", "Factory", "europe/berlin", "+02:00", "", 1, []]
)
async def test_what_is_no_time_zone_is_refused(api: Api, zone: Any) -> None:
    admin = await api.register()
    body = {"settings": {"timezone": zone}}
    assert await admin.fields_refused("PUT", "/organization", json=body) == {"settings.timezone": "time_zone"}


async def test_every_accepted_time_zone_is_one_to_the_database(api: Api) -> None:
    admin = await api.register()
    for zone in ("UTC", "Asia/Tokyo", "America/Argentina/Buenos_Aires", "Asia/Kathmandu", "Pacific/Apia"):
        await admin.put("/organization", json={"settings": {"timezone": zone}})
    # A zone that Python alone knows would break every report.
    async with api.database.acquire() as conn:
        assert await conn.fetchval("select knows_time_zone('Mars/Olympus')") is False


@pytest.mark.parametrize("currency", ["EURO", "eur", "XXX", "", 1, {}])
async def test_what_is_no_currency_is_refused(api: Api, currency: Any) -> None:
    admin = await api.register()
    body = {"settings": {"currency": currency}}
    assert await admin.fields_refused("PUT", "/organization", json=body) == {"settings.currency": "currency"}


@pytest.mark.unit
def test_currencies_are_codes() -> None:
    assert all(len(code) == 3 and code.isupper() for code in CURRENCIES)
    assert {"USD", "EUR", "JPY", "CHF", "MXN"} <= CURRENCIES
    assert len(CURRENCIES) > 150


async def test_wrong_fields_are_refused(api: Api) -> None:
    admin = await api.register()
    before = await admin.get("/organization")
    for slug in ("Upper", "two--hyphens", "-first", "last-", "under_score", "ä", "x" * 101, "", None):
        assert set(await admin.fields_refused("PUT", "/organization", json={"slug": slug})) == {"slug"}
    refused = {"name": "", "settings": None, "is_active": False, "id": 1}
    assert set(await admin.fields_refused("PUT", "/organization", json=refused)) == set(refused)
    assert await admin.get("/organization") == before


async def test_a_slug_is_one_organisations(api: Api) -> None:
    admin, other = await api.register(), await api.register()
    taken = (await other.get("/organization"))["slug"]
    error = await admin.error("PUT", "/organization", json={"slug": taken}, status=409)
    assert error["type"] == "ResourceAlreadyExistsError"
    wanted = f"new-{uuid4().hex}"
    answers = await asyncio.gather(
        *(client.request("PUT", "/organization", json={"slug": wanted}) for client in (admin, other))
    )
    assert sorted(answer.status_code for answer in answers) == [200, 409]


async def test_only_who_may_changes_it(api: Api) -> None:
    admin = await api.register()
    manager, agent = await api.add_user(admin, "Manager"), await api.add_user(admin, "Agent")
    for client in (manager, agent):
        assert (await client.get("/organization"))["id"] == admin.organization_id
        error = await client.error("PUT", "/organization", json={"name": "x"}, status=403)
        assert error["details"]["required_permission"] == "organization:update"
    await (await api.add_user(admin)).get("/organization", status=403)


async def test_of_two_writers_with_one_tag_one_wins(api: Api) -> None:
    admin = await api.register()
    headers = {"If-Match": (await admin.request("GET", "/organization")).headers["ETag"]}
    bodies: list[dict[str, Any]] = [{"name": "A"}, {"settings": {"currency": "EUR"}}]
    answers = await asyncio.gather(
        *(admin.request("PUT", "/organization", json=body, headers=headers) for body in bodies)
    )
    assert sorted(answer.status_code for answer in answers) == [200, 412]


async def test_changes_are_audited(api: Api) -> None:
    admin = await api.register()
    before = await admin.get("/organization")
    await admin.put("/organization", json={"name": "Lee", "settings": {"currency": "EUR"}})
    await admin.put("/organization", json={"name": "Lee"})
    logs = (await admin.get("/audit-logs?resource_type=organization"))["items"]
    assert [(log["action"], log["resource_id"], log["changes"]) for log in logs] == [
        ("update", admin.organization_id, {"name": [before["name"], "Lee"], "settings": [{}, {"currency": "EUR"}]})
    ]
