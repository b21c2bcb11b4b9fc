"""Analytics, right to the cent against a model of their own: random records, added up in Python."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, get_args
from zoneinfo import ZoneInfo, available_timezones

import pytest
from api import Api, Client
from crm import add_deal, add_lead, add_property, move

from reos.schemas.deals import DealStage, DealType
from reos.schemas.leads import LeadSource, LeadStatus
from reos.schemas.properties import PropertyStatus, PropertyType
from reos.schemas.transactions import TransactionType

pytestmark = pytest.mark.integration

CLOSED = ("closed_won", "closed_lost")
REVENUE = ("sale", "commission", "income")
ROUTES = ("dashboard", "properties", "leads", "deals", "campaigns", "revenue")
# The clocks of the Azores go back at one o'clock to midnight, so that a day begins twice.
ZONES = ("UTC", "America/New_York", "Asia/Tokyo", "Atlantic/Azores")

Row = dict[str, Any]


# --- a model of the numbers --------------------------------------------------------------------------------------


def rounded(number: Decimal | int) -> Decimal:
    return Decimal(number).quantize(Decimal("0.01"), ROUND_HALF_UP)


def money(number: Decimal | int) -> str:
    return str(rounded(number))


def share(part: Decimal | int, whole: Decimal | int, scale: int = 1) -> Decimal:
    """Exactly, to be rounded once."""
    return Decimal(part) * scale / Decimal(whole) if whole else Decimal(0)


def percent(part: int, whole: int) -> float:
    return float(rounded(share(part, whole, 100)))


def total(numbers: Iterable[Decimal]) -> Decimal:
    return sum(numbers, Decimal(0))


def counted(enumeration: Any, values: Iterable[str]) -> dict[str, int]:
    return dict.fromkeys(get_args(enumeration), 0) | Counter(values)


@dataclass
class Records:
    """What an organisation has; the ids are of this model, until `save` has them replaced."""

    zone: ZoneInfo
    now: datetime
    properties: list[Row] = field(default_factory=list)
    leads: list[Row] = field(default_factory=list)
    deals: list[Row] = field(default_factory=list)
    changes: list[Row] = field(default_factory=list)
    transactions: list[Row] = field(default_factory=list)
    campaigns: list[Row] = field(default_factory=list)
    property_activities: list[Row] = field(default_factory=list)
    lead_activities: list[Row] = field(default_factory=list)

    def created(self, rows: list[Row], start: date | None, end: date | None) -> list[Row]:
        """Those that are there, and were created on these days."""
        return [row for row in rows if row["deleted_at"] is None and self.is_within(row["created_at"], start, end)]

    def is_within(self, moment: datetime, start: date | None, end: date | None) -> bool:
        return (start or date.min) <= moment.astimezone(self.zone).date() <= (end or date.max)

    def booked(self, start: date | None, end: date | None, *types: str) -> list[Row]:
        """The transactions of these days and types whose deals are there, each with the type of its deal."""
        deals = {row["id"]: row for row in self.deals if row["deleted_at"] is None}
        return [
            row | {"deal_type": deals[row["deal_id"]]["deal_type"]}
            for row in self.transactions
            if row["deal_id"] in deals
            and row["transaction_type"] in types
            and (start or date.min) <= row["transaction_date"] <= (end or date.max)
        ]

    def expect(self, route: str, start: date | None, end: date | None) -> Row:
        found: Row = getattr(self, f"expect_{route}")(start, end)
        return found

    def expect_properties(self, start: date | None, end: date | None) -> Row:
        rows = self.created(self.properties, start, end)
        prices = [row["price"] for row in rows if row["price"] is not None]
        cities = sorted(Counter(row["city"] for row in rows).items(), key=lambda entry: (-entry[1], entry[0]))
        return {
            "total_properties": len(rows),
            "by_type": counted(PropertyType, (row["property_type"] for row in rows)),
            "by_status": counted(PropertyStatus, (row["status"] for row in rows)),
            "avg_price": money(share(total(prices), len(prices))),
            "total_value": money(total(prices)),
            "cities": [{"city": city, "count": count} for city, count in cities[:10]],
        }

    def expect_leads(self, start: date | None, end: date | None) -> Row:
        rows = self.created(self.leads, start, end)
        converted = [row for row in rows if row["status"] == "converted"]
        newest = self.now - timedelta(days=30)
        return {
            "total_leads": len(rows),
            "by_status": counted(LeadStatus, (row["status"] for row in rows)),
            "by_source": counted(LeadSource, (row["source"] for row in rows)),
            "avg_score": float(rounded(share(sum(row["score"] for row in rows), len(rows)))),
            "conversion_rate": percent(len(converted), len(rows)),
            "new_leads_last_30_days": sum(
                row["created_at"] >= newest for row in self.leads if row["deleted_at"] is None
            ),
        }

    def expect_deals(self, start: date | None, end: date | None) -> Row:
        rows = self.created(self.deals, start, end)
        values = [row["value"] for row in rows]
        stages = Counter(row["stage"] for row in rows)
        stays = self.stays({row["id"] for row in rows})
        return {
            "total_deals": len(rows),
            "by_stage": counted(DealStage, (row["stage"] for row in rows)),
            "by_type": counted(DealType, (row["deal_type"] for row in rows)),
            "total_value": money(total(values)),
            "avg_value": money(share(total(values), len(values))),
            "win_rate": percent(stages["closed_won"], stages["closed_won"] + stages["closed_lost"]),
            "expected_revenue": money(
                total(row["value"] * row["probability"] / 100 for row in rows if row["stage"] not in CLOSED)
            ),
            "avg_days_in_stage": average([days for _, days in stays]),
            "avg_days_by_stage": {
                stage: average([days for known, days in stays if known == stage]) for stage in get_args(DealStage)
            },
        }

    def stays(self, deal_ids: set[int]) -> list[tuple[str, float]]:
        """Each stay of these deals in an open stage, in days."""
        found = []
        for deal_id in deal_ids:
            changes = [row for row in self.changes if row["deal_id"] == deal_id]
            ends = [*(row["changed_at"] for row in changes[1:]), self.now]
            for change, end in zip(changes, ends, strict=True):
                if change["new_stage"] not in CLOSED:
                    found.append((change["new_stage"], (end - change["changed_at"]) / timedelta(days=1)))
        return found

    def expect_campaigns(self, start: date | None, end: date | None) -> Row:
        rows = self.created(self.campaigns, start, end)
        sent, delivered, opened, clicked = (
            sum(row[f"{name}_count"] for row in rows) for name in ("sent", "delivered", "opened", "clicked")
        )
        return {
            "total_campaigns": len(rows),
            "active_campaigns": sum(row["status"] in ("scheduled", "in_progress") for row in rows),
            "total_sent": sent,
            "total_delivered": delivered,
            "total_opened": opened,
            "delivery_rate": percent(delivered, sent),
            "open_rate": percent(opened, delivered),
            "click_rate": percent(clicked, opened),
        }

    def expect_revenue(self, start: date | None, end: date | None) -> Row:
        rows = self.booked(start, end, *REVENUE)
        revenue = total(row["amount"] for row in rows)
        expenses = total(row["amount"] for row in self.booked(start, end, "expense"))
        days = [row["transaction_date"] for row in rows]
        first = start if start not in (None, date.min) else min(days, default=None)
        last = end if end not in (None, date.max) else max(days, default=None)
        by_month = dict.fromkeys(months(first, last), Decimal(0)) if first and last else {}
        by_type = dict.fromkeys(get_args(DealType), Decimal(0))
        for row in rows:
            by_month[f"{row['transaction_date']:%Y-%m}"] += row["amount"]
            by_type[row["deal_type"]] += row["amount"]
        return {
            "total_revenue": money(revenue),
            "total_expenses": money(expenses),
            "net_revenue": money(revenue - expenses),
            "revenue_by_month": [{"month": month, "revenue": money(by_month[month])} for month in sorted(by_month)],
            "revenue_by_deal_type": {name: money(amount) for name, amount in by_type.items()},
        }

    def expect_dashboard(self, start: date | None, end: date | None) -> Row:
        properties, leads = self.expect_properties(start, end), self.expect_leads(start, end)
        deals = self.expect_deals(start, end)
        today = self.now.astimezone(self.zone).date()
        this_month = [row for row in self.booked(None, None, *REVENUE) if is_same_month(row["transaction_date"], today)]
        return {
            "total_properties": properties["total_properties"],
            "total_leads": leads["total_leads"],
            "total_deals": deals["total_deals"],
            "total_deal_value": deals["total_value"],
            "active_campaigns": self.expect_campaigns(start, end)["active_campaigns"],
            "properties_by_status": properties["by_status"],
            "leads_by_status": leads["by_status"],
            "deals_by_stage": deals["by_stage"],
            "recent_activity_count": self.recent(),
            "properties": {
                "total": properties["total_properties"],
                "by_status": properties["by_status"],
                "total_value": properties["total_value"],
            },
            "leads": {"total": leads["total_leads"], "by_status": leads["by_status"]},
            "deals": {
                "total": deals["total_deals"],
                "by_stage": deals["by_stage"],
                "total_value": deals["total_value"],
            },
            "revenue": {
                "total_commissions": money(total(row["amount"] for row in self.booked(start, end, "commission"))),
                "this_month": money(total(row["amount"] for row in this_month)),
            },
        }

    def recent(self) -> int:
        since, number = self.now - timedelta(days=7), 0
        for rows, parents, key, at in (
            (self.property_activities, self.properties, "property_id", "created_at"),
            (self.lead_activities, self.leads, "lead_id", "created_at"),
            ([row for row in self.changes if row["old_stage"]], self.deals, "deal_id", "changed_at"),
        ):
            present = {row["id"] for row in parents if row["deleted_at"] is None}
            number += sum(row[key] in present and row[at] >= since for row in rows)
        return number


def average(days: list[float]) -> float:
    return sum(days) / len(days) if days else 0.0


def months(first: date, last: date) -> list[str]:
    """Every month from that of the first day to that of the last."""
    numbers = range(first.year * 12 + first.month - 1, last.year * 12 + last.month)
    return [f"{number // 12:04}-{number % 12 + 1:02}" for number in numbers]


def is_same_month(day: date, other: date) -> bool:
    return (day.year, day.month) == (other.year, other.month)


# --- random records ----------------------------------------------------------------------------------------------


@dataclass
class Dice:
    """Random records, many of them at the edges of days, months and ranges."""

    random: random.Random
    zone: ZoneInfo
    now: datetime

    def moment(self, days: int = 400) -> datetime:
        """A time of the past, often within a second of midnight, or where a day begins twice."""
        day = (self.now - timedelta(days=self.random.randrange(2, days))).astimezone(self.zone).date()
        midnight = datetime.combine(day, time(), self.zone).astimezone(UTC)
        match self.random.randrange(6):
            case 0:
                return midnight
            case 1:
                return midnight - timedelta(microseconds=1)
            case 2:
                clocks_back = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)  # in the Azores: the first 0:30 of this day
                return clocks_back + timedelta(minutes=self.random.randrange(-90, 90))
            case 3:
                # The last days, but not where a second more or less decides.
                return self.now - timedelta(hours=self.random.randrange(1, 24 * 40), minutes=30)
            case _:
                return midnight + timedelta(seconds=self.random.randrange(86400))

    def day(self) -> date:
        """A day, often the first or the last of a month."""
        day = (self.now - timedelta(days=self.random.randrange(0, 500))).astimezone(self.zone).date()
        first = day.replace(day=1)
        return self.random.choice([day, first, first - timedelta(days=1)])

    def amount(self) -> Decimal:
        return self.random.choice([Decimal(0), Decimal("0.01"), Decimal(self.random.randrange(10**8)) / 100])

    def deleted(self) -> datetime | None:
        return self.now if self.random.random() < 0.15 else None

    def of(self, enumeration: Any) -> str:
        value: str = self.random.choice(get_args(enumeration))
        return value


def make_records(seed: int, zone: ZoneInfo) -> Records:
    now = datetime.now(UTC)
    dice = Dice(random.Random(seed), zone, now)
    records, rand = Records(zone, now), dice.random
    records.properties = [
        {
            "id": number,
            "address": f"{number} Main Street",
            "city": rand.choice(["Ávila", "austin", "Austin", *(f"City {n}" for n in range(12))]),
            "state": "TX",
            "zip_code": "78701",
            "property_type": dice.of(PropertyType),
            "status": dice.of(PropertyStatus),
            "price": rand.choice([None, dice.amount(), dice.amount()]),
            "created_at": dice.moment(),
            "deleted_at": dice.deleted(),
        }
        for number in range(300)
    ]
    records.leads = [
        {
            "id": number,
            "first_name": "Grace",
            "last_name": "Hopper",
            "source": dice.of(LeadSource),
            "status": dice.of(LeadStatus),
            "score": rand.choice([0, rand.randrange(101)]),
            "created_at": dice.moment(),
            "deleted_at": dice.deleted(),
        }
        for number in range(400)
    ]
    for number in range(300):
        add_random_deal(records, dice, number)
    records.transactions = [
        {
            "id": number,
            "deal_id": rand.randrange(300),
            "transaction_type": dice.of(TransactionType),
            "amount": dice.amount() * rand.choice([1, 1, 1, -1]),
            "transaction_date": dice.day(),
        }
        for number in range(600)
    ]
    for number in range(40):
        sent = rand.choice([0, rand.randrange(1000)])
        delivered = rand.randrange(sent + 1)
        opened = rand.randrange(delivered + 1)
        records.campaigns.append(
            {
                "id": number,
                "name": "Autumn",
                "campaign_type": "email",
                "content": "Hello",
                "status": rand.choice(["draft", "scheduled", "in_progress", "completed", "paused", "cancelled"]),
                "sent_count": sent,
                "delivered_count": delivered,
                "opened_count": opened,
                "clicked_count": rand.randrange(opened + 1),
                "created_at": dice.moment(),
                "deleted_at": dice.deleted(),
            }
        )
    records.property_activities = [
        {
            "id": number,
            "property_id": rand.randrange(300),
            "activity_type": "showing",
            "description": "They came.",
            "created_at": dice.moment(20),
        }
        for number in range(100)
    ]
    records.lead_activities = [
        {
            "id": number,
            "lead_id": rand.randrange(400),
            "activity_type": "call",
            "description": "They answered.",
            "created_at": dice.moment(20),
        }
        for number in range(100)
    ]
    return records


def add_random_deal(records: Records, dice: Dice, number: int) -> None:
    """A deal with its way through the stages."""
    created_at, rand = dice.moment(), dice.random
    stage, at, old = "lead", created_at, None
    for turn in range(rand.randrange(1, 6)):
        if turn:
            at += rand.random() * (records.now - at) * 0.9
            # Not where a second more or less decides whether it was within seven days.
            if abs(records.now - timedelta(days=7) - at) < timedelta(minutes=10):
                at += timedelta(minutes=20)
            old, stage = stage, rand.choice([name for name in get_args(DealStage) if name != stage])
        records.changes.append(
            {
                "id": len(records.changes),
                "deal_id": number,
                "old_stage": old,
                "new_stage": stage,
                "changed_at": at,
                "duration_seconds": 0 if old else None,
            }
        )
    # Which property does not matter, but two deals cannot hold the same.
    records.deals.append(
        {
            "id": number,
            "property_id": number,
            "lead_id": rand.choice([None, rand.randrange(400)]),
            "deal_type": dice.of(DealType),
            "stage": stage,
            "value": dice.amount(),
            "probability": rand.choice([0, 100, rand.randrange(101)]),
            "closed_at": at if stage in CLOSED else None,
            "created_at": created_at,
            "deleted_at": dice.deleted(),
        }
    )


async def save(api: Api, client: Client, records: Records) -> None:
    """Put the records into the organisation's tables, their ids moved to where there is room."""
    organization_id = client.organization_id
    offset = organization_id * 1_000_000
    tables = {
        "properties": records.properties,
        "leads": records.leads,
        "deals": records.deals,
        "deal_stage_changes": records.changes,
        "transactions": records.transactions,
        "campaigns": records.campaigns,
        "property_activities": records.property_activities,
        "lead_activities": records.lead_activities,
    }
    for table, rows in tables.items():
        placed = [
            {
                name: value + offset if value is not None and (name == "id" or name.endswith("_id")) else value
                for name, value in row.items()
            }
            | {"organization_id": organization_id}
            for row in rows
        ]
        names = ", ".join(placed[0])
        await api.fetch(
            f"insert into {table} ({names}) overriding system value"
            f" select {names} from jsonb_populate_recordset(null::{table}, $1::jsonb)",
            json.dumps(placed, default=str),
        )


