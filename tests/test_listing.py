"""Lists at the ends of the calendar, whose first and last day are days as any others and no infinities."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import asyncpg
import pytest
from api import Api, Client
from crm import add_deal, add_lead, add_property

pytestmark = pytest.mark.integration

FIRST, LAST = "0001-01-01", "9999-12-31"
DAYS = [LAST, "2030-01-01", FIRST, LAST, FIRST, LAST]
MOST_PAGES = 20


async def walk(client: Client, path: str, **params: Any) -> list[int]:
    """The ids on all pages, one after the other by cursor. A walk without an end is given up."""
    found: list[int] = []
    for _ in range(MOST_PAGES):
        page = await client.get(path, params=params)
        found += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            return found
        params["cursor"] = page["next_cursor"]
    raise AssertionError(f"no end after {found}")


def in_order(items: list[dict[str, Any]], key: str, sign: str) -> list[int]:
    """The ids of the items as the list should have them: by the key, then by id, and those without the key last."""
    is_descending = sign == "-"
    some = [item for item in items if item[key] is not None]
    none = [item for item in items if item[key] is None]
    some.sort(key=lambda item: (item[key], item["id"]), reverse=is_descending)
    none.sort(key=lambda item: item["id"], reverse=is_descending)
    return [item["id"] for item in some + none]


@pytest.mark.parametrize("sign", ["", "-"])
async def test_a_cursor_passes_the_first_and_the_last_day_of_deals(api: Api, sign: str) -> None:
    admin = await api.register()
    deals = [await add_deal(admin, expected_close_date=day) for day in [*DAYS, None]]
    expected = in_order(deals, "expected_close_date", sign)
    for limit in (1, 2, 3):
        for sort in (f"{sign}expected_close_date", f"{sign}expected_close_date,{sign}probability"):
            assert await walk(admin, "/deals", sort=sort, limit=limit) == expected


@pytest.mark.parametrize("sign", ["", "-"])
async def test_a_cursor_passes_the_first_and_the_last_day_of_transactions(api: Api, sign: str) -> None:
    admin = await api.register()
    path = f"/deals/{(await add_deal(admin))['id']}/transactions"
    body = {"transaction_type": "sale", "amount": "1.00"}
    booked = [await admin.post(path, json=body | {"transaction_date": day}) for day in DAYS]
    for limit in (1, 2, 3):
        found = await walk(admin, path, sort=f"{sign}transaction_date", limit=limit)
        assert found == in_order(booked, "transaction_date", sign)
    if sign == "-":
        assert await walk(admin, path, limit=1) == in_order(booked, "transaction_date", sign)


@pytest.mark.parametrize("sign", ["", "-"])
async def test_a_cursor_passes_the_first_moment_of_leads(api: Api, sign: str) -> None:
    admin = await api.register()
    leads = []
    for day in (FIRST, "2026-01-01", FIRST, None, FIRST):
        path = f"/leads/{(await add_lead(admin))['id']}"
        if day is not None:
            body = {"activity_type": "call", "description": "x", "completed_at": day}
            await admin.post(f"{path}/activities", json=body)
        leads.append(await admin.get(path))
    assert leads[0]["last_contacted_at"] == "0001-01-01T00:00:00Z"
    for limit in (1, 2):
        found = await walk(admin, "/leads", sort=f"{sign}last_contacted_at", limit=limit)
        assert found == in_order(leads, "last_contacted_at", sign)
    # As a bound, the first moment is no later than itself.
    assert (await admin.get("/leads", params={"updated_since": FIRST}))["total"] == len(leads)


async def test_a_valuation_is_of_the_day_itself_and_an_infinite_one_is_read(api: Api) -> None:
    admin = await api.register()
    path = f"/properties/{(await add_property(admin))['id']}/valuations"
    for day in (FIRST, LAST):
        created = await admin.post(path, json={"value": "1.00", "valuation_date": day})
        assert created["valuation_date"] == day
        stored = await api.value("select valuation_date::text from property_valuations where id = $1", created["id"])
        assert stored == day
        # As it was once written.
        await api.value(
            "update property_valuations set valuation_date = $2::text::date where id = $1",
            created["id"],
            "infinity" if day == LAST else "-infinity",
        )
    assert [item["valuation_date"] for item in await admin.get(path)] == [LAST, FIRST]


async def test_days_and_moments_come_back_as_they_went(api: Api) -> None:
    days = [date.min, date(1999, 12, 31), date(2000, 1, 1), date.max, None]
    moments = [
        datetime.min.replace(tzinfo=UTC),
        datetime(1999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(2026, 7, 1, 1, 2, 3, 4, tzinfo=timezone(timedelta(hours=5, minutes=30))),
        datetime.max.replace(tzinfo=UTC),
        None,
    ]
    async with api.database.acquire() as conn:
        for kind, values in (("date", days), ("timestamptz", moments)):
            for value in values:
                row = await conn.fetchrow(f"select $1::{kind} as value, isfinite($1) as is_finite", value)
                assert (row["value"], row["is_finite"]) == (value, None if value is None else True)
            assert await conn.fetchval(f"select $1::{kind}[]", values) == values
            assert await conn.fetchval(f"select row(3, $1::{kind})", values[0]) == (3, values[0])
        for kind, first, last in (("daterange", days[0], days[3]), ("tstzrange", moments[0], moments[3])):
            found = await conn.fetchval(f"select $1::{kind}", asyncpg.Range(first, last))
            assert (found.lower, found.upper) == (first, last)
        for kind, first, last in (("date", days[0], days[3]), ("timestamptz", moments[0], moments[3])):
            infinite = await conn.fetchrow(f"select '-infinity'::{kind}, 'infinity'::{kind}")
            assert tuple(infinite) == (first, last)
        with pytest.raises(ValueError, match="out of range"):
            await conn.fetchval("select '10000-01-01'::date")
        with pytest.raises(OverflowError):
            await conn.fetchval("select '10000-01-01'::timestamptz")
        assert await conn.fetchval("select 1") == 1
