"""Users through HTTP: who they are, what they may become, and who may change them."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import httpx
import pytest
from api import Api, Client
from job_queue import running_worker, until
from test_auth import mails_to

from reos.auth import login as login_module
from reos.auth import one_time
from reos.db import tenant_transaction

pytestmark = pytest.mark.integration

PASSWORD = "correct Horse 7 battery"
OTHER_PASSWORD = "another Horse 8 battery"


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong tries are answered at once."""
    monkeypatch.setattr(login_module, "waits", lambda attempts: (0.0,) * attempts)


def person(**fields: Any) -> dict[str, Any]:
    return {
        "email": f"{uuid4().hex}@example.com", "password": PASSWORD, "first_name": "Ann", "last_name": "Lee"
    } | fields  # fmt: skip


async def role_ids(client: Client) -> dict[str, int]:
    """The ids of the organisation's roles by their names."""
    return {role["name"]: role["id"] for role in await client.get("/roles")}


async def try_log_in(api: Api, email: str, password: str = PASSWORD) -> httpx.Response:
    return await api.anonymous.request("POST", "/auth/login", json={"email": email, "password": password})


async def log_in(api: Api, email: str, password: str = PASSWORD) -> Client:
    response = await try_log_in(api, email, password)
    assert response.status_code == 200, response.text
    return Client(api.http, {"Authorization": f"Bearer {response.json()['access_token']}"})


async def create(admin: Client, *roles: str, **fields: Any) -> dict[str, Any]:
    """A user with system roles."""
    ids = await role_ids(admin)
    user: dict[str, Any] = await admin.post("/users", json=person(role_ids=[ids[role] for role in roles], **fields))
    return user


async def add_deputy(api: Api, admin: Client, *lacking: str) -> Client:
    """Somebody who is no Admin, but has all permissions except some."""
    names = [permission["name"] for permission in await admin.get("/permissions?page_size=100")]
    return await api.add_user_with(admin, [name for name in names if name not in lacking])


async def active_admins(api: Api, admin: Client) -> int:
    count: int = await api.value(
        "select count(*) from user_roles ur join users u on u.id = ur.user_id join roles r on r.id = ur.role_id"
        " where r.organization_id = $1 and r.name = 'Admin' and r.is_system and u.is_active",
        admin.organization_id,
    )
    return count


# --- creating ----------------------------------------------------------------------------------------------------


async def test_a_user_is_created_verified_and_logs_in(api: Api) -> None:
    admin = await api.register()
    ids = await role_ids(admin)
    body = person(email=f"{uuid4().hex}@Example.com", phone="+1 512 555 0100", role_ids=[ids["Agent"], ids["Manager"]])
    response = await admin.request("POST", "/users", json=body)
    assert response.status_code == 201
    user = response.json()
    assert response.headers["Location"] == f"/api/v1/users/{user['id']}"
    assert {name: user[name] for name in ("email", "first_name", "last_name", "phone")} == {
        name: body[name] for name in ("email", "first_name", "last_name", "phone")
    }
    flags = ("is_active", "is_verified", "is_locked", "is_superuser")
    assert [user[name] for name in flags] == [True, True, False, False]
    assert user["last_login"] is None
    assert user["roles"] == [{"id": ids["Manager"], "name": "Manager"}, {"id": ids["Agent"], "name": "Agent"}]
    got = await admin.request("GET", f"/users/{user['id']}")
    assert got.json() == user
    assert got.headers["ETag"] == response.headers["ETag"]

    client = await log_in(api, body["email"].upper())
    me = await client.get("/auth/me")
    assert me["organization_id"] == admin.organization_id
    assert "property:create" in me["permissions"]
    assert (await admin.get(f"/users/{user['id']}"))["last_login"] is not None


async def test_a_new_user_is_welcomed_by_mail(api: Api) -> None:
    admin = await api.register()
    async with running_worker(api.settings):
        user = await admin.post("/users", json=person())

        async def has_come() -> bool:
            return [mail.subject for mail in await mails_to(api, user["email"])] == ["Welcome to Real Estate OS"]

        await until(has_come)


