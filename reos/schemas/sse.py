"""The event stream: its parameters, its ticket and its state."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from reos.schemas.common import RequestModel, ResponseModel

EVENT_TYPES = (
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
    "campaign.progress",
    "campaign.completed",
    "campaign.paused",
    "notification",
)


class EventTypes:
    """A comma list of event types, as a set."""

    _known = frozenset(EVENT_TYPES)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._check)

    def _check(self, value: Any) -> frozenset[str]:
        types = frozenset(part.strip() for part in value.split(",")) if isinstance(value, str) else frozenset({""})
        if not types <= self._known:
            raise PydanticCustomError("enum", "Input should be types of events, separated by commas")
        return types

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        one = "|".join(re.escape(name) for name in EVENT_TYPES)
        return {"type": "string", "pattern": f"^({one})(,({one}))*$"}


class StreamQuery(RequestModel):
    """What a client asks of the stream."""

    ticket: str | None = Field(None, description="From POST /sse/ticket, instead of the Authorization header.")
    last_event_id: str | None = Field(
        None, description="The last event that the client has got, where it cannot send the header Last-Event-ID."
    )
    types: Annotated[frozenset[str], EventTypes()] | None = Field(
        None, description="The only types of events to send, separated by commas."
    )


class StreamTicket(ResponseModel):
    """Lets one stream be opened without the Authorization header."""

    ticket: str
    expires_in: int


class StreamStatus(ResponseModel):
    """The organisation's event streams, those of all processes, and what they may expect."""

    organization_id: int
    active_connections: int
    listener_connected: bool
    last_event_id: int
