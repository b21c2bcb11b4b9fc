"""Campaigns and their recipients: what a client may send, and what it gets."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from reos.schemas.common import (
    FreeText,
    Id,
    ListQuery,
    Metadata,
    Page,
    RequestModel,
    ResponseModel,
    Text,
    Timestamp,
    absent,
    field_error,
)
from reos.schemas.leads import LeadFilters
from reos.schemas.merge_fields import MergeContent, MergeSubject

CampaignType = Literal["email", "sms", "direct_mail", "social_media"]
CampaignStatus = Literal["draft", "scheduled", "in_progress", "completed", "paused", "cancelled"]
RecipientStatus = Literal["pending", "sending", "sent", "failed", "bounced", "suppressed", "unknown", "cancelled"]

Name = Annotated[str, Text(200)]
MAX_LEAD_IDS = 10_000


class CampaignCreate(RequestModel):
    """A new campaign, which is a draft until it is sent."""

    name: Name
    description: FreeText | None = None
    campaign_type: CampaignType
    status: Literal["draft"] = "draft"
    subject: MergeSubject | None = Field(None, description="An email campaign needs one by the time it is sent.")
    content: MergeContent = Field(description="HTML or plain text, with merge fields such as {{first_name}}.")
    template_id: Id | None = Field(None, description="The template that subject and content were taken from.")
    metadata: Metadata = Field(default_factory=dict)


class CampaignUpdate(RequestModel):
    """What changes; a field that is absent keeps its value, null clears a nullable one."""

    name: Name = absent()
    description: FreeText | None = None
    campaign_type: CampaignType = absent()
    status: CampaignStatus = absent()
    subject: MergeSubject | None = None
    content: MergeContent = absent()
    template_id: Id | None = None
    metadata: Metadata = absent()


class Campaign(ResponseModel):
    """A campaign as every answer and event gives it."""

    id: int
    organization_id: int
    name: str
    description: str | None
    campaign_type: CampaignType
    status: CampaignStatus
    subject: str | None
    content: str
    template_id: int | None
    metadata: dict[str, Any]
    scheduled_at: datetime | None
    started_at: datetime | None
    completed_at: datetime | None
    pause_reason: str | None = Field(description="Why the campaign has paused itself; null when a person paused it.")
    total_recipients: int
    sent_count: int = Field(description="What the mail server took: sent and bounced.")
    delivered_count: int = Field(description="What was sent and has not bounced.")
    opened_count: int
    clicked_count: int
    bounced_count: int
    unsubscribed_count: int
    failed_count: int
    suppressed_count: int
    unknown_count: int
    created_by: int | None
    created_at: datetime
    updated_at: datetime


CampaignPage = Page[Campaign]


class CampaignQuery(ListQuery):
    """The list's filters."""

    search: Annotated[str, Text(200, 0)] | None = Field(None, description="Words of name, description and subject.")
    campaign_type: CampaignType | None = None
    status: CampaignStatus | None = None


class CampaignStats(ResponseModel):
    """All campaigns in numbers; the rates are percents."""

    total_campaigns: int
    total_sent: int
    total_delivered: int
    total_opened: int
    total_clicked: int
    delivery_rate: float = Field(description="Delivered of sent.")
    open_rate: float = Field(description="Opened of delivered.")
    click_rate: float = Field(description="Clicked of opened.")
    by_status: dict[CampaignStatus, int]
    by_type: dict[CampaignType, int]


class CampaignSend(RequestModel):
    """To whom and when. Leads have to meet all that is given; without anything they are all of the organisation's."""

    lead_ids: Annotated[list[Id], Field(max_length=MAX_LEAD_IDS)] | None = None
    filters: LeadFilters | None = None
    send_now: bool = True
    send_at: Timestamp | None = None

    @model_validator(mode="after")
    def _check_time(self) -> CampaignSend:
        if self.send_at is None and not self.send_now:
            raise field_error("send_at", "Field required unless it is sent now", "missing")
        if self.send_at is not None and self.send_now and "send_now" in self.model_fields_set:
            raise field_error("send_at", "Only one of send_at and send_now may be given", "conflicting_fields")
        return self


class CampaignPreviewRequest(RequestModel):
    """For whom; without a lead an example stands in for one."""

    lead_id: Id | None = None


class CampaignPreview(ResponseModel):
    """What a recipient would get. The links of a preview count nothing and unsubscribe nobody."""

    subject: str | None
    html: str | None
    text: str


class CampaignExport(ResponseModel):
    """Where recipients and texts of a finished campaign can be fetched, without a log-in, until the link expires."""

    url: str
    expires_at: datetime


class CampaignRecipient(ResponseModel):
    """One address that a campaign goes to, and what became of it."""

    id: int
    campaign_id: int
    lead_id: int
    address: str | None
    status: RecipientStatus
    error_message: str | None
    attempts: int
    next_attempt_at: datetime | None
    sent_at: datetime | None
    opened_at: datetime | None
    clicked_at: datetime | None
    bounced_at: datetime | None
    unsubscribed_at: datetime | None
    created_at: datetime
    updated_at: datetime


CampaignRecipientPage = Page[CampaignRecipient]


class CampaignRecipientQuery(ListQuery):
    """The list's filters."""

    status: RecipientStatus | None = None