@pytest.mark.parametrize(
    ("password", "code"), [("Sh0rt!", "password_too_short"), ("Password1!", "password_too_common")]
)
async def test_a_weak_password_is_refused(api: Api, password: str, code: str) -> None:
    admin = await api.register()
    assert await admin.fields_refused("POST", "/users", json=person(password=password)) == {"password": code}
    user = await admin.post("/users", json=person())
    path = f"/users/{user['id']}"
    assert await admin.fields_refused("PUT", path, json={"password": password}) == {"password": code}


async def test_an_address_is_taken_whoever_has_it(api: Api) -> None:
    admin, other = await api.register(), await api.register()
    taken = await other.post("/users", json=person())
    mine = await admin.post("/users", json=person())
    total = (await admin.get("/users"))["total"]
    for email in (taken["email"], taken["email"].upper(), mine["email"]):
        error = await admin.error("POST", "/users", json=person(email=email), status=409)
        assert error["type"] == "ResourceAlreadyExistsError"
    error = await admin.error("PUT", f"/users/{mine['id']}", json={"email": taken["email"].title()}, status=409)
    assert error["type"] == "ResourceAlreadyExistsError"
    assert (await admin.get("/users"))["total"] == total
    assert await admin.get(f"/users/{mine['id']}") == mine
    # One's own address in another case is nobody else's.
    changed = await admin.put(f"/users/{mine['id']}", json={"email": mine["email"].upper()})
    assert changed["email"] == mine["email"].upper()


async def test_of_parallel_users_with_one_address_there_is_one(api: Api) -> None:
    admin, other = await api.register(), await api.register()
    body = person()
    answers = await asyncio.gather(*(client.request("POST", "/users", json=body) for client in [admin, other] * 4))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
    assert await api.value("select count(*) from users where email = $1", body["email"]) == 1


async def test_role_ids_lead_to_roles_of_the_organisation(api: Api) -> None:
    admin, other = await api.register(), await api.register()
    ids, foreign = await role_ids(admin), (await role_ids(other))["Agent"]
    user = await admin.post("/users", json=person())
    refusals = []
    for bad in (foreign, 2**62, 2**63, 0, "x", True):
        body = {"role_ids": [ids["Agent"], bad]}
        for method, path, sent in (("POST", "/users", person(**body)), ("PUT", f"/users/{user['id']}", body)):
            error = await admin.error(method, path, json=sent, status=422)
            refusals.append(error["details"]["errors"])
    assert all(refusal == refusals[0] for refusal in refusals)
    assert [(entry["field"], entry["type"]) for entry in refusals[0]] == [("role_ids.1", "foreign_key")]
    assert (await admin.get(f"/users/{user['id']}"))["roles"] == []


async def test_a_role_named_twice_is_given_once(api: Api) -> None:
    admin = await api.register()
    agent = (await role_ids(admin))["Agent"]
    user = await admin.post("/users", json=person(role_ids=[agent, agent]))
    assert user["roles"] == [{"id": agent, "name": "Agent"}]


async def test_creating_is_repeatable_with_a_key(api: Api) -> None:
    admin = await api.register()
    body, headers = person(), {"Idempotency-Key": uuid4().hex}
    first = await admin.post("/users", json=body, headers=headers)
    again = await admin.request("POST", "/users", json=body, headers=headers)
    assert (again.status_code, again.json()) == (201, first)
    assert again.headers["Idempotency-Replayed"] == "true"


# --- lists -------------------------------------------------------------------------------------------------------


