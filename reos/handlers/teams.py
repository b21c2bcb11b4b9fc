"""Teams and their members."""

from __future__ import annotations

from typing import Any

from sanic import Blueprint

from reos.handlers.changes import differing
from reos.handlers.paging import check_fields, envelope, page_request
from reos.middleware.call import NO_CONTENT, Answer, Call
from reos.middleware.endpoint import PREFIX, delete, get, post, put
from reos.queries import audit
from reos.queries import teams as queries
from reos.schemas.common import patch_of
from reos.schemas.teams import Member, MemberCreate, Team, TeamCreate, TeamItem, TeamPage, TeamQuery, TeamUpdate

bp = Blueprint("teams")

_ITEM_FIELDS = tuple(TeamItem.model_fields)
_NOT_AUDITED = ("member_count", "members")  # each of its changes has a row of its own


@post(bp, "/teams", "team:create", response=Team, is_tagged=True)
async def create_team(call: Call, body: TeamCreate) -> Answer:
    """Create a team."""
    created = await queries.create(call.conn, body.name, body.description)
    call.audit("create", "team", created["id"], audit.created(_audited(created)))
    return call.created(created, f"{PREFIX}/teams/{created['id']}")


@get(bp, "/teams", "team:read", response=TeamPage)
async def list_teams(call: Call, query: TeamQuery) -> dict[str, Any]:
    """List teams."""
    check_fields(query, _ITEM_FIELDS)
    filters = query.active_filters()
    page = page_request(call, queries.LISTING, query, filters, "-created_at")
    rows = await queries.list_teams(call.conn, page, filters)
    return envelope(call, queries.LISTING, query, filters, page, rows)


@get(bp, "/teams/{team_id}", "team:read", response=Team)
async def get_team(call: Call, team_id: int) -> dict[str, Any]:
    """Get a team with its members."""
    return await queries.get(call.conn, team_id)


@put(bp, "/teams/{team_id}", "team:update", response=Team)
async def update_team(call: Call, team_id: int, body: TeamUpdate) -> dict[str, Any]:
    """Change what is sent of a team."""
    before = await queries.lock(call.conn, team_id)
    call.if_match(before)
    patch = differing(before, patch_of(body))
    if not patch:
        return before
    after = await queries.update(call.conn, team_id, patch)
    call.audit("update", "team", team_id, audit.changed(_audited(before), _audited(after)))
    return after


@delete(bp, "/teams/{team_id}", "team:delete")
async def delete_team(call: Call, team_id: int) -> Answer:
    """Delete a team for good. Its members stay users."""
    before = await queries.lock(call.conn, team_id)
    call.if_match(before)
    await queries.delete(call.conn, team_id)
    members = [{"user_id": member["user_id"], "role": member["role"]} for member in before["members"]]
    call.audit("delete", "team", team_id, audit.deleted(_audited(before) | {"members": members}))
    return NO_CONTENT


@post(bp, "/teams/{team_id}/members/{user_id}", "team:update", response=Member, takes_body_optionally=True)
async def add_team_member(call: Call, team_id: int, user_id: int, body: MemberCreate) -> Answer:
    """Take a user into a team, as its leader or, without a body, as a member."""
    await queries.require_locked(call.conn, team_id)
    member = await queries.add_member(call.conn, team_id, user_id, body.role)
    call.audit("update", "team", team_id, {"member": [None, {"user_id": user_id, "role": body.role}]})
    return call.created(member, f"{PREFIX}/teams/{team_id}/members/{user_id}")


@delete(bp, "/teams/{team_id}/members/{user_id}", "team:update")
async def remove_team_member(call: Call, team_id: int, user_id: int) -> Answer:
    """Take a user out of a team."""
    await queries.require_locked(call.conn, team_id)
    removed = await queries.remove_member(call.conn, team_id, user_id)
    call.audit("update", "team", team_id, {"member": [dict(removed), None]})
    return NO_CONTENT


def _audited(team: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in team.items() if name not in _NOT_AUDITED}
