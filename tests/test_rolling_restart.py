"""A rolling restart of the servers and the worker under load, with a migration in between: nobody notices."""

from __future__ import annotations

from pathlib import Path

import pytest
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
            fresh_database.dsn, fresh_database.owner_dsn, tmp_path, processes=2, workers=1, constants=constants
        ) as service:
            before = service.children()
            story = await rolling.run(service, pool, rate=100, clients=20, streams=10, after=1)
            assert not set(before) & set(service.children())
    finally:
        await pool.close()
    assert story.failures == []
    assert story.problems == []
    assert set(story.statuses) == {"GET 200", "POST 201", "PUT 200", "POST 204"}
    assert story.resets_asked > 0
    # Each stream was told by the server that it was at.
    assert all(follower.told >= 1 for follower in story.followers)
    assert sum(follower.told for follower in story.followers) <= 2 * len(story.followers)
