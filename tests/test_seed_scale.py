"""`reos seed --scale`: as many rows as it says, such as the service could have written, the same at each run."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest
from api import Api, Client, served_api
from conftest import TestDatabase
from running import ROOT, environment

from reos import demo
from reos.schemas.deals import DealStage, DealType
from reos.schemas.leads import LeadSource, LeadStatus
from reos.schemas.properties import PropertyStatus, PropertyType
from reos.seed import scale
from reos.seed.scale import Scale

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SCALE = Scale(2, 600)
DEALS = 240  # of each organisation


@asynccontextmanager
async def served(database: TestDatabase, directory: Path) -> AsyncIterator[Api]:
    async with served_api(database, directory, db_owner_dsn=database.owner_dsn) as api:
        yield api


@pytest.fixture(scope="module")
async def scaled(database: TestDatabase, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    """A served database with two organisations of 600 properties each."""
    async with served(database, tmp_path_factory.mktemp("data")) as api:
        assert await scale.load(api.settings, SCALE)
        yield api


async def log_in(api: Api, email: str, password: str = demo.SCALE_PASSWORD) -> Client:
    answer = await api.anonymous.post("/auth/login", json={"email": email, "password": password}, status=200)
    return Client(api.http, {"Authorization": f"Bearer {answer['access_token']}"})


def tool(name: str, database: TestDatabase, directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program of `tools/` on a database."""
    dsns = {"DB_DSN": database.dsn, "DB_OWNER_DSN": database.owner_dsn, "DATA_DIR": directory}
    return subprocess.run(
        [sys.executable, str(ROOT / "tools" / name), *arguments],
        cwd=directory,
        env=environment(**dsns),
        capture_output=True,
        text=True,
        timeout=60,
    )


# --- what is there ---------------------------------------------------------------------------------------------


async def test_each_organisation_has_its_volume_and_an_admin(scaled: Api) -> None:
    for number, email in enumerate(SCALE.admins, 1):
        client = await log_in(scaled, email)
        me = await client.get("/auth/me")
        assert [role["name"] for role in me["roles"]] == ["Admin"]
        assert me["organization"]["slug"] == f"scale-2x600-{number}"
        for path, count in (("/properties", 600), ("/leads", 600), ("/deals", DEALS)):
            assert (await client.get(path))["total"] == count
        assert (await client.get("/users"))["total"] == 1 + demo.SCALE_AGENTS


async def test_everything_that_there_is_occurs_and_is_spread_over_the_year(scaled: Api) -> None:
    client = await log_in(scaled, SCALE.admins[1])
    properties = await client.get("/analytics/properties")
    leads = await client.get("/analytics/leads")
    deals = await client.get("/analytics/deals")
    for counts, every in (
        (properties["by_type"], PropertyType),
        (properties["by_status"], PropertyStatus),
        (leads["by_status"], LeadStatus),
        (leads["by_source"], LeadSource),
        (deals["by_stage"], DealStage),
        (deals["by_type"], DealType),
    ):
        assert set(counts) == set(get_args(every))
        assert all(counts.values()), counts
    assert properties["by_status"]["available"] > 300
    assert [item["city"] for item in properties["cities"][:3]] == ["Austin", "Denver", "San Antonio"]
    assert 400_000 < float(properties["avg_price"]) < 1_000_000
    assert 15 < leads["conversion_rate"] < 35
    assert 50 < deals["win_rate"] < 80
    revenue = (await client.get("/analytics/revenue"))["revenue_by_month"]
    assert sum(float(item["revenue"]) > 0 for item in revenue[-13:]) >= 12
    assert (await client.get("/analytics/dashboard"))["recent_activity_count"] > 5
    for table in ("properties", "leads"):
        months = f"select count(distinct date_trunc('month', created_at)) from {table} group by organization_id"
        assert [row["count"] >= 13 for row in await scaled.fetch(months)] == [True, True]


async def test_searches_and_filters_find_some_and_not_all(scaled: Api) -> None:
    client = await log_in(scaled, SCALE.admins[0])
    for path, filters in (
        ("/properties", {"search": "austin"}),
        ("/properties", {"search": "street denver"}),
        ("/properties", {"property_type": "condo", "max_price": 400_000}),
        ("/leads", {"search": "o'brien"}),
        ("/leads", {"min_score": 80}),
        ("/deals", {"search": "congress"}),
        ("/deals", {"stage": "closed_won"}),
    ):
        found = (await client.get(path, params=filters))["total"]
        assert 0 < found < (await client.get(path))["total"] / 2, (path, filters, found)


