"""Sessions and their tokens: opening one, and exchanging its refresh token (RFC 9700, section 4.14.2: rotation)."""

from __future__ import annotations

from typing import Any

from loguru import logger

from reos.auth.signing import Signer
from reos.auth.tokens import RefreshClaims, issue_access_token, read_refresh_token, refresh_hash, refresh_token
from reos.db import Connection, Database, Record, tenant_transaction
from reos.errors import InvalidTokenError, OrganizationNotActiveError, TokenExpiredError
from reos.queries import sessions
from reos.settings import Settings

# So long the token before the present one still works: a client may have sent it twice, or lost the answer.
GRACE_SECONDS = 10.0


def make_tokens(
    settings: Settings, signer: Signer, *, organization_id: int, user_id: int, session_id: int, generation: int
) -> dict[str, Any]:
    """The answer with a fresh access token and the refresh token of a session's generation."""
    access_token = issue_access_token(settings, user_id=user_id, organization_id=organization_id, session_id=session_id)
    return {
        "access_token": access_token,
        "refresh_token": refresh_token(signer, organization_id, session_id, generation),
        "token_type": "bearer",
        "expires_in": settings.jwt_access_token_expire_minutes * 60,
    }


async def open_session(
    conn: Connection,
    settings: Settings,
    signer: Signer,
    *,
    organization_id: int,
    user_id: int,
    ip_address: str,
    user_agent: str | None,
) -> dict[str, Any]:
    """The first tokens of a new session of the tenant's user."""
    days = settings.jwt_refresh_token_expire_days
    session_id = await sessions.create(conn, user_id, ip_address, user_agent, days)
    tokens = make_tokens(
        settings, signer, organization_id=organization_id, user_id=user_id, session_id=session_id, generation=0
    )
    await _rotate(conn, settings, session_id, 0, refresh_hash(tokens["refresh_token"]))
    return tokens


async def refresh(database: Database, settings: Settings, signer: Signer, token: str) -> dict[str, Any]:
    """New tokens for a refresh token.

    The present token rotates. The one before it gets the present one again for GRACE_SECONDS. Any older one was
    stolen, or its successor was: the session ends. Raises InvalidTokenError or TokenExpiredError (401), and
    OrganizationNotActiveError (403).
    """
    claims = read_refresh_token(signer, token)
    if claims is None:
        raise InvalidTokenError
    async with tenant_transaction(database, claims.organization_id) as conn:
        session = _living(await sessions.lock(conn, claims.session_id, GRACE_SECONDS))
        generation = await _next_generation(conn, settings, signer, claims, session)
    # The session's end has to be kept, so the refusal comes after the commit.
    if generation is None:
        raise InvalidTokenError("The refresh token was used before; the session has ended.")
    return make_tokens(
        settings,
        signer,
        organization_id=claims.organization_id,
        user_id=session["user_id"],
        session_id=claims.session_id,
        generation=generation,
    )


def _living(session: Record | None) -> Record:
    if session is None or session["is_revoked"] or not session["is_active"]:
        raise InvalidTokenError("The session has ended.")
    if session["is_expired"]:
        raise TokenExpiredError
    if not session["organization_is_active"]:
        raise OrganizationNotActiveError
    return session


async def _next_generation(
    conn: Connection, settings: Settings, signer: Signer, claims: RefreshClaims, session: Record
) -> int | None:
    """The generation whose token the client gets; None when the session had to be ended."""
    present: int = session["generation"]
    if claims.generation == present and session["refresh_hash"] == _hash_of(signer, claims, present):
        await _rotate(conn, settings, claims.session_id, present + 1, _hash_of(signer, claims, present + 1))
        return present + 1
    if claims.generation == present - 1 and session["is_just_rotated"]:
        return present
    logger.warning("Session {} ends: an old refresh token was used again", claims.session_id)
    await sessions.revoke(conn, claims.session_id, session["user_id"])
    return None


async def _rotate(conn: Connection, settings: Settings, session_id: int, generation: int, token_hash: bytes) -> None:
    days, max_days = settings.jwt_refresh_token_expire_days, settings.session_max_days
    await sessions.rotate(conn, session_id, generation, token_hash, days=days, max_days=max_days)


def _hash_of(signer: Signer, claims: RefreshClaims, generation: int) -> bytes:
    return refresh_hash(refresh_token(signer, claims.organization_id, claims.session_id, generation))
