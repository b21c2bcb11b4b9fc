"""Roles and permissions through HTTP."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from api import Api, Client
from event_streams import until

pytestmark = pytest.mark.integration

RESOURCES = ("property", "lead", "campaign", "deal", "portfolio", "user", "role", "team", "webhook")
OTHERS = {
    "lead:assign", "campaign:send", "organization:read", "organization:update", "analytics:read", "audit:read",
    "report:export", "job:read", "job:update",
}  # fmt: skip
ALL = {f"{name}:{action}" for name in RESOURCES for action in ("create", "read", "update", "delete")} | OTHERS


async def permission_ids(client: Client) -> dict[str, int]:
    return {item["name"]: item["id"] for item in await client.get("/permissions?page_size=100")}


async def add_role(admin: Client, *permissions: str, **fields: Any) -> dict[str, Any]:
    ids = await permission_ids(admin)
    body = {"name": uuid4().hex, "permission_ids": [ids[name] for name in permissions]} | fields
    role: dict[str, Any] = await admin.post("/roles", json=body)
    return role


def names(role: dict[str, Any]) -> set[str]:
    return {permission["name"] for permission in role["permissions"]}


async def give(admin: Client, user: Client, *role_ids: int) -> None:
    await admin.put(f"/users/{user.user_id}", json={"role_ids": list(role_ids)})


# --- permissions -------------------------------------------------------------------------------------------------


async def test_permissions_are_those_of_the_contract(api: Api) -> None:
    admin = await api.register()
    response = await admin.request("GET", "/permissions?page_size=100")
    found = response.json()
    assert {item["name"] for item in found} == ALL
    assert response.headers["X-Total-Count"] == str(len(ALL))
    assert all(item["name"] == f"{item['resource']}:{item['action']}" for item in found)
    assert await admin.get(f"/permissions/{found[0]['id']}") == found[0]
    second = await admin.request("GET", "/permissions?page=2&page_size=30")
    assert second.json() == found[30:60]
    behind = await admin.request("GET", "/permissions?page=9&page_size=30")
    assert (behind.json(), behind.headers["X-Total-Count"]) == ([], str(len(ALL)))
    for bad in (0, 2**62, "x"):
        await admin.get(f"/permissions/{bad}", status=404)


async def test_permissions_are_for_who_may_read_roles(api: Api) -> None:
    admin = await api.register()
    agent, manager = await api.add_user(admin, "Agent"), await api.add_user(admin, "Manager")
    permission = (await manager.get("/permissions"))[0]
    for path in ("/permissions", f"/permissions/{permission['id']}", "/roles"):
        error = await agent.error("GET", path, status=403)
        assert error["details"]["required_permission"] == "role:read"


# --- roles -------------------------------------------------------------------------------------------------------


async def test_a_new_organisation_has_the_system_roles(api: Api) -> None:
    admin = await api.register()
    roles = await admin.get("/roles")
    assert [(role["name"], role["is_system"]) for role in roles] == [
        ("Admin", True), ("Manager", True), ("Agent", True)
    ]  # fmt: skip
    full = [await admin.get(f"/roles/{role['id']}") for role in roles]
    assert names(full[0]) == ALL
    writes = {f"{name}:{action}" for name in ("user", "role", "webhook") for action in ("create", "update", "delete")}
    assert names(full[1]) == ALL - {"organization:update"} - writes
    works = {
        f"{name}:{action}"
        for name in ("property", "lead", "deal", "portfolio")
        for action in ("read", "create", "update")
    }
    assert names(full[2]) == works | {"campaign:read", "analytics:read", "user:read", "team:read", "organization:read"}


async def test_a_role_is_created_read_changed_and_deleted(api: Api) -> None:
    admin = await api.register()
    ids = await permission_ids(admin)
    body = {"name": " Scout ", "description": "Looks\naround", "permission_ids": [ids["lead:read"], ids["lead:read"]]}
    response = await admin.request("POST", "/roles", json=body)
    assert response.status_code == 201
    role = response.json()
    assert (role["name"], role["description"], role["is_system"]) == ("Scout", "Looks\naround", False)
    assert names(role) == {"lead:read"}
    path = f"/roles/{role['id']}"
    assert response.headers["Location"] == f"/api/v1{path}"
    got = await admin.request("GET", path)
    assert (got.json(), got.headers["ETag"]) == (role, response.headers["ETag"])
    item = {name: value for name, value in role.items() if name != "permissions"}
    assert (await admin.get("/roles"))[-1] == item

    assert await admin.put(path, json={}) == role
    changed = await admin.patch(path, json={"description": None})
    assert changed == role | {"description": None, "updated_at": changed["updated_at"]}
    wanted = {"name": "Spy", "permission_ids": [ids["deal:read"], ids["lead:read"]]}
    changed = await admin.put(path, json=wanted)
    assert (changed["name"], names(changed)) == ("Spy", {"deal:read", "lead:read"})
    assert changed["updated_at"] > role["updated_at"]
    assert await admin.put(path, json=wanted) == changed
    assert names(await admin.put(path, json={"permission_ids": []})) == set()
    await admin.delete(path)
    for method, options in (("GET", {}), ("PUT", {"json": {"name": "x"}}), ("DELETE", {})):
        await admin.error(method, path, status=404, **options)


async def test_wrong_bodies_name_their_fields(api: Api) -> None:
    admin = await api.register()
    ids = await permission_ids(admin)
    assert set(await admin.fields_refused("POST", "/roles", json={})) == {"name"}
    bad = {"name": "x" * 101, "description": "\x00", "permission_ids": None, "is_system": True}
    assert set(await admin.fields_refused("POST", "/roles", json=bad)) == set(bad)
    role = await add_role(admin)
    for number in (2**62, 2**63, 0, -1, "1", 1.5):
        for method, path in (("POST", "/roles"), ("PUT", f"/roles/{role['id']}")):
            body = {"name": uuid4().hex, "permission_ids": [ids["lead:read"], number]}
            assert await admin.fields_refused(method, path, json=body) == {"permission_ids.1": "foreign_key"}
    assert await admin.get(f"/roles/{role['id']}") == role


async def test_names_are_unique_in_the_organisation_in_any_case(api: Api) -> None:
    admin, other = await api.register(), await api.register()
    role = await add_role(admin, name="Scout")
    second = await add_role(admin, name="Spy")
    for name in ("scout", "SCOUT ", "agent"):
        error = await admin.error("POST", "/roles", json={"name": name}, status=409)
        assert error["type"] == "ResourceAlreadyExistsError"
        await admin.error("PUT", f"/roles/{second['id']}", json={"name": name}, status=409)
    assert (await admin.put(f"/roles/{role['id']}", json={"name": "SCOUT"}))["name"] == "SCOUT"
    await add_role(other, name="Scout")


async def test_system_roles_are_fixed(api: Api) -> None:
    admin = await api.register()
    ids = await permission_ids(admin)
    for role in await admin.get("/roles"):
        path = f"/roles/{role['id']}"
        before = await admin.get(path)
        for body in ({"name": "Boss"}, {"description": None}, {"permission_ids": [ids["lead:read"]]}):
            error = await admin.error("PUT", path, json=body, status=409)
            assert error["type"] == "BusinessLogicError"
        await admin.error("DELETE", path, status=409)
        assert await admin.get(path) == before


async def test_nobody_grants_what_they_lack(api: Api) -> None:
    admin = await api.register()
    ids = await permission_ids(admin)
    maker = await api.add_user_with(admin, ["role:create", "role:read", "role:update", "lead:read"])
    error = await maker.error(
        "POST", "/roles", json={"name": "Big", "permission_ids": [ids["lead:read"], ids["deal:delete"]]}, status=403
    )
    assert error["type"] == "InsufficientPermissionsError"
    assert error["details"]["required_permission"] == "deal:delete"
    assert "deal:delete" in error["message"]
    small = await add_role(maker, "lead:read")
    path = f"/roles/{small['id']}"
    await give(
        admin, maker, *[role["id"] for role in (await admin.get(f"/users/{maker.user_id}"))["roles"]], small["id"]
    )
    wanted = {"permission_ids": [ids["lead:read"], ids["deal:delete"]]}
    await maker.error("PUT", path, json=wanted, status=403)
    assert "deal:delete" not in (await maker.get("/auth/me"))["permissions"]
    # What the role has already is no grant: it may stay, and go.
    await admin.put(path, json=wanted)
    await maker.put(path, json={"name": "Small", **wanted})
    await maker.put(path, json={"permission_ids": []})
    await maker.error("PUT", path, json=wanted, status=403)


async def test_a_roles_change_takes_effect_with_the_next_request(api: Api) -> None:
    admin = await api.register()
    ids = await permission_ids(admin)
    user = await api.add_user(admin)
    role = await add_role(admin, "lead:read")
    await give(admin, user, role["id"])
    path = f"/roles/{role['id']}"
    await user.get("/audit-logs", status=403)
    await admin.put(path, json={"permission_ids": [ids["audit:read"]]})
    await user.get("/audit-logs")
    await admin.put(path, json={"name": "Renamed"})
    await user.get("/audit-logs")
    assert (await admin.get(f"/users/{user.user_id}"))["roles"] == [{"id": role["id"], "name": "Renamed"}]
    await admin.put(path, json={"permission_ids": []})
    await user.get("/audit-logs", status=403)


async def test_a_deleted_role_is_lost_by_its_users(api: Api) -> None:
    admin = await api.register()
    users = [await api.add_user(admin) for _ in range(2)]
    role, other = await add_role(admin, "audit:read", "lead:read"), await add_role(admin, "lead:read", "deal:read")
    for user in users:
        await give(admin, user, role["id"], other["id"])
        await user.get("/audit-logs")
    await admin.delete(f"/roles/{role['id']}")
    for user in users:
        await user.get("/audit-logs", status=403)
        assert (await user.get("/auth/me"))["permissions"] == ["deal:read", "lead:read"]
    rows = [row for row in await api.audits(admin) if row["action"] == "delete"]
    log = (await admin.get(f"/audit-logs?resource_type=role&action=delete&resource_id={role['id']}"))["items"][0]
    assert len(rows) == 1
    assert log["changes"]["name"] == [role["name"], None]
    assert log["changes"]["user_ids"] == [[user.user_id for user in users], None]
    assert set(log["changes"]["permission_ids"][0]) == {permission["id"] for permission in role["permissions"]}


async def test_users_change_with_the_names_and_the_end_of_their_roles(api: Api) -> None:
    """Whoever keeps a copy by `updated_since` learns of what the items show of the roles."""
    admin, stranger = await api.register(), await api.register()
    ids = await permission_ids(admin)
    role, others = await add_role(admin), await add_role(admin)
    users = [await api.add_user(admin) for _ in range(3)]
    for user in users[:2]:
        await give(admin, user, role["id"], others["id"])
    await give(admin, users[2], others["id"])
    since = (await admin.put(f"/users/{users[2].user_id}", json={"phone": "+1 512 555 0100"}))["updated_at"]
    path = f"/roles/{role['id']}"

    async def changed() -> list[dict[str, Any]]:
        """The users that changed since the last call; the list has also who was the last to change before it."""
        nonlocal since
        page = await admin.get("/users", params={"updated_since": since, "sort": "updated_at"})
        found = [user for user in page["items"] if user["updated_at"] > since]
        since = max((user["updated_at"] for user in found), default=since)
        return sorted(found, key=lambda user: int(user["id"]))

    assert await changed() == []
    for body in ({"description": "x"}, {"permission_ids": [ids["lead:read"]]}, {"name": role["name"]}):
        await admin.put(path, json=body)
        assert await changed() == []
    tags = [(await admin.request("GET", f"/users/{user.user_id}")).headers["ETag"] for user in users]
    await admin.put(path, json={"name": "Renamed", "permission_ids": []})
    shown = await changed()
    assert [user["id"] for user in shown] == [user.user_id for user in users[:2]]
    assert all({"id": role["id"], "name": "Renamed"} in user["roles"] for user in shown)
    for user, tag, status in zip(users, tags, (412, 412, 200), strict=True):
        headers = {"If-Match": tag}
        await admin.put(f"/users/{user.user_id}", json={}, headers=headers, status=status)
    await admin.delete(path)
    assert [(user["id"], [role["id"] for role in user["roles"]]) for user in await changed()] == [
        (user.user_id, [others["id"]]) for user in users[:2]
    ]
    await admin.delete(f"/roles/{others['id']}")
    assert [(user["id"], user["roles"]) for user in await changed()] == [(user.user_id, []) for user in users]
    assert (await stranger.get("/users", params={"updated_since": since}))["total"] == 0


@pytest.mark.parametrize(("method", "options"), [("PUT", {"json": {"name": "Renamed"}}), ("DELETE", {})])
async def test_the_users_of_a_role_are_locked_in_their_order(api: Api, method: str, options: dict[str, Any]) -> None:
    """Two changes of roles that many users have then wait for each other, and never in a circle."""
    admin = await api.register()
    role = await add_role(admin)
    users = [await api.add_user(admin) for _ in range(2)]
    for user in reversed(users):
        await give(admin, user, role["id"])
    # So few rows are read as they lie in the table, the other way round, unless the statement sorts them.
    await api.fetch("analyze users, user_roles")
    async with api.database.acquire() as conn:
        await conn.execute(f"begin; set local reos.organization_id = '{admin.organization_id}'")
        first, second = (f"select from users where id = {user.user_id} for update" for user in users)
        await conn.execute(first)
        changing = asyncio.create_task(admin.request(method, f"/roles/{role['id']}", **options))
        await until(lambda: is_waited_for(api, conn.get_server_pid()))
        await conn.execute(f"{second} nowait")
        assert not changing.done()
        await conn.execute("rollback")
    assert (await changing).status_code in (200, 204)


async def is_waited_for(api: Api, process: int) -> bool:
    """Whether a transaction waits for what this server process of the database holds."""
    return bool(await api.value("select exists (select from pg_locks where $1 = any(pg_blocking_pids(pid)))", process))


async def test_grants_changes_and_deletions_of_a_role_may_meet(api: Api) -> None:
    """Whatever order they end in: no error of the inside, and every user's permissions are what the roles add up to."""
    admin = await api.register()
    ids = await permission_ids(admin)
    users = [await api.add_user(admin) for _ in range(4)]
    for turn in range(5):
        role = await add_role(admin, "lead:read")
        path = f"/roles/{role['id']}"
        requests = [admin.request("PUT", path, json={"permission_ids": [ids["deal:read"]]})]
        requests += [admin.request("PUT", f"/users/{user.user_id}", json={"role_ids": [role["id"]]}) for user in users]
        requests += [admin.request("PUT", path, json={"permission_ids": [ids["audit:read"], ids["lead:read"]]})]
        if turn % 2:
            requests.insert(3, admin.request("DELETE", path))
        statuses = {answer.status_code for answer in await asyncio.gather(*requests)}
        assert statuses <= {200, 204, 404, 422}, statuses
        wrong = await api.fetch(
            "select u.id from users u where u.organization_id = $1 and u.permissions <> array("
            "  select distinct p.name from user_roles ur join role_permissions rp using (organization_id, role_id)"
            "  join permissions p on p.id = rp.permission_id where ur.user_id = u.id order by p.name)",
            admin.organization_id,
        )
        assert wrong == []