# --- the model against the service -------------------------------------------------------------------------------


async def organization_in(api: Api, zone: str) -> Client:
    admin = await api.register()
    if zone != "UTC":
        await admin.put("/organization", json={"settings": {"timezone": zone}})
    return admin


@pytest.mark.parametrize("zone", ZONES)
async def test_numbers_are_those_of_the_model(api: Api, zone: str) -> None:
    seed = random.randrange(10**6)
    records = make_records(seed, ZoneInfo(zone))
    admin = await organization_in(api, zone)
    await save(api, admin, records)
    # Another organisation's records count nowhere.
    await save(api, await organization_in(api, zone), make_records(seed + 1, ZoneInfo(zone)))

    today = records.now.astimezone(records.zone).date()
    edge = date(2026, 10, 25)
    ranges: list[tuple[date | None, date | None]] = [
        (None, None),
        (today - timedelta(days=100), None),
        (None, today - timedelta(days=100)),
        (date(2026, 2, 1), date(2026, 8, 31)),
        (edge, edge),
        (edge - timedelta(days=1), edge - timedelta(days=1)),
        (today + timedelta(days=1), None),
        (date.min, date.min),
        (date.min, date(2026, 8, 31)),
        (date(2026, 2, 1), date.max),
    ]
    for start, end in ranges:
        params = {"start_date": start, "end_date": end}
        params = {name: day.isoformat() for name, day in params.items() if day is not None}
        for route in ROUTES:
            answer = await admin.get(f"/analytics/{route}", params=params)
            expected = records.expect(route, start, end)
            if route == "deals":
                # The stays that go on do so while the test runs.
                for name in ("avg_days_in_stage", "avg_days_by_stage"):
                    found = answer.pop(name)
                    assert found == pytest.approx(expected.pop(name), abs=0.0101), (seed, name, params)
            assert answer == expected, (seed, route, params)


