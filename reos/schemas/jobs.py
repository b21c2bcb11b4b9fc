"""Background jobs as their organisation sees them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from reos.schemas.common import ListQuery, Page, ResponseModel

# The names of the tasks (reos/jobs); a test compares the two.
JobKind = Literal[
    "send_campaign", "send_welcome_email", "send_verification_email", "send_password_reset_email",
    "send_password_changed_email", "send_address_changed_email", "send_lead_assigned_email",
    "send_deal_stage_changed_email", "send_daily_analytics_report", "queue_daily_reports", "send_webhook",
    "retry_failed_webhooks", "record_failed_login", "cleanup_idempotency_keys", "cleanup_audit_logs",
    "cleanup_soft_deleted_records", "cleanup_events", "cleanup_sessions", "cleanup_files", "rescue_stalled_jobs",
]  # fmt: skip
JobState = Literal["queued", "running", "succeeded", "failed", "cancelled"]


class Job(ResponseModel):
    """A job. Times and the error are those of its last attempt."""

    id: int
    # Not a JobKind: another version of the service may have left jobs that this one does not know.
    kind: str
    state: JobState
    attempts: int
    scheduled_at: datetime | None = Field(description="When it shall run; null: as soon as may be.")
    started_at: datetime | None
    finished_at: datetime | None = Field(description="Null while it waits or runs.")
    last_error: str | None


class JobItem(Job):
    """A job in a list."""


JobPage = Page[JobItem]


class JobQuery(ListQuery):
    """The list's filters."""

    kind: JobKind | None = None
    state: JobState | None = None
