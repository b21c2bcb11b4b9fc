"""Sending campaigns: who gets them, when, and how they are held up. The mails go out in `jobs/campaigns.py`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sanic import Blueprint

from reos.db import Record
from reos.errors import (
    BusinessLogicError,
    CampaignAlreadySentError,
    MissingRequiredFieldError,
    ValidationError,
)
from reos.handlers.paging import check_fields, envelope, page_request
from reos.middleware.call import Call
from reos.middleware.endpoint import get, post
from reos.queries import audit, campaign_recipients, campaign_sending, campaigns
from reos.queries.references import check_listed, check_references
from reos.schemas.campaigns import (
    Campaign,
    CampaignExport,
    CampaignRecipient,
    CampaignRecipientPage,
    CampaignRecipientQuery,
    CampaignSend,
)

bp = Blueprint("campaign_sending")

EXPORT_PURPOSE = "campaign export"
EXPORT_SECONDS = 300  # that a link to an export works

_ITEM_FIELDS = tuple(CampaignRecipient.model_fields)


@post(
    bp,
    "/campaigns/{campaign_id}/send",
    "campaign:send",
    response=Campaign,
    status=200,
    is_tagged=True,
    takes_body_optionally=True,
)
async def send_campaign(call: Call, campaign_id: int, body: CampaignSend) -> dict[str, Any]:
    """Choose the recipients, once and for all, and send the campaign to them: now, or at `send_at`.

    Of leads with the same address, in whatever spelling, one gets it. Who has no address, or one that is suppressed, is
    among the recipients as `suppressed`.
    """
    chosen = {} if body.filters is None else body.filters.model_dump(exclude_none=True)
    await _check_choice(call, body, chosen)
    before = await campaigns.lock(call.conn, campaign_id)
    if before["status"] != "draft":
        raise CampaignAlreadySentError
    if before["campaign_type"] == "email" and before["subject"] is None:
        raise MissingRequiredFieldError.of("subject", "An email campaign needs a subject to be sent", "missing")
    lead_ids = await campaign_recipients.find_leads(call.conn, body.lead_ids, chosen)
    if not await campaign_recipients.freeze(call.conn, campaign_id, lead_ids, before["campaign_type"]):
        raise BusinessLogicError("No lead matches, so there is nobody to send the campaign to.")
    return await _start(call, "send", before, body.send_at)


async def _check_choice(call: Call, body: CampaignSend, chosen: Mapping[str, Any]) -> None:
    """Raises ValidationError for leads and users that are not there, and for a time that is over."""
    if body.send_at is not None and body.send_at <= datetime.now(UTC):
        raise ValidationError.of("send_at", "Input should be in the future", "datetime_future")
    if body.lead_ids:
        check_listed("lead_ids", body.lead_ids, await campaign_recipients.known_leads(call.conn, body.lead_ids))
    try:
        await check_references(call.conn, chosen)
    except ValidationError as error:
        for entry in error.details["errors"]:
            entry["field"] = f"filters.{entry['field']}"
        raise


@post(bp, "/campaigns/{campaign_id}/pause", "campaign:send", response=Campaign, status=200, is_tagged=True)
async def pause_campaign(call: Call, campaign_id: int) -> Record:
    """Hold a scheduled or running campaign up. What is being handed over at this moment still goes out."""
    before = await campaigns.lock(call.conn, campaign_id)
    if before["status"] not in ("scheduled", "in_progress"):
        raise BusinessLogicError("Only a scheduled or running campaign can be paused.")
    after = await campaigns.stop(call.conn, campaign_id, "paused")
    call.audit("update", "campaign", campaign_id, audit.changed(before, after))
    call.publish("campaign.paused", campaign_id, after)
    return after


@post(bp, "/campaigns/{campaign_id}/resume", "campaign:send", response=Campaign, status=200, is_tagged=True)
async def resume_campaign(call: Call, campaign_id: int) -> dict[str, Any]:
    """Go on with a paused campaign: with its sending, or with waiting for its time."""
    before = await campaigns.lock(call.conn, campaign_id)
    if before["status"] != "paused":
        raise BusinessLogicError("Only a paused campaign can be resumed.")
    at = before["scheduled_at"]
    is_still_to_come = before["started_at"] is None and at is not None and at > datetime.now(UTC)
    return await _start(call, "update", before, at if is_still_to_come else None)


@post(bp, "/campaigns/{campaign_id}/cancel", "campaign:send", response=Campaign, status=200, is_tagged=True)
async def cancel_campaign(call: Call, campaign_id: int) -> Record:
    """End a scheduled, running or paused campaign for good. Who has not got it never will."""
    before = await campaigns.lock(call.conn, campaign_id)
    if before["status"] not in ("scheduled", "in_progress", "paused"):
        raise BusinessLogicError("Only a scheduled, running or paused campaign can be cancelled.")
    await campaign_recipients.cancel(call.conn, campaign_id)
    after = await campaigns.stop(call.conn, campaign_id, "cancelled")
    call.audit("update", "campaign", campaign_id, audit.changed(before, after))
    return after


async def _start(call: Call, action: str, before: Record, at: datetime | None) -> dict[str, Any]:
    """Have the campaign sent at that time, or now, with its audit row and its event."""
    campaign_id = before["id"]
    after, number = await campaigns.start(
        call.conn, campaign_id, "in_progress" if at is None else "scheduled", at or before["scheduled_at"]
    )
    call.audit(action, "campaign", campaign_id, audit.changed(before, after))
    if at is None:
        call.publish("campaign.started", campaign_id, after)
    await campaign_sending.defer(call.conn, campaign_id, number, at)
    return after


@get(bp, "/campaigns/{campaign_id}/recipients", "campaign:read", response=CampaignRecipientPage)
async def list_campaign_recipients(call: Call, campaign_id: int, query: CampaignRecipientQuery) -> dict[str, Any]:
    """List whom the campaign goes to, and what became of each. There are none before it is sent."""
    check_fields(query, _ITEM_FIELDS)
    await campaigns.require(call.conn, campaign_id)
    filters = {"campaign_id": campaign_id, **query.active_filters()}
    page = page_request(call, campaign_recipients.LISTING, query, filters, "-created_at")
    rows = await campaign_recipients.list_campaign_recipients(call.conn, page, filters)
    return envelope(call, campaign_recipients.LISTING, query, filters, page, rows)


@get(
    bp,
    "/campaigns/{campaign_id}/export",
    "campaign:read report:export",
    response=CampaignExport,
    writes_on_get=True,
)
async def export_campaign(call: Call, campaign_id: int) -> dict[str, Any]:
    """Get a link to the recipients and texts (CSV) of a direct_mail or social_media campaign that is completed.

    The link works without a log-in for five minutes.
    """
    file = await campaigns.get_export(call.conn, campaign_id)
    if call.request.method == "GET":
        call.audit("export", "campaign", campaign_id)
    expires_at = int(time.time()) + EXPORT_SECONDS
    url = await call.context.storage.presign(
        file["storage_key"],
        expires_in=EXPORT_SECONDS,
        filename=export_name(campaign_id),
        content_type=file["content_type"],
    )
    if url is None:
        assert call.principal is not None
        token = call.context.signer.seal(EXPORT_PURPOSE, call.principal.organization_id, campaign_id, expires_at)
        url = f"{call.context.settings.base_url}/files/{token}"
    return {"url": url, "expires_at": datetime.fromtimestamp(expires_at, UTC)}


def export_name(campaign_id: int) -> str:
    """What the file is called for who downloads it."""
    return f"campaign-{campaign_id}.csv"
