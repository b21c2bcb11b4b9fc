"""Webhooks and their deliveries: what a client may send, and what it gets."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from reos.schemas.common import FreeText, HttpUrl, ListQuery, Page, RequestModel, ResponseModel, absent

# Those of the event stream but for campaign.progress, which comes too often, and notification, which is for one user.
WebhookEventType = Literal[
    "property.created",
    "property.updated",
    "property.deleted",
    "lead.created",
    "lead.updated",
    "lead.assigned",
    "lead.converted",
    "lead.deleted",
    "deal.created",
    "deal.updated",
    "deal.stage_changed",
    "deal.deleted",
    "campaign.started",
    "campaign.completed",
    "campaign.paused",
]
DeliveryStatus = Literal["pending", "sending", "delivered", "failed"]
DisabledReason = Literal["gone", "failing"]


def _check_once(types: list[str]) -> list[str]:
    if len(set(types)) < len(types):
        raise PydanticCustomError("not_unique", "Input should name each type once")
    return types


EventTypes = Annotated[
    list[WebhookEventType],
    Field(min_length=1, max_length=15, json_schema_extra={"uniqueItems": True}),
    AfterValidator(_check_once),
]


class WebhookCreate(RequestModel):
    """A new webhook: where to send which events."""

    url: HttpUrl
    event_types: EventTypes
    description: FreeText | None = None
    is_active: bool = True


class WebhookUpdate(RequestModel):
    """What changes; null clears the description."""

    url: HttpUrl = absent()
    event_types: EventTypes = absent()
    description: FreeText | None = None
    is_active: bool = absent()


class Webhook(ResponseModel):
    """A webhook. Its secret is told once only."""

    id: int
    organization_id: int
    url: str
    event_types: list[str]
    description: str | None
    is_active: bool
    failing_since: datetime | None = Field(description="Since when no attempt succeeds; null when the last one did.")
    disabled_reason: DisabledReason | None = Field(
        description="Why the service switched it off: the endpoint answered 410, or it failed for days."
    )
    created_by: int | None
    created_at: datetime
    updated_at: datetime


class WebhookWithSecret(Webhook):
    """A webhook with its new secret, which is not shown again."""

    secret: str = Field(description="`whsec_` and the key in base64, as Standard Webhooks says.")


class WebhookItem(Webhook):
    """A webhook in a list."""


WebhookPage = Page[WebhookItem]


class WebhookQuery(ListQuery):
    """The list's filters."""

    is_active: bool | None = None


class WebhookTest(ResponseModel):
    """What came of a test event."""

    ok: bool = Field(description="Whether the endpoint answered 2xx.")
    response_status: int | None = Field(description="Null when no answer came.")
    response_body: str | None = Field(description="The beginning of it, at most 1,024 bytes.")
    response_time_ms: int
    error: str | None


class WebhookPayload(ResponseModel):
    """What the endpoint gets."""

    type: str
    timestamp: datetime
    data: Any


class WebhookDelivery(ResponseModel):
    """An event on its way to an endpoint. Its id is the `webhook-id` of every attempt."""

    id: int
    webhook_id: int
    event_type: str
    payload: WebhookPayload
    status: DeliveryStatus = Field(description="Pending waits for its next attempt, sending is under way.")
    attempts: int
    next_attempt_at: datetime | None
    last_attempt_at: datetime | None
    response_status: int | None = Field(description="Of the last attempt, as all that follows.")
    response_body: str | None = Field(description="The beginning of it, at most 1,024 bytes.")
    response_time_ms: int | None
    error: str | None
    created_at: datetime
    updated_at: datetime


class WebhookDeliveryItem(WebhookDelivery):
    """A delivery in a list."""


WebhookDeliveryPage = Page[WebhookDeliveryItem]


class WebhookDeliveryQuery(ListQuery):
    """The list's filters."""

    status: DeliveryStatus | None = None
    event_type: WebhookEventType | None = None
