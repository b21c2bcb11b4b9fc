"""How lists of properties are read at volume: 100,000 of one organisation among those of others.

PostgreSQL itself tells, by auto_explain, the plans of what the service's own functions run under row security, also
inside the search function. Each statement runs often enough that a generic plan would have been chosen.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import asyncpg
import psycopg
import pytest
from conftest import TestDatabase

from reos.db import begin_tenant, prepare_connection
from reos.queries import properties
from reos.queries.listing import PageRequest, Rows

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROWS = 100_000
SMALL = 5_000  # of another organisation
RUNS = 7  # asyncpg prepares a statement at once, and PostgreSQL may choose a generic plan from the sixth run on
LIMIT = 20

FILL = """
insert into properties (organization_id, address, city, state, zip_code, property_type, status, price, bedrooms,
    square_feet, year_built, latitude, longitude, description, created_at, updated_at)
select %s, n || ' Main St', 'City ' || n %% 1000, 'TX', lpad((n %% 99999)::text, 5, '0'), 'condo',
    (array['available', 'sold', 'rented'])[1 + n %% 3], case when n %% 10 > 0 then n end,
    case when n %% 10 > 0 then n %% 7 end, case when n %% 10 > 0 then 500 + n %% 3000 end,
    case when n %% 10 > 0 then 1900 + n %% 120 end, (n %% 180000) / 1000.0 - 90, (n %% 360000) / 1000.0 - 180,
    case when n %% 1000 = 0 then 'rare lighthouse' when n %% 8 = 5 then 'a garden' else 'a place like any other' end,
    now() - n * interval '1 minute', now() - (n * 7919 %% 100000) * interval '1 minute'
from generate_series(1, %s) n
"""
BELOW = """
insert into property_{0} (organization_id, property_id, {1})
select organization_id, id, {2} from properties, generate_series(1, 3) where organization_id = %s and id %% 20 = 0
"""


@dataclass
class Plans:
    """A connection of the service, and the plans of what it has run."""

    conn: asyncpg.Connection
    organization_id: int
    found: list[dict[str, Any]] = field(default_factory=list)

    def hear(self, conn: Any, message: Any) -> None:
        _, _, plan = message.message.partition("plan:")
        if plan:
            self.found.append(json.loads(plan))

    async def list(self, page: PageRequest, **options: Any) -> tuple[Rows, list[dict[str, Any]]]:
        """A page of properties, and the nodes of every plan that led to it, in whichever run."""
        self.found.clear()
        for _ in range(RUNS):
            await self.conn.execute(begin_tenant(self.organization_id, read_only=True))
            rows = await properties.list_properties(self.conn, page, options.pop("filters", {}), **options)
            await self.conn.execute("COMMIT")
        assert len(self.found) >= RUNS
        return rows, [node for plan in self.found for node in nodes(plan["Plan"])]

    async def value(self, statement: str, *args: Any) -> Any:
        await self.conn.execute(begin_tenant(self.organization_id, read_only=True))
        found = await self.conn.fetchrow(statement, *args)
        await self.conn.execute("COMMIT")
        self.found.clear()
        return found


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", []):
        yield from nodes(part)


def scans(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The nodes that read tables of properties, or their indexes (and not what asyncpg asks about types)."""
    names = ("Relation Name", "Index Name")
    return [node for node in found if any(node.get(name, "").startswith("propert") for name in names)]


