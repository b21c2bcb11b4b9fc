"""Campaign templates: what a client may send, and what it gets."""

from __future__ import annotations

from datetime import datetime

from reos.schemas.campaigns import CampaignType, Name
from reos.schemas.common import FreeText, RequestModel, ResponseModel, SubListQuery, absent
from reos.schemas.merge_fields import MergeContent, MergeSubject


class CampaignTemplateCreate(RequestModel):
    """A new template."""

    name: Name
    description: FreeText | None = None
    campaign_type: CampaignType
    subject: MergeSubject | None = None
    content: MergeContent
    is_active: bool = True


class CampaignTemplateUpdate(RequestModel):
    """What changes; a field that is absent keeps its value, null clears a nullable one."""

    name: Name = absent()
    description: FreeText | None = None
    campaign_type: CampaignType = absent()
    subject: MergeSubject | None = None
    content: MergeContent = absent()
    is_active: bool = absent()


class CampaignTemplate(ResponseModel):
    """A template."""

    id: int
    organization_id: int
    name: str
    description: str | None
    campaign_type: CampaignType
    subject: str | None
    content: str
    is_active: bool
    created_by: int | None
    created_at: datetime
    updated_at: datetime


class CampaignTemplateQuery(SubListQuery):
    """The list's filters."""

    campaign_type: CampaignType | None = None
    is_active: bool | None = None