async def test_users_are_searched_and_filtered(api: Api) -> None:
    admin = await api.register()
    ids = await role_ids(admin)
    await api.register()
    ann = await create(admin, "Agent", first_name="Annabel", last_name="O'Hara", phone="+1 512 555 0100")
    bob = await create(admin, "Manager", first_name="Bob", last_name="100%_sure")
    gone = await create(admin, "Agent", first_name="Gone", last_name="Girl")
    await admin.delete(f"/users/{gone['id']}")

    async def found(query: str) -> list[int]:
        return sorted(item["id"] for item in (await admin.get(f"/users?{query}"))["items"])

    for search in ("hara", "HARA anna", "555 annabel", "o'h", ann["email"][3:20], "an"):
        assert ann["id"] in await found(f"search={search}"), search
        assert bob["id"] not in await found(f"search={search}"), search
    assert await found("search=100%25_") == [bob["id"]]
    assert await found("search=%25%25%25") == []
    assert await found(f"role_id={ids['Agent']}") == sorted([ann["id"], gone["id"]])
    assert await found(f"role_id={ids['Agent']}&is_active=true") == [ann["id"]]
    assert await found("is_active=false") == [gone["id"]]
    assert await found(f"role_id={2**62}") == []
    assert await admin.fields_refused("GET", "/users?is_active=maybe") == {"is_active": "bool_type"}
    items = (await admin.get("/users?search=hara"))["items"]
    assert items == [await admin.get(f"/users/{ann['id']}")]
    assert (await admin.get("/users?search=hara&fields=id,roles"))["items"] == [
        {"id": ann["id"], "roles": [{"id": ids["Agent"], "name": "Agent"}]}
    ]


@pytest.mark.parametrize("key", ["created_at", "updated_at", "email", "last_name", "last_login"])
async def test_users_are_paged_by_every_sort_key(api: Api, key: str) -> None:
    admin = await api.register()
    users = [await create(admin, last_name=name) for name in "BAABC"]
    for user in users[:2]:
        await log_in(api, user["email"])
    for sort in (key, f"-{key}"):
        whole = [item["id"] for item in (await admin.get(f"/users?sort={sort}"))["items"]]
        assert len(whole) == 6
        paged: list[int] = []
        cursor = ""
        while cursor is not None:
            page = await admin.get(f"/users?sort={sort}&page_size=2{cursor and f'&cursor={cursor}'}")
            paged += [item["id"] for item in page["items"]]
            cursor = page["next_cursor"]
        assert paged == whole
    values = [item[key] for item in (await admin.get(f"/users?sort={key}"))["items"] if item[key] is not None]
    assert values == sorted(values)


# --- changing ----------------------------------------------------------------------------------------------------


async def test_a_user_is_changed_in_part(api: Api) -> None:
    admin = await api.register()
    ids = await role_ids(admin)
    user = await create(admin, "Agent", phone="1")
    path = f"/users/{user['id']}"
    changed = await admin.patch(path, json={"first_name": "Bea", "phone": None})
    expected = user | {"first_name": "Bea", "phone": None, "updated_at": changed["updated_at"]}
    assert changed == expected
    assert changed["updated_at"] > user["updated_at"]
    assert await admin.put(path, json={}) == changed
    assert await admin.put(path, json={"first_name": "Bea", "role_ids": [ids["Agent"]]}) == changed
    changed = await admin.put(path, json={"role_ids": [ids["Manager"]]})
    assert changed["roles"] == [{"id": ids["Manager"], "name": "Manager"}]
    assert changed["updated_at"] > expected["updated_at"]
    assert (await admin.put(path, json={"role_ids": []}))["roles"] == []
    refused = {"email": None, "first_name": None, "role_ids": None, "is_active": None, "is_locked": True, "id": 1}
    assert set(await admin.fields_refused("PUT", path, json=refused)) == set(refused)


async def test_a_new_address_is_logged_in_with(api: Api) -> None:
    admin = await api.register()
    user = await create(admin, "Agent")
    client = await log_in(api, user["email"])
    email = f"{uuid4().hex}@example.com"
    await admin.put(f"/users/{user['id']}", json={"email": email})
    assert (await client.get("/auth/me"))["email"] == email
    await log_in(api, email)
    assert (await try_log_in(api, user["email"])).status_code == 401
    # The old address is free again.
    await admin.post("/users", json=person(email=user["email"]))


