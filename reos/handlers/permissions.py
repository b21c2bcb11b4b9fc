"""Permissions: what a role may give, the same for all organisations."""

from __future__ import annotations

from sanic import Blueprint

from reos.db import Record
from reos.handlers.paging import array
from reos.middleware.call import Answer, Call
from reos.middleware.endpoint import get
from reos.queries import permissions as queries
from reos.schemas.common import SubListQuery
from reos.schemas.permissions import Permission

bp = Blueprint("permissions")


@get(bp, "/permissions", "role:read", response=list[Permission])
async def list_permissions(call: Call, query: SubListQuery) -> Answer:
    """List all permissions."""
    return array(await queries.list_permissions(call.conn, query.limit, query.offset))


@get(bp, "/permissions/{permission_id}", "role:read", response=Permission)
async def get_permission(call: Call, permission_id: int) -> Record:
    """Get a permission."""
    return await queries.get(call.conn, permission_id)
