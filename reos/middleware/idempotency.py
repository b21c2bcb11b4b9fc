"""Idempotency-Key: the key, its answer and the work commit together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reos import encoding
from reos.db import Connection
from reos.errors import (
    IdempotencyConflictError,
    IdempotencyKeyReusedError,
    ReosError,
    ValidationError,
)
from reos.middleware.bodies import Body
from reos.middleware.call import Answer, Call, etag_of
from reos.middleware.errors import error_content
from reos.queries import idempotency_keys

if TYPE_CHECKING:
    from reos.middleware.endpoint import Endpoint

MAX_KEY_LENGTH = 255
KEPT_REFUSALS = frozenset({404, 409, 412, 422})  # what the work itself may answer and is kept
PURPOSE = "idempotency"


class KeptAnswer(Answer):
    """An answer whose content is the bytes that were, or will be, kept."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A request with a key: its scope (None: the tenant transaction's user), the key and the fingerprint."""

    scope: bytes | None
    key: str
    fingerprint: bytes
    is_secret: bool
    is_tagged: bool


def read_key(endpoint: Endpoint, call: Call, body: Body | None) -> Claim | None:
    """The claim that the request's header makes; whether the key is one, is judged only for who may send it."""
    if not endpoint.takes_idempotency_key:
        return None
    key = call.request.headers.get("idempotency-key")
    if key is None:
        return None
    signer, request = call.context.signer, call.request
    scope = None if call.principal else signer.mac(f"{PURPOSE}-scope", call.client_address.encode())
    fingerprint = signer.mac(
        PURPOSE,
        request.method.encode(),
        request.path.rstrip("/").encode(),
        request.query_string.encode(),
        *(body.fingerprint_parts() if body else ()),
    )
    return Claim(scope, key, fingerprint, endpoint.is_secret, endpoint.is_tagged)


async def answer_once(claim: Claim, call: Call, work: Callable[[], Awaitable[Answer]]) -> Answer:
    """The kept answer, or the work's, kept.

    Raises IdempotencyConflictError while the first still runs, IdempotencyKeyReusedError when it was another request,
    ValidationError for a key that is none.
    """
    kept = await _claim(claim, call, call.conn)
    if kept is not None:
        return kept
    await call.conn.execute("SAVEPOINT work")
    try:
        answer = await work()
        body = b"" if answer.content is None else encoding.dumps(answer.content)
        if claim.is_tagged and answer.status < 300:
            answer.headers.setdefault("ETag", etag_of(body))
    except ReosError as error:
        if error.status not in KEPT_REFUSALS:
            raise
        await call.conn.execute("ROLLBACK TO SAVEPOINT work")
        call.audits.clear()
        call.events.clear()
        answer = Answer(error.status, None, dict(error.headers))
        body = encoding.dumps(error_content(error, call.request.ctx.request_id))
    sealed = call.context.signer.encrypt(PURPOSE, body) if claim.is_secret else body
    await idempotency_keys.keep(
        call.conn, claim.scope, claim.key, claim.fingerprint, answer.status, answer.headers, sealed
    )
    return KeptAnswer(answer.status, body, answer.headers)


@asynccontextmanager
async def alone(claim: Claim | None, call: Call) -> AsyncIterator[None]:
    """Be the only request with this key while work is done between transactions, whose own lock ends with them.

    Raises IdempotencyConflictError while another one has it. That lock still decides whose work counts, should the
    connection be lost on which this one is held.
    """
    if claim is None or not _is_key(claim.key):
        # What is no key is refused later, and may be no text that the database could be asked for.
        yield
        return
    principal = call.principal
    scope = f"{principal.organization_id} {principal.user_id}" if principal else (claim.scope or b"").hex()
    async with call.context.locks.hold(f"{scope} {claim.key}") as is_alone:
        if not is_alone:
            raise _in_flight()
        yield


def _in_flight() -> IdempotencyConflictError:
    return IdempotencyConflictError(headers={"Retry-After": "1"})


async def find_kept(claim: Claim, conn: Connection, call: Call) -> Answer | None:
    """The kept answer of an earlier request, before any work. Raises as `answer_once` does."""
    return await _claim(claim, call, conn)


def _is_key(text: str) -> bool:
    return 1 <= len(text) <= MAX_KEY_LENGTH and text.isprintable() and text.isascii()


async def _claim(claim: Claim, call: Call, conn: Connection) -> Answer | None:
    if not _is_key(claim.key):
        raise ValidationError.of("Idempotency-Key", "1 to 255 printable ASCII characters", "idempotency_key")
    row = await idempotency_keys.claim(conn, claim.scope, claim.key)
    if not row["is_claimed"]:
        raise _in_flight()
    if row["fingerprint"] is None:
        return None
    if row["fingerprint"] != claim.fingerprint:
        raise IdempotencyKeyReusedError
    body = call.context.signer.decrypt(PURPOSE, row["body"]) if claim.is_secret else row["body"]
    return KeptAnswer(row["status"], body, {**row["headers"], "Idempotency-Replayed": "true"})
