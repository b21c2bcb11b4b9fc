"""Slow clients, two hundred of each kind at once, no free connection, and storms of log-ins: all others go on."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import TestDatabase
from event_streams import make_settings

from reos.db import Database
from tools.load import logins, pool, slow
from tools.load.service import POOL, Service, organisation, serving

pytestmark = [pytest.mark.integration, pytest.mark.slow]

CLIENTS = 200
LOGINS = 100  # right ones, and as many wrong ones
SECOND = 1.0  # what all others wait at most
TRIES = 3

DEADLINES = {"HEADER_SECONDS": 2.0, "BODY_SECONDS": 3.0, "TAKE_SECONDS": 4.0}
CHECK_SECONDS = 0.25
LATE = 4.0  # seconds that a cut may come late on a busy machine
DEADLINE_CONSTANTS = " ".join(f"reos.server:{name}={seconds}" for name, seconds in DEADLINES.items())

# MiB. A reader holds at most a page of an export, of which a client that sends slowly has nothing.
READER_MEMORY = 2.0
SENDER_MEMORY = 0.05
LOGIN_MEMORY = 2 * 19 + 40  # two hashes at a time, and the requests that wait for theirs


@pytest.fixture
async def database_pool(database: TestDatabase, tmp_path: Path) -> AsyncIterator[Database]:
    """What the tests themselves do in the database."""
    pool = await Database.connect(make_settings(database.dsn, tmp_path))
    yield pool
    await pool.close()


async def until_quick(
    run: Callable[[Service], Awaitable[Any]], start: Callable[[], Any], late: Callable[[Any], float] = lambda _: 0.0
) -> Any:
    """What a run on a service of its own shows; another one when somebody had to wait, since all may be slow for once.

    `late` says by how many seconds the last answer came too late. Fails when somebody had to wait each time.
    """
    for _ in range(TRIES):
        with start() as service:
            result = await run(service)
        if max(result.probe.slowest, late(result)) < SECOND:
            return result
    pytest.fail("\n".join(result.lines()))


async def test_slow_clients_are_cut_off_and_nobody_else_notices(
    database: TestDatabase, database_pool: Database, tmp_path: Path
) -> None:
    account = await organisation(database_pool, properties=200, words=150)
    constants = f"{DEADLINE_CONSTANTS} reos.server:DEADLINE_CHECK_SECONDS={CHECK_SECONDS}"
    result = await until_quick(
        lambda service: slow.run(service, account.headers(service.settings), CLIENTS, pause=0.25),
        lambda: serving(database.dsn, database.owner_dsn, tmp_path, constants=constants),
    )
    for answers, seconds in ((result.headers, DEADLINES["HEADER_SECONDS"]), (result.bodies, DEADLINES["BODY_SECONDS"])):
        assert {answer.status for answer in answers} == {408}
        assert {answer.error for answer in answers} == {"RequestTimeoutError"}
        assert seconds <= min(answer.seconds for answer in answers)
        assert max(answer.seconds for answer in answers) < seconds + CHECK_SECONDS + LATE
    assert DEADLINES["TAKE_SECONDS"] <= min(result.readers)
    assert max(result.readers) < DEADLINES["TAKE_SECONDS"] + 2 * CHECK_SECONDS + LATE
    assert all(set(statuses) == {200} for statuses in result.probe.statuses.values())
    before, most, after = result.memory
    assert most - before < CLIENTS * (READER_MEMORY + 2 * SENDER_MEMORY), result.lines()
    assert after <= most


async def test_a_pool_without_a_free_connection_refuses_in_time_and_recovers(
    database: TestDatabase, database_pool: Database, tmp_path: Path
) -> None:
    """Nobody outside the pool's limit waits at all, nobody in it for longer than its time, and /live is as before."""
    wait, places, number = 1.0, 200, 400
    constants = f"reos.db:ACQUIRE_TIMEOUT={wait} reos.db:MAX_WAITING={places}"
    result = await until_quick(
        lambda service: pool.run(service, database_pool, number),
        lambda: serving(database.dsn, database.owner_dsn, tmp_path, constants=constants),
        late=lambda result: max(result.recovered, max(answer.seconds for answer in result.refused) - wait),
    )
    assert Counter(answer.status for answer in result.refused) == {503: number - POOL}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in result.refused)
    assert all(answer.error == "DatabaseError" for answer in result.refused)
    # Some were refused at once, since all places were taken.
    assert min(answer.seconds for answer in result.refused) < wait / 2
    assert result.ready.status == 503
    assert {answer.status for answer in result.granted} == {200}
    assert set(result.probe.statuses["/live"]) == {200}


async def test_a_storm_of_log_ins_is_borne(database: TestDatabase, database_pool: Database, tmp_path: Path) -> None:
    """All are answered in their turn; passwords are hashed by two threads."""
    result = await until_quick(
        lambda service: logins.run(service, database_pool, LOGINS),
        lambda: serving(database.dsn, database.owner_dsn, tmp_path),
    )
    for answers, status in ((result.right, 200), (result.wrong, 401)):
        assert {answer.status for answer in answers} <= {status, 503}
        assert all("retry-after" in answer.headers for answer in answers if answer.status == 503)
        assert any(answer.status == status for answer in answers)
    assert result.threads[1] - result.threads[0] <= 2
    assert result.memory[1] - result.memory[0] < LOGIN_MEMORY, result.lines()


async def test_a_storm_of_log_ins_from_one_address_is_limited(
    database: TestDatabase, database_pool: Database, tmp_path: Path
) -> None:
    with serving(database.dsn, database.owner_dsn, tmp_path, RATE_LIMIT_PER_MINUTE=30) as service:
        result = await logins.run(service, database_pool, 100)
    answers = result.right + result.wrong
    refused = [answer for answer in answers if answer.status == 429]
    assert len(refused) == len(answers) - 30
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
