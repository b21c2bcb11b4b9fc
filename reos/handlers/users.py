"""The organisation's users: who may work, with which roles.

Nobody hands out a permission that they lack: not by giving a role, and not by taking over a user who has it. So the
password, the address, the roles and the access of a user change only by somebody who has all of the user's
permissions; names and phone, and the end of a lock-out, by everybody who may update users.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sanic import Blueprint

from reos.auth import one_time
from reos.auth.login import address_key
from reos.db import Record
from reos.errors import BusinessLogicError
from reos.handlers.auth import hash_new_password
from reos.handlers.changes import differing
from reos.handlers.paging import check_fields, envelope, page_request
from reos.middleware.call import NO_CONTENT, Answer, Call
from reos.middleware.endpoint import PREFIX, delete, get, post, put
from reos.queries import audit, auth, jobs, one_time_tokens, permissions, roles, sessions
from reos.queries import users as queries
from reos.schemas.common import patch_of
from reos.schemas.users import OrganizationUser, UserCreate, UserPage, UserQuery, UserUpdate

bp = Blueprint("users")

_ITEM_FIELDS = tuple(OrganizationUser.model_fields)
_POWERFUL_FIELDS = frozenset({"email", "password", "role_ids", "is_active"})


@post(bp, "/users", "user:create", response=OrganizationUser, prepare=hash_new_password, is_tagged=True)
async def create_user(call: Call, body: UserCreate) -> Answer:
    """Create a user, whose address counts as verified, and send a welcome mail."""
    await roles.lock_for_grant(call.conn, "role_ids", body.role_ids)
    await permissions.check_grant(call.conn, role_ids=body.role_ids)
    created = await queries.create(
        call.conn,
        email=body.email,
        first_name=body.first_name,
        last_name=body.last_name,
        phone=body.phone,
        password_hash=call.prepared,
        role_ids=body.role_ids,
    )
    call.audit("create", "user", created["id"], audit.created(_audited(created)))
    await jobs.defer(call.conn, "send_welcome_email", {"user_id": created["id"]})
    return call.created(created, f"{PREFIX}/users/{created['id']}")


@get(bp, "/users", "user:read", response=UserPage)
async def list_users(call: Call, query: UserQuery) -> dict[str, Any]:
    """List users, deactivated ones too."""
    check_fields(query, _ITEM_FIELDS)
    filters = query.active_filters()
    plain = {name: value for name, value in filters.items() if name != "search"}
    page = page_request(call, queries.LISTING, query, filters, "-created_at")
    rows = await queries.list_users(call.conn, page, plain, search=query.search)
    return envelope(call, queries.LISTING, query, filters, page, rows)


@get(bp, "/users/{user_id}", "user:read", response=OrganizationUser)
async def get_user(call: Call, user_id: int) -> Record:
    """Get a user."""
    return await queries.get(call.conn, user_id)


async def hash_changed_password(call: Call, body: Any, ids: dict[str, int]) -> str | None:
    """The hash of the password, if one was sent. Raises ValidationError as `hash_new_password` does."""
    return None if body.password is None else await hash_new_password(call, body, ids)


@put(bp, "/users/{user_id}", "user:update", response=OrganizationUser, prepare=hash_changed_password)
async def update_user(call: Call, user_id: int, body: UserUpdate) -> Record:
    """Change what is sent of a user.

    A new password ends the user's sessions (of one's own all but the present), and so does `is_active` false. What
    gives access or rights is changed only by somebody who has all of the user's permissions.
    """
    sent = patch_of(body)
    role_ids = sent.pop("role_ids", None)
    may_cost_an_admin = role_ids is not None or body.is_active is False
    admin_role_id = await roles.lock_admin_role(call.conn) if may_cost_an_admin else 0
    await roles.lock_for_grant(call.conn, "role_ids", role_ids or [])
    before = await queries.lock(call.conn, user_id)
    had = _role_ids(before)
    if _POWERFUL_FIELDS & body.model_fields_set:
        await permissions.check_power_over(call.conn, user_id)
        await permissions.check_grant(call.conn, role_ids=[role_id for role_id in role_ids or () if role_id not in had])
    call.if_match(before)
    if may_cost_an_admin:
        is_admin_after = body.is_active is not False and (role_ids is None or admin_role_id in role_ids)
        await _refuse_loss(call, before, admin_role_id, is_active=body.is_active is not False, is_admin=is_admin_after)
    await _write(call, before, sent, sorted(set(had if role_ids is None else role_ids)))
    after = await queries.get(call.conn, user_id)
    if changes := audit.changed(_audited(before), _audited(after)):
        call.audit("update", "user", user_id, changes)
    return after


async def _write(call: Call, before: Record, sent: dict[str, Any], role_ids: list[int]) -> None:
    """Write what differs from before, and what follows from it."""
    user_id = before["id"]
    new_hash: str | None = call.prepared
    is_unlocked = sent.pop("is_locked", None) is False
    sent.pop("password", None)
    patch = differing(before, sent)
    if patch or new_hash or role_ids != _role_ids(before):
        await queries.update(call.conn, user_id, patch)
    if role_ids != _role_ids(before):
        await queries.set_roles(call.conn, user_id, role_ids)
    if is_unlocked or "email" in patch:
        # Failures are counted by address.
        await auth.unlock(call.conn, user_id, address_key(call.context.signer, patch.get("email", before["email"])))
    if new_hash:
        await auth.set_password_hash(call.conn, user_id, new_hash)
        await sessions.revoke_all(call.conn, user_id, but=call.session_id if user_id == call.user_id else None)
        call.audit("password_change", "user", user_id)
        await jobs.defer(call.conn, "send_password_changed_email", {"user_id": user_id})
    if "email" in patch:
        await jobs.defer(call.conn, "send_address_changed_email", {"user_id": user_id})
    if patch.get("is_active") is False:
        await sessions.revoke_all(call.conn, user_id)
    if new_hash or "email" in patch or patch.get("is_active") is False:
        # Whoever reads the old mails must not come in by them.
        await one_time_tokens.spend_links(call.conn, user_id, one_time.PASSWORD_RESET, one_time.VERIFY_EMAIL)


@delete(bp, "/users/{user_id}", "user:delete")
async def delete_user(call: Call, user_id: int) -> Answer:
    """Deactivate a user: the sessions end at once, and the user stays readable."""
    admin_role_id = await roles.lock_admin_role(call.conn)
    before = await queries.lock(call.conn, user_id)
    await permissions.check_power_over(call.conn, user_id)
    call.if_match(before)
    await _refuse_loss(call, before, admin_role_id, is_active=False, is_admin=False)
    if before["is_active"]:
        await _write(call, before, {"is_active": False}, _role_ids(before))
        call.audit("delete", "user", user_id, {"is_active": [True, False]})
    return NO_CONTENT


async def _refuse_loss(call: Call, before: Record, admin_role_id: int, *, is_active: bool, is_admin: bool) -> None:
    """Raises BusinessLogicError when users lock themselves out, or the organisation would be without an Admin.

    The role Admin must be locked.
    """
    user_id = before["id"]
    if not is_active and user_id == call.user_id:
        raise BusinessLogicError("Nobody can deactivate themselves.")
    was_admin = before["is_active"] and admin_role_id in _role_ids(before)
    if was_admin and not is_admin and not await roles.has_other_admin(call.conn, admin_role_id, user_id):
        raise BusinessLogicError("The last Admin of an organisation can be neither removed nor disabled.")


def _role_ids(user: Mapping[str, Any]) -> list[int]:
    """In order."""
    return [role["id"] for role in user["roles"]]


def _audited(user: Mapping[str, Any]) -> dict[str, Any]:
    """The user as audit rows tell of it: roles by their ids, which do not change with a name."""
    told = {name: value for name, value in user.items() if name not in ("roles", "last_login")}
    return told | {"role_ids": _role_ids(user)}
