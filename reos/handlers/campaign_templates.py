"""Campaign templates."""

from __future__ import annotations

from sanic import Blueprint

from reos.db import Record
from reos.handlers.changes import differing
from reos.handlers.paging import array
from reos.middleware.call import NO_CONTENT, Answer, Call
from reos.middleware.endpoint import PREFIX, delete, get, post, put
from reos.queries import audit
from reos.queries import campaign_templates as queries
from reos.schemas.campaign_templates import (
    CampaignTemplate,
    CampaignTemplateCreate,
    CampaignTemplateQuery,
    CampaignTemplateUpdate,
)
from reos.schemas.common import patch_of

bp = Blueprint("campaign_templates")


@post(bp, "/campaigns/templates", "campaign:create", response=CampaignTemplate, is_tagged=True)
async def create_campaign_template(call: Call, body: CampaignTemplateCreate) -> Answer:
    """Create a template for campaigns."""
    created = await queries.create(call.conn, body.model_dump())
    call.audit("create", "campaign_template", created["id"], audit.created(created))
    return call.created(created, f"{PREFIX}/campaigns/templates/{created['id']}")


@get(bp, "/campaigns/templates", "campaign:read", response=list[CampaignTemplate])
async def list_campaign_templates(call: Call, query: CampaignTemplateQuery) -> Answer:
    """List templates, newest first."""
    return array(
        await queries.list_campaign_templates(
            call.conn, query.campaign_type, query.is_active, query.limit, query.offset
        )
    )


@get(bp, "/campaigns/templates/{template_id}", "campaign:read", response=CampaignTemplate)
async def get_campaign_template(call: Call, template_id: int) -> Record:
    """Get a template."""
    return await queries.get(call.conn, template_id)


@put(bp, "/campaigns/templates/{template_id}", "campaign:update", response=CampaignTemplate)
async def update_campaign_template(call: Call, template_id: int, body: CampaignTemplateUpdate) -> Record:
    """Change what is sent of a template. Campaigns that were made from it stay as they are."""
    before = await queries.lock(call.conn, template_id)
    call.if_match(before)
    patch = differing(before, patch_of(body))
    if not patch:
        return before
    after = await queries.update(call.conn, template_id, patch)
    call.audit("update", "campaign_template", template_id, audit.changed(before, after))
    return after


@delete(bp, "/campaigns/templates/{template_id}", "campaign:delete")
async def delete_campaign_template(call: Call, template_id: int) -> Answer:
    """Delete a template softly; a restore undoes it."""
    call.if_match(await queries.lock(call.conn, template_id))
    await queries.delete(call.conn, template_id)
    call.audit("delete", "campaign_template", template_id)
    return NO_CONTENT


@post(
    bp,
    "/campaigns/templates/{template_id}/restore",
    "campaign:update",
    response=CampaignTemplate,
    status=200,
    is_tagged=True,
)
async def restore_campaign_template(call: Call, template_id: int) -> Record:
    """Undo the deletion of a template."""
    restored = await queries.restore(call.conn, template_id)
    call.audit("restore", "campaign_template", template_id)
    return restored
