"""Templates, campaigns with what became of their mails, and suppressions: as the service would have left them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Any

from reos import demo
from reos.seed.market import Rows, between, random_for, time_of
from reos.seed.pipeline import Lead

RETURN_MINUTES = 30.0  # at most, before a mail comes back
READING_DAYS = 6.0  # after which nobody opens a mail any more


@dataclass(frozen=True, slots=True)
class Campaign:
    """A campaign of the table, with its times and with its recipients in the order in which they were written to."""

    row: dict[str, Any]
    recipients: Rows


def template_rows(organization: str, admin_id: int, now: datetime) -> Rows:
    """The organisation's templates as rows of `campaign_templates`; they are as old as the data."""
    at = now - timedelta(days=demo.DAYS)
    return [
        {
            "name": name,
            "description": description,
            "campaign_type": kind,
            "subject": subject,
            "content": content.strip(),
            "created_by": admin_id,
            "created_at": at,
            "updated_at": at,
        }
        for owner, name, description, kind, subject, content in demo.TEMPLATES
        if owner == organization
    ]


def make_suppressions(organization: str, leads: list[Lead], admin_id: int, now: datetime) -> Rows:
    """Those of the table, each of another lead that was there by then."""
    rows: Rows = []
    rng = random_for("suppressions", organization)
    for owner, reason, days in demo.SUPPRESSIONS:
        at = now - timedelta(days=days)
        taken = {row["email"] for row in rows}
        known = [lead.email for lead in leads if lead.created_at < at and lead.email not in taken]
        if owner == organization and known:
            rows.append({"email": rng.choice(known), "reason": reason, "created_by": admin_id, "created_at": at})
    return rows


def make_campaigns(
    organization: str, leads: list[Lead], suppressions: Rows, templates: dict[str, int], admin_id: int, now: datetime
) -> list[Campaign]:
    """The organisation's campaigns. The leads must have their ids."""
    texts = {row[1]: row[3:] for row in demo.TEMPLATES if row[0] == organization}
    made = []
    for owner, name, description, template, days, drafted in demo.CAMPAIGNS:
        if owner != organization:
            continue
        kind, subject, content = texts[template]
        sent = None if days is None else now - timedelta(days=days)
        written = (sent or now) - timedelta(days=drafted)
        row = {
            "name": name,
            "description": description,
            "campaign_type": kind,
            "subject": subject,
            "content": content.strip(),
            "template_id": templates[template],
            "created_by": admin_id,
            "created_at": written,
            "updated_at": written,
            "status": "draft",
            "job_number": 0,
            "tried_since_start": 0,
            "failed_since_start": 0,
        }
        recipients = [] if sent is None else _recipients(leads, suppressions, sent, random_for("campaign", name), now)
        if sent is not None:
            row |= _completed(sent, recipients)
        made.append(Campaign(row, recipients))
    return made


def _completed(sent: datetime, recipients: Rows) -> dict[str, Any]:
    """What the columns of a campaign say once its one job has written to everybody."""
    completed = max([sent, *(row["sending_at"] for row in recipients if row["sending_at"])]) + timedelta(seconds=0.5)
    return {
        "status": "completed",
        "started_at": sent,
        "completed_at": completed,
        # The last that somebody opened, too, has changed its numbers.
        "updated_at": max([completed, *(row["updated_at"] for row in recipients)]),
        "job_number": 1,
        "tried_since_start": sum(row["attempts"] for row in recipients),
        "failed_since_start": sum(row["status"] == "failed" for row in recipients),
    }


def _recipients(leads: list[Lead], suppressions: Rows, sent: datetime, rng: Random, now: datetime) -> Rows:
    """All leads that there were, in the order of their ids, with what became of each."""
    suppressed = {row["email"] for row in suppressions if row["created_at"] < sent}
    rows: Rows = [
        {
            "lead_id": lead.id,
            "address": lead.email,
            "status": "suppressed" if lead.email in suppressed else "sent",
            "error_message": "The address is suppressed." if lead.email in suppressed else None,
            "attempts": 0,
            "taken_by": None,
            "created_at": sent,
            "updated_at": sent,
            **dict.fromkeys(("sending_at", "sent_at", "bounced_at", "opened_at", "clicked_at", "unsubscribed_at")),
        }
        for lead in sorted(leads, key=lambda lead: lead.id)
        if lead.created_at < sent
    ]
    written = [row for row in rows if row["status"] == "sent"]
    for number, row in enumerate(written, 1):
        at = sent + timedelta(seconds=number / demo.MAILS_PER_SECOND)
        row |= {"attempts": 1, "taken_by": 1, "sending_at": at, "sent_at": at + timedelta(seconds=0.03)}
        row["updated_at"] = row["sent_at"]
    _respond(written, rng, now)
    return rows


def _respond(written: Rows, rng: Random, now: datetime) -> None:
    """Let the parts of the table fail, bounce, open, click and unsubscribe."""
    counts = {what: max(1, round(len(written) * part)) for what, part in demo.CAMPAIGN_PARTS.items()}
    left = rng.sample(written, len(written))
    for row in left[: counts["failed"]]:
        error = "The mail server refused the mail (550)."
        row |= {"status": "failed", "sent_at": None, "error_message": error}
    del left[: counts["failed"]]
    for row in left[: counts["bounced"]]:
        at = between(rng, row["sent_at"], min(now, row["sent_at"] + timedelta(minutes=RETURN_MINUTES)))
        reason = rng.choice(demo.BOUNCE_REASONS)
        row |= {"status": "bounced", "bounced_at": at, "error_message": reason, "updated_at": at}
    del left[: counts["bounced"]]
    opened = left[: counts["opened"]]
    for row in opened:
        hours = min(rng.expovariate(1 / demo.OPENED_HOURS), READING_DAYS * 24)
        at = min(row["sent_at"] + timedelta(hours=hours), now)
        row |= {"opened_at": at, "updated_at": at}
    for what, some in (
        ("clicked_at", opened[: counts["clicked"]]),
        ("unsubscribed_at", opened[-counts["unsubscribed"] :]),
    ):
        for row in some:
            at = min(row["opened_at"] + timedelta(seconds=rng.uniform(5, 180)), now)
            row |= {what: at, "updated_at": max(at, row["updated_at"])}


def suppressions_of(campaigns: list[Campaign]) -> Rows:
    """The addresses that bounced or unsubscribed, as the service notes them itself: without a person."""
    rows: Rows = []
    for row in (row for campaign in campaigns for row in campaign.recipients):
        for reason, at in (("bounced", row["bounced_at"]), ("unsubscribed", row["unsubscribed_at"])):
            if at is not None and row["address"] not in {known["email"] for known in rows}:
                rows.append({"email": row["address"], "reason": reason, "created_by": None, "created_at": at})
    return sorted(rows, key=time_of)
