"""The audit log of the organisation: who did what."""

from __future__ import annotations

from typing import Any

from sanic import Blueprint

from reos.handlers.paging import check_fields, envelope, page_request
from reos.middleware.call import Call
from reos.middleware.endpoint import get
from reos.queries import audit_logs as queries
from reos.schemas.audit_logs import AuditLog, AuditLogPage, AuditLogQuery

bp = Blueprint("audit_logs")

_ITEM_FIELDS = tuple(AuditLog.model_fields)


@get(bp, "/audit-logs", "audit:read", response=AuditLogPage)
async def list_audit_logs(call: Call, query: AuditLogQuery) -> dict[str, Any]:
    """List who did what, newest first."""
    check_fields(query, _ITEM_FIELDS)
    filters = query.active_filters()
    page = page_request(call, queries.LISTING, query, filters, "-created_at")
    rows = await queries.list_audit_logs(call.conn, page, filters)
    return envelope(call, queries.LISTING, query, filters, page, rows)
