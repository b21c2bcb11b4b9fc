"""The transactions of a deal: what a client may send, and what it gets."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, Literal

from pydantic import Field

from reos.schemas.common import (
    DateOrTime,
    FreeText,
    Id,
    ListQuery,
    Metadata,
    MoneyText,
    Page,
    RequestModel,
    ResponseModel,
    SignedMoney,
    absent,
)

TransactionType = Literal["purchase", "sale", "lease", "commission", "expense", "income", "deposit"]


class TransactionCreate(RequestModel):
    """A new transaction. A negative amount is a refund or a correction; `deal_id` must be that of the path."""

    deal_id: Id | None = None
    transaction_type: TransactionType
    amount: SignedMoney
    description: FreeText | None = None
    transaction_date: DateOrTime
    metadata: Metadata = Field(default_factory=dict)


class TransactionUpdate(RequestModel):
    """What changes; a field that is absent keeps its value, null clears a nullable one."""

    deal_id: Id | None = None
    transaction_type: TransactionType = absent()
    amount: SignedMoney = absent()
    description: FreeText | None = None
    transaction_date: DateOrTime = absent()
    metadata: Metadata = absent()


class Transaction(ResponseModel):
    """A transaction."""

    id: int
    deal_id: int
    transaction_type: TransactionType
    amount: MoneyText
    description: str | None
    transaction_date: date
    metadata: dict[str, Any]
    created_by: int | None
    created_at: datetime
    updated_at: datetime


TransactionPage = Page[Transaction]


class TransactionQuery(ListQuery):
    """The list's filters."""

    transaction_type: TransactionType | None = None
