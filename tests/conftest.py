"""What tests share: one event loop, a throw-away PostgreSQL with a migrated database for each test module.

Tests are plain functions or plain `async def` functions; pytest-sanic runs the latter, and async fixtures, on `loop`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
import uvloop
from pytest_sanic.utils import TestServer
from sanic import Sanic
from skips import pytest_addoption, pytest_make_collect_report, pytest_runtest_makereport

from reos import embedded, migrate
from reos.embedded import SERVICE_LOGIN, EmbeddedPostgres

if TYPE_CHECKING:
    from api import Api

# Hooks of pytest, which finds them here.
__all__ = ["pytest_addoption", "pytest_make_collect_report", "pytest_runtest_makereport"]

# The oldest supported version, where Debian 12 installs it.
POSTGRES_15 = Path("/usr/lib/postgresql/15/bin")

Sanic.test_mode = True

# A script that starts the tests in its background has them ignore Ctrl-C, nohup the loss of the terminal, and all that
# they start with them; but what both do to the service is tested.
for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)


def pytest_xdist_auto_num_workers() -> int:
    """One more process than there are cores: many tests wait, for another process or for a time to pass."""
    return len(os.sched_getaffinity(0)) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that none of them is all that is left to do in the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


_loops: list[asyncio.AbstractEventLoop] = []


@pytest.fixture(scope="session")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """The event loop of all async tests and fixtures, the kind that the service runs on."""
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    yield loop
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    asyncio.set_event_loop(None)
    # It is not closed: uvloop waits in there, without a limit, until whatever some test has left lets go. It ends with
    # the process, and is kept until then.
    _loops.append(loop)


async def _start_server(self: TestServer) -> None:
    """Serve on a free port in the test's own loop. pytest-sanic's way knows only a Sanic of years ago."""
    self.server = await self.app.create_server(host=self.host, port=0, return_asyncio_server=True)
    await self.server.startup()
    await self.server.before_start()
    await self.server.start_serving()
    await self.server.after_start()
    self.port = self.server.server.sockets[0].getsockname()[1]
    self.is_running = True


async def _close(self: TestServer) -> None:
    if self.is_running and not self.closed:
        await self.server.before_stop()
        self.server.server.close()
        for connection in list(self.server.connections):
            connection.abort()
        await self.server.server.wait_closed()
        await self.server.after_stop()
        self.closed, self.is_running, self.port = True, False, None


TestServer.start_server = _start_server
TestServer.close = _close


@dataclass(frozen=True)
class Cluster:
    """A running PostgreSQL, and a template in it to which all migrations have been applied."""

    server: EmbeddedPostgres
    template: str = "reos_template"

    def dsn(self, database: str, login: str = SERVICE_LOGIN) -> str:
        return self.server.layout.dsn(login, database)

    def execute(self, statement: str) -> None:
        """Say something as superuser, outside a transaction."""
        with psycopg.connect(self.server.superuser_dsn, autocommit=True) as conn:
            conn.execute(statement)  # type: ignore[arg-type]

    def create(self, name: str, template: str = "template1") -> TestDatabase:
        # Copying files is faster here than writing what is in them to the log.
        copied = f'template "{template}" strategy file_copy'
        self.execute(f'create database "{name}" owner {embedded.OWNER_LOGIN} {copied}')
        return TestDatabase(
            name,
            dsn=self.dsn(name),
            owner_dsn=self.dsn(name, embedded.OWNER_LOGIN),
            superuser_dsn=self.dsn(name, "postgres"),
        )

    def drop(self, name: str) -> None:
        self.execute(f'drop database if exists "{name}" with (force)')

    @contextmanager
    def database(self, *, migrated: bool = True) -> Iterator[TestDatabase]:
        """A database of its own: a clone of the template, or an empty one."""
        name = f"test_{next(_numbers)}"
        database = self.create(name, self.template if migrated else "template1")
        if migrated:
            # Neither rights on a database nor a role's settings in it come with the template.
            migrate.migrate(database.owner_dsn, SERVICE_LOGIN)
        yield database
        self.drop(name)


@dataclass(frozen=True)
class TestDatabase:
    """A database and the ways into it: as the service, as the migrating owner, as superuser."""

    __test__ = False

    name: str
    dsn: str
    owner_dsn: str
    superuser_dsn: str


_numbers = count(1)


@contextmanager
def _cluster(binaries: Path | None = None) -> Iterator[Cluster]:
    # Not pytest's own directory for temporary files: the account that Postgres runs as for root cannot reach it.
    directory = Path(tempfile.mkdtemp(prefix="reos-test-"))
    directory.chmod(0o755)
    try:
        with embedded.start(directory, durable=False, binaries=binaries) as server:
            cluster = Cluster(server)
            template = cluster.create(cluster.template)
            migrate.migrate(template.owner_dsn, SERVICE_LOGIN)
            yield cluster
    finally:
        embedded.remove(directory)
        shutil.rmtree(directory)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Cluster]:
    """The embedded PostgreSQL of this test process."""
    with _cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def postgres_15() -> Iterator[Cluster]:
    """A PostgreSQL 15, the oldest supported; skips where the machine has none."""
    if not (POSTGRES_15 / "postgres").exists():
        pytest.skip(f"PostgreSQL 15 is not installed in {POSTGRES_15}")
    with _cluster(POSTGRES_15) as cluster:
        yield cluster


@pytest.fixture(scope="session", params=["postgres_server", "postgres_15"])
def every_postgres(request: pytest.FixtureRequest) -> Cluster:
    """Each supported PostgreSQL in turn."""
    cluster: Cluster = request.getfixturevalue(request.param)
    return cluster


@pytest.fixture(scope="module")
def database(postgres_server: Cluster) -> Iterator[TestDatabase]:
    """A migrated database for this test module alone."""
    with postgres_server.database() as database:
        yield database


@pytest.fixture(scope="module")
def dsn(database: TestDatabase) -> str:
    """The module's database, as the service."""
    return database.dsn


@pytest.fixture(scope="module")
def owner_dsn(database: TestDatabase) -> str:
    """The module's database, as the log-in that migrates (`set role reos_owner` to own it)."""
    return database.owner_dsn


@pytest.fixture
def fresh_database(postgres_server: Cluster) -> Iterator[TestDatabase]:
    """A migrated database for this one test."""
    with postgres_server.database() as database:
        yield database


@pytest.fixture
def make_database(postgres_server: Cluster) -> Iterator[Callable[[], TestDatabase]]:
    """A function that gives a new migrated database at each call."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(postgres_server.database())


@pytest.fixture(scope="module")
async def api(database: TestDatabase, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    """The served application on the module's database, without rate limits."""
    from api import served_api  # It needs this module.

    async with served_api(database, tmp_path_factory.mktemp("data")) as api:
        yield api
