"""Registration, log-in, sessions, passwords, and the user's own account."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from sanic import Blueprint

from reos.auth import one_time
from reos.auth import sessions as auth_sessions
from reos.auth.login import LoginTry, VerifiedLogin, address_key, admit, confirm, verify_login
from reos.auth.passwords import hash_password, password_problems
from reos.db import Record, enter_tenant, tenant_transaction
from reos.errors import InvalidCredentialsError, InvalidInputError, ValidationError
from reos.handlers.changes import differing
from reos.handlers.paging import array
from reos.middleware.call import NO_CONTENT, Answer, Call
from reos.middleware.endpoint import ANY_USER, PREFIX, PUBLIC, delete, get, post, put
from reos.queries import audit, auth, events, jobs, one_time_tokens, sessions
from reos.queries.users import email_key
from reos.schemas.auth import (
    EmailVerification,
    LoggedIn,
    Login,
    Me,
    MeUpdate,
    PasswordChange,
    PasswordReset,
    PasswordResetRequest,
    Refresh,
    Registration,
    Session,
    Tokens,
)
from reos.schemas.common import SubListQuery, patch_of
from reos.schemas.users import User

bp = Blueprint("auth")

MAX_NAME = 200  # characters of an organisation's name
MAX_SLUG = 80


# --- registration and log-in -----------------------------------------------------------------------------------


async def hash_new_password(call: Call, body: Any, ids: dict[str, int]) -> str:
    """The hash of a body's `password`. Raises ValidationError (422) with each rule of the policy that it breaks."""
    return await _hash_acceptable(call, "password", body.password)


async def _hash_acceptable(call: Call, field: str, password: str) -> str:
    problems = password_problems(password, call.context.settings)
    if problems:
        raise ValidationError(
            errors=[{"field": field, "message": f"Password {message}", "type": code} for code, message in problems]
        )
    return await hash_password(password)


@post(bp, "/auth/register", PUBLIC, response=LoggedIn, prepare=hash_new_password, is_secret=True)
async def register(call: Call, body: Registration) -> Answer:
    """Register an organisation with its first user, its Admin, and log in."""
    name = body.organization_name or f"{body.first_name} {body.last_name}"[:MAX_NAME].strip()
    row = await auth.register(
        call.conn,
        organization_name=name,
        slug=slug_of(name),
        email=body.email,
        email_key=email_key(body.email),
        password_hash=call.prepared,
        first_name=body.first_name,
        last_name=body.last_name,
        phone=body.phone,
    )
    organization_id, user_id = row["organization_id"], row["user_id"]
    tokens = await _open_session(call, organization_id, user_id)
    user = _user_of(await auth.get_me(call.conn, user_id))
    call.audit("create", "organization", organization_id, {"name": [None, name]}, user_id=user_id)
    call.audit("create", "user", user_id, audit.created(user), user_id=user_id)
    await jobs.defer(call.conn, "send_verification_email", {"user_id": user_id})
    await jobs.defer(call.conn, "send_welcome_email", {"user_id": user_id})
    return call.created(tokens | {"user": user}, f"{PREFIX}/users/{user_id}")


def slug_of(name: str) -> str:
    """The name as it may stand in an address: lower-case ASCII letters, digits and single hyphens."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain)[:MAX_SLUG].strip("-") or "organization"


@post(bp, "/auth/login", PUBLIC, response=LoggedIn, status=200, has_transaction=False)
async def log_in(call: Call, body: Login) -> dict[str, Any]:
    """Log in.

    A wrong try is answered late, later with each in a row, and after the fifth the account is locked for a while.
    """
    context = call.context
    login = LoginTry(body.email, body.password, call.client_address, call.user_agent, call.request.ctx.request_id)
    verified = await verify_login(context.database, context.signer, context.login_guard, context.settings, login)
    organization_id, user_id = verified.organization_id, verified.user_id
    async with tenant_transaction(context.database, organization_id, user_id) as call.connection:
        await admit(call.conn, verified, context.settings)
        tokens = await _open_session(call, organization_id, user_id)
        user = _user_of(await auth.get_me(call.conn, user_id))
        call.audit("login", "user", user_id, user_id=user_id)
        await events.record_changes(call.conn, call.audits, [])
    return tokens | {"user": user}


async def _open_session(call: Call, organization_id: int, user_id: int) -> dict[str, Any]:
    return await auth_sessions.open_session(
        call.conn,
        call.context.settings,
        call.context.signer,
        organization_id=organization_id,
        user_id=user_id,
        ip_address=call.client_address,
        user_agent=call.user_agent,
    )


def _user_of(me: dict[str, Any]) -> dict[str, Any]:
    """The part of one's own account that others see."""
    return {name: me[name] for name in User.model_fields}