async def test_an_empty_organisation_is_all_zeros(api: Api) -> None:
    admin = await api.register()
    for route in ROUTES:
        answer = await admin.get(f"/analytics/{route}")
        assert set(leaves(answer)) <= {0, "0.00"}, route
        assert answer == Records(ZoneInfo("UTC"), datetime.now(UTC)).expect(route, None, None)


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for part in value.values() for leaf in leaves(part)]
    return [leaf for part in value for leaf in leaves(part)] if isinstance(value, list) else [value]


# --- what goes in by the API comes out ---------------------------------------------------------------------------


async def test_the_numbers_follow_what_is_done(api: Api) -> None:
    admin = await api.register()
    house = await add_property(admin, price="300000.00")
    lead = await add_lead(admin, score=80)
    deal = await add_deal(admin, house["id"], lead_id=lead["id"], value="1000.05", probability=50)
    await admin.post(f"/properties/{house['id']}/activities", json={"activity_type": "x", "description": "x"})
    await admin.post(f"/leads/{lead['id']}/activities", json={"activity_type": "call", "description": "x"})
    await book(admin, deal, "commission", "100.10")
    await book(admin, deal, "sale", "0.05")
    await book(admin, deal, "expense", "20.00")

    deals = await admin.get("/analytics/deals")
    assert deals["expected_revenue"] == "500.03"  # 500.025, and half a cent goes up
    dashboard = await admin.get("/analytics/dashboard")
    assert dashboard["recent_activity_count"] == 2
    assert dashboard["revenue"] == {"total_commissions": "100.10", "this_month": "100.15"}
    assert dashboard["total_deal_value"] == dashboard["deals"]["total_value"] == "1000.05"
    assert dashboard["properties"]["total_value"] == "300000.00"

    await move(admin, deal, "negotiation")
    await move(admin, deal, "closed_won")
    deals = await admin.get("/analytics/deals")
    assert (deals["expected_revenue"], deals["win_rate"]) == ("0.00", 100)
    assert (await admin.get("/analytics/dashboard"))["recent_activity_count"] == 4
    revenue = await admin.get("/analytics/revenue")
    assert (revenue["total_revenue"], revenue["net_revenue"]) == ("100.15", "80.15")
    assert revenue["revenue_by_deal_type"]["sell"] == "100.15"

    await admin.delete(f"/deals/{deal['id']}")
    revenue = await admin.get("/analytics/revenue")
    assert set(leaves(revenue)) == {"0.00"}
    dashboard = await admin.get("/analytics/dashboard")
    assert (dashboard["total_deals"], dashboard["recent_activity_count"]) == (0, 2)
    assert dashboard["revenue"] == {"total_commissions": "0.00", "this_month": "0.00"}
    await admin.post(f"/deals/{deal['id']}/restore", status=200)
    assert (await admin.get("/analytics/revenue"))["total_revenue"] == "100.15"


