"""Background jobs of the organisation: looked at, and run again when they have failed."""

from __future__ import annotations

from typing import Any

from sanic import Blueprint

from reos.db import Record
from reos.handlers.paging import check_fields, envelope, page_request
from reos.middleware.call import Call
from reos.middleware.endpoint import get, post
from reos.queries import jobs as queries
from reos.schemas.jobs import Job, JobItem, JobPage, JobQuery

bp = Blueprint("jobs")

_ITEM_FIELDS = tuple(JobItem.model_fields)


@get(bp, "/jobs", "job:read", response=JobPage)
async def list_jobs(call: Call, query: JobQuery) -> dict[str, Any]:
    """List the organisation's jobs, newest first."""
    check_fields(query, _ITEM_FIELDS)
    filters = query.active_filters()
    page = page_request(call, queries.LISTING, query, filters, "-created_at")
    rows = await queries.list_jobs(call.conn, page, query.kind, query.state, query.updated_since)
    return envelope(call, queries.LISTING, query, filters, page, rows)


@get(bp, "/jobs/{job_id}", "job:read", response=Job)
async def get_job(call: Call, job_id: int) -> Record:
    """Get a job."""
    return await queries.get(call.conn, job_id)


@post(bp, "/jobs/{job_id}/retry", "job:update", response=Job, status=200, is_tagged=True)
async def retry_job(call: Call, job_id: int) -> Record:
    """Run a failed job again, with all its attempts before it."""
    job = await queries.retry(call.conn, job_id)
    call.audit("retry", "job", job_id)
    return job
