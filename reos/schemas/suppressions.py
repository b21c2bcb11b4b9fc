"""Addresses that are never written to: what a client may send, and what it gets."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from reos.schemas.common import Email, ListQuery, Page, Phone, RequestModel, ResponseModel, Text, field_error


def _check_digits(phone: str) -> str:
    if not re.search("[0-9]", phone):
        raise PydanticCustomError("phone_number", "Input should hold digits")
    return phone


DigitPhone = Annotated[Phone, AfterValidator(_check_digits)]


class SuppressionCreate(RequestModel):
    """An email address or a phone number, either of them."""

    email: Email | None = None
    phone: DigitPhone | None = None
    reason: Annotated[str, Text(200)] | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> SuppressionCreate:
        if self.email is None and self.phone is None:
            raise field_error("email", "One of email and phone is required", "missing")
        if self.email is not None and self.phone is not None:
            raise field_error("phone", "Only one of email and phone may be given", "conflicting_fields")
        return self


class Suppression(ResponseModel):
    """An address that the organisation never writes to."""

    id: int
    organization_id: int
    email: str | None
    phone: str | None
    reason: str | None
    created_by: int | None = Field(description="Null for who unsubscribed or could not be reached.")
    created_at: datetime


SuppressionPage = Page[Suppression]


class SuppressionQuery(ListQuery):
    """The list's filters; an address in any spelling."""

    email: Email | None = None
    phone: DigitPhone | None = None
