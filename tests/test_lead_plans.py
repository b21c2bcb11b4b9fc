"""How lists of leads are read at volume: 100,000 of one organisation among those of others, under row security."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from conftest import TestDatabase
from plans import RUNS, Explained, Plans, explaining, new_organization

from reos.queries import leads
from reos.queries.listing import PageRequest

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROWS = 100_000
LIMIT = 20

FILL = """
insert into leads (organization_id, first_name, last_name, email, phone, company, source, status, score, budget,
    last_contacted_at, created_at, updated_at)
select %s, 'First' || n, 'Last' || n, 'person' || n || '@example.com', lpad(n::text, 10, '0'),
    case when n %% 1000 = 0 then 'Rare Lighthouse Inc' else 'A company' end, 'other',
    (array['new', 'contacted', 'converted'])[1 + n %% 3], n %% 101, case when n %% 10 > 0 then n end,
    case when n %% 10 > 0 then now() - (n * 31 %% 100000) * interval '1 minute' end,
    now() - n * interval '1 minute', now() - (n * 7919 %% 100000) * interval '1 minute'
from generate_series(1, %s) n
"""
BELOW = """
insert into lead_{0} (organization_id, lead_id, {1})
select organization_id, id, {2} from leads, generate_series(1, 3) where organization_id = %s and id %% 20 = 0
"""


@pytest.fixture(scope="module")
async def plans(database: TestDatabase) -> AsyncIterator[Plans]:
    with psycopg.connect(database.superuser_dsn, autocommit=True) as conn:
        conn.execute("set role reos_owner")
        numbers = []
        for name, rows in (("before", 30_000), ("the-one", ROWS), ("after", 30_000)):
            numbers.append(new_organization(conn, name))
            conn.execute(FILL, [numbers[-1], rows])
        for statement in (
            BELOW.format("activities", "activity_type, description", "'call', 'x'"),
            BELOW.format("notes", "content", "'x'"),
            BELOW.format("documents", "title, file_path", "'x', 'y'"),
        ):
            conn.execute(statement, [numbers[1]])  # type: ignore[arg-type]
    async with explaining(database, numbers[1]) as plans:
        yield plans


async def listed(plans: Plans, page: PageRequest, search: str | None = None) -> Explained:
    return await plans.explain(lambda conn: leads.list_leads(conn, page, {}, search=search))


@pytest.mark.parametrize("is_descending", [False, True])
@pytest.mark.parametrize("key", leads.LISTING.sort_keys)
async def test_each_sort_key_is_a_stretch_of_its_index_to_the_last_page(
    plans: Plans, key: str, is_descending: bool
) -> None:
    sort_key = leads.LISTING.sort_keys[key]
    starts: list[tuple[Any, ...] | None] = [None]
    for is_null in (False, True)[: 1 + sort_key.is_nullable]:
        # The fortieth from the end of the values, or of the nulls.
        column, direction = sort_key.expression, "asc" if is_descending else "desc"
        last = await plans.row(
            f"select {column}, l.id from leads l where {column} is {'' if is_null else 'not'} null"
            f" order by {column} {direction}, l.id {direction} offset 39 limit 1"
        )
        starts.append(tuple(last))
    for after in starts:
        page = PageRequest(LIMIT, ((key, is_descending),), after=after, include_total=False)
        explained = await listed(plans, page)
        assert len(explained.result.items) == LIMIT
        read = explained.scans("leads")
        assert {node.get("Index Name") for node in read} == {f"leads_by_{key}"}
        assert all("organization_id" in node["Index Cond"] for node in read)
        assert all(node["Actual Rows"] <= LIMIT + 1 and not node.get("Rows Removed by Filter") for node in read)
        # What is left to sort, where values and nulls are put together, is two pages at most.
        assert all(node["Actual Rows"] <= 2 * (LIMIT + 1) for node in explained.nodes)


@pytest.mark.parametrize(
    ("search", "number"),
    [
        ("lighthouse", 100),
        ("house light inc", 100),
        ("last77777", 1),
        ("0000077777", 1),
        ("77777@EXAMPLE.com", 1),
        ("person12@example.com", 1),
        ("person8@example.com person12@example.com", 0),
        ("first77777 la", 1),
        ("unicorn", 0),
    ],
)
async def test_rare_words_come_out_of_the_search_index_at_once(plans: Plans, search: str, number: int) -> None:
    page = PageRequest(100, (("created_at", True),))
    explained = await listed(plans, page, search)
    assert (len(explained.result.items), explained.result.total) == (number, number)
    read = explained.scans("leads")
    looked_up = [node for node in read if node.get("Index Name") == "leads_search"]
    assert len(looked_up) == RUNS
    assert all("organization_id" in node["Index Cond"] for node in looked_up)
    indexes = {node["Index Name"] for node in read if "Index Name" in node}
    assert indexes <= {"leads_search", "leads_pkey"}
    assert not [node for node in read if node["Node Type"] == "Seq Scan"]
    # A trigram of the word may be in some more rows, which are looked at and left out.
    assert max(node["Actual Rows"] * node["Actual Loops"] for node in read) <= ROWS / 50


@pytest.mark.parametrize("search", ["person", "example last", "la", "7"])
async def test_common_and_short_words_filter_the_list_index(plans: Plans, search: str) -> None:
    page = PageRequest(LIMIT, (("last_name", False),), include_total=False)
    explained = await listed(plans, page, search)
    assert len(explained.result.items) == LIMIT
    listing = [node for node in explained.scans("leads") if node.get("Index Name") == "leads_by_last_name"]
    assert len(listing) == RUNS
    assert max(node["Actual Rows"] + node.get("Rows Removed by Filter", 0) for node in listing) <= 10 * LIMIT


async def test_counts_read_no_other_organisations_rows(plans: Plans) -> None:
    explained = await listed(plans, PageRequest(LIMIT, (("created_at", True),)))
    assert explained.result.total == ROWS
    assert all("organization_id" in node["Index Cond"] for node in explained.scans("leads"))


async def test_statistics_read_their_rows_once(plans: Plans) -> None:
    explained = await plans.explain(leads.get_stats)
    assert explained.result["total_leads"] == ROWS
    read = [node for node in explained.scans("leads") if "Relation Name" in node]
    assert [node["Actual Rows"] + node.get("Rows Removed by Filter", 0) for node in read] == [ROWS] * RUNS
    assert all("organization_id" in node.get("Index Cond", node.get("Recheck Cond", "")) for node in read)


@pytest.mark.parametrize(
    ("list_of", "table"),
    [
        (leads.list_activities, "lead_activities"),
        (leads.list_notes, "lead_notes"),
        (leads.list_documents, "lead_documents"),
    ],
)
async def test_sub_lists_are_read_by_their_lead(plans: Plans, list_of: Any, table: str) -> None:
    lead_id = (await plans.row("select id from leads where id % 20 = 0 limit 1"))[0]
    explained = await plans.explain(lambda conn: list_of(conn, lead_id, 50, 0))
    items, total = explained.result
    assert len(items) == total == 3
    read = explained.scans(table)
    assert {node["Index Name"] for node in read if "Index Name" in node} == {f"{table}_by_lead"}
    assert max(node["Actual Rows"] for node in read) == 3