async def book(client: Client, deal: Row, kind: str, amount: str, day: str | None = None) -> None:
    day = day or datetime.now(UTC).date().isoformat()
    body = {"transaction_type": kind, "amount": amount, "transaction_date": day}
    await client.post(f"/deals/{deal['id']}/transactions", json=body)


@pytest.mark.parametrize(
    ("zone", "moment", "month"),
    [
        ("America/New_York", "2026-04-01T03:59:59Z", "2026-03"),
        ("America/New_York", "2026-04-01T04:00:01Z", "2026-04"),
        ("Asia/Tokyo", "2026-03-31T14:59:59Z", "2026-03"),
        ("Asia/Tokyo", "2026-03-31T15:00:01Z", "2026-04"),
        ("UTC", "2026-03-31T23:59:59Z", "2026-03"),
    ],
)
async def test_a_transaction_at_the_edge_of_a_month(api: Api, zone: str, moment: str, month: str) -> None:
    admin = await organization_in(api, zone)
    await book(admin, await add_deal(admin), "income", "5.00", moment)
    revenue = await admin.get("/analytics/revenue")
    assert revenue["revenue_by_month"] == [{"month": month, "revenue": "5.00"}]
    # A range in days, or in times that are on these days.
    for start, end in (("2026-04-01", "2026-04-30"), ("2026-04-01T12:00:00Z", "2026-04-30T12:00:00Z")):
        params = {"start_date": start, "end_date": end}
        answer = await admin.get("/analytics/revenue", params=params)
        assert answer["total_revenue"] == ("5.00" if month == "2026-04" else "0.00")


