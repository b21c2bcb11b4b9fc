"""Addresses that campaigns never write to."""

from __future__ import annotations

from typing import Any

from sanic import Blueprint

from reos.handlers.paging import check_fields, envelope, page_request
from reos.middleware.call import NO_CONTENT, Answer, Call
from reos.middleware.endpoint import PREFIX, delete, get, post
from reos.queries import audit
from reos.queries import suppressions as queries
from reos.schemas.suppressions import Suppression, SuppressionCreate, SuppressionPage, SuppressionQuery

bp = Blueprint("suppressions")

_ITEM_FIELDS = tuple(Suppression.model_fields)


@post(bp, "/suppressions", "campaign:create", response=Suppression)
async def create_suppression(call: Call, body: SuppressionCreate) -> Answer:
    """Suppress an email address or a phone number: no campaign writes to it from now on."""
    created = await queries.create(call.conn, body.email, body.phone, body.reason)
    call.audit("create", "suppression", created["id"], audit.created(created))
    return call.created(created, f"{PREFIX}/suppressions/{created['id']}")


@get(bp, "/suppressions", "campaign:read", response=SuppressionPage)
async def list_suppressions(call: Call, query: SuppressionQuery) -> dict[str, Any]:
    """List suppressed addresses."""
    check_fields(query, _ITEM_FIELDS)
    filters = query.active_filters()
    page = page_request(call, queries.LISTING, query, filters, "-created_at")
    rows = await queries.list_suppressions(call.conn, page, filters)
    return envelope(call, queries.LISTING, query, filters, page, rows)


@delete(bp, "/suppressions/{suppression_id}", "campaign:delete")
async def delete_suppression(call: Call, suppression_id: int) -> Answer:
    """Let campaigns write to the address again."""
    before = await queries.delete(call.conn, suppression_id)
    call.audit("delete", "suppression", suppression_id, audit.deleted(before))
    return NO_CONTENT