@pytest.fixture(scope="module")
async def plans(database: TestDatabase) -> AsyncIterator[Plans]:
    with psycopg.connect(database.superuser_dsn, autocommit=True) as conn:
        conn.execute("set role reos_owner")
        organizations = []
        for name, rows in (("before", 30_000), ("the one", ROWS), ("after", 30_000), ("small", SMALL)):
            row = conn.execute(
                "insert into organizations (name, slug) values (%s, %s) returning id", [name, name.replace(" ", "-")]
            ).fetchone()
            assert row is not None
            conn.execute(FILL, [row[0], rows])
            organizations.append(row[0])
        for statement in (
            BELOW.format("notes", "content", "'x'"),
            BELOW.format("activities", "activity_type, description", "'call', 'x'"),
            BELOW.format("valuations", "value, valuation_date", "1, '2024-01-01'"),
            BELOW.format("images", "url", "'https://example.com'"),
        ):
            conn.execute(statement, [organizations[1]])  # type: ignore[arg-type]
        conn.execute("reset role")
        conn.execute("vacuum (analyze)")
        for setting in ("session_preload_libraries = 'auto_explain'", "auto_explain.log_min_duration = 0",
                        "auto_explain.log_nested_statements = on", "auto_explain.log_analyze = on",
                        "auto_explain.log_format = json", "auto_explain.log_level = notice"):  # fmt: skip
            conn.execute(f'alter database "{database.name}" set {setting}')  # type: ignore[arg-type]
    service = await asyncpg.connect(database.dsn)
    await prepare_connection(service)
    assert await service.fetchval("select current_user") == "reos_app"
    plans = Plans(service, organizations[1])
    service.add_log_listener(plans.hear)
    yield plans
    await service.close()


SORT_KEYS = {
    "created_at": "created_at",
    "updated_at": "updated_at",
    "price": "price_cents",
    "bedrooms": "bedrooms",
    "square_feet": "square_feet",
    "year_built": "year_built",
    "city": "city",
    "status": "status",
}


@pytest.mark.parametrize("is_descending", [False, True])
@pytest.mark.parametrize("key", SORT_KEYS)
async def test_a_page_of_each_sort_key_is_a_stretch_of_its_index(plans: Plans, key: str, is_descending: bool) -> None:
    page = PageRequest(LIMIT, ((key, is_descending),), include_total=False)
    rows, found = await plans.list(page)
    assert len(rows.items) == LIMIT
    check_stretches(found, key)


@pytest.mark.parametrize("is_descending", [False, True])
@pytest.mark.parametrize("key", SORT_KEYS)
@pytest.mark.parametrize("is_null", [False, True])
async def test_a_page_by_cursor_is_as_short_at_the_end_as_at_the_beginning(
    plans: Plans, key: str, is_descending: bool, is_null: bool
) -> None:
    column = SORT_KEYS[key]
    if is_null and not properties.LISTING.sort_keys[key].is_nullable:
        return
    direction = "asc" if is_descending else "desc"
    # The fortieth from the end of the values, or of the nulls.
    last = await plans.value(
        f"select {column}, id from properties where {column} is {'' if is_null else 'not'} null"
        f" order by {column} {direction}, id {direction} offset 39 limit 1"
    )
    page = PageRequest(LIMIT, ((key, is_descending),), after=tuple(last), include_total=False)
    rows, found = await plans.list(page)
    assert len(rows.items) == LIMIT
    check_stretches(found, key)


def check_stretches(found: list[dict[str, Any]], key: str) -> None:
    read = scans(found)
    assert {node["Node Type"] for node in read} <= {"Index Scan", "Index Only Scan"}
    assert {node["Index Name"] for node in read} == {f"properties_by_{key}"}
    for node in read:
        assert node["Actual Rows"] <= LIMIT + 1
        assert node.get("Rows Removed by Filter", 0) == 0
        assert "organization_id" in node["Index Cond"]
    # What is left to sort, where values and nulls are put together, is two pages at most.
    assert all(node["Actual Rows"] <= 2 * (LIMIT + 1) for node in found)


async def test_the_count_reads_no_other_organisations_rows(plans: Plans) -> None:
    rows, found = await plans.list(PageRequest(LIMIT, (("created_at", True),)))
    assert rows.total == ROWS
    assert all("organization_id" in node.get("Index Cond", "") for node in scans(found))


