"""Audit rows: what a client gets."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from reos.schemas.common import Id, ListQuery, Page, ResponseModel, Text, Timestamp

AuditAction = Literal[
    "create", "update", "delete", "restore", "login", "login_failed", "logout", "password_change", "password_reset",
    "denied", "assign", "convert", "send", "export", "download", "retry", "rotate",
]  # fmt: skip


class AuditLog(ResponseModel):
    """Who did what: `changes` holds each changed field with its value before and after. Secrets are never in it."""

    id: int
    action: AuditAction
    resource_type: str
    resource_id: int | None
    changes: dict[str, list[Any]]
    user_id: int | None
    ip_address: str | None
    user_agent: str | None
    request_id: str | None
    created_at: datetime


AuditLogPage = Page[AuditLog]


class AuditLogQuery(ListQuery):
    """The list's filters."""

    user_id: Id | None = Field(None, description="Who did it.")
    action: AuditAction | None = None
    resource_type: Annotated[str, Text(50)] | None = Field(None, description="In the singular, such as property.")
    resource_id: Id | None = None
    since: Timestamp | None = Field(None, description="Then or later.")
    until: Timestamp | None = Field(None, description="Then or earlier.")
