"""A rolling restart of the servers and the worker under load, with a migration in between: nobody notices."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from api import served_api
from conftest import TestDatabase
from event_streams import make_settings

from reos.db import Database
from tools.load import rolling
from tools.load.service import serving

pytestmark = [pytest.mark.integration, pytest.mark.slow]


async def test_a_rolling_restart_under_load_fails_no_request(fresh_database: TestDatabase, tmp_path: Path) -> None:
    pool = await Database.connect(make_settings(fresh_database.dsn, tmp_path))
    constants = "reos.server:STARTED_SECONDS=2"
    try:
        with serving(
            fresh_database.dsn, fresh_database.owner_dsn, tmp_path, processes=2, workers=2, constants=constants
        ) as service:
            before = service.children()
            story = await rolling.run(service, pool, rate=100, clients=20, streams=10, after=1)
            assert not set(before) & set(service.children())
    finally:
        await pool.close()
    # How much else gets done meanwhile is for `make load` to judge: here other tests have the machine too.
    story.wanted_rate = story.rate
    assert story.misses() == []
    assert set(story.statuses) == {"GET 200", "POST 201", "PUT 200", "POST 204"}
    assert story.resets_asked > 0
    # Each stream was told by the server that it was at, and not again.
    assert sum(follower.told for follower in story.followers) <= 2 * len(story.followers)


async def test_a_statement_prepared_before_a_migration_runs_again_after_it(
    fresh_database: TestDatabase, tmp_path: Path
) -> None:
    """Also one whose result has another type since; every connection of the pool has prepared it."""
    async with served_api(fresh_database, tmp_path) as api:
        admin = await api.register()
        created = await admin.post("/properties", json=rolling.LISTING)
        path = f"/properties/{created['id']}"

        async def use_all_connections() -> None:
            await asyncio.gather(*(admin.get(path) for _ in range(50)), *(admin.get("/properties") for _ in range(50)))

        await use_all_connections()
        await admin.put(path, json={"price": "1.00"})
        await api.value("alter table properties alter column year_built type bigint")
        # No read comes between the migration and the change, which is undone once and made once.
        assert (await admin.put(path, json={"price": "2.00"}))["price"] == "2.00"
        await use_all_connections()
        assert [row["action"] for row in await api.audits(admin)].count("update") == 2
