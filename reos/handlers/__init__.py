"""One blueprint for each resource."""

from __future__ import annotations

from sanic import Blueprint

from reos.handlers import (
    analytics,
    audit_logs,
    auth,
    campaign_sending,
    campaign_templates,
    campaigns,
    conversions,
    deals,
    docs,
    files,
    health,
    jobs,
    leads,
    organizations,
    pages,
    permissions,
    portfolios,
    properties,
    roles,
    sse,
    suppressions,
    teams,
    transactions,
    users,
)

BLUEPRINTS: list[Blueprint] = [
    health.bp,
    docs.bp,
    pages.bp,
    files.bp,
    auth.bp,
    properties.bp,
    leads.bp,
    deals.bp,
    conversions.bp,
    transactions.bp,
    portfolios.bp,
    campaign_templates.bp,
    campaigns.bp,
    campaign_sending.bp,
    suppressions.bp,
    sse.bp,
    jobs.bp,
    users.bp,
    roles.bp,
    permissions.bp,
    teams.bp,
    organizations.bp,
    audit_logs.bp,
    analytics.bp,
]
