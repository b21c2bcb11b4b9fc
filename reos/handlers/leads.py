"""Leads, who looks after them, and what belongs to them: activities, notes, documents."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sanic import Blueprint

from reos.db import Connection, Record
from reos.errors import ResourceNotFoundError
from reos.handlers import documents, exports
from reos.handlers.changes import differing
from reos.handlers.notices import notify_other
from reos.handlers.paging import array, check_fields, envelope, page_request, parse_sort
from reos.middleware.call import NO_CONTENT, Answer, Call
from reos.middleware.endpoint import CSV, PREFIX, delete, get, post, put
from reos.queries import audit, jobs, stored_files
from reos.queries import leads as queries
from reos.queries.listing import PageRequest, Rows
from reos.queries.references import check_references
from reos.schemas.common import SubListQuery, patch_of
from reos.schemas.leads import (
    Lead,
    LeadActivity,
    LeadActivityCreate,
    LeadAssignment,
    LeadCreate,
    LeadDocument,
    LeadDocumentCreate,
    LeadDocumentDownload,
    LeadDocumentUpload,
    LeadExportQuery,
    LeadNote,
    LeadNoteCreate,
    LeadPage,
    LeadQuery,
    LeadStats,
    LeadUpdate,
)

bp = Blueprint("leads")

_ITEM_FIELDS = tuple(Lead.model_fields)
_CONTACTS = frozenset({"call", "email", "meeting", "sms"})


@post(bp, "/leads", "lead:create", response=Lead, is_tagged=True)
async def create_lead(call: Call, body: LeadCreate) -> Answer:
    """Create a lead. With `assigned_to` it is assigned at once, and the agent is told."""
    fields = body.model_dump()
    await check_references(call.conn, fields)
    created = await queries.create(call.conn, fields)
    call.audit("create", "lead", created["id"], audit.created(created))
    call.publish("lead.created", created["id"], created)
    await _tell_assignee(call, created)
    return call.created(created, f"{PREFIX}/leads/{created['id']}")


@get(bp, "/leads", "lead:read", response=LeadPage)
async def list_leads(call: Call, query: LeadQuery) -> dict[str, Any]:
    """List leads by filter or search words (in names, email, phone and company)."""
    check_fields(query, _ITEM_FIELDS)
    filters = query.active_filters()
    plain = {name: value for name, value in filters.items() if name != "search"}
    page = page_request(call, queries.LISTING, query, filters, "-created_at")
    rows = await queries.list_leads(call.conn, page, plain, search=query.search)
    return envelope(call, queries.LISTING, query, filters, page, rows)


@get(bp, "/leads/stats", "lead:read", response=LeadStats, reads_replica=True)
async def get_lead_stats(call: Call) -> dict[str, Any]:
    """Get all leads in numbers."""
    return await queries.get_stats(call.conn)


@get(bp, "/leads/export", "lead:read report:export", produces=CSV, writes_on_get=True)
async def export_leads(call: Call, query: LeadExportQuery) -> Answer:
    """Export leads as a CSV file, by the filters and the sort of the list.

    Its columns are the fields of the list's items; metadata is JSON.
    """
    plain = {name: value for name, value in query.active_filters().items() if name != "search"}
    sort = parse_sort(queries.EXPORT, query.sort or "-created_at")

    async def fetch(conn: Connection, page: PageRequest) -> Rows:
        return await queries.list_leads(conn, page, plain, search=query.search, listing=queries.EXPORT)

    asked = query.model_dump(exclude_unset=True)
    return await exports.answer(call, "leads", "lead", _ITEM_FIELDS, sort, fetch, asked)


@get(bp, "/leads/{lead_id}", "lead:read", response=Lead)
async def get_lead(call: Call, lead_id: int) -> Record:
    """Get a lead."""
    return await queries.get(call.conn, lead_id)


@put(bp, "/leads/{lead_id}", "lead:update", response=Lead)
async def update_lead(call: Call, lead_id: int, body: LeadUpdate) -> Record:
    """Change what is sent of a lead. A new `assigned_to` is told, as by an assignment.

    `status` may be any, `converted` too: a lead that was made a deal elsewhere then counts as converted here, and
    is not converted again.
    """
    before = await queries.lock_if_there(call.conn, lead_id)
    patch = patch_of(body) if before is None else differing(before, patch_of(body))
    await check_references(call.conn, patch)
    if before is None:
        raise ResourceNotFoundError
    call.if_match(before)
    return await _change(call, "update", before, patch) if patch else before


@delete(bp, "/leads/{lead_id}", "lead:delete")
async def delete_lead(call: Call, lead_id: int) -> Answer:
    """Delete a lead softly; a restore undoes it."""
    before = await queries.lock(call.conn, lead_id)
    call.if_match(before)
    await queries.delete(call.conn, lead_id)
    call.audit("delete", "lead", lead_id)
    call.publish("lead.deleted", lead_id, {"lead_id": lead_id})
    return NO_CONTENT


@post(bp, "/leads/{lead_id}/restore", "lead:update", response=Lead, status=200, is_tagged=True)
async def restore_lead(call: Call, lead_id: int) -> Record:
    """Undo the deletion of a lead."""
    await queries.lock_deleted(call.conn, lead_id)
    restored = await queries.restore(call.conn, lead_id)
    call.audit("restore", "lead", lead_id)
    call.publish("lead.updated", lead_id, restored)
    return restored


@post(bp, "/leads/{lead_id}/assign", "lead:assign", response=Lead, status=200, is_tagged=True)
async def assign_lead(call: Call, lead_id: int, body: LeadAssignment) -> Record:
    """Assign a lead to a user, who is told by mail and by an event. One who has it already is not told again."""
    before = await queries.lock_if_there(call.conn, lead_id)
    user_id = getattr(body, body.field)
    if before is None or before["assigned_to"] != user_id:
        await check_references(call.conn, {body.field: user_id})
    if before is None:
        raise ResourceNotFoundError
    patch = differing(before, {"assigned_to": user_id})
    return await _change(call, "assign", before, patch) if patch else before


async def _change(call: Call, action: str, before: Record, patch: Mapping[str, Any]) -> Record:
    """Write a patch, with its audit row and its events."""
    after = await queries.update(call.conn, before["id"], patch)
    call.audit(action, "lead", after["id"], audit.changed(before, after))
    call.publish("lead.updated", after["id"], after)
    if "assigned_to" in patch:
        await _tell_assignee(call, after)
    return after


async def _tell_assignee(call: Call, lead: Record) -> None:
    """The event of an assignment, the user's mail, and their message if somebody else has assigned it."""
    user_id, lead_id = lead["assigned_to"], lead["id"]
    if user_id is None:
        return
    call.publish("lead.assigned", lead_id, {"lead_id": lead_id, "assigned_to": user_id})
    notify_other(call, user_id, "lead_assigned", f"Lead {lead_id} was assigned to you.")
    await jobs.defer(call.conn, "send_lead_assigned_email", {"user_id": user_id, "lead_id": lead_id})


