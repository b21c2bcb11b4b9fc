"""Background jobs as their organisation sees them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from reos.schemas.common import ListQuery, Page, ResponseModel, Text

JobState = Literal["queued", "running", "succeeded", "failed", "cancelled"]


class Job(ResponseModel):
    """A job. Times and the error are those of its last attempt."""

    id: int
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

    kind: Annotated[str, Text(128)] | None = None
    state: JobState | None = None