@pytest.mark.parametrize(
    "change",
    [{"email": "{}@example.com"}, {"password": OTHER_PASSWORD}, {"is_active": False}],
    ids=lambda c: next(iter(c)),
)
async def test_links_in_old_mails_are_useless_after_a_change(api: Api, change: dict[str, Any]) -> None:
    admin = await api.register()
    user = await create(admin, "Agent")
    tokens = []
    for purpose in (one_time.PASSWORD_RESET, one_time.VERIFY_EMAIL):
        async with tenant_transaction(api.database, admin.organization_id) as conn:
            tokens.append(
                await one_time.issue(
                    conn, api.context.signer, user["id"], purpose, organization_id=admin.organization_id
                )
            )
    change = {name: value.format(uuid4().hex) if name == "email" else value for name, value in change.items()}
    await admin.put(f"/users/{user['id']}", json=change)
    await admin.put(f"/users/{user['id']}", json={"is_active": True})
    body = {"token": tokens[0], "new_password": "a third Horse 9 battery"}
    await api.anonymous.error("POST", "/auth/password-reset-confirm", json=body, status=400)
    await api.anonymous.error("POST", "/auth/verify-email", json={"token": tokens[1]}, status=400)


async def test_a_new_password_ends_all_sessions_of_the_user(api: Api) -> None:
    admin = await api.register()
    user = await create(admin, "Agent")
    clients = [await log_in(api, user["email"]) for _ in range(2)]
    before = await admin.get(f"/users/{user['id']}")
    after = await admin.put(f"/users/{user['id']}", json={"password": OTHER_PASSWORD})
    assert after == before | {"updated_at": after["updated_at"]}
    for client in clients:
        await client.get("/auth/me", status=401)
    assert (await try_log_in(api, user["email"])).status_code == 401
    await log_in(api, user["email"], OTHER_PASSWORD)


async def test_ones_own_new_password_keeps_the_session(api: Api) -> None:
    admin = await api.register()
    user = await create(admin, "Admin")
    own, other = await log_in(api, user["email"]), await log_in(api, user["email"])
    await own.put(f"/users/{user['id']}", json={"password": OTHER_PASSWORD})
    await own.get("/auth/me")
    await other.get("/auth/me", status=401)


async def test_who_owns_the_account_is_told_of_a_new_password_or_address(api: Api) -> None:
    admin = await api.register()
    user = await create(admin, "Agent")
    path = f"/users/{user['id']}"
    await admin.put(path, json={"first_name": "Eve", "email": user["email"]})
    await admin.put(path, json={"password": OTHER_PASSWORD})
    await admin.put(path, json={"email": person()["email"]})
    own = await log_in(api, (await admin.get(path))["email"], OTHER_PASSWORD)
    change = {"current_password": OTHER_PASSWORD, "new_password": PASSWORD}
    await own.post("/auth/change-password", json=change, status=204)
    deferred = await api.fetch(
        "select task_name from procrastinate.procrastinate_jobs where task_name like 'send_%_changed_email'"
        " and args @> jsonb_build_object('user_id', $1::bigint) order by id",
        user["id"],
    )
    told = [f"send_{what}_changed_email" for what in ("password", "address", "password")]
    assert [row["task_name"] for row in deferred] == told


async def test_an_admin_ends_a_lock_out(api: Api) -> None:
    admin = await api.register()
    user = await create(admin, "Agent")
    for _ in range(5):
        await try_log_in(api, user["email"], "wrong")
    assert (await try_log_in(api, user["email"])).status_code == 403
    assert (await admin.get(f"/users/{user['id']}"))["is_locked"] is True
    assert (await admin.put(f"/users/{user['id']}", json={"is_locked": False}))["is_locked"] is False
    await log_in(api, user["email"])
    audit = [row for row in await api.audits(admin) if row["action"] == "update"]
    assert [row["changes"] for row in audit] == ['{"is_locked": [true, false]}']


