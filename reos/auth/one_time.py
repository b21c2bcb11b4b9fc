"""Single-use tokens: verification and reset links, and the tickets of event streams.

A token carries, signed, the organisation and the user whose it is, so that it opens the tenant's transaction before
anything is looked up, and 126 random bits; the database keeps its SHA-256 alone.
"""

from __future__ import annotations

import secrets
from hashlib import sha256
from typing import Final

from reos.auth.signing import Signer
from reos.db import Connection, Record
from reos.errors import InvalidInputError, InvalidTokenError, ReosError
from reos.queries import one_time_tokens

VERIFY_EMAIL: Final = "verify_email"
PASSWORD_RESET: Final = "password_reset"  # noqa: S105 - the name of a purpose
STREAM_TICKET: Final = "stream_ticket"

# Seconds for which a token is good.
LIFETIMES: Final = {VERIFY_EMAIL: 24 * 3600, PASSWORD_RESET: 3600, STREAM_TICKET: 60}


async def issue(
    conn: Connection,
    signer: Signer,
    user_id: int,
    purpose: str,
    *,
    organization_id: int,
    session_id: int | None = None,
) -> str:
    """A new token of the present tenant's user."""
    token = signer.seal(purpose, organization_id, user_id, secrets.randbits(63), secrets.randbits(63))
    await one_time_tokens.create(conn, user_id, session_id, purpose, _digest(token), LIFETIMES[purpose])
    return token


def organization_of(signer: Signer, purpose: str, token: str) -> int:
    """The tenant in whose transaction the token can be redeemed.

    Raises InvalidTokenError (401) for a ticket and InvalidInputError (400) for the token of a link that is none.
    """
    return _numbers_of(signer, purpose, token)[0]


def user_of(signer: Signer, purpose: str, token: str) -> int:
    """The user whose token it is. Raises as `organization_of` does."""
    return _numbers_of(signer, purpose, token)[1]


async def redeem(conn: Connection, signer: Signer, purpose: str, token: str) -> Record:
    """Use a token up: `organization_id`, `user_id` and `session_id`. The rest of a link's kind go with it.

    Raises as `organization_of` does, also when the token has expired or was used before.
    """
    user_id = user_of(signer, purpose, token)
    row = await one_time_tokens.redeem(conn, user_id, purpose, _digest(token))
    if row is None:
        raise _refusal(purpose)
    return row


def _numbers_of(signer: Signer, purpose: str, token: str) -> tuple[int, ...]:
    numbers = signer.open(purpose, token)
    if numbers is None or len(numbers) != 4:
        raise _refusal(purpose)
    return numbers


def _refusal(purpose: str) -> ReosError:
    if purpose == STREAM_TICKET:
        return InvalidTokenError("The ticket is invalid, was used before or has expired.")
    return InvalidInputError("The link is invalid, was used before or has expired.")


def _digest(token: str) -> bytes:
    return sha256(token.encode()).digest()
