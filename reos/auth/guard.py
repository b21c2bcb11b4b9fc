"""Who is asking: the bearer token, and the transaction that authorises in the round trip that begins it."""

from __future__ import annotations

from dataclasses import dataclass

import asyncpg
from sanic import Request

from reos.auth.tokens import read_access_token
from reos.errors import (
    AuthenticationError,
    AuthorizationError,
    InsufficientPermissionsError,
    InvalidTokenError,
    OrganizationNotActiveError,
    ReosError,
)
from reos.settings import Settings


@dataclass(frozen=True, slots=True)
class Principal:
    """The user of a request, as the signed access token names them. What they may do, the database says."""

    organization_id: int
    user_id: int
    session_id: int


def authenticate(request: Request, settings: Settings) -> Principal:
    """The principal of the bearer token. Raises AuthenticationError or one of its kinds (401)."""
    values = request.headers.getall("authorization", ())
    if len(values) != 1:
        # Of two a proxy may have looked at the other.
        raise AuthenticationError
    scheme, _, token = values[0].partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise AuthenticationError
    claims = read_access_token(settings, token.strip())
    return Principal(claims.organization_id, claims.user_id, claims.session_id)


def begin_authorised(principal: Principal, permission: str | None, *, read_only: bool, require_verified: bool) -> str:
    """The text that opens the principal's transaction, as their organisation's, and refuses by SQLSTATE who may not
    go on.

    `permission` may name several, with a space between them. It is one simple-protocol string, so only formatted
    integers and constants of the code go into it.
    """
    mode = " READ ONLY" if read_only else ""
    wanted = f"'{permission}'" if permission else "null"
    return (
        f"BEGIN{mode}; SELECT authorise({principal.organization_id:d}, {principal.user_id:d},"
        f" {principal.session_id:d}, {wanted}, {'true' if require_verified else 'false'})"
    )


def refusal(error: asyncpg.PostgresError, permission: str | None) -> ReosError | None:
    """The domain error of a SQLSTATE that `authorise` raises; None for any other error."""
    match error.sqlstate:
        case "REA01":
            return InvalidTokenError("The session has ended.")
        case "REA02":
            missing = getattr(error, "detail", None) or permission
            return InsufficientPermissionsError(f"This needs the permission {missing}.", required_permission=missing)
        case "REA03":
            return OrganizationNotActiveError()
        case "REA04":
            return AuthorizationError("The email address has to be verified first.")
    return None