async def test_a_false_lock_also_forgets_the_failures_before_it(api: Api) -> None:
    admin = await api.register()
    user = await create(admin, "Agent")
    for _ in range(4):
        await try_log_in(api, user["email"], "wrong")
    await admin.put(f"/users/{user['id']}", json={"is_locked": False})
    assert (await try_log_in(api, user["email"], "wrong")).status_code == 401
    await log_in(api, user["email"])


async def test_of_two_writers_with_one_tag_one_wins(api: Api) -> None:
    admin = await api.register()
    user = await create(admin, "Agent")
    path, ids = f"/users/{user['id']}", await role_ids(admin)
    changes: list[list[dict[str, Any]]] = [
        [{"role_ids": [ids["Manager"]]}, {"role_ids": []}],
        [{"role_ids": [ids["Agent"]]}, {"password": OTHER_PASSWORD}],
        [{"first_name": "Bea"}, {"role_ids": [ids["Manager"], ids["Agent"]]}],
    ]
    for pair in changes:
        headers = {"If-Match": (await admin.request("GET", path)).headers["ETag"]}
        answers = await asyncio.gather(*(admin.request("PUT", path, json=body, headers=headers) for body in pair))
        assert sorted(answer.status_code for answer in answers) == [200, 412]
    await admin.delete(path, headers=headers, status=412)


# --- access ------------------------------------------------------------------------------------------------------


async def test_a_deactivated_user_is_out_at_once_and_stays_readable(api: Api) -> None:
    admin = await api.register()
    user = await create(admin, "Agent")
    client = await log_in(api, user["email"])
    refresh_token = (await try_log_in(api, user["email"])).json()["refresh_token"]
    path = f"/users/{user['id']}"
    await admin.delete(path)
    await client.get("/properties", status=401)
    assert (await try_log_in(api, user["email"])).status_code == 401
    await api.anonymous.post("/auth/refresh", json={"refresh_token": refresh_token}, status=401)
    assert (await admin.get(path))["is_active"] is False
    assert user["id"] in [item["id"] for item in (await admin.get("/users"))["items"]]
    # Again changes nothing.
    gone = await admin.get(path)
    await admin.delete(path)
    assert await admin.get(path) == gone
    # The address stays the user's.
    await admin.post("/users", json=person(email=user["email"]), status=409)
    assert (await admin.put(path, json={"is_active": True}))["is_active"] is True
    await client.get("/properties", status=401)
    await (await log_in(api, user["email"])).get("/properties")
    assert (await admin.put(path, json={"is_active": False}))["is_active"] is False
    assert (await try_log_in(api, user["email"])).status_code == 401


async def test_roles_change_what_the_next_request_may_do(api: Api) -> None:
    admin = await api.register()
    ids = await role_ids(admin)
    user = await create(admin, "Agent")
    client = await log_in(api, user["email"])
    await client.get("/audit-logs", status=403)
    await admin.put(f"/users/{user['id']}", json={"role_ids": [ids["Manager"]]})
    await client.get("/audit-logs")
    await admin.put(f"/users/{user['id']}", json={"role_ids": []})
    await client.get("/audit-logs", status=403)
    await client.get("/auth/me")


async def test_nobody_deactivates_themselves(api: Api) -> None:
    admin = await api.register()
    await create(admin, "Admin")
    for method, body in (("DELETE", None), ("PUT", {"is_active": False})):
        options = {"json": body} if body else {}
        error = await admin.error(method, f"/users/{admin.user_id}", status=409, **options)
        assert error["type"] == "BusinessLogicError"
    assert (await admin.get(f"/users/{admin.user_id}"))["is_active"] is True


