"""Campaigns: what is sent to many leads at once. Sending, pausing and recipients are in `campaign_sending`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sanic import Blueprint

from reos.db import Record
from reos.errors import BusinessLogicError, MissingRequiredFieldError, ResourceDeletionError, ResourceNotFoundError
from reos.handlers.changes import differing
from reos.handlers.paging import check_fields, envelope, page_request
from reos.integrations.merging import compile_mail, compile_text, render_text
from reos.integrations.tracking import preview_unsubscribe_url
from reos.middleware.call import NO_CONTENT, Answer, Call
from reos.middleware.endpoint import PREFIX, delete, get, post, put
from reos.queries import audit, permissions
from reos.queries import campaigns as queries
from reos.queries.references import check_references
from reos.schemas.campaigns import (
    Campaign,
    CampaignCreate,
    CampaignPage,
    CampaignPreview,
    CampaignPreviewRequest,
    CampaignQuery,
    CampaignStats,
    CampaignUpdate,
)
from reos.schemas.common import patch_of

bp = Blueprint("campaigns")

CHANGEABLE = frozenset({"draft", "scheduled", "paused"})
EXAMPLE_LEAD = {
    "first_name": "Grace",
    "last_name": "Hopper",
    "email": "grace@example.com",
    "company": "Example Ltd",
    "property_address": "12 Oak Street",
}

_ITEM_FIELDS = tuple(Campaign.model_fields)
# They change by themselves while a campaign is sent.
_COUNTED = frozenset(name for name in _ITEM_FIELDS if name.endswith("_count") or name == "total_recipients")


@post(bp, "/campaigns", "campaign:create", response=Campaign, is_tagged=True)
async def create_campaign(call: Call, body: CampaignCreate) -> Answer:
    """Create a campaign: a draft until it is sent."""
    fields = body.model_dump(exclude={"status"})
    await check_references(call.conn, fields)
    created = await queries.create(call.conn, fields)
    call.audit("create", "campaign", created["id"], audit.created(_told(created)))
    return call.created(created, f"{PREFIX}/campaigns/{created['id']}")


@get(bp, "/campaigns", "campaign:read", response=CampaignPage)
async def list_campaigns(call: Call, query: CampaignQuery) -> dict[str, Any]:
    """List campaigns by filter or search words (in name, description and subject)."""
    check_fields(query, _ITEM_FIELDS)
    filters = query.active_filters()
    plain = {name: value for name, value in filters.items() if name != "search"}
    page = page_request(call, queries.LISTING, query, filters, "-created_at")
    rows = await queries.list_campaigns(call.conn, page, plain, search=query.search)
    return envelope(call, queries.LISTING, query, filters, page, rows)


@get(bp, "/campaigns/stats", "campaign:read", response=CampaignStats, reads_replica=True)
async def get_campaign_stats(call: Call) -> dict[str, Any]:
    """Get all campaigns in numbers."""
    return await queries.get_stats(call.conn)


@get(bp, "/campaigns/{campaign_id}", "campaign:read", response=Campaign)
async def get_campaign(call: Call, campaign_id: int) -> Record:
    """Get a campaign."""
    return await queries.get(call.conn, campaign_id)


@put(bp, "/campaigns/{campaign_id}", "campaign:update", response=Campaign)
async def update_campaign(call: Call, campaign_id: int, body: CampaignUpdate) -> Record:
    """Change what is sent of a campaign that is a draft, scheduled or paused.

    Its type can be changed as long as it is a draft: then its recipients are not chosen yet. `status` may be sent as it
    is; it changes by send, pause, resume and cancel.
    """
    before = await queries.lock_if_there(call.conn, campaign_id)
    patch = patch_of(body) if before is None else differing(before, patch_of(body))
    await check_references(call.conn, patch)
    if before is None:
        raise ResourceNotFoundError
    call.if_match(before)
    if not patch:
        return before
    _check_change(before, patch)
    after = await queries.update(call.conn, campaign_id, patch)
    call.audit("update", "campaign", campaign_id, audit.changed(_told(before), _told(after)))
    return after


def _check_change(before: Record, patch: Mapping[str, Any]) -> None:
    """Raises BusinessLogicError for a change that the campaign's status does not allow."""
    if before["status"] not in CHANGEABLE:
        raise BusinessLogicError("Only a draft, scheduled or paused campaign can be changed.")
    if "status" in patch:
        raise BusinessLogicError("The status changes by send, pause, resume and cancel only.")
    if "campaign_type" in patch and before["status"] != "draft":
        raise BusinessLogicError("The type of a campaign whose recipients are chosen cannot be changed.")
    if patch.get("subject", "") is None and before["status"] != "draft" and before["campaign_type"] == "email":
        raise MissingRequiredFieldError.of("subject", "An email campaign needs a subject to be sent", "missing")


@delete(bp, "/campaigns/{campaign_id}", "campaign:delete")
async def delete_campaign(call: Call, campaign_id: int) -> Answer:
    """Delete a campaign softly; a restore undoes it. One that is being sent has to be paused or cancelled first."""
    before = await queries.lock(call.conn, campaign_id)
    call.if_match(before)
    if before["status"] == "in_progress":
        raise ResourceDeletionError("The campaign is being sent; pause or cancel it first.")
    await queries.delete(call.conn, campaign_id)
    call.audit("delete", "campaign", campaign_id)
    return NO_CONTENT


@post(bp, "/campaigns/{campaign_id}/restore", "campaign:update", response=Campaign, status=200, is_tagged=True)
async def restore_campaign(call: Call, campaign_id: int) -> Record:
    """Undo the deletion of a campaign. One that was scheduled then is paused: its time may be over."""
    restored = await queries.restore(call.conn, campaign_id)
    if restored["status"] == "scheduled":
        restored = await queries.stop(call.conn, campaign_id, "paused")
    call.audit("restore", "campaign", campaign_id)
    return restored


@post(
    bp,
    "/campaigns/{campaign_id}/preview",
    "campaign:read",
    response=CampaignPreview,
    status=200,
    takes_body_optionally=True,
)
async def preview_campaign(call: Call, campaign_id: int, body: CampaignPreviewRequest) -> dict[str, Any]:
    """Get what a lead would get, or what an example would. Its links count nothing and unsubscribe nobody.

    With a `lead_id` it tells of the lead, so that needs `lead:read` as well.
    """
    if body.lead_id is not None:
        await permissions.require(call.conn, "lead:read")
    await check_references(call.conn, body.model_dump())
    campaign = await queries.get(call.conn, campaign_id)
    if body.lead_id is None:
        found = await queries.get_example_values(call.conn, campaign["created_by"])
    else:
        found = await queries.get_lead_values(call.conn, body.lead_id, campaign["created_by"])
    unsubscribe_url = preview_unsubscribe_url(call.context.settings)
    values = {**EXAMPLE_LEAD, **dict(found), "unsubscribe_url": unsubscribe_url}
    if campaign["campaign_type"] == "email":
        mail = compile_mail(campaign["subject"] or "", campaign["content"]).render(values)
        return {"subject": mail.subject or None, "html": mail.html, "text": mail.text}
    return {"subject": None, "html": None, "text": render_text(compile_text(campaign["content"]), values)}


def _told(campaign: Record) -> dict[str, Any]:
    """What the audit tells of a campaign."""
    return {name: value for name, value in campaign.items() if name not in _COUNTED}