@post(bp, "/auth/refresh", PUBLIC, response=Tokens, status=200, has_transaction=False)
async def refresh(call: Call, body: Refresh) -> dict[str, Any]:
    """Exchange a refresh token for new tokens.

    A refresh token works once. Using an older one again ends the session, since one of two holders is a thief; only
    the one before the present is forgiven for ten seconds.
    """
    context = call.context
    return await auth_sessions.refresh(context.database, context.settings, context.signer, body.refresh_token)


@post(bp, "/auth/logout", ANY_USER, status=204, ignores_key=True)
async def log_out(call: Call) -> Answer:
    """End this session."""
    # Of two at a time the second finds it ended already, which is what it wanted.
    if await sessions.end(call.conn, call.session_id, call.user_id):
        call.audit("logout", "user", call.user_id)
    return NO_CONTENT


# --- the user's own account ------------------------------------------------------------------------------------


@get(bp, "/auth/me", ANY_USER, response=Me)
async def get_me(call: Call) -> dict[str, Any]:
    """Get the user's own account, with organisation, roles, permissions and preferences."""
    return await auth.get_me(call.conn, call.user_id)


@put(bp, "/auth/me", ANY_USER, response=Me)
async def update_me(call: Call, body: MeUpdate) -> dict[str, Any]:
    """Change what is sent of the user's own account."""
    before = await auth.lock_me(call.conn, call.user_id)
    call.if_match(before)
    patch = patch_of(body)
    if "preferences" in patch:
        patch["preferences"] = before["preferences"] | patch["preferences"]
    patch = differing(before, patch)
    if not patch:
        return before
    after = await auth.update_me(call.conn, call.user_id, patch)
    call.audit("update", "user", call.user_id, audit.changed(before, after))
    return after


@get(bp, "/auth/sessions", ANY_USER, response=list[Session])
async def list_sessions(call: Call, query: SubListQuery) -> Answer:
    """List the user's sessions, newest first."""
    return array(await sessions.list_of(call.conn, call.user_id, call.session_id, query.limit, query.offset))


@delete(bp, "/auth/sessions/{session_id}", ANY_USER)
async def delete_session(call: Call, session_id: int) -> Answer:
    """End one of the user's sessions."""
    await sessions.revoke(call.conn, session_id, call.user_id)
    call.audit("delete", "session", session_id)
    return NO_CONTENT


# --- passwords -------------------------------------------------------------------------------------------------


async def check_password_change(call: Call, body: Any, ids: dict[str, int]) -> tuple[VerifiedLogin, str]:
    """The try with the present password, and the hash of the next.

    Raises ValidationError, or InvalidInputError for a wrong present password.
    """
    new_hash = await _hash_acceptable(call, "new_password", body.new_password)
    return await _check_current_password(call, body.current_password), new_hash


async def _check_current_password(call: Call, password: str) -> VerifiedLogin:
    """The try, whose password must be the user's present one. Holds no connection.

    Who has got hold of a session guesses no better here than at the log-in: it is the same try, with the same count.
    Raises InvalidInputError, and what a log-in raises when it comes too early or the account is locked.
    """
    assert call.principal is not None
    context, request_id = call.context, call.request.ctx.request_id
    async with tenant_transaction(
        context.database, call.principal.organization_id, call.user_id, read_only=True
    ) as conn:
        email = await auth.read_email(conn, call.user_id)
    login = LoginTry(email, password, call.client_address, call.user_agent, request_id)
    try:
        return await verify_login(context.database, context.signer, context.login_guard, context.settings, login)
    except InvalidCredentialsError:
        raise InvalidInputError("The current password is wrong.") from None


