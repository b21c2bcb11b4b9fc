"""How lists of deals are read at volume: 50,000 of one organisation among those of others, under row security."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import psycopg
import pytest
from conftest import TestDatabase

from reos.db import begin_tenant, prepare_connection
from reos.queries import deals, transactions
from reos.queries.listing import PageRequest

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROWS = 50_000
LIMIT = 20

FILL = (
    """
    insert into properties (organization_id, address, city, state, zip_code, property_type)
    select %s, n || ' Main Street', 'Austin', 'TX', '78701', 'condo' from generate_series(1, 1000) n
    """,
    """
    insert into leads (organization_id, first_name, last_name, source)
    select %s, 'First' || n, 'Last' || n, 'website' from generate_series(1, 1000) n
    """,
    """
    insert into deals (organization_id, property_id, lead_id, deal_type, stage, value, probability,
        expected_close_date, closed_at, notes, created_at, updated_at)
    select p.organization_id, p.id, l.id, 'buy',
        (array['lead', 'qualified', 'proposal', 'closed_won', 'closed_lost'])[1 + n % 5], n, n % 101,
        case when n % 10 > 0 then date '2027-01-01' + n % 365 end, case when n % 5 >= 3 then now() end,
        case when n % 500 = 0 then 'rare lighthouse' else 'a note like any other' end,
        now() - n * interval '1 minute', now() - (n * 7919 % 50000) * interval '1 minute'
    from (select row_number() over (partition by organization_id order by id) as place, * from properties) p
    join (select row_number() over (partition by organization_id order by id) as place, * from leads) l
        on l.place = p.place and l.organization_id = p.organization_id
    cross join generate_series(1, {rows} / 1000) turn
    cross join lateral (select ((p.place - 1) * {rows} / 1000 + turn)::integer as n) numbered
    where p.organization_id = %s
    """,
    """
    insert into transactions (organization_id, deal_id, transaction_type, amount, transaction_date)
    select organization_id, id, 'sale', n, date '2027-01-01' + n
    from (select organization_id, id from deals where organization_id = %s order by id limit 50) d,
        generate_series(1, 200) n
    """,
)


@dataclass
class Explaining:
    """A connection that has every statement explained as it is run."""

    conn: asyncpg.Connection
    found: list[dict[str, Any]] = field(default_factory=list)

    async def fetch(self, text: str, *args: Any) -> Any:
        plan = await self.conn.fetchval(f"explain (analyze, buffers, format json) {text}", *args)
        self.found += nodes(json.loads(plan)[0]["Plan"])
        return await self.conn.fetch(text, *args)

    async def fetchval(self, text: str, *args: Any) -> Any:
        rows = await self.fetch(text, *args)
        return rows[0][0] if rows else None


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", []):
        yield from nodes(part)


@dataclass
class Volume:
    conn: asyncpg.Connection
    organization_id: int

    async def explain(self, list_of: Any, page: PageRequest, filters: Any, **options: Any) -> tuple[Any, Any]:
        """A page, and the nodes of the plans that led to it."""
        explaining = Explaining(self.conn)
        await self.conn.execute(begin_tenant(self.organization_id, read_only=True))
        rows = await list_of(explaining, page, filters, **options)
        await self.conn.execute("COMMIT")
        return rows, explaining.found

    async def row(self, statement: str) -> Any:
        await self.conn.execute(begin_tenant(self.organization_id, read_only=True))
        found = await self.conn.fetchrow(statement)
        await self.conn.execute("COMMIT")
        return found


@pytest.fixture(scope="module")
async def volume(database: TestDatabase) -> AsyncIterator[Volume]:
    organizations = []
    with psycopg.connect(database.superuser_dsn, autocommit=True) as conn:
        for name, rows in (("before", 10_000), ("the-one", ROWS), ("after", 10_000)):
            conn.execute("set role reos_owner")
            statement = "insert into organizations (name, slug) values (%s, %s) returning id"
            row = conn.execute(statement, [name, name]).fetchone()
            assert row is not None
            organizations.append(row[0])
            for text in FILL:
                statement = text.replace(" % ", " %% ").replace("{rows}", str(rows))
                conn.execute(statement, [row[0]])  # type: ignore[arg-type]
        conn.execute("reset role")
        conn.execute("vacuum (analyze)")
    service = await asyncpg.connect(database.dsn)
    await prepare_connection(service)
    yield Volume(service, organizations[1])
    await service.close()


def scans(found: list[dict[str, Any]], table: str) -> list[dict[str, Any]]:
    return [node for node in found if node.get("Relation Name") == table]


@pytest.mark.parametrize("is_descending", [False, True])
@pytest.mark.parametrize("key", deals.LISTING.sort_keys)
async def test_each_sort_key_is_a_stretch_of_its_index_to_the_last_page(
    volume: Volume, key: str, is_descending: bool
) -> None:
    sort_key = deals.LISTING.sort_keys[key]
    direction = "asc" if is_descending else "desc"
    column = sort_key.expression
    last = await volume.row(
        f"select {column}, d.id from deals d where {column} is not null"
        f" order by {column} {direction}, d.id {direction} offset 39 limit 1"
    )
    for after in (None, tuple(last)):
        page = PageRequest(LIMIT, ((key, is_descending),), after=after, include_total=False)
        rows, found = await volume.explain(deals.list_deals, page, {})
        assert len(rows.items) == LIMIT
        read = scans(found, "deals")
        assert {node.get("Index Name") for node in read} == {f"deals_by_{key}"}
        assert all(node["Actual Rows"] <= LIMIT + 1 and not node.get("Rows Removed by Filter") for node in read)


async def test_rare_words_come_out_of_the_search_index(volume: Volume) -> None:
    """The search function hides its plan, but not how many pages it read."""
    # The first call on a connection reads the catalogue as well.
    await volume.explain(deals.list_deals, PageRequest(50, (("created_at", True),)), {}, search="nix")
    for search, number in (
        ("lighthouse", ROWS // 500),
        ("rar house", ROWS // 500),
        ("last777 main 77", 50),
        ("nix", 0),
    ):
        page = PageRequest(50, (("created_at", True),))
        rows, found = await volume.explain(deals.list_deals, page, {}, search=search)
        assert rows.total == number, search
        looked_up = next(node for node in found if node["Node Type"] == "ProjectSet")
        pages = looked_up["Shared Hit Blocks"] + looked_up["Shared Read Blocks"]
        # About ten for each hit (its text, its deal and their indexes); the texts of all are several thousand.
        assert pages < 200 + 10 * number, search
        assert not [node for node in scans(found, "deals") if node["Node Type"] == "Seq Scan"]


@pytest.mark.parametrize("search", ["main", "note other street", "ma"])
async def test_common_and_short_words_filter_the_list_index(volume: Volume, search: str) -> None:
    page = PageRequest(LIMIT, (("value", True),), include_total=False)
    rows, found = await volume.explain(deals.list_deals, page, {}, search=search)
    assert len(rows.items) == LIMIT
    (read,) = scans(found, "deals")
    assert read["Index Name"] == "deals_by_value"
    assert read["Actual Rows"] + read.get("Rows Removed by Filter", 0) <= 2 * (LIMIT + 1)


@pytest.mark.parametrize(
    ("key", "index"),
    [
        ("transaction_date", "transactions_by_deal"),
        ("created_at", "transactions_by_created_at"),
        ("amount", "transactions_by_amount"),
    ],
)
async def test_transactions_are_a_stretch_of_an_index_of_their_deal(volume: Volume, key: str, index: str) -> None:
    deal_id = (await volume.row("select min(deal_id) from transactions"))[0]
    page = PageRequest(LIMIT, ((key, True),), include_total=False)
    rows, found = await volume.explain(transactions.list_transactions, page, {"deal_id": deal_id})
    assert len(rows.items) == LIMIT
    (read,) = scans(found, "transactions")
    assert (read["Index Name"], read["Actual Rows"]) == (index, LIMIT + 1)
