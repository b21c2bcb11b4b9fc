"""DB_REPLICA_DSN, with a real streaming replica: what it serves, and that the primary alone says who may ask."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from api import Api, served_api
from conftest import Cluster, TestDatabase
from crm import add_lead
from event_streams import change, until
from replica import Replica

import reos.app  # noqa: F401  It fills the registry of endpoints.
from reos import doctor, embedded, migrate
from reos.embedded import SERVICE_LOGIN
from reos.middleware.endpoint import ENDPOINTS, PREFIX

pytestmark = [pytest.mark.integration, pytest.mark.slow]

READS = [
    "/analytics/dashboard",
    "/analytics/properties",
    "/analytics/leads",
    "/analytics/deals",
    "/analytics/campaigns",
    "/analytics/revenue",
    "/leads/stats",
    "/deals/stats",
    "/portfolios/stats",
    "/campaigns/stats",
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A primary of its own, because the copy is one of everything in it."""
    directory = Path(tempfile.mkdtemp(prefix="reos-test-"))
    directory.chmod(0o755)
    try:
        with embedded.start(directory, durable=False) as server:
            yield Cluster(server)
    finally:
        embedded.remove(directory)
        shutil.rmtree(directory)


@pytest.fixture(scope="module")
def database(cluster: Cluster) -> TestDatabase:
    database = cluster.create("replicated")
    migrate.migrate(database.owner_dsn, SERVICE_LOGIN)
    return database


@pytest.fixture(scope="module")
async def replica(cluster: Cluster, database: TestDatabase) -> AsyncIterator[Replica]:
    replica = Replica(cluster.server)
    replica.copy()
    replica.start()
    await until(replica.is_ready, 30)
    yield replica
    replica.kill()


@pytest.fixture
async def api(replica: Replica, database: TestDatabase, tmp_path: Path) -> AsyncIterator[Api]:
    dsn = replica.dsn(SERVICE_LOGIN, database.name)
    async with served_api(database, tmp_path, db_replica_dsn=dsn) as api:
        yield api


@asynccontextmanager
async def falling_behind(replica: Replica) -> AsyncIterator[None]:
    """The replica does not learn of anything that happens meanwhile."""
    replica.ask("select pg_wal_replay_pause()")
    await until(lambda: replica.ask("select pg_get_wal_replay_pause_state()") == "paused")
    try:
        yield
    finally:
        replica.ask("select pg_wal_replay_resume()")


def test_analytics_and_statistics_are_what_the_replica_serves() -> None:
    served = {endpoint.path.removeprefix(PREFIX) for endpoint in ENDPOINTS if endpoint.reads_replica}
    assert served == set(READS)
    assert served >= {
        path
        for endpoint in ENDPOINTS
        if (path := endpoint.path.removeprefix(PREFIX)).startswith("/analytics/") or path.endswith("/stats")
        # An export leaves an audit row, which only the primary can take.
        if not endpoint.writes_on_get
    }


async def test_numbers_come_from_the_replica_and_all_else_from_the_primary(api: Api, replica: Replica) -> None:
    admin = await api.register()
    await add_lead(admin)

    async def totals() -> list[int]:
        answers = [await admin.get(path) for path in ("/analytics/leads", "/leads/stats", "/analytics/dashboard")]
        return [answer["total_leads"] for answer in answers]

    async def has_followed(number: int) -> bool:
        return await totals() == [number] * 3

    await until(lambda: has_followed(1))
    async with falling_behind(replica):
        await add_lead(admin)
        assert (await admin.get("/leads"))["total"] == 2
        assert await totals() == [1, 1, 1]
        assert (await admin.request("GET", "/leads/export")).text.count("\r\n") == 3
    await until(lambda: has_followed(2))


async def test_every_number_that_it_serves_is_one_that_it_can_compute(api: Api) -> None:
    admin = await api.register()
    for path in READS:
        response = await admin.request("GET", path)
        assert response.status_code == 200, (path, response.text)
        again = await admin.request("GET", path, headers={"If-None-Match": response.headers["ETag"]})
        assert again.status_code == 304


async def test_the_primary_alone_says_who_may_ask(api: Api, replica: Replica) -> None:
    admin = await api.register()
    agent = await api.add_user(admin, "Agent")
    assert agent.account is not None
    await agent.get("/analytics/leads")
    error = await agent.error("GET", "/analytics/leads?start_date=x", status=422)
    assert error["type"] == "ValidationError"
    async with falling_behind(replica):
        await change(api.database, agent.account, "delete from user_roles where user_id = $1", agent.user_id)
        for path in READS:
            await agent.error("GET", f"{path}?nonsense=1", status=403)
        await change(api.database, agent.account, "update sessions set revoked_at = now() where id = $1",
                     agent.account.session_id)  # fmt: skip
        for path in READS:
            await agent.error("GET", f"{path}?nonsense=1", status=401)
        assert [row["action"] for row in await api.audits(admin)] == ["denied"] * len(READS)


async def test_the_doctor_sees_whether_it_follows(api: Api, replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    async def says(text: str) -> bool:
        found = await asyncio.to_thread(lambda: [finding.text for finding in doctor.examine(api.settings)])
        return any(text in line for line in found)

    await until(lambda: says("The replica follows."))
    monkeypatch.setattr(doctor, "REPLICA_SECONDS", 0.0)
    async with falling_behind(replica):
        await add_lead(await api.register())
        await until(lambda: says("The replica lags "))


async def test_while_it_is_away_only_what_it_serves_is_refused(
    api: Api, replica: Replica, database: TestDatabase, tmp_path: Path
) -> None:
    admin = await api.register()
    await admin.get("/analytics/dashboard")
    replica.kill()
    for path in READS:
        response = await admin.request("GET", path)
        assert response.status_code == 503, (path, response.text)
        assert response.json()["error"]["type"] == "DatabaseError"
        assert response.headers["Retry-After"]
    assert (await admin.get("/leads"))["total"] == 0
    # A service that starts now does so, and serves all else.
    async with served_api(database, tmp_path / "other", db_replica_dsn=api.settings.db_replica_dsn) as other:
        await (await other.register()).get("/leads")
        replica.start()
        await until(replica.is_ready, 30)
        other_admin = await other.register()

        async def is_there() -> bool:
            return (await other_admin.request("GET", "/analytics/dashboard")).status_code == 200

        await until(is_there)
    for path in READS:
        await admin.get(path)