@post(bp, "/auth/change-password", ANY_USER, status=204, prepare=check_password_change)
async def change_password(call: Call, body: PasswordChange) -> Answer:
    """Change the password. Every other session of the user ends; this one goes on."""
    verified, new_hash = call.prepared
    try:
        await confirm(call.conn, verified, call.context.settings)
    except InvalidCredentialsError:
        # Somebody else has changed it between the check and now.
        raise InvalidInputError("The current password is wrong.") from None
    await auth.set_password_hash(call.conn, call.user_id, new_hash)
    await sessions.revoke_all(call.conn, call.user_id, but=call.session_id)
    # Whoever reads the old mails must not come in by them.
    await one_time_tokens.spend_links(call.conn, call.user_id, one_time.PASSWORD_RESET)
    call.audit("password_change", "user", call.user_id)
    await jobs.defer(call.conn, "send_password_changed_email", {"user_id": call.user_id})
    return NO_CONTENT


@post(bp, "/auth/password-reset-request", PUBLIC, status=204)
async def request_password_reset(call: Call, body: PasswordResetRequest) -> Answer:
    """Ask for a mail with a link that sets a new password. The answer is the same whether or not there is a user."""
    lookup_id = await auth.add_lookup(
        call.conn,
        "password_reset",
        body.email,
        email_key(body.email),
        call.client_address,
        call.user_agent,
        call.request.ctx.request_id,
    )
    await jobs.defer(call.conn, "send_password_reset_email", {"lookup_id": lookup_id})
    return NO_CONTENT


async def hash_reset_password(call: Call, body: Any, ids: dict[str, int]) -> str:
    """The new hash. Raises InvalidInputError for a token that is none, before anything is hashed for it."""
    one_time.organization_of(call.context.signer, one_time.PASSWORD_RESET, body.token)
    return await _hash_acceptable(call, "new_password", body.new_password)


@post(bp, "/auth/password-reset-confirm", PUBLIC, status=204, prepare=hash_reset_password)
async def confirm_password_reset(call: Call, body: PasswordReset) -> Answer:
    """Set a new password with the token of the mail. All sessions of the user end, and a lock is lifted."""
    user_id, user = await _redeem(call, one_time.PASSWORD_RESET, body.token)
    if user is None or not user["is_active"]:
        raise InvalidInputError("The account is not active.")
    await auth.set_password_hash(call.conn, user_id, call.prepared)
    await sessions.revoke_all(call.conn, user_id)
    await auth.unlock(call.conn, user_id, address_key(call.context.signer, user["email"]))
    call.audit("password_reset", "user", user_id, user_id=user_id)
    await jobs.defer(call.conn, "send_password_changed_email", {"user_id": user_id})
    return NO_CONTENT


# --- verification ----------------------------------------------------------------------------------------------


@post(bp, "/auth/verify-email", PUBLIC, status=204)
async def verify_email(call: Call, body: EmailVerification) -> Answer:
    """Prove with the token of the mail that the address is the user's."""
    user_id, user = await _redeem(call, one_time.VERIFY_EMAIL, body.token)
    if user is not None and not user["is_verified"]:
        await auth.verify_user(call.conn, user_id)
        call.audit("update", "user", user_id, {"is_verified": [False, True]}, user_id=user_id)
    return NO_CONTENT


@post(bp, "/auth/resend-verification", ANY_USER, status=204)
async def resend_verification(call: Call) -> Answer:
    """Send the verification mail again, unless the address is verified already."""
    user = await auth.lock_user(call.conn, call.user_id)
    if user is not None and not user["is_verified"]:
        await jobs.defer(call.conn, "send_verification_email", {"user_id": call.user_id})
    return NO_CONTENT


async def _redeem(call: Call, purpose: str, token: str) -> tuple[int, Record | None]:
    """Use a link's token up and make its organisation the transaction's tenant; the user's id and row, locked.

    The row first, as whoever changes a password or an address and so spends the user's links takes it: the other way
    round the two would wait for each other.
    """
    signer = call.context.signer
    await enter_tenant(call.conn, one_time.organization_of(signer, purpose, token))
    user_id = one_time.user_of(signer, purpose, token)
    user = await auth.lock_user(call.conn, user_id)
    await one_time.redeem(call.conn, signer, purpose, token)
    return user_id, user
