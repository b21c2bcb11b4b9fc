"""Leads and what belongs to them: what a client may send, and what it gets."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from reos.schemas.common import (
    Content,
    Email,
    FreeText,
    Id,
    Integer,
    ListQuery,
    Metadata,
    Money,
    MoneyText,
    Page,
    Phone,
    RequestModel,
    ResponseModel,
    RowsQuery,
    Text,
    Timestamp,
    absent,
    exactly_one_field,
    field_error,
)

LeadSource = Literal[
    "website", "referral", "social_media", "email", "phone", "walk_in", "event", "advertisement", "other"
]
LeadStatus = Literal["new", "contacted", "qualified", "unqualified", "nurturing", "converted", "lost"]
LeadActivityType = Literal["call", "email", "meeting", "sms", "note"]

Name = Annotated[str, Text(100)]
Company = Annotated[str, Text(200)]
Timeline = Annotated[str, Text(100)]
Score = Annotated[int, Integer(0, 100)]
Search = Annotated[str, Text(200, 0)]


class LeadCreate(RequestModel):
    """A new lead."""

    first_name: Name
    last_name: Name
    email: Email | None = None
    phone: Phone | None = None
    company: Company | None = None
    source: LeadSource
    status: LeadStatus = "new"
    score: Score = 0
    budget: Money | None = None
    timeline: Timeline | None = None
    notes: FreeText | None = None
    metadata: Metadata = Field(default_factory=dict)
    assigned_to: Id | None = None


class LeadUpdate(RequestModel):
    """What changes; a field that is absent keeps its value, null clears a nullable one."""

    first_name: Name = absent()
    last_name: Name = absent()
    email: Email | None = None
    phone: Phone | None = None
    company: Company | None = None
    source: LeadSource = absent()
    status: LeadStatus = absent()
    score: Score = absent()
    budget: Money | None = None
    timeline: Timeline | None = None
    notes: FreeText | None = None
    metadata: Metadata = absent()
    assigned_to: Id | None = None


class Lead(ResponseModel):
    """A lead as every answer and event gives it."""

    id: int
    organization_id: int
    first_name: str
    last_name: str
    email: str | None
    phone: str | None
    company: str | None
    source: LeadSource
    status: LeadStatus
    score: int
    budget: MoneyText | None
    timeline: str | None
    notes: str | None
    metadata: dict[str, Any]
    assigned_to: int | None
    created_by: int | None
    created_at: datetime
    updated_at: datetime
    last_contacted_at: datetime | None
    deleted_at: datetime | None


LeadPage = Page[Lead]


class LeadFilters(RequestModel):
    """Which leads: all that each filter lets through."""

    search: Search | None = None
    source: LeadSource | None = None
    status: LeadStatus | None = None
    assigned_to: Id | None = None
    min_score: Score | None = None
    max_score: Score | None = None


class LeadQuery(ListQuery, LeadFilters):
    """The list's filters."""


class LeadExportQuery(RowsQuery, LeadFilters):
    """The filters of the list, and its sort."""


class LeadStats(ResponseModel):
    """All leads in numbers."""

    total_leads: int
    by_status: dict[LeadStatus, int]
    by_source: dict[LeadSource, int]
    avg_score: float
    conversion_rate: float = Field(description="Percent of all leads that are converted.")


class LeadAssignment(RequestModel):
    """Who shall look after the lead, under either name."""

    model_config = ConfigDict(json_schema_extra=exactly_one_field)

    user_id: Id = absent()
    assigned_to: Id = absent()

    @model_validator(mode="after")
    def _exactly_one(self) -> LeadAssignment:
        if len(self.model_fields_set) == 1:
            return self
        if self.model_fields_set:
            raise field_error("assigned_to", "Only one of user_id and assigned_to may be given", "conflicting_fields")
        raise field_error("user_id", "Field required", "missing")

    @property
    def field(self) -> str:
        """The name that the client has used."""
        return next(iter(self.model_fields_set))


class LeadActivityCreate(RequestModel):
    """Something that was or will be done about a lead."""

    activity_type: LeadActivityType
    subject: Annotated[str, Text(200)] | None = None
    description: Content
    outcome: Annotated[str, Text(100)] | None = None
    scheduled_at: Timestamp | None = None
    completed_at: Timestamp | None = None
    metadata: Metadata = Field(default_factory=dict)


class LeadActivity(ResponseModel):
    """An activity."""

    id: int
    lead_id: int
    activity_type: LeadActivityType
    subject: str | None
    description: str
    outcome: str | None
    scheduled_at: datetime | None
    completed_at: datetime | None
    metadata: dict[str, Any]
    created_by: int | None
    created_at: datetime


class LeadNoteCreate(RequestModel):
    """A note on a lead."""

    content: Content
    is_pinned: bool = False


class LeadNote(ResponseModel):
    """A note."""

    id: int
    lead_id: int
    content: str
    is_pinned: bool
    created_by: int | None
    created_at: datetime


class LeadDocumentCreate(RequestModel):
    """A document that lies elsewhere."""

    title: Annotated[str, Text(200)]
    file_path: Annotated[str, Text(1000)]
    file_type: Annotated[str, Text(100)] | None = None
    file_size: Annotated[int, Integer(0, 2**63 - 1)] | None = Field(None, description="Bytes.")


class LeadDocumentUpload(RequestModel):
    """The fields beside the file of an uploaded document."""

    title: Annotated[str, Text(200)]


class LeadDocument(ResponseModel):
    """A document. What was uploaded has no `file_path`; its download gives a link that expires."""

    id: int
    lead_id: int
    title: str
    file_path: str | None
    file_name: str | None
    file_type: str | None
    file_size: int | None
    created_by: int | None
    created_at: datetime


class LeadDocumentDownload(ResponseModel):
    """Where the document can be fetched, without a log-in, until the link expires."""

    url: str
    expires_at: datetime
