"""Permissions: what a client gets."""

from __future__ import annotations

from datetime import datetime

from reos.schemas.common import ResponseModel


class Permission(ResponseModel):
    """A right; its name is `resource:action`."""

    id: int
    name: str
    description: str
    resource: str
    action: str
    created_at: datetime
