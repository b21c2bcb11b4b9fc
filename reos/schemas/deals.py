"""Deals and their stages: what a client may send, and what it gets."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from reos.schemas.common import (
    CommissionRate,
    DateOrTime,
    FreeText,
    Id,
    Integer,
    ListQuery,
    Metadata,
    Money,
    MoneyText,
    Page,
    RequestModel,
    ResponseModel,
    RowsQuery,
    Text,
    absent,
)

DealType = Literal["buy", "sell", "lease", "wholesale", "flip", "rental"]
DealStage = Literal[
    "lead", "qualified", "proposal", "negotiation", "contract", "inspection", "financing", "closing", "closed_won",
    "closed_lost",
]  # fmt: skip

# A deal in one of these holds its property.
HOLDING_STAGES: Final = frozenset({"contract", "inspection", "financing", "closing"})
CLOSED_STAGES: Final = frozenset({"closed_won", "closed_lost"})

_ALIASES: Final = {"sale": "sell", "purchase": "buy"}
DealTypeIn = Annotated[
    Literal["buy", "sell", "lease", "wholesale", "flip", "rental", "sale", "purchase"],
    AfterValidator(lambda value: _ALIASES.get(value, value)),
]
Probability = Annotated[int, Integer(0, 100)]  # percent
RateText = Annotated[str, WithJsonSchema({"type": "string", "pattern": r"^\d{1,3}\.\d{2}$"})]


class DealCreate(RequestModel):
    """A new deal. `sale` and `purchase` are other names of `sell` and `buy`."""

    property_id: Id
    lead_id: Id | None = None
    deal_type: DealTypeIn
    stage: DealStage = "lead"
    value: Money
    commission_rate: CommissionRate | None = None
    probability: Probability = 50
    expected_close_date: DateOrTime | None = None
    assigned_to: Id | None = None
    notes: FreeText | None = None
    metadata: Metadata = Field(default_factory=dict)


class DealUpdate(RequestModel):
    """What changes; a field that is absent keeps its value, null clears a nullable one."""

    property_id: Id = absent()
    lead_id: Id | None = None
    deal_type: DealTypeIn = absent()
    stage: DealStage = absent()
    value: Money = absent()
    commission_rate: CommissionRate | None = None
    probability: Probability = absent()
    expected_close_date: DateOrTime | None = None
    assigned_to: Id | None = None
    notes: FreeText | None = None
    metadata: Metadata = absent()


class Deal(ResponseModel):
    """A deal as every answer and event gives it."""

    id: int
    organization_id: int
    property_id: int
    lead_id: int | None
    deal_type: DealType
    stage: DealStage
    value: MoneyText
    commission_rate: RateText | None
    probability: int
    expected_close_date: date | None
    assigned_to: int | None
    notes: str | None
    metadata: dict[str, Any]
    created_by: int | None
    closed_at: datetime | None
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None


DealPage = Page[Deal]


class DealFilters(RequestModel):
    """Which deals: all that each filter lets through."""

    search: Annotated[str, Text(200, 0)] | None = None
    stage: DealStage | None = None
    deal_type: DealTypeIn | None = None
    property_id: Id | None = None
    lead_id: Id | None = None
    assigned_to: Id | None = None
    min_value: Money | None = None
    max_value: Money | None = None


class DealQuery(ListQuery, DealFilters):
    """The list's filters."""


class DealExportQuery(RowsQuery, DealFilters):
    """The filters of the list, and its sort."""


class DealStats(ResponseModel):
    """All deals in numbers. `win_rate` is the percentage of the closed deals that were won."""

    total_deals: int
    total_value: MoneyText
    avg_deal_value: MoneyText
    won_deals: int
    lost_deals: int
    win_rate: float
    by_stage: dict[DealStage, int]
    by_type: dict[DealType, int]


class StageChange(ResponseModel):
    """A deal's move to another stage. The first has no old one: the deal was created in `new_stage`."""

    id: int
    deal_id: int
    old_stage: DealStage | None
    new_stage: DealStage
    changed_by: int | None
    changed_at: datetime
    duration_seconds: int | None = Field(description="How long the deal had been in the old stage.")