async def test_the_status_of_a_property_is_what_its_deal_made_it(scaled: Api) -> None:
    """As in tests/test_seed.py, for which one property at a time is looked at."""
    wrong = await scaled.fetch(
        "select p.id, p.status, d.stage from properties p left join deals d on d.organization_id = p.organization_id"
        "   and d.property_id = p.id and d.stage in ('contract', 'inspection', 'financing', 'closing', 'closed_won')"
        " where p.status_deal_id is distinct from d.id or p.updated_at < p.created_at or case"
        "   when d.id is null then p.status not in ('available', 'off_market')"
        "   when d.stage <> 'closed_won' then p.status <> 'under_contract'"
        "   else p.status <> case when d.deal_type in ('lease', 'rental') then 'rented' else 'sold' end end"
    )
    assert not wrong
    client = await log_in(scaled, SCALE.admins[0])
    deal = (await client.get("/deals", params={"stage": "closed_won"}))["items"][0]
    await client.patch(f"/deals/{deal['id']}", json={"stage": "negotiation"})
    assert (await client.get(f"/properties/{deal['property_id']}"))["status"] == "available"
    await client.patch(f"/deals/{deal['id']}", json={"stage": "closed_won"})


async def test_a_deal_has_come_to_its_stage_step_by_step(fresh_database: TestDatabase, tmp_path: Path) -> None:
    async with served(fresh_database, tmp_path) as api:
        await scale.load(api.settings, Scale(1, 300))
        deals = await api.fetch(
            "select d.*, array_agg(c.new_stage order by c.id) as stages, array_agg(c.old_stage order by c.id) as old,"
            " array_agg(c.changed_at order by c.id) as times, array_agg(c.duration_seconds order by c.id) as durations"
            " from deals d join deal_stage_changes c on c.organization_id = d.organization_id and c.deal_id = d.id"
            " group by d.organization_id, d.id"
        )
        assert len(deals) == 120
        for deal in deals:
            times = deal["times"]
            assert times == sorted(times)
            assert (times[0], times[-1]) == (deal["created_at"], deal["updated_at"])
            assert deal["stages"][-1] == deal["stage"]
            assert deal["old"] == [None, *deal["stages"][:-1]]
            lengths = [(later - earlier).total_seconds() for earlier, later in pairwise(times)]
            assert deal["durations"] == [None, *map(int, lengths)]
            assert deal["closed_at"] == (times[-1] if deal["stage"].startswith("closed") else None)
        for table in ("properties", "leads", "deals", "transactions", "lead_activities", "property_activities"):
            assert await api.value(f"select count(*) > 0 and max(created_at) <= now() from {table}"), table


async def test_leads_were_contacted_and_those_of_deals_are_converted(scaled: Api) -> None:
    wrong = await scaled.fetch(
        "select l.id from leads l where (l.status = 'converted') <> exists (select from deals d"
        "   where d.organization_id = l.organization_id and d.lead_id = l.id and d.created_at >= l.created_at)"
        " or (l.status = 'new') <> (l.last_contacted_at is null)"
        " or l.last_contacted_at is distinct from (select max(a.completed_at) from lead_activities a"
        "   where a.organization_id = l.organization_id and a.lead_id = l.id)"
        " or not exists (select from lead_activities a where a.organization_id = l.organization_id"
        "   and a.lead_id = l.id and a.activity_type = 'note' and a.created_at = l.created_at)"
    )
    assert not wrong


async def test_the_planner_knows_the_tables(scaled: Api) -> None:
    known = dict(await scaled.fetch("select relname, reltuples from pg_class where relname in ('properties', 'deals')"))
    assert known == {"properties": 1200, "deals": 2 * DEALS}


# --- again, at once, half ----------------------------------------------------------------------------------------