async def test_months_without_revenue_are_filled_in(api: Api) -> None:
    admin = await api.register()
    deal = await add_deal(admin)
    for day, kind in (("2025-11-30", "sale"), ("2026-02-01", "income"), ("2026-05-01", "expense")):
        await book(admin, deal, kind, "7.00", day)

    async def listed(**params: str) -> list[str]:
        answer = await admin.get("/analytics/revenue", params=params)
        return [f"{entry['month']} {entry['revenue']}" for entry in answer["revenue_by_month"]]

    assert await listed() == ["2025-11 7.00", "2025-12 0.00", "2026-01 0.00", "2026-02 7.00"]
    assert await listed(start_date="2026-01-15") == ["2026-01 0.00", "2026-02 7.00"]
    assert await listed(end_date="2025-12-01") == ["2025-11 7.00", "2025-12 0.00"]
    # The first and the last day that there are, as a range, are no limits.
    assert await listed(start_date="2026-01-15", end_date="9999-12-31") == ["2026-01 0.00", "2026-02 7.00"]
    assert await listed(start_date="0001-01-01", end_date="2025-12-01") == ["2025-11 7.00", "2025-12 0.00"]
    assert await listed(start_date="2026-02-02", end_date="2026-03-01") == ["2026-02 0.00", "2026-03 0.00"]
    assert await listed(start_date="2026-03-01") == []
    # Somebody has mistyped a year.
    await book(admin, deal, "sale", "1.00", "0202-06-01")
    assert await listed() == ["0202-06 1.00", "2025-11 7.00", "2026-02 7.00"]
    assert await listed(start_date="2026-01-01") == ["2026-01 0.00", "2026-02 7.00"]
    assert await listed(start_date="1900-01-01", end_date="2026-02-28") == ["2025-11 7.00", "2026-02 7.00"]
    # The first and the last day that there are.
    await book(admin, deal, "sale", "2.00", "0001-01-01")
    await book(admin, deal, "sale", "3.00", "9999-12-31")
    assert [entry for entry in await listed() if entry[:4] in ("0001", "9999")] == ["0001-01 2.00", "9999-12 3.00"]


