"""What a mail provider reports of mails that it could not deliver, or that somebody complained about."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from reos.schemas.common import RequestModel, Text

MAX_BOUNCES = 1000


class Bounce(RequestModel):
    """One mail. A bounce that is not permanent changes nothing: the provider still tries."""

    message_id: Annotated[str, Text(500)] = Field(description="The mail's Message-ID.")
    type: Literal["bounce", "complaint"]
    is_permanent: bool = True
    reason: Annotated[str, Text(500)] | None = None


class BounceReport(RequestModel):
    """Several mails at once."""

    bounces: Annotated[list[Bounce], Field(min_length=1, max_length=MAX_BOUNCES)]
