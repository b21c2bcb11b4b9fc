"""The user's organisation."""

from __future__ import annotations

from typing import Any

from sanic import Blueprint

from reos.db import Record
from reos.errors import ValidationError
from reos.handlers.changes import differing
from reos.middleware.call import Call
from reos.middleware.endpoint import get, put
from reos.queries import audit
from reos.queries import organizations as queries
from reos.schemas.common import patch_of
from reos.schemas.organizations import TIME_ZONE_ERROR, Organization, OrganizationUpdate

bp = Blueprint("organizations")


@get(bp, "/organization", "organization:read", response=Organization)
async def get_organization(call: Call) -> Record:
    """Get the organisation."""
    return await queries.get(call.conn)


@put(bp, "/organization", "organization:update", response=Organization)
async def update_organization(call: Call, body: OrganizationUpdate) -> Record:
    """Change what is sent of the organisation. Of `settings` too: another key keeps its value, null removes one."""
    patch = patch_of(body)
    zone = patch.get("settings", {}).get("timezone")
    if zone is not None and not await queries.knows_time_zone(call.conn, zone):
        raise ValidationError.of(*TIME_ZONE_ERROR)
    before = await queries.lock(call.conn)
    call.if_match(before)
    if "settings" in patch:
        patch["settings"] = _merged(before["settings"], patch["settings"])
    patch = differing(before, patch)
    if not patch:
        return before
    after = await queries.update(call.conn, patch)
    call.audit("update", "organization", after["id"], audit.changed(before, after))
    return after


def _merged(settings: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in (settings | patch).items() if value is not None}