# --- activities ------------------------------------------------------------------------------------------------


@get(bp, "/leads/{lead_id}/activities", "lead:read", response=list[LeadActivity])
async def list_lead_activities(call: Call, lead_id: int, query: SubListQuery) -> Answer:
    """List the activities, newest first."""
    await queries.require(call.conn, lead_id)
    return array(await queries.list_activities(call.conn, lead_id, query.limit, query.offset))


@post(bp, "/leads/{lead_id}/activities", "lead:update", response=LeadActivity)
async def create_lead_activity(call: Call, lead_id: int, body: LeadActivityCreate) -> Answer:
    """Add an activity. A call, email, meeting or sms that is not in the future is a contact with the lead."""
    before = await queries.lock(call.conn, lead_id)
    created = await queries.create_activity(call.conn, lead_id, body.model_dump())
    contacted_at, last = _contacted_at(body), before["last_contacted_at"]
    if contacted_at is not None and (last is None or last < contacted_at):
        await _change(call, "update", before, {"last_contacted_at": contacted_at})
    return _created_below(call, lead_id, "activity", created)


def _contacted_at(body: LeadActivityCreate) -> datetime | None:
    """When the activity was a contact with the lead; None when it was none, or is still to come."""
    now = datetime.now(UTC)
    at = body.completed_at or body.scheduled_at or now
    return at if body.activity_type in _CONTACTS and at <= now else None


