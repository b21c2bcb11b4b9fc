"""Users: what a client may send, and what it gets."""

from __future__ import annotations

from datetime import datetime

from reos.schemas.common import ResponseModel


class User(ResponseModel):
    """A user as log-in and registration give it."""

    id: int
    organization_id: int
    email: str
    first_name: str
    last_name: str
    phone: str | None
    is_active: bool
    is_verified: bool
    is_locked: bool
    is_superuser: bool
    last_login: datetime | None
    created_at: datetime
    updated_at: datetime
