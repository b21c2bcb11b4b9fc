"""Every route asks for its permission and for no other: walked by users who have all others, and only that one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from uuid import uuid4

import pytest
from api import Api, Client
from raw_http import RawClient, raw_client
from route_walk import ABSENT, ENDPOINTS, PREFIX, PUBLIC, Endpoint, World, fill, label, path_ids

from reos.schemas.common import ErrorEnvelope

pytestmark = [pytest.mark.integration, pytest.mark.auth]

GUARDED = [endpoint for endpoint in ENDPOINTS if endpoint.permissions]
LOGGED_IN = [endpoint for endpoint in ENDPOINTS if endpoint.permission != PUBLIC]

# Whoever has no account yet, or cannot get into it.
PUBLIC_ROUTES = {
    "POST /auth/register",
    "POST /auth/login",
    "POST /auth/refresh",
    "POST /auth/password-reset-request",
    "POST /auth/password-reset-confirm",
    "POST /auth/verify-email",
}


@dataclass
class Staff:
    """An organisation with users who have exactly some of the permissions; each is made once."""

    api: Api
    world: World
    permissions: frozenset[str]
    _users: dict[frozenset[str], Client] = field(default_factory=dict)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def with_only(self, *names: str) -> Client:
        async with self._lock:
            wanted = frozenset(names)
            if wanted not in self._users:
                self._users[wanted] = await self.api.add_user_with(self.world.admin, sorted(wanted))
            return self._users[wanted]

    async def without(self, name: str) -> Client:
        return await self.with_only(*(self.permissions - {name}))


@pytest.fixture(scope="module")
async def staff(api: Api) -> Staff:
    names = {row["name"] for row in await api.fetch("select name from permissions")}
    return Staff(api, World(api, await api.register()), frozenset(names))


@pytest.fixture(scope="module")
async def raw(api: Api) -> AsyncIterator[RawClient]:
    async with raw_client(api.url) as raw:
        yield raw


def test_the_permissions_are_those_of_the_table(staff: Staff) -> None:
    assert GUARDED
    named = {name for endpoint in GUARDED for name in endpoint.permissions}
    assert named - staff.permissions == set()


def test_only_what_serves_no_user_is_public() -> None:
    assert {label(endpoint) for endpoint in ENDPOINTS if endpoint.permission == PUBLIC} == PUBLIC_ROUTES


def test_only_ones_own_account_and_stream_need_no_permission() -> None:
    free = [label(endpoint) for endpoint in LOGGED_IN if not endpoint.permissions]
    assert [name for name in free if name.split("/")[1] not in ("auth", "sse")] == []


@pytest.mark.parametrize("endpoint", GUARDED, ids=label)
def test_the_permission_is_that_of_the_contract(endpoint: Endpoint) -> None:
    assert set(endpoint.permissions) == permissions_by_rule(endpoint)


def permissions_by_rule(endpoint: Endpoint) -> set[str]:
    """What the contract says: GET needs read, POST on the collection create, DELETE delete, and PUT, PATCH, restore and
    every write on a sub-resource update, of the route's resource; the rest are exceptions that it names.
    """
    parts = [part for part in endpoint.path.removeprefix(f"{PREFIX}/").split("/") if not part.startswith("{")]
    resource = {"properties": "property", "permissions": "role", "suppressions": "campaign", "audit-logs": "audit"}.get(
        parts[0], parts[0] if parts[0] in ("organization", "analytics") else parts[0].removesuffix("s")
    )
    if parts[-1] == "export":
        read = "analytics:read" if resource == "analytics" else f"{resource}:read"
        return {read, "report:export"}
    match parts[-1]:
        case "assign":
            return {"lead:assign"}
        case "convert":
            return {"lead:update", "deal:create"}
        case "send" | "pause" | "resume" | "cancel":
            return {"campaign:send"}
    is_template = parts[:2] == ["campaigns", "templates"]
    is_own = len(parts) == 1 or (is_template and len(parts) == 2)
    if endpoint.method == "GET" or parts[-1] == "preview":
        return {f"{resource}:read"}
    if is_own and endpoint.method in ("POST", "DELETE") and resource != "organization":
        return {f"{resource}:{'create' if endpoint.method == 'POST' else 'delete'}"}
    return {f"{resource}:update"}


# --- users who lack it -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", GUARDED, ids=label)
async def test_all_permissions_but_that_one_are_not_enough(staff: Staff, raw: RawClient, endpoint: Endpoint) -> None:
    """The refusal comes before the body is judged and before anybody learns whether there is such a resource."""
    path = fill(endpoint.path, dict.fromkeys(path_ids(endpoint.path), ABSENT))
    for permission in endpoint.permissions:
        user = await staff.without(permission)
        request_id = uuid4().hex
        headers = {**user.headers, "X-Request-ID": request_id, "Content-Type": "application/json"}
        answer = await raw.request(endpoint.method, path, headers, b'{"unknown": 1}' if endpoint.body else None)
        assert answer.status == 403, answer
        error = ErrorEnvelope.model_validate_json(answer.body).error
        assert error.type == "InsufficientPermissionsError"
        assert error.details.model_dump(exclude_unset=True) == {"required_permission": permission}
        assert permission in error.message
        denied = await staff.api.fetch(
            "select action, resource_type, user_id, changes from audit_logs where request_id = $1", request_id
        )
        assert [tuple(row) for row in denied] == [
            ("denied", permission.partition(":")[0], user.user_id, f'{{"permission": [null, "{permission}"]}}')
        ]


@pytest.mark.parametrize("endpoint", GUARDED, ids=label)
async def test_that_one_permission_is_enough(staff: Staff, endpoint: Endpoint) -> None:
    """A request that works for an Admin works for a user who has nothing else."""
    user = await staff.with_only(*endpoint.permissions)
    request = await staff.world.request(endpoint)
    await user.call(request.method, request.path.removeprefix(PREFIX), status=endpoint.status, **request.options())


@pytest.mark.parametrize("endpoint", LOGGED_IN, ids=label)
async def test_without_a_token_nothing_is_told(raw: RawClient, endpoint: Endpoint) -> None:
    path = fill(endpoint.path, dict.fromkeys(path_ids(endpoint.path), "abc"))
    authorizations = (None, "", "Bearer", "Bearer ", "Bearer abc", "Bearer a.b.c", "Basic YTpi", "bearer\tx")
    for authorization in authorizations:
        headers = {} if authorization is None else {"Authorization": authorization}
        # What is wrong with the rest of the request, only who is logged in learns.
        answer = await raw.request(endpoint.method, f"{path}?unknown=1", headers, b"{" if endpoint.body else None)
        assert answer.status == 401, (authorization, answer)
        assert answer.header("www-authenticate") == "Bearer"
        error = ErrorEnvelope.model_validate_json(answer.body).error
        assert error.type in ("AuthenticationError", "InvalidTokenError")
        assert error.details.model_dump(exclude_unset=True) == {}