# --- notes -----------------------------------------------------------------------------------------------------


@get(bp, "/leads/{lead_id}/notes", "lead:read", response=list[LeadNote])
async def list_lead_notes(call: Call, lead_id: int, query: SubListQuery) -> Answer:
    """List the notes, pinned ones first, then newest first."""
    await queries.require(call.conn, lead_id)
    return array(await queries.list_notes(call.conn, lead_id, query.limit, query.offset))


@post(bp, "/leads/{lead_id}/notes", "lead:update", response=LeadNote)
async def create_lead_note(call: Call, lead_id: int, body: LeadNoteCreate) -> Answer:
    """Add a note."""
    await queries.lock(call.conn, lead_id)
    created = await queries.create_note(call.conn, lead_id, body.content, body.is_pinned)
    return _created_below(call, lead_id, "note", created)


# --- documents -------------------------------------------------------------------------------------------------


@get(bp, "/leads/{lead_id}/documents", "lead:read", response=list[LeadDocument])
async def list_lead_documents(call: Call, lead_id: int, query: SubListQuery) -> Answer:
    """List the documents, newest first."""
    await queries.require(call.conn, lead_id)
    return array(await queries.list_documents(call.conn, lead_id, query.limit, query.offset))


@post(
    bp,
    "/leads/{lead_id}/documents",
    "lead:update",
    response=LeadDocument,
    form=LeadDocumentUpload,
    prepare=documents.store_document,
    max_file_bytes=documents.MAX_DOCUMENT_BYTES,
)
async def create_lead_document(call: Call, lead_id: int, body: LeadDocumentCreate | LeadDocumentUpload) -> Answer:
    """Add a document: where it lies as JSON, or a file of at most 25 MiB as multipart/form-data."""
    await queries.lock(call.conn, lead_id)
    upload: documents.StoredDocument | None = call.prepared
    if isinstance(body, LeadDocumentCreate):
        created = await queries.create_document(
            call.conn,
            lead_id,
            body.title,
            file_path=body.file_path,
            file_type=body.file_type,
            file_size=body.file_size,
        )
    else:
        if upload is None:
            # The lead came back between the two transactions; the client may try again.
            raise ResourceNotFoundError
        created = await queries.create_document(
            call.conn,
            lead_id,
            body.title,
            file_id=upload.file_id,
            file_name=upload.name,
            file_type=upload.content_type,
            file_size=upload.size,
        )
        await stored_files.use(call.conn, [upload.file_id])
    return _created_below(call, lead_id, "document", created)


@get(
    bp,
    "/leads/{lead_id}/documents/{document_id}/download",
    "lead:read",
    response=LeadDocumentDownload,
    writes_on_get=True,
)
async def download_lead_document(call: Call, lead_id: int, document_id: int) -> dict[str, Any]:
    """Get a link to an uploaded document: without a log-in, for five minutes, always as an attachment."""
    document = await queries.get_document(call.conn, lead_id, document_id)
    if document["storage_key"] is None:
        raise ResourceNotFoundError("The document was not uploaded; its file_path says where it lies.")
    if call.request.method == "GET":
        call.audit("download", "lead_document", document_id)
    return await documents.download_link(call, document)


def _created_below(call: Call, lead_id: int, kind: str, created: Mapping[str, Any]) -> Answer:
    """The audit row and the answer of a new sub-resource."""
    call.audit("create", f"lead_{kind}", created["id"], audit.created(created))
    plural = {"activity": "activities"}.get(kind, f"{kind}s")
    return call.created(created, f"{PREFIX}/leads/{lead_id}/{plural}/{created['id']}")
