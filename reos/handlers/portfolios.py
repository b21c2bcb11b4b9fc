"""Portfolios and the properties in them."""

from __future__ import annotations

from typing import Any

from sanic import Blueprint

from reos.db import Record
from reos.errors import ResourceAlreadyExistsError, ResourceNotFoundError
from reos.handlers.changes import differing
from reos.handlers.paging import check_fields, envelope, page_request
from reos.middleware.call import NO_CONTENT, Answer, Call
from reos.middleware.endpoint import PREFIX, delete, get, post, put
from reos.queries import audit, properties
from reos.queries import portfolios as queries
from reos.queries.references import check_listed
from reos.schemas.common import patch_of
from reos.schemas.portfolios import (
    Portfolio,
    PortfolioCreate,
    PortfolioItem,
    PortfolioPage,
    PortfolioQuery,
    PortfolioStats,
    PortfolioUpdate,
)

bp = Blueprint("portfolios")

_ITEM_FIELDS = tuple(PortfolioItem.model_fields)


@post(bp, "/portfolios", "portfolio:create", response=Portfolio, is_tagged=True)
async def create_portfolio(call: Call, body: PortfolioCreate) -> Answer:
    """Create a portfolio, with properties if some are named."""
    check_listed("property_ids", body.property_ids, await properties.existing_ids(call.conn, body.property_ids))
    property_ids = sorted(set(body.property_ids))
    created = await queries.create(
        call.conn,
        name=body.name,
        description=body.description,
        metadata=body.metadata,
        property_ids=property_ids,
    )
    fields = {name: created[name] for name in ("name", "description", "metadata")} | {"property_ids": property_ids}
    call.audit("create", "portfolio", created["id"], audit.created(fields))
    return call.created(created, f"{PREFIX}/portfolios/{created['id']}")


@get(bp, "/portfolios", "portfolio:read", response=PortfolioPage)
async def list_portfolios(call: Call, query: PortfolioQuery) -> dict[str, Any]:
    """List portfolios, each with the number and the value of its properties."""
    check_fields(query, _ITEM_FIELDS)
    filters = query.active_filters()
    plain = {name: value for name, value in filters.items() if name != "search"}
    page = page_request(call, queries.LISTING, query, filters, "-created_at")
    rows = await queries.list_portfolios(call.conn, page, plain, search=query.search)
    return envelope(call, queries.LISTING, query, filters, page, rows)


@get(bp, "/portfolios/stats", "portfolio:read", response=PortfolioStats, reads_replica=True)
async def get_portfolio_stats(call: Call) -> Record:
    """Get all portfolios in numbers."""
    return await queries.get_stats(call.conn)


@get(bp, "/portfolios/{portfolio_id}", "portfolio:read", response=Portfolio)
async def get_portfolio(call: Call, portfolio_id: int) -> dict[str, Any]:
    """Get a portfolio with its properties."""
    return await queries.get(call.conn, portfolio_id)


@put(bp, "/portfolios/{portfolio_id}", "portfolio:update", response=Portfolio)
async def update_portfolio(call: Call, portfolio_id: int, body: PortfolioUpdate) -> dict[str, Any]:
    """Change what is sent of a portfolio."""
    before = await queries.lock(call.conn, portfolio_id)
    call.if_match(before)
    patch = differing(before, patch_of(body))
    if not patch:
        return before
    after = await queries.update(call.conn, before, patch)
    call.audit("update", "portfolio", portfolio_id, audit.changed(before, after))
    return after


@delete(bp, "/portfolios/{portfolio_id}", "portfolio:delete")
async def delete_portfolio(call: Call, portfolio_id: int) -> Answer:
    """Delete a portfolio softly; a restore undoes it. Its properties stay as they are."""
    call.if_match(await queries.lock(call.conn, portfolio_id))
    await queries.delete(call.conn, portfolio_id)
    call.audit("delete", "portfolio", portfolio_id)
    return NO_CONTENT


@post(bp, "/portfolios/{portfolio_id}/restore", "portfolio:update", response=Portfolio, status=200, is_tagged=True)
async def restore_portfolio(call: Call, portfolio_id: int) -> dict[str, Any]:
    """Undo the deletion of a portfolio."""
    restored = await queries.restore(call.conn, portfolio_id)
    call.audit("restore", "portfolio", portfolio_id)
    return restored


@post(bp, "/portfolios/{portfolio_id}/properties/{property_id}", "portfolio:update", status=204)
async def add_portfolio_property(call: Call, portfolio_id: int, property_id: int) -> Answer:
    """Put a property into a portfolio."""
    await queries.lock_alone(call.conn, portfolio_id)
    await properties.require(call.conn, property_id)
    if not await queries.add_property(call.conn, portfolio_id, property_id):
        raise ResourceAlreadyExistsError("The property is in this portfolio already.")
    call.audit("update", "portfolio", portfolio_id, {"property_id": [None, property_id]})
    return NO_CONTENT


@delete(bp, "/portfolios/{portfolio_id}/properties/{property_id}", "portfolio:update")
async def remove_portfolio_property(call: Call, portfolio_id: int, property_id: int) -> Answer:
    """Take a property out of a portfolio."""
    await queries.lock_alone(call.conn, portfolio_id)
    if not await queries.remove_property(call.conn, portfolio_id, property_id):
        raise ResourceNotFoundError
    call.audit("update", "portfolio", portfolio_id, {"property_id": [property_id, None]})
    return NO_CONTENT