async def test_the_revenue_of_the_first_and_of_the_last_day(api: Api) -> None:
    admin = await api.register()
    deal = await add_deal(admin)
    for day, amount in (("0001-01-01", "2.00"), ("2026-03-01", "5.00"), ("9999-12-31", "3.00")):
        await book(admin, deal, "commission", amount, day)
    for start, end, amount, months in (
        ("0001-01-01", "0001-01-01", "2.00", ["0001-01 2.00"]),
        ("9999-12-31", "9999-12-31", "3.00", ["9999-12 3.00"]),
        ("0001-01-02", "9999-12-30", "5.00", ["2026-03 5.00"]),
        ("0001-01-01", "9999-12-31", "10.00", ["0001-01 2.00", "2026-03 5.00", "9999-12 3.00"]),
        ("9999-10-31", "9999-12-31", "3.00", ["9999-10 0.00", "9999-11 0.00", "9999-12 3.00"]),
        ("0001-01-01", "0001-02-01", "2.00", ["0001-01 2.00", "0001-02 0.00"]),
    ):
        params = {"start_date": start, "end_date": end}
        revenue = await admin.get("/analytics/revenue", params=params)
        assert (revenue["total_revenue"], revenue["revenue_by_deal_type"]["sell"]) == (amount, amount)
        assert [f"{entry['month']} {entry['revenue']}" for entry in revenue["revenue_by_month"]] == months
        dashboard = await admin.get("/analytics/dashboard", params=params)
        assert dashboard["revenue"]["total_commissions"] == amount


