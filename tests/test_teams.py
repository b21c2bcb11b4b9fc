"""Teams and their members through HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from api import Api, Client

pytestmark = pytest.mark.integration


async def add_team(client: Client, **fields: Any) -> dict[str, Any]:
    team: dict[str, Any] = await client.post("/teams", json={"name": "North"} | fields)
    return team


async def test_a_team_is_created_read_changed_and_deleted(api: Api) -> None:
    admin = await api.register()
    response = await admin.request("POST", "/teams", json={"name": " North ", "description": "Up\nthere"})
    assert response.status_code == 201
    team = response.json()
    path = f"/teams/{team['id']}"
    assert response.headers["Location"] == f"/api/v1{path}"
    assert team == {
        "id": team["id"], "organization_id": admin.organization_id, "name": "North", "description": "Up\nthere",
        "member_count": 0, "created_at": team["created_at"], "updated_at": team["created_at"], "members": [],
    }  # fmt: skip
    got = await admin.request("GET", path)
    assert (got.json(), got.headers["ETag"]) == (team, response.headers["ETag"])
    assert await admin.put(path, json={"name": "North"}) == team
    changed = await admin.patch(path, json={"name": "South", "description": None})
    assert changed == team | {"name": "South", "description": None, "updated_at": changed["updated_at"]}
    refused = {"name": None, "members": [], "member_count": 1}
    assert set(await admin.fields_refused("PUT", path, json=refused)) == set(refused)
    assert set(await admin.fields_refused("POST", "/teams", json={"name": "x" * 101})) == {"name"}
    await admin.delete(path, headers={"If-Match": '"old"'}, status=412)
    await admin.delete(path)
    await admin.get(path, status=404)
    await admin.delete(path, status=404)


async def test_members_come_and_go(api: Api) -> None:
    admin = await api.register()
    agent, boss = await api.add_user(admin, "Agent"), await api.add_user(admin, "Manager")
    team = await add_team(admin)
    path = f"/teams/{team['id']}"
    member = await admin.post(f"{path}/members/{agent.user_id}")
    assert member == {
        "user_id": agent.user_id, "first_name": "U", "last_name": "U", "is_active": True, "role": "member",
        "created_at": member["created_at"],
    }  # fmt: skip
    leader = await admin.post(f"{path}/members/{boss.user_id}", json={"role": "leader"})
    full = await agent.get(path)
    assert full["members"] == [leader, member]
    assert full["member_count"] == 2
    assert full["updated_at"] > team["updated_at"]
    item = {name: value for name, value in full.items() if name != "members"}
    assert (await agent.get("/teams"))["items"] == [item]
    for role in ("member", "leader"):
        error = await admin.error("POST", f"{path}/members/{agent.user_id}", json={"role": role}, status=409)
        assert error["type"] == "ResourceAlreadyExistsError"
    await admin.delete(f"{path}/members/{agent.user_id}")
    await admin.delete(f"{path}/members/{agent.user_id}", status=404)
    assert (await admin.get(path))["members"] == [leader]
    await admin.post(f"{path}/members/{agent.user_id}", json={})
    await admin.delete(path)
    assert await api.value("select count(*) from team_members where team_id = $1", team["id"]) == 0
    await admin.get(f"/users/{agent.user_id}")


async def test_whoever_is_out_stays_a_member_but_becomes_none(api: Api) -> None:
    admin = await api.register()
    agent = await api.add_user(admin, "Agent")
    team, other = await add_team(admin), await add_team(admin)
    await admin.post(f"/teams/{team['id']}/members/{agent.user_id}")
    await admin.delete(f"/users/{agent.user_id}")
    full = await admin.get(f"/teams/{team['id']}")
    assert [(member["user_id"], member["is_active"]) for member in full["members"]] == [(agent.user_id, False)]
    assert full["member_count"] == 1
    error = await admin.error("POST", f"/teams/{other['id']}/members/{agent.user_id}", status=409)
    assert error["type"] == "BusinessLogicError"


async def test_wrong_members_are_refused(api: Api) -> None:
    admin, other = await api.register(), await api.register()
    path = f"/teams/{(await add_team(admin))['id']}/members"
    assert set(await admin.fields_refused("POST", f"{path}/{admin.user_id}", json={"role": "boss"})) == {"role"}
    foreign_team = (await add_team(other))["id"]
    for method in ("POST", "DELETE"):
        errors = [
            await admin.error(method, bad, status=404)
            for bad in (
                f"{path}/{other.user_id}", f"{path}/{2**62}", f"{path}/{2**63}", f"{path}/0", f"{path}/x",
                f"/teams/{foreign_team}/members/{admin.user_id}", f"/teams/{2**62}/members/{admin.user_id}",
                f"/teams/{foreign_team}/members/{other.user_id}",
            )
        ]  # fmt: skip
        assert all(error | {"request_id": ""} == errors[0] | {"request_id": ""} for error in errors)
    assert (await other.get(f"/teams/{foreign_team}"))["members"] == []


async def test_teams_of_others_are_not_there(api: Api) -> None:
    admin, other = await api.register(), await api.register()
    team = await add_team(other)
    for method, options in (("GET", {}), ("PUT", {"json": {"name": "x"}}), ("DELETE", {})):
        await admin.error(method, f"/teams/{team['id']}", status=404, **options)
    assert (await admin.get("/teams"))["items"] == []
    assert await other.get(f"/teams/{team['id']}") == team


async def test_of_parallel_additions_of_one_user_there_is_one(api: Api) -> None:
    admin = await api.register()
    agent = await api.add_user(admin, "Agent")
    team = await add_team(admin)
    path = f"/teams/{team['id']}/members/{agent.user_id}"
    answers = await asyncio.gather(*(admin.request("POST", path) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
    assert (await admin.get(f"/teams/{team['id']}"))["member_count"] == 1
    # A team that goes while somebody joins: either comes first.
    answers = await asyncio.gather(
        admin.request("POST", f"/teams/{team['id']}/members/{admin.user_id}"),
        admin.request("DELETE", f"/teams/{team['id']}"),
    )
    assert (answers[0].status_code in (201, 404), answers[1].status_code) == (True, 204)


@pytest.mark.parametrize("key", ["created_at", "updated_at", "name"])
async def test_teams_are_paged_by_every_sort_key(api: Api, key: str) -> None:
    admin = await api.register()
    for name in "bacab":
        await add_team(admin, name=name)
    whole = [item["id"] for item in (await admin.get(f"/teams?sort=-{key}"))["items"]]
    first = await admin.get(f"/teams?sort=-{key}&page_size=3")
    second = await admin.get(f"/teams?sort=-{key}&page_size=3&cursor={first['next_cursor']}")
    assert (first["total"], first["pages"], second["has_more"]) == (5, 2, False)
    assert [item["id"] for item in first["items"] + second["items"]] == whole
    newest = (await admin.get("/teams"))["items"][0]
    since = newest["updated_at"].replace("+", "%2B")
    assert [item["id"] for item in (await admin.get(f"/teams?updated_since={since}"))["items"]] == [newest["id"]]


async def test_a_tag_covers_the_members(api: Api) -> None:
    admin = await api.register()
    agent = await api.add_user(admin, "Agent")
    path = f"/teams/{(await add_team(admin))['id']}"
    headers = {"If-Match": (await admin.request("GET", path)).headers["ETag"]}
    await admin.post(f"{path}/members/{agent.user_id}")
    await admin.put(path, json={"name": "South"}, headers=headers, status=412)
    headers = {"If-Match": (await admin.request("GET", path)).headers["ETag"]}
    answers = await asyncio.gather(
        *(admin.request("PUT", path, json={"name": name}, headers=headers) for name in ("East", "West"))
    )
    assert sorted(answer.status_code for answer in answers) == [200, 412]


async def test_changes_are_audited(api: Api) -> None:
    admin = await api.register()
    agent = await api.add_user(admin, "Agent")
    team = await add_team(admin)
    path = f"/teams/{team['id']}"
    await admin.put(path, json={"name": "South"})
    await admin.post(f"{path}/members/{agent.user_id}", json={"role": "leader"})
    await admin.delete(f"{path}/members/{agent.user_id}")
    await admin.post(f"{path}/members/{agent.user_id}")
    await admin.delete(path)
    logs = (await admin.get(f"/audit-logs?resource_type=team&resource_id={team['id']}&sort=created_at"))["items"]
    leader, member = ({"user_id": agent.user_id, "role": role} for role in ("leader", "member"))
    assert [(log["action"], log["changes"]) for log in logs] == [
        ("create", {"name": [None, "North"]}),
        ("update", {"name": ["North", "South"]}),
        ("update", {"member": [None, leader]}),
        ("update", {"member": [leader, None]}),
        ("update", {"member": [None, member]}),
        ("delete", {"name": ["South", None], "members": [[member], None]}),
    ]
