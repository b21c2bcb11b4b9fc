"""Access tokens (JWT, RFC 7519) and refresh tokens (derived from session and generation, so never stored)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Any

import jwt

from reos.auth.signing import MAX_NUMBER, Signer
from reos.errors import InvalidTokenError, TokenExpiredError
from reos.settings import Settings

REFRESH_PURPOSE = "refresh-token"
MAX_ACCESS_TOKEN_LENGTH = 4096  # characters; ours have some 250
MAX_REMEMBERED = 4096  # tokens that have been verified

# A claim of its own says what the token is for, so that no other JWT made with the same secret passes for one
# (RFC 8725, section 3.11).
ACCESS_TYPE = "access"

# `iat` is required but not compared with the clock: another host's may run a moment ahead, and nothing
# depends on it. A token ends by `exp` and with its session, which every request looks up.
_OPTIONS: Any = {"require": ["exp", "iat", "sub"], "verify_iat": False}


@dataclass(frozen=True, slots=True)
class AccessClaims:
    """Whom an access token names, and until when (seconds since the epoch)."""

    user_id: int
    organization_id: int
    session_id: int
    expires_at: int


@dataclass(frozen=True, slots=True)
class RefreshClaims:
    """The session that a refresh token continues, and how often it had been rotated when it was made."""

    organization_id: int
    session_id: int
    generation: int


def issue_access_token(
    settings: Settings, *, user_id: int, organization_id: int, session_id: int, now: float | None = None
) -> str:
    """A signed access token that is good for JWT_ACCESS_TOKEN_EXPIRE_MINUTES from `now` (epoch seconds)."""
    issued_at = int(time.time() if now is None else now)
    claims = {
        "typ": ACCESS_TYPE,
        "sub": str(user_id),
        "org": organization_id,
        "sid": session_id,
        "iat": issued_at,
        "exp": issued_at + settings.jwt_access_token_expire_minutes * 60,
    }
    return jwt.encode(claims, settings.jwt_secret_key, algorithm=settings.jwt_algorithm)


def read_access_token(settings: Settings, token: str) -> AccessClaims:
    """The claims of an authentic access token that still runs.

    Raises TokenExpiredError for one whose time is over, InvalidTokenError for everything else.
    """
    if len(token) > MAX_ACCESS_TOKEN_LENGTH or not token.isascii():
        raise InvalidTokenError
    claims = _verify(settings.jwt_secret_key, settings.jwt_algorithm, token)
    if claims.expires_at <= time.time():
        raise TokenExpiredError
    return claims


@lru_cache(MAX_REMEMBERED)
def _verify(secret: str, algorithm: str, token: str) -> AccessClaims:
    """The claims of an authentic token. Only those are remembered, so that a client comes again at less cost.

    Whether its session still lives is asked of the database at every request, whatever is remembered here.
    """
    try:
        claims = jwt.decode(token, secret, algorithms=[algorithm], options=_OPTIONS)
    except jwt.ExpiredSignatureError:
        raise TokenExpiredError from None
    except jwt.InvalidTokenError:
        raise InvalidTokenError from None
    if claims.get("typ") != ACCESS_TYPE:
        raise InvalidTokenError
    return AccessClaims(
        user_id=_read_subject(claims["sub"]),
        organization_id=_check_id(claims.get("org")),
        session_id=_check_id(claims.get("sid")),
        expires_at=_check_id(claims["exp"]),
    )


def refresh_token(signer: Signer, organization_id: int, session_id: int, generation: int) -> str:
    """The refresh token of a session's generation: the same whenever it is asked for."""
    return signer.seal(REFRESH_PURPOSE, organization_id, session_id, generation)


def read_refresh_token(signer: Signer, token: str) -> RefreshClaims | None:
    """What an authentic refresh token says; None for everything else. Whether it still runs, the database knows."""
    numbers = signer.open(REFRESH_PURPOSE, token)
    return None if numbers is None or len(numbers) != 3 else RefreshClaims(*numbers)


def refresh_hash(token: str) -> bytes:
    """SHA-256 (32 bytes) of a refresh token, which is what the database keeps."""
    return sha256(token.encode()).digest()


def _read_subject(subject: str) -> int:
    # RFC 7519 wants a text; only the spelling that `str` gives is taken.
    if not (subject.isascii() and subject.isdigit() and len(subject) <= 19 and not subject.startswith("0")):
        raise InvalidTokenError
    return _check_id(int(subject))


def _check_id(value: object) -> int:
    if type(value) is not int or not 0 < value <= MAX_NUMBER:
        raise InvalidTokenError
    return value