# --- ranges ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ROUTES)
async def test_a_range_that_ends_before_it_starts_is_refused(api: Api, route: str) -> None:
    admin = await organization_in(api, "Asia/Tokyo")
    path = f"/analytics/{route}"
    for start, end in (
        ("2026-03-02", "2026-03-01"),
        ("2026-03-01T16:00:00Z", "2026-03-01"),  # In Tokyo it is the next day.
        ("2026-03-02", "2026-03-01T14:00:00Z"),
    ):
        params = {"start_date": start, "end_date": end}
        assert await admin.fields_refused("GET", path, params=params) == {"end_date": "date_range"}
    for start, end in (("2026-03-01", "2026-03-01"), ("2026-03-01T16:00:00Z", "2026-03-02")):
        await admin.get(path, params={"start_date": start, "end_date": end})
    for value in ("", "x", "2026-02-30", "0000-01-01", "10000-01-01", "2026-03-01T25:00:00Z"):
        assert set(await admin.fields_refused("GET", path, params={"start_date": value})) == {"start_date"}


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago"])
@pytest.mark.parametrize("route", ROUTES)
async def test_a_range_reaches_to_the_ends_of_the_calendar(api: Api, route: str, zone: str) -> None:
    admin = await organization_in(api, zone)
    await add_deal(admin)
    whole = await admin.get(f"/analytics/{route}")
    both = {"start_date": "0001-01-01", "end_date": "9999-12-31"}
    for params in (both, {"start_date": "0001-01-01"}, {"end_date": "9999-12-31"}):
        assert await admin.get(f"/analytics/{route}", params=params) == whole
    # The first begins in the year before the first, the last ends in the year after the last.
    for day in ("0001-01-01", "9999-12-31"):
        await admin.get(f"/analytics/{route}", params={"start_date": day, "end_date": day})


