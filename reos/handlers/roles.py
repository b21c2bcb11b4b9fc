"""The organisation's roles. A change takes effect with the next request of every user who has the role."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sanic import Blueprint

from reos.errors import BusinessLogicError
from reos.handlers.changes import differing
from reos.handlers.paging import array
from reos.middleware.call import NO_CONTENT, Answer, Call
from reos.middleware.endpoint import PREFIX, delete, get, post, put
from reos.queries import audit, permissions
from reos.queries import roles as queries
from reos.schemas.common import SubListQuery, patch_of
from reos.schemas.roles import Role, RoleCreate, RoleItem, RoleUpdate

bp = Blueprint("roles")


@post(bp, "/roles", "role:create", response=Role, is_tagged=True)
async def create_role(call: Call, body: RoleCreate) -> Answer:
    """Create a role, of permissions that one has oneself."""
    await permissions.check_ids(call.conn, "permission_ids", body.permission_ids)
    await permissions.check_grant(call.conn, permission_ids=body.permission_ids)
    created = await queries.create(call.conn, body.name, body.description, body.permission_ids)
    call.audit("create", "role", created["id"], audit.created(_audited(created)))
    return call.created(created, f"{PREFIX}/roles/{created['id']}")


@get(bp, "/roles", "role:read", response=list[RoleItem])
async def list_roles(call: Call, query: SubListQuery) -> Answer:
    """List roles, system roles first."""
    return array(await queries.list_roles(call.conn, query.limit, query.offset))


@get(bp, "/roles/{role_id}", "role:read", response=Role)
async def get_role(call: Call, role_id: int) -> dict[str, Any]:
    """Get a role with its permissions."""
    return await queries.get(call.conn, role_id)


@put(bp, "/roles/{role_id}", "role:update", response=Role)
async def update_role(call: Call, role_id: int, body: RoleUpdate) -> dict[str, Any]:
    """Change what is sent of a role. Permissions can be added by those who have them."""
    sent = patch_of(body)
    wanted: list[int] | None = sent.pop("permission_ids", None)
    await permissions.check_ids(call.conn, "permission_ids", wanted or [])
    before = await queries.lock(call.conn, role_id)
    had = _permission_ids(before)
    added = [permission_id for permission_id in wanted or () if permission_id not in had]
    await permissions.check_grant(call.conn, permission_ids=added)
    call.if_match(before)
    _refuse_system(before)
    patch = differing(before, sent)
    permission_ids = None if wanted is None or set(wanted) == set(had) else wanted
    if not patch and permission_ids is None:
        return before
    after = await queries.update(call.conn, role_id, patch, permission_ids)
    call.audit("update", "role", role_id, audit.changed(_audited(before), _audited(after)))
    return after


@delete(bp, "/roles/{role_id}", "role:delete")
async def delete_role(call: Call, role_id: int) -> Answer:
    """Delete a role for good. Its users lose it, and what only it gave them, with their next request."""
    before = await queries.lock(call.conn, role_id)
    call.if_match(before)
    _refuse_system(before)
    user_ids = await queries.list_user_ids(call.conn, role_id)
    await queries.delete(call.conn, role_id)
    call.audit("delete", "role", role_id, audit.deleted(_audited(before) | {"user_ids": user_ids}))
    return NO_CONTENT


def _refuse_system(role: Mapping[str, Any]) -> None:
    if role["is_system"]:
        raise BusinessLogicError("A system role cannot be changed.")


def _permission_ids(role: Mapping[str, Any]) -> list[int]:
    return [permission["id"] for permission in role["permissions"]]


def _audited(role: Mapping[str, Any]) -> dict[str, Any]:
    """The role as audit rows tell of it: permissions by their ids."""
    told = {name: value for name, value in role.items() if name != "permissions"}
    return told | {"permission_ids": _permission_ids(role)}
