"""Roles: what a client may send, and what it gets."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field

from reos.schemas.common import FreeText, Id, RequestModel, ResponseModel, Text, absent
from reos.schemas.permissions import Permission

MAX_PERMISSION_IDS = 100

Name = Annotated[str, Text(100)]
PermissionIds = Annotated[list[Id], Field(max_length=MAX_PERMISSION_IDS)]


class RoleCreate(RequestModel):
    """A new role."""

    name: Name
    description: FreeText | None = None
    permission_ids: PermissionIds = Field(default_factory=list)


class RoleUpdate(RequestModel):
    """What changes; `permission_ids` are all the permissions that the role gives afterwards."""

    name: Name = absent()
    description: FreeText | None = None
    permission_ids: PermissionIds = absent()


class RoleItem(ResponseModel):
    """A role in the list. System roles are the same in every organisation and cannot be changed."""

    id: int
    organization_id: int
    name: str
    description: str | None
    is_system: bool
    created_at: datetime
    updated_at: datetime


class Role(RoleItem):
    """A role with its permissions."""

    permissions: list[Permission]
