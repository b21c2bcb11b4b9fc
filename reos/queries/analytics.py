"""What an organisation's records come to, in its own days and months."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any, TypeAlias, get_args

from reos.db import Connection, fetch_existing
from reos.schemas.deals import DealStage, DealType
from reos.schemas.leads import LeadSource, LeadStatus
from reos.schemas.properties import PropertyStatus, PropertyType
from reos.sql import load

SQL = load("analytics")

Days: TypeAlias = tuple[date | None, date | None]  # the first and the last; None: no limit


async def get_dashboard(conn: Connection, days: Days) -> dict[str, Any]:
    """Everything at a glance, flat and once more grouped."""
    row = await fetch_existing(conn, SQL.count_everything, *days)
    properties = _every(PropertyStatus, row["properties_by_status"])
    leads = _every(LeadStatus, row["leads_by_status"])
    deals = _every(DealStage, row["deals_by_stage"])
    return {
        "total_properties": row["total_properties"],
        "total_leads": row["total_leads"],
        "total_deals": row["total_deals"],
        "total_deal_value": row["total_deal_value"],
        "active_campaigns": row["active_campaigns"],
        "properties_by_status": properties,
        "leads_by_status": leads,
        "deals_by_stage": deals,
        "recent_activity_count": row["recent_activity_count"],
        "properties": {
            "total": row["total_properties"],
            "by_status": properties,
            "total_value": row["total_property_value"],
        },
        "leads": {"total": row["total_leads"], "by_status": leads},
        "deals": {"total": row["total_deals"], "by_stage": deals, "total_value": row["total_deal_value"]},
        "revenue": {"total_commissions": row["total_commissions"], "this_month": row["this_month"]},
    }


async def get_properties(conn: Connection, days: Days) -> dict[str, Any]:
    """The properties that were created on these days."""
    row = dict(await fetch_existing(conn, SQL.get_property_analytics, *days))
    row["by_type"] = _every(PropertyType, row["by_type"])
    row["by_status"] = _every(PropertyStatus, row["by_status"])
    return row


async def get_leads(conn: Connection, days: Days) -> dict[str, Any]:
    """The leads that were created on these days."""
    row = dict(await fetch_existing(conn, SQL.get_lead_analytics, *days))
    row["by_status"] = _every(LeadStatus, row["by_status"])
    row["by_source"] = _every(LeadSource, row["by_source"])
    return row


async def get_deals(conn: Connection, days: Days) -> dict[str, Any]:
    """The deals that were created on these days."""
    row = dict(await fetch_existing(conn, SQL.get_deal_analytics, *days))
    row["by_stage"] = _every(DealStage, row["by_stage"])
    row["by_type"] = _every(DealType, row["by_type"])
    row["avg_days_by_stage"] = _every(DealStage, row["avg_days_by_stage"])
    return row


async def get_campaigns(conn: Connection, days: Days) -> dict[str, Any]:
    """The campaigns that were created on these days."""
    return dict(await fetch_existing(conn, SQL.get_campaign_analytics, *days))


async def get_revenue(conn: Connection, days: Days) -> dict[str, Any]:
    """The transactions of these days."""
    row = dict(await fetch_existing(conn, SQL.get_revenue_analytics, *days))
    row["revenue_by_deal_type"] = _every(DealType, row["revenue_by_deal_type"], "0.00")
    return row


def _every(enumeration: Any, found: Mapping[str, Any], zero: Any = 0) -> dict[str, Any]:
    """What was found, by every value of the enumeration."""
    return {**dict.fromkeys(get_args(enumeration), zero), **found}
