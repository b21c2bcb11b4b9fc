"""One blueprint for each resource."""

from __future__ import annotations

from sanic import Blueprint

from reos.handlers import auth, docs, files, health, jobs, pages, properties, sse

BLUEPRINTS: list[Blueprint] = [
    health.bp,
    docs.bp,
    pages.bp,
    files.bp,
    auth.bp,
    properties.bp,
    sse.bp,
    jobs.bp,
]
