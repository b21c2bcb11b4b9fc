"""Mails that tell a user what others did to what is theirs. A user turns them off with `email_notifications`."""

from __future__ import annotations

from loguru import logger

from reos.db import tenant_transaction
from reos.jobs.mails import MAIL_RETRY, MAIL_TIMEOUT, send_to
from reos.jobs.task import Job, task
from reos.queries import deals, jobs, leads


@task("send_deal_stage_changed_email", retry=MAIL_RETRY, timeout=MAIL_TIMEOUT)
async def send_deal_stage_changed_email(job: Job, user_id: int, change_id: int) -> None:
    """Tell the assignee of a deal that it moved to another stage."""
    async with tenant_transaction(job.database, job.organization_id, read_only=True) as conn:
        user = await jobs.get_addressee(conn, user_id)
        change = await deals.get_stage_change(conn, change_id)
    if user is None or not user["is_active"] or not user["wants_notifications"] or change is None:
        logger.info("User {} gets no mail about stage change {}: not active, not wanted, or gone", user_id, change_id)
        return
    old, new = (change[name].replace("_", " ") for name in ("old_stage", "new_stage"))
    await send_to(
        job,
        user,
        "deal_stage_changed",
        f"Deal {change['deal_id']} is now in the stage {new}",
        deal_id=change["deal_id"],
        address=f"{change['address']}, {change['city']}",
        old_stage=old,
        new_stage=new,
        value=change["value"],
        changed_by=f"{change['first_name']} {change['last_name']}" if change["first_name"] else None,
        link=job.settings.base_url,
    )


@task("send_lead_assigned_email", retry=MAIL_RETRY, timeout=MAIL_TIMEOUT)
async def send_lead_assigned_email(job: Job, user_id: int, lead_id: int) -> None:
    """Tell an agent which lead is theirs now, unless it is somebody else's again."""
    async with tenant_transaction(job.database, job.organization_id, read_only=True) as conn:
        user = await jobs.get_addressee(conn, user_id)
        lead = await leads.find(conn, lead_id)
    is_wanted = user is not None and user["is_active"] and user["wants_notifications"]
    if user is None or not is_wanted or lead is None or lead["assigned_to"] != user_id:
        logger.info("User {} gets no mail about lead {}: not active, not wanted, or not theirs", user_id, lead_id)
        return
    name = f"{lead['first_name']} {lead['last_name']}"
    await send_to(
        job,
        user,
        "lead_assigned",
        f"{name} is your lead now",
        name=name,
        lead=lead,
        link=job.settings.base_url,
    )
