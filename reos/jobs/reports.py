"""The morning report: at 7:00 in the organisation's time zone, by mail, to those who want it and may read analytics."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from loguru import logger

from reos.db import plain_transaction, tenant_transaction
from reos.jobs.mails import MAIL_RETRY, MAIL_TIMEOUT, send_to
from reos.jobs.task import Job, Retry, task
from reos.queries import analytics, daily_reports, jobs

DUE_LIMIT = 1000  # reports that one run queues; the next comes soon


@task("queue_daily_reports", retry=Retry(10, 60), timeout=120, cron="*/5 * * * *")
async def queue_daily_reports(job: Job) -> None:
    """Queue the reports whose hour has come, each with the note that it was queued."""
    async with plain_transaction(job.database) as conn:
        due = await daily_reports.list_due(conn, datetime.now(UTC), DUE_LIMIT)
    for row in due:
        async with tenant_transaction(job.database, row["organization_id"]) as conn:
            if await daily_reports.claim(conn, row["user_id"], row["day"]):
                # As a number, because a job takes no texts.
                ids = {"user_id": row["user_id"], "day": row["day"].toordinal()}
                await jobs.defer(conn, "send_daily_analytics_report", ids)
    if due:
        logger.info("Queued {} morning reports", len(due))


@task("send_daily_analytics_report", retry=MAIL_RETRY, timeout=MAIL_TIMEOUT)
async def send_daily_analytics_report(job: Job, user_id: int, day: int) -> None:
    """Mail a user how things stand, and what came in on the day before `day` (proleptic ordinal)."""
    today = date.fromordinal(day)
    yesterday = (today - timedelta(days=1), today - timedelta(days=1))
    async with tenant_transaction(job.database, job.organization_id, read_only=True) as conn:
        user = await jobs.get_addressee(conn, user_id)
        dashboard = await analytics.get_dashboard(conn, (None, None))
        leads = await analytics.get_leads(conn, yesterday)
        deals = await analytics.get_deals(conn, yesterday)
    # The mail server may have been away for hours: what was so when the report was queued need not be so now.
    if user is None or not user["is_active"] or not user["gets_report"]:
        logger.info("User {} gets no report: not active, not wanted, or not theirs to read any more", user_id)
        return
    await send_to(
        job,
        user,
        "daily_report",
        f"{user['organization_name']} on {today:%d %B %Y}",
        today=f"{today:%d %B %Y}",
        dashboard=dashboard,
        new_leads=leads["total_leads"],
        new_deals=deals["total_deals"],
        link=job.settings.base_url,
    )
