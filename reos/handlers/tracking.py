"""Where campaign mails lead: the picture that tells of an opening, the redirect of a link, the page to unsubscribe.

Nobody logs in here; a signed token says whose mail it was. HEAD counts nothing.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from sanic import Blueprint, HTTPResponse, Request

from reos.context import Context
from reos.db import tenant_transaction
from reos.errors import ResourceNotFoundError
from reos.handlers.pages import CONTENT_SECURITY_POLICY, page
from reos.integrations.tracking import OPEN, UNSUBSCRIBE, open_click, open_token
from reos.middleware.bodies import BodyKind, read_body
from reos.middleware.requests import client_address
from reos.queries import events, tracking

bp = Blueprint("tracking")

PIXEL = bytes.fromhex("47494638396101000100800000000000ffffff21f90401000000002c00000000010001000002024401003b")
# A mail program shows it among pages of its own, and asks anew whenever it shows it.
PIXEL_HEADERS = {"Cross-Origin-Resource-Policy": "cross-origin", "Cache-Control": "no-store, max-age=0"}
# The page's form goes to its own address.
PAGE_POLICY = CONTENT_SECURITY_POLICY.replace("form-action 'none'", "form-action 'self'")
_PLAIN = "%/:=&?~#+!$,;'@()*[]"  # what stands in an address as it is; all else is encoded


@bp.route("/t/o/<token>", methods=["GET", "HEAD"])
async def open_mail(request: Request, token: str) -> HTTPResponse:
    """A picture of one transparent dot."""
    context: Context = request.app.ctx.context
    organization_id, recipient_id = _known(open_token(context.signer, OPEN, token))
    if request.method == "GET":
        async with tenant_transaction(context.database, organization_id) as conn:
            await tracking.record_open(conn, recipient_id)
    return HTTPResponse(PIXEL, 200, PIXEL_HEADERS, content_type="image/gif")


@bp.route("/t/c/<token>", methods=["GET", "HEAD"])
async def follow_link(request: Request, token: str) -> HTTPResponse:
    """On to the link that the mail contained; the token holds it, so no other can be led to."""
    context: Context = request.app.ctx.context
    organization_id, recipient_id, url = _known(open_click(context.signer, token))
    if request.method == "GET":
        async with tenant_transaction(context.database, organization_id) as conn:
            await tracking.record_click(conn, recipient_id)
    return HTTPResponse(None, 302, {"Location": quote(url, safe=_PLAIN)})


@bp.route("/t/u/<token>", methods=["GET", "HEAD"])
async def show_unsubscribe(request: Request, token: str) -> HTTPResponse:
    """A page that asks. A GET changes nothing: mail programs look at links by themselves."""
    context: Context = request.app.ctx.context
    organization_id, recipient_id = _known(open_token(context.signer, UNSUBSCRIBE, token))
    async with tenant_transaction(context.database, organization_id, read_only=True) as conn:
        found = await tracking.get_unsubscriber(conn, recipient_id)
    return _unsubscribe_page(request, found, is_done=bool(found and found["is_suppressed"]))


async def unsubscribe(request: Request, token: str) -> HTTPResponse:
    """Never write to the address again: what the page's button does, and a mail program's one click (RFC 8058)."""
    context: Context = request.app.ctx.context
    organization_id, recipient_id = _known(open_token(context.signer, UNSUBSCRIBE, token))
    await read_body(request, context.settings, BodyKind.NONE)
    async with tenant_transaction(context.database, organization_id) as conn:
        found = await tracking.get_unsubscriber(conn, recipient_id)
        done = await tracking.unsubscribe(conn, recipient_id)
        if found and done and done["suppression_id"] is not None:
            await events.record_changes(conn, [_audit_entry(request, found["address"], done)], [])
    return _unsubscribe_page(request, found, is_done=True)


bp.add_route(unsubscribe, "/t/u/<token>", methods=["POST"], name="unsubscribe", stream=True)


def _known(found: Any) -> Any:
    """What a token says. Raises ResourceNotFoundError for one that is not ours."""
    if found is None:
        raise ResourceNotFoundError
    return found


def _audit_entry(request: Request, address: str, done: Any) -> events.AuditEntry:
    created = {"address": [None, address], "reason": [None, "unsubscribed"]}
    return events.AuditEntry(
        action="update" if done["has_bounced"] else "create",
        resource_type="suppression",
        resource_id=done["suppression_id"],
        changes={"reason": ["bounced", "unsubscribed"]} if done["has_bounced"] else created,
        user_id=None,
        ip_address=client_address(request),
        user_agent=None,
        request_id=request.ctx.request_id,
    )


def _unsubscribe_page(request: Request, found: Any, *, is_done: bool) -> HTTPResponse:
    if found is None:
        raise ResourceNotFoundError
    return page(
        request,
        "unsubscribe.html",
        content_policy=PAGE_POLICY,
        organization_name=found["organization_name"],
        address=found["address"],
        is_done=is_done,
    )
