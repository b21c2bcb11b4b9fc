"""`make load`, or PYTHONPATH=tests python -m tools.load [slow streams pool logins rolling].

The exit code is 1 when something was not as promised; what, is said with the figures.
"""

from __future__ import annotations

import argparse
import resource
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import uvloop
from running import home

from reos import embedded, migrate
from reos.db import Database
from reos.embedded import EmbeddedPostgres
from tools.load import logins, pool, rolling, slow, streams
from tools.load.service import Service, organisation, serving

SLOW_CLIENTS = 200  # of each of three kinds
WAITING = 2500  # more than may wait for a connection
LOGINS = 200  # right ones, and as many wrong ones
STREAMS, UNREAD_STREAMS = 2000, 200


class Result(Protocol):
    """What a run has shown."""

    def lines(self) -> list[str]:
        """What was measured."""

    def misses(self) -> list[str]:
        """What was not as promised."""


@dataclass(frozen=True)
class Broken:
    """A run that did not come to its end, which is no promise kept either."""

    error: Exception

    def lines(self) -> list[str]:
        return []

    def misses(self) -> list[str]:
        return [f"it did not come to its end: {self.error!r}"]


async def run_slow(service: Service, database: Database) -> list[Result]:
    account = await organisation(database, properties=2000, words=80)
    return [await slow.run(service, account.headers(service.settings), SLOW_CLIENTS, pause=1.0)]


async def run_streams(service: Service, database: Database) -> list[Result]:
    result = await streams.run(service, database, STREAMS, UNREAD_STREAMS, events=40)
    return [result, await streams.stop(service, database, STREAMS)]


async def run_pool(service: Service, database: Database) -> list[Result]:
    return [await pool.run(service, database, WAITING)]


async def run_logins(service: Service, database: Database) -> list[Result]:
    return [await logins.run(service, database, LOGINS)]


async def run_rolling(service: Service, database: Database) -> list[Result]:
    return [await rolling.run(service, database, rate=100, clients=20, streams=20, after=10)]


Run = Callable[[Service, Database], Awaitable[list[Result]]]
RUNS: dict[str, tuple[Run, dict[str, int]]] = {
    "slow": (run_slow, {"processes": 2}),
    "streams": (run_streams, {"processes": 2}),
    "pool": (run_pool, {}),
    "logins": (run_logins, {}),
    "rolling": (run_rolling, {"processes": 2, "workers": 2}),
    "logins-limited": (run_logins, {"RATE_LIMIT_PER_MINUTE": 60}),
}


async def measure(name: str, service: Service) -> list[Result]:
    database = await Database.connect(service.settings)
    try:
        return await RUNS[name][0](service, database)
    finally:
        await database.close()


def run(postgres: EmbeddedPostgres, directory: Path, name: str) -> Iterator[Result]:
    """Make a run on a service of its own, which must stop as it should as well."""
    directory = directory / name
    directory.mkdir()
    with serving(postgres.dsn, postgres.owner_dsn, directory, **RUNS[name][1]) as service:
        yield from uvloop.run(measure(name, service))
        if service.process.poll() is None:
            service.stop()


def run_all(names: Iterable[str], make: Callable[[str], Iterable[Result]]) -> int:
    """Make runs one after the other and tell of each; the exit code: 1 if something was not as promised."""
    code = 0
    for name in names:
        print(f"\n{name}", flush=True)
        results: list[Result] = []
        try:
            results.extend(make(name))
        except Exception as error:  # The other runs are made all the same.
            traceback.print_exception(error)
            results.append(Broken(error))
        if not tell(results):
            code = 1
    return code


def tell(results: Iterable[Result]) -> bool:
    """Print what was measured and what was missed; whether nothing was."""
    misses = []
    for result in results:
        misses += result.misses()
        for line in result.lines():
            print(f"  {line}", flush=True)
    for miss in misses:
        print(f"  MISSED: {miss}", flush=True)
    return not misses


def wanted_runs(arguments: Sequence[str]) -> list[str]:
    """The runs that the command line names; all without a name. Ends the program (2) for one that there is not."""
    parser = argparse.ArgumentParser(prog="make load", description="What the service does under load.")
    # Up to Python 3.11, no name at all is looked for among the choices as well.
    parser.add_argument("runs", nargs="*", choices=[[], *RUNS], metavar="run", help=", ".join(RUNS))
    return parser.parse_args(arguments).runs or list(RUNS)


def main() -> int:
    runs = wanted_runs(sys.argv[1:])
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with ExitStack() as stack:
        directory = stack.enter_context(home())
        postgres = stack.enter_context(embedded.start(directory / ".reos"))
        migrate.migrate(postgres.owner_dsn, embedded.SERVICE_LOGIN)
        return run_all(runs, partial(run, postgres, directory))


if __name__ == "__main__":
    sys.exit(main())
