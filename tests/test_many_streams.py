"""Two thousand idle event streams, two hundred of which nobody reads: all others go on, and the memory is bounded."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import TestDatabase
from event_streams import make_settings

from reos import server
from reos.db import Database
from tools.load import streams
from tools.load.service import serving

pytestmark = [pytest.mark.integration, pytest.mark.slow]

STREAMS, UNREAD = 2000, 200
SECOND = 1.0
TRIES = 2
STREAM_MEMORY = 0.04  # MiB


@pytest.fixture
def _many_files() -> Iterator[None]:
    """A stream is an open file here too."""
    former = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (former[1], former[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, former)


@pytest.mark.usefixtures("_many_files")
async def test_two_thousand_streams(database: TestDatabase, tmp_path: Path) -> None:
    pool = await Database.connect(make_settings(database.dsn, tmp_path))
    try:
        constants = "reos.events:STALL_SECONDS=2 reos.events:WATCH_SECONDS=0.5"
        for _ in range(TRIES):
            with serving(database.dsn, database.owner_dsn, tmp_path, constants=constants) as service:
                result = await streams.run(service, pool, STREAMS, UNREAD, events=10)
                stopped = await streams.stop(service, pool, STREAMS)
            if result.probe.slowest < SECOND:
                break  # Else the whole machine may have been slow.
    finally:
        await pool.close()
    said = [*result.lines(), *stopped.lines()]
    # Each stream whose user may see the event has got it, and no other.
    assert len(result.reached) == STREAMS - UNREAD - 2 * int(STREAMS * streams.FOREIGN)
    assert result.wrongly_reached == 0
    assert result.cut_off == UNREAD
    assert result.kept == STREAMS - UNREAD
    assert result.probe.slowest < SECOND, said
    assert all(set(statuses) == {200} for statuses in result.probe.statuses.values())
    grown = {name: size - result.memory["before"] for name, size in result.memory.items()}
    assert max(grown.values()) < STREAMS * STREAM_MEMORY, said
    # What the closed streams had is there for the next ones.
    assert stopped.memory - result.memory["before"] < max(grown.values()) + 0.25 * STREAMS * STREAM_MEMORY, said
    assert stopped.seconds < server.STOP_SECONDS, said
    assert stopped.told == STREAMS
