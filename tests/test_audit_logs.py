"""The audit log through HTTP."""

from __future__ import annotations

from typing import Any

import pytest
from api import Api, Client

from reos.schemas.audit_logs import AuditLog

pytestmark = pytest.mark.integration

LISTING = {"address": "1 Main St", "city": "Austin", "state": "TX", "zip_code": "78701", "property_type": "condo"}


async def listed(client: Client, query: str = "") -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await client.get(f"/audit-logs?sort=created_at&page_size=100&{query}"))["items"]
    return items


async def test_a_row_says_who_did_what_from_where(api: Api) -> None:
    admin = await api.register()
    headers = {"X-Request-ID": "my-request-7", "User-Agent": "a browser"}
    listing = await admin.post("/properties", json=LISTING, headers=headers)
    await admin.put(f"/properties/{listing['id']}", json={"price": "12.5"})
    created, updated = await listed(admin)
    assert set(created) == set(AuditLog.model_fields)
    assert created["action"] == "create"
    assert (created["resource_type"], created["resource_id"]) == ("property", listing["id"])
    assert created["user_id"] == admin.user_id
    assert (created["request_id"], created["user_agent"]) == ("my-request-7", "a browser")
    assert created["ip_address"] == "127.0.0.1"
    assert created["changes"]["address"] == [None, "1 Main St"]
    assert updated["changes"] == {"price": [None, "12.50"]}
    assert updated["created_at"] > created["created_at"]


async def test_every_filter_filters(api: Api) -> None:
    admin = await api.register()
    manager = await api.add_user(admin, "Manager")
    first = await admin.post("/properties", json=LISTING)
    second = await manager.post("/properties", json=LISTING)
    await manager.post(f"/properties/{first['id']}/notes", json={"content": "x"})
    await manager.delete(f"/properties/{second['id']}")
    await manager.put("/organization", json={"name": "x"}, status=403)
    whole = await listed(admin)
    assert [(row["action"], row["resource_type"], row["user_id"]) for row in whole] == [
        ("create", "property", admin.user_id),
        ("create", "property", manager.user_id),
        ("create", "property_note", manager.user_id),
        ("delete", "property", manager.user_id),
        ("denied", "organization", manager.user_id),
    ]
    times = [row["created_at"] for row in whole]
    for query, expected in (
        (f"user_id={admin.user_id}", [0]),
        (f"user_id={manager.user_id}", [1, 2, 3, 4]),
        (f"user_id={2**62}", []),
        ("action=create", [0, 1, 2]),
        ("action=denied", [4]),
        ("action=rotate", []),
        ("resource_type=property", [0, 1, 3]),
        ("resource_type=propert", []),
        (f"resource_id={second['id']}&resource_type=property", [1, 3]),
        (f"resource_type=property&action=create&user_id={manager.user_id}", [1]),
        (f"since={times[2]}", [2, 3, 4]),
        (f"until={times[2]}", [0, 1, 2]),
        (f"since={times[1]}&until={times[3]}", [1, 2, 3]),
        (f"updated_since={times[3]}", [3, 4]),
        ("since=2999-01-01", []),
    ):
        assert await listed(admin, query) == [whole[n] for n in expected], query
        assert (await admin.get(f"/audit-logs?{query}"))["items"] == [whole[n] for n in reversed(expected)], query
    denied = whole[4]
    assert denied["changes"] == {"permission": [None, "organization:update"]}


async def test_bad_parameters_are_refused(api: Api) -> None:
    admin = await api.register()
    for query, field in (
        ("action=drop", "action"),
        ("since=yesterday", "since"),
        ("until=2024-13-01", "until"),
        ("user_id=0", "user_id"),
        ("resource_id=x", "resource_id"),
        (f"resource_type={'x' * 51}", "resource_type"),
        ("sort=action", "sort"),
        ("fields=id,secret", "fields"),
        ("search=x", "search"),
    ):
        assert set(await admin.fields_refused("GET", f"/audit-logs?{query}")) == {field}


async def test_pages_by_cursor_miss_nothing(api: Api) -> None:
    admin = await api.register()
    for _ in range(7):
        await admin.post("/properties", json=LISTING)
    # Rows of one moment are told apart by their ids.
    await api.value("update audit_logs set created_at = now() where organization_id = $1", admin.organization_id)
    for sort in ("created_at", "-created_at"):
        whole = [row["id"] for row in (await admin.get(f"/audit-logs?sort={sort}"))["items"]]
        assert whole == sorted(whole, reverse=sort.startswith("-"))
        found: list[int] = []
        page = await admin.get(f"/audit-logs?sort={sort}&page_size=3&action=create")
        assert (page["total"], page["pages"]) == (7, 3)
        while True:
            found += [row["id"] for row in page["items"]]
            if page["next_cursor"] is None:
                break
            query = f"sort={sort}&page_size=3&action=create&cursor={page['next_cursor']}"
            page = await admin.get(f"/audit-logs?{query}")
        assert found == whole
        assert (await admin.get(f"/audit-logs?sort={sort}&fields=id&page_size=1"))["items"] == [{"id": whole[0]}]


async def test_it_is_for_who_may_read_it_and_of_the_organisation_alone(api: Api) -> None:
    admin, other = await api.register(), await api.register()
    await other.post("/properties", json=LISTING)
    assert await listed(admin) == []
    assert await listed(admin, f"user_id={other.user_id}") == []
    agent, manager = await api.add_user(admin, "Agent"), await api.add_user(admin, "Manager")
    error = await agent.error("GET", "/audit-logs", status=403)
    assert error["details"]["required_permission"] == "audit:read"
    assert [row["action"] for row in await listed(manager)] == ["denied"]
    # Reading is not audited.
    await listed(manager)
    assert len(await listed(admin)) == 1
    for method in ("POST", "PUT", "DELETE"):
        assert (await admin.request(method, "/audit-logs", json={})).status_code == 405