async def test_the_last_admin_stays(api: Api) -> None:
    admin = await api.register()
    deputy = await add_deputy(api, admin)
    ids = await role_ids(admin)
    path = f"/users/{admin.user_id}"

    async def refuse_all() -> None:
        for client, method, body in (
            (deputy, "DELETE", None),
            (deputy, "PUT", {"is_active": False}),
            (deputy, "PUT", {"role_ids": []}),
            (admin, "PUT", {"role_ids": [ids["Manager"]]}),
        ):
            options = {"json": body} if body else {}
            error = await client.error(method, path, status=409, **options)
            assert error["type"] == "BusinessLogicError"

    await refuse_all()
    # One who is out does not count, nor does a role that is only called so.
    second = await create(admin, "Admin")
    await admin.delete(f"/users/{second['id']}")
    await admin.post("/roles", json={"name": "admin "}, status=409)
    await refuse_all()
    assert (await admin.put(path, json={"first_name": "Eve", "role_ids": [ids["Admin"], ids["Agent"]]}))["roles"]
    await admin.put(f"/users/{second['id']}", json={"is_active": True})
    await admin.put(path, json={"role_ids": [ids["Agent"]]})
    assert await active_admins(api, admin) == 1


@pytest.mark.slow
async def test_two_requests_cannot_take_the_last_two_admins(api: Api) -> None:
    admin = await api.register()
    deputy = await add_deputy(api, admin)
    ids = await role_ids(admin)
    admins = [admin.user_id, (await create(admin, "Admin"))["id"]]
    ways: list[tuple[str, dict[str, Any]]] = [
        ("DELETE", {}), ("PUT", {"json": {"is_active": False}}), ("PUT", {"json": {"role_ids": []}})
    ]  # fmt: skip
    for first in ways:
        for second in ways:
            answers = await asyncio.gather(
                *(
                    deputy.request(method, f"/users/{user_id}", **options)
                    for (method, options), user_id in zip((first, second), admins, strict=True)
                )
            )
            statuses = [answer.status_code for answer in answers]
            assert sorted(status == 409 for status in statuses) == [False, True], statuses
            assert await active_admins(api, admin) == 1
            for user_id in admins:
                await api.value("update users set is_active = true where id = $1", user_id)
                await api.value(
                    "insert into user_roles select organization_id, id, $2 from users where id = $1"
                    " on conflict do nothing",
                    user_id,
                    ids["Admin"],
                )


# --- nobody grants what they lack ---------------------------------------------------------------------------------


async def test_nobody_gives_a_role_that_holds_what_they_lack(api: Api) -> None:
    admin = await api.register()
    ids = await role_ids(admin)
    deputy = await add_deputy(api, admin, "organization:update", "audit:read")
    user = await create(admin)
    for method, path, body in (
        ("POST", "/users", person(role_ids=[ids["Agent"], ids["Admin"]])),
        ("PUT", f"/users/{user['id']}", {"role_ids": [ids["Admin"]]}),
        ("PUT", f"/users/{deputy.user_id}", {"role_ids": [ids["Admin"]]}),
    ):
        error = await deputy.error(method, path, json=body, status=403)
        assert error["type"] == "InsufficientPermissionsError"
        assert error["details"]["missing_permissions"] == ["audit:read", "organization:update"]
        assert "organization:update" in error["message"]
    error = await deputy.error("POST", "/users", json=person(role_ids=[ids["Manager"]]), status=403)
    assert error["details"]["required_permission"] == "audit:read"
    assert (await deputy.post("/users", json=person(role_ids=[ids["Agent"]])))["roles"][0]["name"] == "Agent"
    await deputy.put(f"/users/{user['id']}", json={"role_ids": [ids["Agent"]]})
    denied = [row["changes"] for row in await api.audits(admin) if row["action"] == "denied"]
    assert denied == ['{"permission": [null, "audit:read"]}'] * 4


