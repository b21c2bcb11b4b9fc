"""One blueprint for each resource."""

from __future__ import annotations

from sanic import Blueprint

from reos.handlers import (
    audit_logs,
    auth,
    docs,
    files,
    health,
    jobs,
    organizations,
    pages,
    permissions,
    properties,
    roles,
    sse,
    teams,
    users,
)

BLUEPRINTS: list[Blueprint] = [
    health.bp,
    docs.bp,
    pages.bp,
    files.bp,
    auth.bp,
    properties.bp,
    sse.bp,
    jobs.bp,
    users.bp,
    roles.bp,
    permissions.bp,
    teams.bp,
    organizations.bp,
    audit_logs.bp,
]