DAYS = [
    ("UTC", "2026-03-01", "2026-03-01T00:00:00+00:00"),
    ("America/New_York", "2026-03-09", "2026-03-09T04:00:00+00:00"),
    ("Asia/Tokyo", "2026-03-09", "2026-03-08T15:00:00+00:00"),
    # Twice: the first of the two.
    ("Atlantic/Azores", "2026-10-25", "2026-10-25T00:00:00+00:00"),
    ("America/Havana", "2025-11-02", "2025-11-02T04:00:00+00:00"),
    # Not at all, at midnight: one o'clock.
    ("America/Sao_Paulo", "2018-11-04", "2018-11-04T03:00:00+00:00"),
    ("Asia/Beirut", "2025-03-30", "2025-03-29T22:00:00+00:00"),
    # Not at all: where it would be.
    ("Pacific/Apia", "2011-12-30", "2011-12-30T10:00:00+00:00"),
    ("Pacific/Apia", "2011-12-31", "2011-12-30T10:00:00+00:00"),
]


@pytest.mark.parametrize(("zone", "day", "begins"), DAYS)
async def test_when_a_day_begins(api: Api, zone: str, day: str, begins: str) -> None:
    found = await api.value("select day_begins($1, $2)", date.fromisoformat(day), zone)
    assert found == datetime.fromisoformat(begins)


async def test_a_zone_whose_name_is_an_abbreviation_too_has_its_summer_time(api: Api) -> None:
    # To Postgres it is first of all an hour east of Greenwich, all the year.
    admin = await organization_in(api, "CET")
    await add_property(admin)
    move_created = "update properties set created_at = '2026-07-01T22:30:00Z' where organization_id = $1"
    await api.value(move_created, admin.organization_id)
    for day, count in (("2026-07-01", 0), ("2026-07-02", 1)):
        params = {"start_date": day, "end_date": day}
        assert (await admin.get("/analytics/properties", params=params))["total_properties"] == count
        assert (await admin.get("/analytics/dashboard", params=params))["total_properties"] == count


async def test_postgres_reckons_in_every_zone_as_python_does(api: Api) -> None:
    # Of a year whose rules every release of the zones knows.
    moments = [datetime(2022, month, 1, 12, tzinfo=UTC) for month in (1, 7)]
    names = sorted(available_timezones() - {"localtime", "Factory"})
    statement = """
        select name, moment, moment at time zone named_time_zone(name) as clock
        from unnest($1::text[]) name, unnest($2::timestamptz[]) moment where knows_time_zone(name)
    """
    found = await api.fetch(statement, names, moments)
    assert len(found) > len(names)
    for name, moment, clock in found:
        assert clock == moment.astimezone(ZoneInfo(name)).replace(tzinfo=None), name