async def test_nobody_takes_over_a_user_who_may_more(api: Api) -> None:
    admin = await api.register()
    deputy = await add_deputy(api, admin, "organization:update")
    ids = await role_ids(admin)
    victim = await create(admin, "Admin")
    path = f"/users/{victim['id']}"
    for change in (
        {"password": OTHER_PASSWORD},
        {"email": f"{uuid4().hex}@example.com"},
        {"role_ids": [ids["Agent"]]},
        {"role_ids": [ids["Admin"]]},
        {"is_active": False},
        {"first_name": "Eve", "is_active": True},
    ):
        error = await deputy.error("PUT", path, json=change, status=403)
        assert error["details"]["required_permission"] == "organization:update"
    await deputy.error("DELETE", path, status=403)
    assert await admin.get(path) == victim
    await log_in(api, victim["email"])
    # What gives nobody any power may be changed.
    await deputy.put(path, json={"first_name": "Eve", "phone": "1", "is_locked": False})
    # Nor may one who is out be let in.
    await admin.delete(path)
    await deputy.error("PUT", path, json={"is_active": True}, status=403)


async def test_a_role_that_grows_while_it_is_given_gives_all_or_nothing(api: Api) -> None:
    """Growth and grant come one after the other: what the user may do in the end is what the role has, or nothing."""
    admin = await api.register()
    permissions = {item["name"]: item["id"] for item in await admin.get("/permissions?page_size=100")}
    deputy = await add_deputy(api, admin, "audit:read")
    for _ in range(5):
        small = [permissions["lead:read"]]
        role = await admin.post("/roles", json={"name": uuid4().hex, "permission_ids": small})
        user = await create(admin)
        growth, grant = await asyncio.gather(
            admin.request("PUT", f"/roles/{role['id']}", json={"permission_ids": [*small, permissions["audit:read"]]}),
            deputy.request("PUT", f"/users/{user['id']}", json={"role_ids": [role["id"]]}),
        )
        assert growth.status_code == 200
        assert grant.status_code in (200, 403)
        held = await api.value("select permissions from users where id = $1", user["id"])
        assert held == (["audit:read", "lead:read"] if grant.status_code == 200 else [])


# --- audit and tenancy --------------------------------------------------------------------------------------------


async def test_every_change_is_audited_without_secrets(api: Api) -> None:
    admin = await api.register()
    ids = await role_ids(admin)
    user = await create(admin, "Agent")
    path = f"/users/{user['id']}"
    await admin.put(path, json={"first_name": "Bea", "role_ids": [ids["Manager"]]})
    await admin.put(path, json={"password": OTHER_PASSWORD})
    await admin.put(path, json={"first_name": "Bea"})
    await admin.delete(path)
    await admin.put(path, json={"is_active": True})
    logs = (await admin.get(f"/audit-logs?resource_type=user&resource_id={user['id']}&sort=created_at"))["items"]
    assert [log["action"] for log in logs] == ["create", "update", "password_change", "delete", "update"]
    created, updated, password, deleted, restored = (log["changes"] for log in logs)
    assert created["email"] == [None, user["email"]]
    assert created["role_ids"] == [None, [ids["Agent"]]]
    assert updated == {"first_name": ["Ann", "Bea"], "role_ids": [[ids["Agent"]], [ids["Manager"]]]}
    assert password == {}
    assert deleted == {"is_active": [True, False]}
    assert restored == {"is_active": [False, True]}
    assert {log["user_id"] for log in logs} == {admin.user_id}
    text = str([dict(row) for row in await api.audits(admin)])
    assert "argon2" not in text
    assert PASSWORD not in text
    assert OTHER_PASSWORD not in text


async def test_users_of_others_are_not_there(api: Api) -> None:
    admin, other = await api.register(), await api.register()
    foreign = f"/users/{other.user_id}"
    for method, options in (("GET", {}), ("PUT", {"json": {"first_name": "Eve"}}), ("DELETE", {})):
        errors = [await admin.error(method, path, status=404, **options) for path in (foreign, f"/users/{2**62}")]
        assert errors[0] | {"request_id": ""} == errors[1] | {"request_id": ""}
    assert [item["id"] for item in (await admin.get("/users"))["items"]] == [admin.user_id]
    assert (await other.get(foreign))["first_name"] == "Ada"
