"""Teams and their members: what a client may send, and what it gets."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from reos.schemas.common import FreeText, ListQuery, Page, RequestModel, ResponseModel, Text, absent

MemberRole = Literal["leader", "member"]

Name = Annotated[str, Text(100)]


class TeamCreate(RequestModel):
    """A new team."""

    name: Name
    description: FreeText | None = None


class TeamUpdate(RequestModel):
    """What changes; null clears the description."""

    name: Name = absent()
    description: FreeText | None = None


class MemberCreate(RequestModel):
    """What a new member is in the team."""

    role: MemberRole = "member"


class Member(ResponseModel):
    """A user in a team. Whoever was deactivated stays a member."""

    user_id: int
    first_name: str
    last_name: str
    is_active: bool
    role: MemberRole
    created_at: datetime


class TeamItem(ResponseModel):
    """A team in a list."""

    id: int
    organization_id: int
    name: str
    description: str | None
    member_count: int
    created_at: datetime
    updated_at: datetime


class Team(TeamItem):
    """A team with its members, leaders first."""

    members: list[Member]


TeamPage = Page[TeamItem]
TeamQuery = ListQuery
