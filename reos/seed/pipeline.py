"""Leads, and the deals that some of them became: made up from the tables, the same at each run for the same seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import cycle, islice
from random import Random
from typing import Any

from reos import demo
from reos.seed.market import Listing, Rows, before, between, random_for, time_of

EARLY_STAGES = ("lead", "qualified", "proposal", "negotiation")
HOLDING_STAGES = ("contract", "inspection", "financing", "closing")
PATH = (*EARLY_STAGES, *HOLDING_STAGES, "closed_won")

PROBABILITIES = dict(zip((*PATH, "closed_lost"), (10, 25, 40, 55, 75, 80, 85, 95, 100, 0), strict=True))  # percent
CONTACTS = ("call", "email", "meeting", "sms")
RENT_PER_YEAR = 0.06  # of the price
DEPOSIT = 0.01  # of the value


@dataclass(slots=True)
class Lead:
    """Somebody who may buy, or did."""

    first_name: str
    last_name: str
    email: str
    source: str
    status: str
    agent_id: int
    created_at: datetime
    rng: Random
    id: int = 0
    last_contacted_at: datetime | None = None


@dataclass(slots=True)
class Deal:
    """The way of a listing to a buyer or tenant: each stage with the time at which it was entered."""

    listing: Listing
    lead: Lead | None
    deal_type: str
    value: int  # USD
    commission_rate: float  # percent
    stages: list[tuple[str, datetime]]
    rng: Random
    id: int = 0

    @property
    def stage(self) -> str:
        return self.stages[-1][0]

    @property
    def created_at(self) -> datetime:
        return self.stages[0][1]

    @property
    def changed_at(self) -> datetime:
        return self.stages[-1][1]

    @property
    def is_closed(self) -> bool:
        return self.stage in ("closed_won", "closed_lost")

    def entered(self, stage: str) -> datetime | None:
        """When it came to the stage; None when it never did."""
        return dict(self.stages).get(stage)


Contact = tuple[Lead, dict[str, Any]]


# --- deals -----------------------------------------------------------------------------------------------------


def make_deals(organization: str, listings: list[Listing], now: datetime) -> list[Deal]:
    """The deal behind each listing that is not available any more, and deals under way or lost on some that are."""
    holding, early = cycle(HOLDING_STAGES), cycle(EARLY_STAGES)
    deals = []
    available = 0
    for listing in listings:
        rng = random_for("deal", listing.address)
        if listing.status in ("sold", "rented"):
            deals.append(_deal(listing, PATH, rng, now))
        elif listing.status == "under_contract":
            deals.append(_deal(listing, _path_to(next(holding)), rng, now))
        elif listing.status == "available":
            available += 1
            if available % 3 == 0:
                lost = (*_path_to(rng.choice(EARLY_STAGES)), "closed_lost")
                deals.append(_deal(listing, lost, rng, now))
            if available % 2 == 0:
                deals.append(_deal(listing, _path_to(next(early)), rng, now))
    return deals


def _path_to(stage: str) -> tuple[str, ...]:
    return PATH[: PATH.index(stage) + 1]


def _deal(listing: Listing, path: tuple[str, ...], rng: Random, now: datetime) -> Deal:
    """A deal that went this way since the listing is there."""
    if listing.status == "rented":
        deal_type = "lease" if listing.property_type == "commercial" else "rental"
        value, commission_rate = round(listing.price * RENT_PER_YEAR, -2), 8.0
    else:
        deal_type = rng.choice(("sell", "sell", "sell", "sell", "buy", "flip", "wholesale"))
        value, commission_rate = round(listing.price * rng.uniform(0.95, 1.01), -2), rng.choice((2.5, 3.0, 5.0, 6.0))
    since = now - listing.created_at
    began = listing.created_at + min(timedelta(days=rng.uniform(3, 30)), since * 0.3)
    if listing.closed_at is not None:
        ended = listing.closed_at
    elif path[-1].startswith("closed"):
        ended = min(began + timedelta(days=rng.uniform(20, 80)), now - since * 0.05)
    else:
        ended = now - (now - began) * rng.uniform(0.02, 0.2)  # It came to its stage a short time ago.
    moments = sorted(between(rng, began, ended) for _ in path[2:])
    times = [began, *moments, ended][: len(path)] if len(path) > 1 else [began]
    return Deal(listing, None, deal_type, int(value), commission_rate, list(zip(path, times, strict=True)), rng)


def deal_row(deal: Deal, now: datetime) -> dict[str, Any]:
    """The deal as a row of `deals`."""
    expected = deal.changed_at if deal.is_closed else now + timedelta(days=deal.rng.randint(7, 90))
    return {
        "property_id": deal.listing.id,
        "lead_id": deal.lead.id if deal.lead else None,
        "deal_type": deal.deal_type,
        "stage": deal.stage,
        "value": deal.value,
        "commission_rate": deal.commission_rate,
        "probability": PROBABILITIES[deal.stage],
        "expected_close_date": expected.date(),
        "assigned_to": deal.listing.agent_id,
        "notes": deal.rng.choice((*demo.DEAL_NOTES, None)),
        "created_by": deal.listing.agent_id,
        "closed_at": deal.changed_at if deal.is_closed else None,
        "created_at": deal.created_at,
        "updated_at": deal.changed_at,
    }


def stage_rows(deals: list[Deal]) -> Rows:
    """The history of each deal, in the order in which it happened."""
    rows = []
    for deal in deals:
        old_stage, since = None, deal.created_at
        for stage, at in deal.stages:
            rows.append(
                {
                    "deal_id": deal.id,
                    "old_stage": old_stage,
                    "new_stage": stage,
                    "changed_by": deal.listing.agent_id,
                    "changed_at": at,
                    "duration_seconds": None if old_stage is None else int((at - since).total_seconds()),
                }
            )
            old_stage, since = stage, at
    return sorted(rows, key=lambda row: row["changed_at"])


def transaction_rows(deals: list[Deal]) -> Rows:
    """A deposit with the contract, what the deal cost, and at its end the commission (and what a flip brought in)."""
    rows = []
    for deal in deals:
        for kind, amount, description, at in _payments(deal):
            rows.append(
                {
                    "deal_id": deal.id,
                    "transaction_type": kind,
                    "amount": round(amount, 2),
                    "description": description,
                    "transaction_date": at.date(),
                    "created_by": deal.listing.agent_id,
                    "created_at": at,
                    "updated_at": at,
                }
            )
    return sorted(rows, key=time_of)


def _payments(deal: Deal) -> Iterator[tuple[str, float, str, datetime]]:
    """Type, amount, description and time of each."""
    if contract := deal.entered("contract"):
        yield "deposit", round(deal.value * DEPOSIT, -2), "Earnest money", contract
    if proposal := deal.entered("proposal"):
        description, share = deal.rng.choice(demo.DEAL_EXPENSES)
        yield "expense", deal.listing.price * share, description, proposal
    if won := deal.entered("closed_won"):
        if deal.deal_type == "flip":
            yield "purchase", deal.value * 0.82, "Bought from the owner", deal.created_at
            yield "sale", deal.value, "Sold to the buyer", won
        elif deal.deal_type in ("lease", "rental"):
            yield "lease", deal.value / 12, "First month", won
        yield "commission", deal.value * deal.commission_rate / 100, "Commission", won


# --- leads -----------------------------------------------------------------------------------------------------


def make_leads(organization: str, deals: list[Deal], agents: list[int], now: datetime) -> list[Lead]:
    """The leads, oldest first: one for most of the deals, which names it, and others that are on their way."""
    rng = random_for("leads", organization)
    names = [(first, last) for first in demo.FIRST_NAMES for last in demo.LAST_NAMES]
    chosen = rng.sample(names, demo.LEADS[organization])
    statuses, weights = list(demo.LEAD_STATUSES), [row[0] for row in demo.LEAD_STATUSES.values()]
    with_deals = islice((deal for deal in deals if deal.rng.random() < 0.85), len(chosen))
    leads = []
    for number, (first, last) in enumerate(chosen):
        deal = next(with_deals, None)
        if deal is None:
            status, agent = rng.choices(statuses, weights)[0], agents[number % len(agents)]
            created = before(now, rng, 0 if status == "new" else 5, 14 if status == "new" else demo.DAYS)
        else:
            status, agent = "converted", deal.listing.agent_id
            created = deal.created_at - timedelta(days=rng.uniform(2, 30))
        email = f"{first}.{last}@example.com".lower().replace("'", "")
        lead_rng = random_for("lead", organization, email)
        source = lead_rng.choices(list(demo.LEAD_SOURCES), list(demo.LEAD_SOURCES.values()))[0]
        lead = Lead(first, last, email, source, status, agent, created, lead_rng)
        leads.append(lead)
        if deal is not None:
            deal.lead = lead
    return sorted(leads, key=lambda lead: lead.created_at)


def lead_row(lead: Lead) -> dict[str, Any]:
    """The lead as a row of `leads`."""
    rng = lead.rng
    _, lowest, highest = demo.LEAD_STATUSES.get(lead.status, (0, 70, 100))
    return {
        "first_name": lead.first_name,
        "last_name": lead.last_name,
        "email": lead.email,
        "phone": f"+1 512 555 01{rng.randrange(100):02}" if rng.random() < 0.8 else None,
        "company": rng.choice(demo.COMPANIES) if rng.random() < 0.15 else None,
        "source": lead.source,
        "status": lead.status,
        "score": rng.randint(lowest, highest),
        "budget": rng.randrange(180, 1600, 10) * 1000 if rng.random() < 0.85 else None,
        "timeline": rng.choice((*demo.LEAD_TIMELINES, None)),
        "notes": rng.choice(demo.LEAD_NOTES) if rng.random() < 0.4 else None,
        # Nobody has taken care of some of the new ones yet.
        "assigned_to": None if lead.status == "new" and rng.random() < 0.5 else lead.agent_id,
        "created_by": lead.agent_id,
        "created_at": lead.created_at,
        "updated_at": lead.last_contacted_at or lead.created_at,
        "last_contacted_at": lead.last_contacted_at,
    }


def make_contacts(leads: list[Lead], now: datetime) -> list[Contact]:
    """How each lead began, one to four activities of those that are not new, and a meeting to come with some.

    Tells each lead when it was last contacted.
    """
    contacts: list[Contact] = []
    for lead in leads:
        came = {"activity_type": "note", "description": demo.LEAD_BEGINNINGS[lead.source]}
        contacts.append((lead, came | {"created_at": lead.created_at}))
        if lead.status == "new":
            continue
        rng = lead.rng
        until = min(now, lead.created_at + timedelta(days=45))
        for kind, subject, description, outcome in rng.sample(demo.LEAD_ACTIVITIES, rng.randint(1, 4)):
            at = between(rng, lead.created_at, until)
            row = {"activity_type": kind, "subject": subject, "description": description, "outcome": outcome}
            contacts.append((lead, row | {"completed_at": at, "created_at": at}))
            if kind in CONTACTS:
                lead.last_contacted_at = max(at, lead.last_contacted_at or at)
        if lead.status in ("qualified", "nurturing") and rng.random() < 0.5:
            planned = now + timedelta(days=rng.uniform(1, 10))
            row = {"activity_type": "meeting", "subject": "Viewing", "description": "Two places to look at."}
            contacts.append((lead, row | {"scheduled_at": planned, "created_at": until}))
    return contacts


def contact_rows(contacts: list[Contact]) -> Rows:
    """They as rows of `lead_activities`, in the order in which they were written; the leads must have their ids."""
    rows = [{"lead_id": lead.id, "created_by": lead.agent_id, **row} for lead, row in contacts]
    return sorted(rows, key=time_of)
