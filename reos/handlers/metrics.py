"""The metrics of all processes, for Prometheus. Outside the rate limit and without auth."""

from __future__ import annotations

from sanic import Blueprint, HTTPResponse, Request

from reos.context import Context
from reos.metrics import CONTENT_TYPE

bp = Blueprint("metrics")


@bp.route("/metrics", methods=["GET", "HEAD"])
async def get_metrics(request: Request) -> HTTPResponse:
    """What docs/metrics.md lists."""
    context: Context = request.app.ctx.context
    return HTTPResponse(await context.scraper.text(), content_type=CONTENT_TYPE)
