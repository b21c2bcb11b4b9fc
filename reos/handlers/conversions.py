"""How a lead becomes a deal."""

from __future__ import annotations

from sanic import Blueprint

from reos.errors import LeadAlreadyConvertedError, ValidationError
from reos.handlers.deals import create, fields_of
from reos.middleware.call import Answer, Call
from reos.middleware.endpoint import PREFIX, post
from reos.queries import audit, leads
from reos.queries.references import check_references
from reos.schemas.deals import Deal, DealCreate

bp = Blueprint("conversions")


@post(bp, "/leads/{lead_id}/convert", "lead:update deal:create", response=Deal, is_tagged=True)
async def convert_lead(call: Call, lead_id: int, body: DealCreate) -> Answer:
    """Make a deal of a lead, once.

    The deal is the lead's agent's, or nobody's if that user has left, unless `assigned_to` says otherwise; `lead_id`,
    if given, is that of the path.
    """
    if body.lead_id not in (None, lead_id):
        raise ValidationError.of("lead_id", "Input should be the lead of the path", "other_lead")
    fields = await fields_of(call, body, body.model_dump())
    await check_references(call.conn, fields | {"lead_id": None})
    before = await leads.lock(call.conn, lead_id)
    if before["status"] == "converted":
        raise LeadAlreadyConvertedError
    fields["lead_id"] = lead_id
    if "assigned_to" not in body.model_fields_set:
        fields["assigned_to"] = await leads.get_agent(call.conn, lead_id)
    after = await leads.update(call.conn, lead_id, {"status": "converted"})
    call.audit("convert", "lead", lead_id, audit.changed(before, after))
    call.publish("lead.updated", lead_id, after)
    call.publish("lead.converted", lead_id, after)
    created = await create(call, fields)
    return call.created(created, f"{PREFIX}/deals/{created['id']}")