async def test_it_is_the_same_at_each_run_but_for_the_dates(
    make_database: Callable[[], TestDatabase], tmp_path: Path
) -> None:
    tables = (
        ("properties", "address, city, status, price, description, features, year_built", "address, city"),
        ("leads", "email, source, status, score, budget, phone", "organization_id, email"),
        ("deals", "stage, deal_type, value, commission_rate", "organization_id, id"),
        ("transactions", "transaction_type, amount", "organization_id, id"),
        ("users", "email, first_name, last_name", "email"),
    )
    prints = []
    for _ in range(2):
        async with served(make_database(), tmp_path) as api:
            assert await scale.load(api.settings, Scale(2, 50))
            prints.append(
                [
                    await api.value(f"select string_agg(concat_ws(',', {columns}), ';' order by {order}) from {table}")
                    for table, columns, order in tables
                ]
            )
            # One organisation is not the copy of another.
            prices = "select string_agg(price::text, ' ' order by id) as all from properties group by organization_id"
            assert await api.value(f"select count(distinct p.all) from ({prices}) p") == 2
    assert prints[0] == prints[1]


async def test_of_two_at_once_one_loads_and_other_sizes_stand_beside(
    fresh_database: TestDatabase, tmp_path: Path
) -> None:
    async with served(fresh_database, tmp_path) as api:
        done = await asyncio.gather(*(scale.load(api.settings, Scale(1, 20)) for _ in range(3)))
        assert sorted(done) == [False, False, True]
        assert await scale.load(api.settings, Scale(1, 1))
        assert await api.value("select array_agg(slug order by slug) from organizations") == [
            "scale-1x1-1",
            "scale-1x20-1",
        ]
        assert await api.value("select count(*) from properties") == 21
        assert await api.value("select count(*) from deals") == 8


async def test_one_that_fails_leaves_nothing(
    fresh_database: TestDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    async def fail(*_: Any, **__: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:  # The second organisation's.
            raise RuntimeError("told to fail")

    monkeypatch.setattr(scale.queries, "create_activities", fail)
    # Without a log-in of the owner, too: then Postgres looks after the tables by itself.
    async with served_api(fresh_database, tmp_path) as api:
        with pytest.raises(RuntimeError, match="told to fail"):
            await scale.load(api.settings, Scale(2, 10))
        assert await api.value("select count(*) from organizations") == 0
        monkeypatch.undo()
        assert await scale.load(api.settings, Scale(2, 10))


# --- the command line --------------------------------------------------------------------------------------------


async def test_the_programs_of_tools(fresh_database: TestDatabase, tmp_path: Path) -> None:
    def seed_data(*arguments: str) -> subprocess.CompletedProcess[str]:
        return tool("seed_data.py", fresh_database, tmp_path, *arguments)

    async with served(fresh_database, tmp_path) as api:
        assert seed_data().stdout.startswith("The demo data is loaded.\n")
        loaded, again = seed_data("--scale", "2x30"), seed_data("--scale", "2x30")
        for answer, said in ((loaded, "loaded"), (again, "there already")):
            first, *logins = answer.stdout.splitlines()
            assert (answer.returncode, first) == (0, f"The organisations of 2x30 are {said}.")
            assert len(logins) == 2
            for line in logins:
                email, password, _ = line.split()
                assert (await (await log_in(api, email, password)).get("/properties"))["total"] == 30
        _, email, password = demo.LOGINS[0]
        assert (await (await log_in(api, email, password)).get("/properties"))["total"] == len(demo.LISTINGS["acme"])
        assert await api.value("select count(*) from organizations") == 4

        made = tool("create_admin.py", fresh_database, tmp_path, "new@example.org", "Long-enough-1", "New Homes")
        assert made.stdout == "new@example.org is the Admin of the new organisation New Homes.\n"
        await log_in(api, "new@example.org", "Long-enough-1")
        refused = tool("create_admin.py", fresh_database, tmp_path, "new@example.org", "weak", "New Homes")
        assert (refused.returncode, refused.stderr[:12]) == (1, "The password")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("20", "'20' is not of the form ORGANISATIONSxPROPERTIES, as 20x5000 is"),
        ("-1x5", "expected one argument"),
        ("2 x 5", "'2 x 5' is not of the form"),
        ("0x5000", "'0x5000' is not between 1x1 and 1000x1000000"),
        ("2x1000001", "'2x1000001' is not between"),
        ("1001x1", "'1001x1' is not between"),
    ],
)
def test_what_is_no_scale_is_refused_in_a_sentence(
    text: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from reos.__main__ import main

    with pytest.raises(SystemExit) as stopped:
        main(["seed", "--scale", text])
    assert stopped.value.code == 2
    assert f"reos seed: error: argument --scale: {sentence}" in capsys.readouterr().err


def test_a_scale_is_read_in_either_case() -> None:
    assert scale.parse("20x5000") == scale.parse(" 20X5000 ") == scale.parse("20×5000") == Scale(20, 5000)
