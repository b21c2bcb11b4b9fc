"""Deals: their stages, what these do to the properties, and their history."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sanic import Blueprint

from reos.db import Connection, Record
from reos.errors import DealClosedError, ResourceNotFoundError, ValidationError
from reos.handlers import exports
from reos.handlers.changes import differing
from reos.handlers.notices import notify_other
from reos.handlers.paging import array, check_fields, envelope, page_request, parse_sort
from reos.middleware.call import NO_CONTENT, Answer, Call
from reos.middleware.endpoint import CSV, PREFIX, delete, get, post, put
from reos.queries import audit, holds, jobs, organizations
from reos.queries import deals as queries
from reos.queries.listing import PageRequest, Rows
from reos.queries.references import check_references
from reos.schemas.common import FOREIGN_KEY_MESSAGE, FOREIGN_KEY_TYPE, SubListQuery, patch_of, to_date
from reos.schemas.deals import (
    CLOSED_STAGES,
    Deal,
    DealCreate,
    DealExportQuery,
    DealPage,
    DealQuery,
    DealStats,
    DealUpdate,
    StageChange,
)

bp = Blueprint("deals")

_ITEM_FIELDS = tuple(Deal.model_fields)


@post(bp, "/deals", "deal:create", response=Deal, is_tagged=True)
async def create_deal(call: Call, body: DealCreate) -> Answer:
    """Create a deal, in any stage.

    In a stage that holds the property (contract, inspection, financing, closing) or won it needs an available one;
    in any stage a sold or off-market property is refused.
    """
    fields = await fields_of(call, body, body.model_dump())
    await check_references(call.conn, fields)
    await _hold_lead(call, fields)
    created = await create(call, fields)
    return call.created(created, f"{PREFIX}/deals/{created['id']}")


@get(bp, "/deals", "deal:read", response=DealPage)
async def list_deals(call: Call, query: DealQuery) -> dict[str, Any]:
    """List deals by filter or search words (in the notes, the property's address, the lead's name)."""
    check_fields(query, _ITEM_FIELDS)
    filters = query.active_filters()
    plain = {name: value for name, value in filters.items() if name != "search"}
    page = page_request(call, queries.LISTING, query, filters, "-created_at")
    rows = await queries.list_deals(call.conn, page, plain, search=query.search)
    return envelope(call, queries.LISTING, query, filters, page, rows)


@get(bp, "/deals/stats", "deal:read", response=DealStats, reads_replica=True)
async def get_deal_stats(call: Call) -> dict[str, Any]:
    """Get all deals in numbers."""
    return await queries.get_stats(call.conn)


@get(bp, "/deals/export", "deal:read report:export", produces=CSV, writes_on_get=True)
async def export_deals(call: Call, query: DealExportQuery) -> Answer:
    """Export deals as a CSV file, by the filters and the sort of the list.

    Its columns are the fields of the list's items; metadata is JSON.
    """
    plain = {name: value for name, value in query.active_filters().items() if name != "search"}
    sort = parse_sort(queries.EXPORT, query.sort or "-created_at")

    async def fetch(conn: Connection, page: PageRequest) -> Rows:
        return await queries.list_deals(conn, page, plain, search=query.search, listing=queries.EXPORT)

    asked = query.model_dump(exclude_unset=True)
    return await exports.answer(call, "deals", "deal", _ITEM_FIELDS, sort, fetch, asked)


@get(bp, "/deals/{deal_id}", "deal:read", response=Deal)
async def get_deal(call: Call, deal_id: int) -> Record:
    """Get a deal."""
    return await queries.get(call.conn, deal_id)


@put(bp, "/deals/{deal_id}", "deal:update", response=Deal)
async def update_deal(call: Call, deal_id: int, body: DealUpdate) -> Record:
    """Change what is sent of a deal.

    A closed deal is changed only by reopening it, with `stage` back to an open one; other fields may come along.
    """
    fields = await fields_of(call, body, patch_of(body))
    before = await queries.lock_if_there(call.conn, deal_id)
    patch = fields if before is None else differing(before, fields)
    await check_references(call.conn, patch)
    if before is None:
        raise ResourceNotFoundError
    call.if_match(before)
    if not patch:
        return before
    return await _change(call, before, patch)


@delete(bp, "/deals/{deal_id}", "deal:delete")
async def delete_deal(call: Call, deal_id: int) -> Answer:
    """Delete a deal softly; a restore undoes it. A property that it holds, or has sold or let, is available again."""
    before = await queries.lock(call.conn, deal_id)
    call.if_match(before)
    plan = await holds.plan(call.conn, deal_id, before, None)
    await queries.delete(call.conn, deal_id)
    call.audit("delete", "deal", deal_id)
    call.publish("deal.deleted", deal_id, {"deal_id": deal_id})
    _report(call, await plan.carry_out(call.conn, deal_id))
    return NO_CONTENT


@post(bp, "/deals/{deal_id}/restore", "deal:update", response=Deal, status=200, is_tagged=True)
async def restore_deal(call: Call, deal_id: int) -> Record:
    """Undo the deletion of a deal. If its stage takes the property, that must be available again."""
    deleted = await queries.lock_deleted(call.conn, deal_id)
    plan = await holds.plan(call.conn, deal_id, None, deleted)
    restored = await queries.restore(call.conn, deal_id)
    call.audit("restore", "deal", deal_id)
    call.publish("deal.updated", deal_id, restored)
    _report(call, await plan.carry_out(call.conn, deal_id))
    return restored


@get(bp, "/deals/{deal_id}/history", "deal:read", response=list[StageChange])
async def list_deal_history(call: Call, deal_id: int, query: SubListQuery) -> Answer:
    """List the stages that a deal went through, newest first; the last entry is its creation."""
    await queries.require(call.conn, deal_id)
    return array(await queries.list_stage_changes(call.conn, deal_id, query.limit, query.offset))


async def fields_of(call: Call, body: DealCreate | DealUpdate, fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a body, its date as the day that it means in the organisation's time zone."""
    if body.expected_close_date is not None:
        zone = await organizations.get_time_zone(call.conn)
        fields["expected_close_date"] = to_date(body.expected_close_date, zone)
    return fields