async def test_rare_words_come_out_of_the_search_index(plans: Plans) -> None:
    for search, number in (("lighthouse", 100), ("house light rar", 100), ("77777", 1), ("unicorn", 0)):
        page = PageRequest(100, (("created_at", True),))
        rows, found = await plans.list(page, search=search)
        assert (len(rows.items), rows.total) == (number, number)
        read = scans(found)
        assert not [node for node in read if node["Node Type"] == "Seq Scan"]
        looked_up = [node for node in read if node.get("Index Name") == "properties_search"]
        assert len(looked_up) == RUNS
        assert all("organization_id" in node["Index Cond"] for node in looked_up)
        listed = [node for node in read if node.get("Index Name") == "properties_pkey"]
        assert len(listed) >= (RUNS if number else 0)
        # A trigram of the word may be in some more rows, which are looked at and left out.
        assert max((node["Actual Rows"] * node["Actual Loops"] for node in read), default=0) <= ROWS / 100


async def test_of_many_hits_a_page_is_a_stretch_of_the_list_index(plans: Plans) -> None:
    """Also in a small organisation among large ones: the statistics say that ids and organisations go together."""
    of_small = replace(plans, organization_id=plans.organization_id + 2)
    # A generic plan takes ten hits for granted, whatever the statistics say.
    await plans.conn.execute("set plan_cache_mode = force_custom_plan")
    rows, found = await of_small.list(PageRequest(LIMIT, (("created_at", True),)), search="garden")
    await plans.conn.execute("reset plan_cache_mode")
    assert (len(rows.items), rows.total) == (LIMIT, SMALL / 8)
    listed = [node for node in scans(found) if "ANY" in node.get("Index Cond", "")]
    assert len(listed) == RUNS
    for node in listed:
        assert node["Plan Rows"] == pytest.approx(SMALL / 8, rel=0.2)
        assert node["Index Name"] == "properties_by_created_at"
        assert node["Actual Rows"] <= LIMIT + 1


@pytest.mark.parametrize("search", ["main", "place other", "ma", "st"])
async def test_common_and_short_words_filter_the_list_index(plans: Plans, search: str) -> None:
    page = PageRequest(LIMIT, (("price", False),), include_total=False)
    rows, found = await plans.list(page, search=search)
    assert len(rows.items) == LIMIT
    read = scans(found)
    assert not [node for node in read if node["Node Type"] == "Seq Scan"]
    listed = [node for node in read if node.get("Index Name") == "properties_by_price"]
    assert len(listed) >= RUNS
    assert max(node["Actual Rows"] + node.get("Rows Removed by Filter", 0) for node in listed) <= 2 * (LIMIT + 1)


async def test_near_reads_a_band_of_latitudes(plans: Plans) -> None:
    rows, found = await plans.list(PageRequest(LIMIT, (("distance", False),)), near=(10.0, -80.0, 50.0))
    assert rows.total is not None
    read = scans(found)
    assert {node["Index Name"] for node in read if "Index Name" in node} == {"properties_by_latitude"}
    # Of 180 degrees the band has less than one.
    assert max(node["Actual Rows"] + node.get("Rows Removed by Filter", 0) for node in read) < ROWS / 100


@pytest.mark.parametrize(
    ("list_of", "index"),
    [
        (properties.list_notes, "property_notes_by_property"),
        (properties.list_activities, "property_activities_by_property"),
        (properties.list_valuations, "property_valuations_by_date"),
        (properties.list_images, "property_images_by_property"),
    ],
)
async def test_sub_lists_are_read_by_their_property(plans: Plans, list_of: Any, index: str) -> None:
    property_id = (await plans.value("select id from properties where id % 20 = 0 limit 1"))[0]
    for _ in range(RUNS):
        await plans.conn.execute(begin_tenant(plans.organization_id, read_only=True))
        items, total = await list_of(plans.conn, property_id, 50, 0)
        await plans.conn.execute("COMMIT")
        assert len(items) == total == 3
    read = scans([node for plan in plans.found for node in nodes(plan["Plan"])])
    assert {node["Index Name"] for node in read if "Index Name" in node} == {index}
    assert max(node["Actual Rows"] for node in read) == 3
