"""Mails about accounts, and the look-ups that log-in and password reset leave to a job.

A request for a known and for an unknown address makes the same transaction, which defers one job; only the job
finds out whose address it is. A mail's token is made by the job, in a transaction that has committed before the mail
goes out; a repeated job makes a new one.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from loguru import logger

from reos.auth import one_time
from reos.db import Record, plain_transaction, tenant_transaction
from reos.integrations.email import build_message, render
from reos.jobs.task import Job, Retry, task
from reos.queries import events, one_time_tokens
from reos.queries import jobs as queries

# Temporary failures of the mail server are borne for a day, with growing waits.
MAIL_RETRY = Retry(10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 3600, 7200, 14400, 21600, 28800)
MAIL_TIMEOUT = 90.0  # seconds

# Of links for a new password, to one user in an hour: anybody may ask for them. Enough for all tries of several mails.
MAX_RESET_LINKS = 20

VERIFICATION_HOURS = 24
RESET_HOURS = 1


@task("send_welcome_email", retry=MAIL_RETRY, timeout=MAIL_TIMEOUT)
async def send_welcome_email(job: Job, user_id: int) -> None:
    """Greet a new user."""
    async with tenant_transaction(job.database, job.organization_id, read_only=True) as conn:
        user = await queries.get_addressee(conn, user_id)
    if user is None or not user["is_active"]:
        logger.info("User {} gets no welcome: not active", user_id)
        return
    await send_to(job, user, "welcome", f"Welcome to {job.settings.smtp_from_name}", link=job.settings.base_url)


@task("send_verification_email", retry=MAIL_RETRY, timeout=MAIL_TIMEOUT)
async def send_verification_email(job: Job, user_id: int) -> None:
    """Send the link that proves that the address is the user's."""
    async with tenant_transaction(job.database, job.organization_id) as conn:
        user = await queries.get_addressee(conn, user_id)
        if user is None or not user["is_active"] or user["is_verified"]:
            logger.info("User {} gets no verification link: verified already, or not active", user_id)
            return
        token = await one_time.issue(conn, job.signer, user_id, "verify_email", organization_id=job.organization_id)
    settings = job.settings
    link = _with_token(settings.link_verify_email or f"{settings.base_url}/verify-email", token)
    await send_to(job, user, "verification", "Confirm your email address", link=link, hours=VERIFICATION_HOURS)


@task("send_password_reset_email", retry=MAIL_RETRY, timeout=MAIL_TIMEOUT)
async def send_password_reset_email(job: Job, lookup_id: int) -> None:
    """Send the link that sets a new password, if the address is an active user's."""
    async with plain_transaction(job.database) as conn:
        lookup = await queries.take_lookup(conn, lookup_id)
    if lookup is None:
        logger.info("Look-up {} is finished already", lookup_id)
        return
    if lookup["user_id"] is not None:
        await _send_reset_link(job, lookup["organization_id"], lookup["user_id"])
    async with plain_transaction(job.database) as conn:
        await queries.finish_lookup(conn, lookup_id)


async def _send_reset_link(job: Job, organization_id: int, user_id: int) -> None:
    async with tenant_transaction(job.database, organization_id) as conn:
        user = await queries.get_addressee(conn, user_id)
        if user is None or not user["is_active"]:
            return
        if await one_time_tokens.count_of_hour(conn, user_id, one_time.PASSWORD_RESET) >= MAX_RESET_LINKS:
            logger.warning("User {} gets no more links for a new password within this hour", user_id)
            return
        token = await one_time.issue(conn, job.signer, user_id, "password_reset", organization_id=organization_id)
    settings = job.settings
    link = _with_token(settings.link_reset_password or f"{settings.base_url}/reset-password", token)
    await send_to(job, user, "password_reset", "Set a new password", link=link, hours=RESET_HOURS)


@task("send_password_changed_email", retry=MAIL_RETRY, timeout=MAIL_TIMEOUT)
async def send_password_changed_email(job: Job, user_id: int) -> None:
    """Tell a user that their password was changed, whoever did it: it may have been somebody else."""
    async with tenant_transaction(job.database, job.organization_id, read_only=True) as conn:
        user = await queries.get_addressee(conn, user_id)
    if user is None or not user["is_active"]:
        logger.info("User {} is not told of a new password: not active", user_id)
        return
    await send_to(job, user, "password_changed", "Your password was changed", link=job.settings.base_url)


@task("send_address_changed_email", retry=MAIL_RETRY, timeout=MAIL_TIMEOUT)
async def send_address_changed_email(job: Job, user_id: int) -> None:
    """Tell the former address of a user that it is not theirs any more, but not which is."""
    async with tenant_transaction(job.database, job.organization_id, read_only=True) as conn:
        user = await queries.get_addressee(conn, user_id)
        former = await queries.get_former_addresses(conn, user_id)
    if user is None or not user["is_active"]:
        logger.info("User {} is not told of a new address: not active", user_id)
        return
    for email in former:
        if email != user["email"]:
            told = {**user, "email": email}
            await send_to(job, told, "address_changed", "Your email address was changed", link=job.settings.base_url)


@task("record_failed_login")
async def record_failed_login(job: Job, lookup_id: int) -> None:
    """Write the audit row of a failed log-in, if the address is a user's. Row and look-up go in one transaction."""
    async with plain_transaction(job.database) as conn:
        lookup = await queries.take_lookup(conn, lookup_id)
        if lookup is None:
            return
        if lookup["user_id"] is None:
            await queries.finish_lookup(conn, lookup_id)
            return
    entry = events.AuditEntry(
        action="login_failed",
        resource_type="user",
        resource_id=lookup["user_id"],
        changes={},
        user_id=None,
        ip_address=lookup["ip_address"],
        user_agent=lookup["user_agent"],
        request_id=lookup["request_id"],
    )
    async with tenant_transaction(job.database, lookup["organization_id"]) as conn:
        await queries.finish_lookup(conn, lookup_id)
        await events.record_changes(conn, [entry], [])


async def send_to(job: Job, user: Record | dict[str, Any], template: str, subject: str, **values: object) -> None:
    """Render a template for a user and hand it to the mailer. Holds no connection."""
    text, html = render(
        template,
        first_name=user["first_name"],
        organization_name=user["organization_name"],
        service=job.settings.smtp_from_name,
        **values,
    )
    # RFC 3834: no automatic answers, please.
    headers = {"Auto-Submitted": "auto-generated"}
    message = build_message(job.settings, to=user["email"], subject=subject, text=text, html=html, headers=headers)
    await job.mailer.send(message)


def _with_token(link: str, token: str) -> str:
    return f"{link}{'&' if '?' in link else '?'}{urlencode({'token': token})}"
