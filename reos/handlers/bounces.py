"""Where a mail provider tells of mails that bounced, and of people who complained.

    POST /bounces/generic
    Content-Type: application/json
    webhook-id: <any text, unique for each report>
    webhook-timestamp: <seconds since 1970>
    webhook-signature: v1,<base64 of HMAC-SHA256(BOUNCE_SECRET, "{webhook-id}.{webhook-timestamp}.{body}")>

    {"bounces": [{"message_id": "<…@…>", "type": "bounce", "is_permanent": true, "reason": "550 no such user"}]}

That is a Standard Webhooks signature; several may stand there, with spaces between them, while a secret is changed.
`type` is `bounce` or `complaint`. The answer is `{"accepted": n}`: the mails that were ours. Reports may be repeated.
"""

from __future__ import annotations

import hmac
import time
from base64 import b64decode, b64encode

from sanic import Blueprint, HTTPResponse, Request

from reos import encoding
from reos.context import Context
from reos.db import tenant_transaction
from reos.errors import InvalidTokenError, ResourceNotFoundError
from reos.integrations.tracking import open_message_id
from reos.middleware.bodies import BodyKind, read_body
from reos.middleware.responses import ApiResponse
from reos.queries import tracking
from reos.schemas.bounces import BounceReport
from reos.schemas.common import parse_json, validate

bp = Blueprint("bounces")

PROVIDERS = frozenset({"generic"})
MAX_AGE = 300  # seconds that a report's clock may differ from ours


async def take_bounces(request: Request, provider: str) -> HTTPResponse:
    """Mark mails as bounced, and never write to their addresses again.

    Raises ResourceNotFoundError for an unknown provider, or without BOUNCE_SECRET; InvalidTokenError (401) for a wrong
    signature, before anything of the body is judged; ValidationError.
    """
    context: Context = request.app.ctx.context
    secret = context.settings.bounce_secret
    if provider not in PROVIDERS or not secret:
        raise ResourceNotFoundError
    body = await read_body(request, context.settings, BodyKind.NONE)
    _check_signature(request, secret, body.data)
    report = validate(BounceReport, parse_json(body.data))
    accepted = 0
    for organization_id, bounces in _by_organization(context, report).items():
        async with tenant_transaction(context.database, organization_id) as conn:
            accepted += await tracking.record_bounces(conn, list(bounces.values()))
    return ApiResponse(encoding.dumps({"accepted": accepted}), 200, {}, "application/json")


bp.add_route(take_bounces, "/bounces/<provider>", methods=["POST"], name="take_bounces", stream=True)


def _by_organization(context: Context, report: BounceReport) -> dict[int, dict[int, dict[str, object]]]:
    """The mails that were ours, by organisation and recipient; a complaint about a mail says more than its bounce."""
    found: dict[int, dict[int, dict[str, object]]] = {}
    for bounce in sorted(report.bounces, key=lambda bounce: bounce.type):
        numbers = open_message_id(context.signer, bounce.message_id)
        if numbers is None or not (bounce.is_permanent or bounce.type == "complaint"):
            continue
        organization_id, recipient_id = numbers
        entry: dict[str, object] = {"id": recipient_id, "kind": bounce.type, "reason": bounce.reason}
        found.setdefault(organization_id, {})[recipient_id] = entry
    return found


def _check_signature(request: Request, secret: str, data: bytes) -> None:
    headers = [request.headers.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature")]
    report_id, timestamp, signatures = headers
    is_current = timestamp.isascii() and timestamp.isdigit() and abs(time.time() - int(timestamp[:20])) <= MAX_AGE
    # A byte that is no UTF-8 stands in a header as half a surrogate pair, and is signed as it came.
    signed = f"{report_id}.{timestamp}.".encode(errors="surrogateescape") + data
    wanted = b"v1," + b64encode(hmac.digest(_key(secret), signed, "sha256"))
    is_signed = any(hmac.compare_digest(part.encode(errors="surrogateescape"), wanted) for part in signatures.split())
    if not (report_id and is_current and is_signed):
        raise InvalidTokenError("The signature is wrong, or too old.")


def _key(secret: str) -> bytes:
    """The bytes of a secret; one that begins with `whsec_` goes on in base64."""
    return b64decode(secret.removeprefix("whsec_")) if secret.startswith("whsec_") else secret.encode()