async def test_of_two_writers_with_one_tag_one_wins(api: Api) -> None:
    admin = await api.register()
    ids = await permission_ids(admin)
    path = f"/roles/{(await add_role(admin))['id']}"
    pairs: list[list[dict[str, Any]]] = [
        [{"permission_ids": [ids["lead:read"]]}, {"permission_ids": [ids["deal:read"]]}],
        [{"permission_ids": []}, {"name": "Spy"}],
    ]
    for pair in pairs:
        headers = {"If-Match": (await admin.request("GET", path)).headers["ETag"]}
        answers = await asyncio.gather(*(admin.request("PUT", path, json=body, headers=headers) for body in pair))
        assert sorted(answer.status_code for answer in answers) == [200, 412]
    await admin.delete(path, headers=headers, status=412)


async def test_changes_are_audited(api: Api) -> None:
    admin = await api.register()
    ids = await permission_ids(admin)
    role = await add_role(admin, "lead:read", name="Scout")
    await admin.put(f"/roles/{role['id']}", json={"name": "Spy", "permission_ids": [ids["deal:read"]]})
    await admin.put(f"/roles/{role['id']}", json={"name": "Spy"})
    logs = (await admin.get("/audit-logs?resource_type=role&sort=created_at"))["items"]
    assert [(log["action"], log["resource_id"]) for log in logs] == [("create", role["id"]), ("update", role["id"])]
    assert logs[0]["changes"]["permission_ids"] == [None, [ids["lead:read"]]]
    assert logs[1]["changes"] == {"name": ["Scout", "Spy"], "permission_ids": [[ids["lead:read"]], [ids["deal:read"]]]}


async def test_roles_of_others_are_not_there(api: Api) -> None:
    admin, other = await api.register(), await api.register()
    role = await add_role(other, "lead:read")
    for method, options in (("GET", {}), ("PUT", {"json": {"name": "x"}}), ("DELETE", {})):
        errors = [
            await admin.error(method, path, status=404, **options)
            for path in (f"/roles/{role['id']}", f"/roles/{2**62}")
        ]
        assert errors[0] | {"request_id": ""} == errors[1] | {"request_id": ""}
    assert role["name"] not in [item["name"] for item in await admin.get("/roles")]
    assert await other.get(f"/roles/{role['id']}") == role


async def test_roles_are_listed_in_pages(api: Api) -> None:
    admin = await api.register()
    for name in "cBa":
        await add_role(admin, name=name)
    response = await admin.request("GET", "/roles?page=2&page_size=2")
    assert [role["name"] for role in response.json()] == ["Agent", "a"]
    assert response.headers["X-Total-Count"] == "6"
    assert [role["name"] for role in await admin.get("/roles?page=3&page_size=2")] == ["B", "c"]
