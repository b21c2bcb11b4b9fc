"""Analytics: what an organisation's records come to."""

from __future__ import annotations

from typing import Any

from sanic import Blueprint

from reos.db import Connection
from reos.errors import ValidationError
from reos.handlers import exports
from reos.middleware.call import Answer, Call
from reos.middleware.endpoint import CSV, get
from reos.queries import analytics as queries
from reos.queries import organizations, transactions
from reos.queries.listing import PageRequest, Rows
from reos.schemas.analytics import (
    CampaignAnalytics,
    Dashboard,
    DealAnalytics,
    LeadAnalytics,
    PropertyAnalytics,
    RangeQuery,
    RevenueAnalytics,
    RevenueTransaction,
)
from reos.schemas.common import to_date

bp = Blueprint("analytics")


@get(bp, "/analytics/dashboard", "analytics:read", response=Dashboard, reads_replica=True)
async def get_dashboard(call: Call, query: RangeQuery) -> dict[str, Any]:
    """Get everything at a glance."""
    return await queries.get_dashboard(call.conn, await _days(call, query))


@get(bp, "/analytics/properties", "analytics:read", response=PropertyAnalytics, reads_replica=True)
async def get_property_analytics(call: Call, query: RangeQuery) -> dict[str, Any]:
    """Get the properties in numbers, by the days on which they were created."""
    return await queries.get_properties(call.conn, await _days(call, query))


@get(bp, "/analytics/leads", "analytics:read", response=LeadAnalytics, reads_replica=True)
async def get_lead_analytics(call: Call, query: RangeQuery) -> dict[str, Any]:
    """Get the leads in numbers, by the days on which they were created."""
    return await queries.get_leads(call.conn, await _days(call, query))


@get(bp, "/analytics/deals", "analytics:read", response=DealAnalytics, reads_replica=True)
async def get_deal_analytics(call: Call, query: RangeQuery) -> dict[str, Any]:
    """Get the deals in numbers, by the days on which they were created."""
    return await queries.get_deals(call.conn, await _days(call, query))


@get(bp, "/analytics/campaigns", "analytics:read", response=CampaignAnalytics, reads_replica=True)
async def get_campaign_analytics(call: Call, query: RangeQuery) -> dict[str, Any]:
    """Get the campaigns in numbers, by the days on which they were created."""
    return await queries.get_campaigns(call.conn, await _days(call, query))


@get(bp, "/analytics/revenue", "analytics:read", response=RevenueAnalytics, reads_replica=True)
async def get_revenue_analytics(call: Call, query: RangeQuery) -> dict[str, Any]:
    """Get revenue and expenses, by the days of the transactions."""
    return await queries.get_revenue(call.conn, await _days(call, query))


@get(bp, "/analytics/revenue/export", "analytics:read report:export", produces=CSV, writes_on_get=True)
async def export_revenue(call: Call, query: RangeQuery) -> Answer:
    """Export the transactions of the range as a CSV file, newest first.

    They are those of all types and deals, without deleted deals; metadata is JSON.
    """
    start, end = await _days(call, query)

    async def fetch(conn: Connection, page: PageRequest) -> Rows:
        return await transactions.export(conn, page, start, end)

    columns = tuple(RevenueTransaction.model_fields)
    asked = {name: day for name, day in (("start_date", start), ("end_date", end)) if day is not None}
    return await exports.answer(call, "revenue", "transaction", columns, (("transaction_date", True),), fetch, asked)


async def _days(call: Call, query: RangeQuery) -> queries.Days:
    """The days of the range. Only for what is more than a day the time zone has to be asked for.

    Raises ValidationError when the range ends before it starts.
    """
    given = (query.start_date, query.end_date)
    if any(value is not None and value.moment is not None for value in given):
        zone = await organizations.get_time_zone(call.conn)
        start, end = (None if value is None else to_date(value, zone) for value in given)
    else:
        start, end = (None if value is None else value.day for value in given)
    if start is not None and end is not None and start > end:
        raise ValidationError.of("end_date", "Input should not be before start_date", "date_range")
    return start, end
