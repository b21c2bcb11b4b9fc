"""Log-in: read the counter and the hash, check the password outside of any transaction, record the result.

A result is recorded only if the counter has not moved meanwhile, so that a hundred guesses at a time are one. An
unknown address goes through the same statements as a known one, and a job writes the audit row of a failure, because
whose address it is must not show in the time of the answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import NoReturn

from reos.auth.login_guard import Attempt, LoginGuard, too_early, waits
from reos.auth.passwords import hash_password, needs_rehash, verify_password
from reos.auth.signing import Signer
from reos.db import Connection, Database, Record, plain_transaction
from reos.errors import AccountLockedError, InvalidCredentialsError, OrganizationNotActiveError
from reos.queries import auth, jobs
from reos.queries.users import email_key
from reos.settings import Settings

PURPOSE = "login-address"


@dataclass(frozen=True, slots=True)
class LoginTry:
    """Who wants in, with what, and where the try comes from (for the audit row of a failure)."""

    email: str
    password: str
    ip_address: str
    user_agent: str | None
    request_id: str


@dataclass(frozen=True, slots=True)
class VerifiedLogin:
    """A try whose password was right. It counts only once `confirm` has agreed."""

    organization_id: int
    user_id: int
    address_key: bytes
    password_hash: str
    new_hash: str | None  # the same password, hashed with today's parameters
    failures: int


def address_key(signer: Signer, email: str) -> bytes:
    """What `login_attempts` knows an address by: an HMAC, so that the table does not tell who tried."""
    return signer.mac(PURPOSE, email_key(email).encode())


def lockout(settings: Settings) -> timedelta:
    """How long a lock, and the memory of a failure, lasts."""
    return timedelta(minutes=settings.account_lockout_duration_minutes)


async def verify_login(
    database: Database, signer: Signer, guard: LoginGuard, settings: Settings, login: LoginTry
) -> VerifiedLogin:
    """Check a try. Raises InvalidCredentialsError (401, held back), AccountLockedError (403),
    OrganizationNotActiveError (403), RateLimitExceededError (429) or OverloadedError (503).
    """
    key = address_key(signer, login.email)
    with guard.attempt(key) as attempt:
        async with guard.reading(), plain_transaction(database) as conn:
            state = await auth.read_login(conn, email_key(login.email), key, lockout(settings))
        if state["locked_seconds"] > 0:
            raise AccountLockedError(headers={"Retry-After": str(int(state["locked_seconds"]) + 1)})
        if state["wait_seconds"] > 0:
            raise too_early(state["wait_seconds"])
        is_right = await verify_password(state["password_hash"], login.password)
        if not is_right or not state["is_active"]:
            await _refuse(database, settings, login, key, state["failures"], attempt)
    if not state["organization_is_active"]:
        raise OrganizationNotActiveError
    return await _verified(state, key, login.password)


async def _verified(state: Record, key: bytes, password: str) -> VerifiedLogin:
    old_hash = state["password_hash"]
    new_hash = await hash_password(password) if needs_rehash(old_hash) else None
    return VerifiedLogin(
        state["organization_id"], state["user_id"], key, old_hash, new_hash, failures=state["failures"]
    )


async def _refuse(
    database: Database, settings: Settings, login: LoginTry, key: bytes, seen: int, attempt: Attempt
) -> NoReturn:
    """Count the failure, leave its audit row to a job, and answer late."""
    wait = waits(settings.max_login_attempts)[min(seen, settings.max_login_attempts - 1)]
    async with plain_transaction(database) as conn:
        counted = await auth.record_failure(
            conn,
            email_key(login.email),
            key,
            seen=seen,
            wait=wait,
            is_locked=seen + 1 >= settings.max_login_attempts,
            window=lockout(settings),
        )
        if counted:
            await _leave_to_job(conn, login)
    if not counted:
        raise too_early(1)
    await attempt.hold(wait)
    raise InvalidCredentialsError


async def _leave_to_job(conn: Connection, login: LoginTry) -> None:
    lookup_id = await auth.add_lookup(
        conn,
        "login_failed",
        login.email,
        email_key(login.email),
        login.ip_address,
        login.user_agent,
        login.request_id,
    )
    await jobs.defer(conn, "record_failed_login", {"lookup_id": lookup_id})


async def confirm(conn: Connection, login: VerifiedLogin, settings: Settings) -> None:
    """Count the try as a success, which forgets the failures, in the transaction of what it was made for.

    Raises RateLimitExceededError (429) when a failure was recorded meanwhile, InvalidCredentialsError when the
    password or the user was changed.
    """
    user = await auth.lock_user(conn, login.user_id)
    if user is None or not user["is_active"] or user["password_hash"] != login.password_hash:
        raise InvalidCredentialsError
    if not await auth.record_success(conn, login.address_key, seen=login.failures, window=lockout(settings)):
        raise too_early(1)


async def admit(conn: Connection, login: VerifiedLogin, settings: Settings) -> None:
    """Let the user in, in the transaction that opens the session. Raises as `confirm` does."""
    await confirm(conn, login, settings)
    if login.new_hash is not None:
        await auth.set_password_hash(conn, login.user_id, login.new_hash)
    await auth.note_login(conn, login.user_id)
