"""Portfolios, groups of properties: what a client may send, and what it gets."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field

from reos.schemas.common import (
    FreeText,
    Id,
    ListQuery,
    Metadata,
    MoneyText,
    Page,
    RequestModel,
    ResponseModel,
    Text,
    absent,
)
from reos.schemas.properties import Property

MAX_PROPERTY_IDS = 1000

Name = Annotated[str, Text(200)]


class PortfolioCreate(RequestModel):
    """A new portfolio. A property that is named twice is in it once."""

    name: Name
    description: FreeText | None = None
    property_ids: Annotated[list[Id], Field(max_length=MAX_PROPERTY_IDS)] = Field(default_factory=list)
    metadata: Metadata = Field(default_factory=dict)


class PortfolioUpdate(RequestModel):
    """What changes; a field that is absent keeps its value, null clears a nullable one."""

    name: Name = absent()
    description: FreeText | None = None
    metadata: Metadata = absent()


class PortfolioItem(ResponseModel):
    """A portfolio in a list. Count and value are those of its properties that are not deleted."""

    id: int
    organization_id: int
    name: str
    description: str | None
    metadata: dict[str, Any]
    created_by: int | None
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None
    property_count: int
    total_value: MoneyText


class Portfolio(PortfolioItem):
    """A portfolio with its properties."""

    properties: list[Property]


PortfolioPage = Page[PortfolioItem]


class PortfolioQuery(ListQuery):
    """The list's filters."""

    search: Annotated[str, Text(200, 0)] | None = None


class PortfolioStats(ResponseModel):
    """All portfolios in numbers. A property counts in each portfolio that it is in, so that their sums add up."""

    total_portfolios: int
    total_properties: int
    total_value: MoneyText
    avg_portfolio_value: MoneyText