async def create(call: Call, fields: Mapping[str, Any]) -> Record:
    """The new deal, with all that comes of it. Its references have been checked, and its lead is locked.

    Raises PropertyNotAvailableError.
    """
    plan = await holds.plan(call.conn, None, None, fields)
    holds.refuse_unsaleable(plan, fields["property_id"])
    created = await queries.create(call.conn, fields)
    deal_id = created["id"]
    call.audit("create", "deal", deal_id, audit.created(created))
    call.publish("deal.created", deal_id, created)
    _report(call, await plan.carry_out(call.conn, deal_id))
    notify_other(call, created["assigned_to"], "deal_assigned", f"Deal {deal_id} was assigned to you.")
    return created


async def _change(call: Call, before: Record, patch: dict[str, Any]) -> Record:
    """The deal after a patch that changes something, with all that comes of it.

    Raises DealClosedError and PropertyNotAvailableError.
    """
    deal_id, wanted = before["id"], {**before, **patch}
    if before["stage"] in CLOSED_STAGES and wanted["stage"] in CLOSED_STAGES:
        raise DealClosedError
    if patch.get("lead_id"):
        await _hold_lead(call, patch)
    plan = None
    if holds.concern_properties(before, wanted):
        plan = await holds.plan(call.conn, deal_id, before, wanted)
        if "property_id" in patch:
            holds.refuse_unsaleable(plan, patch["property_id"])
    after = await queries.update(call.conn, deal_id, patch)
    call.audit("update", "deal", deal_id, audit.changed(before, after))
    call.publish("deal.updated", deal_id, after)
    if "stage" in patch:
        await _tell_stage_change(call, before, after)
    if plan:
        _report(call, await plan.carry_out(call.conn, deal_id))
    if "assigned_to" in patch:
        notify_other(call, after["assigned_to"], "deal_assigned", f"Deal {deal_id} was assigned to you.")
    return after


async def _tell_stage_change(call: Call, before: Record, after: Record) -> None:
    """Keep a stage change, broadcast it, and tell the assignee, by mail too."""
    deal_id, old, new = after["id"], before["stage"], after["stage"]
    change_id = await queries.add_stage_change(call.conn, deal_id, old)
    call.publish("deal.stage_changed", deal_id, {"deal_id": deal_id, "old_stage": old, "new_stage": new})
    assignee = after["assigned_to"]
    notify_other(call, assignee, "deal_stage_changed", f"Deal {deal_id} moved from {old} to {new}.")
    if assignee is not None:
        ids = {"user_id": assignee, "change_id": change_id}
        await jobs.defer(call.conn, "send_deal_stage_changed_email", ids)


async def _hold_lead(call: Call, fields: Mapping[str, Any]) -> None:
    """Lock the lead that a deal is to name. Raises ValidationError when it has just been deleted."""
    if fields["lead_id"] is not None and not await queries.hold_lead(call.conn, fields["lead_id"]):
        raise ValidationError.of("lead_id", FOREIGN_KEY_MESSAGE, FOREIGN_KEY_TYPE)


def _report(call: Call, changes: list[holds.Change]) -> None:
    """What became of the properties: an audit row and an event each, except that a deleted one has no event."""
    for before, after in changes:
        call.audit("update", "property", after["id"], audit.changed(before, after))
        if after["deleted_at"] is None:
            call.publish("property.updated", after["id"], after)
