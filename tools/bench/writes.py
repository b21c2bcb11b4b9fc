"""How many changes a second many clients get, as a ratio to few: PUT with 16, 64 and 256 connections in turn.

    make bench ARGS="--parts writes"
    PYTHONPATH=tests .venv/bin/python -m tools.bench.writes    # by itself: --rounds 20 --seconds 3

Each client changes a property of its own, in one of 20 organisations, over and over; each PUT is all that it is in
service: the lock, the audit row, the event, the notification. Waiting clients queue in the service and not on each
other's locks in Postgres, so that many get as much done as few.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import statistics
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import uvloop
from event_streams import register

from reos import embedded, migrate
from reos.db import Database, tenant_transaction
from reos.embedded import EmbeddedPostgres
from reos.settings import Settings
from tools.bench.clients import Client, request_bytes
from tools.bench.servers import make_settings, server

ORGANISATIONS = 20
CLIENTS = (16, 64, 256)
GOAL = 0.9

FILL = """
insert into properties (organization_id, address, city, state, zip_code, property_type, price, description)
select $1, n || ' Main St', 'Austin', 'TX', '78701', 'condo', n * 1000, repeat('A place like any other. ', 10)
from generate_series(1, $2::int) n returning id
"""


BODIES = (b'{"price": 0}', b'{"price": 1}')


@dataclass
class Change:
    """What a client changes, to and fro, and how long each time took."""

    port: int
    requests: list[bytes]
    times: list[float] = field(default_factory=list)


async def fill(settings: Settings, port: int) -> list[Change]:
    """Organisations with properties, and what to ask for: as many as there are clients, each in the next one."""
    database = await Database.connect(settings)
    each = -(-max(CLIENTS) // ORGANISATIONS)
    of_organisations = []
    try:
        for _ in range(ORGANISATIONS):
            account = await register(database)
            async with tenant_transaction(database, account.organization_id) as conn:
                ids = [row["id"] for row in await conn.fetch(FILL, account.organization_id, each)]
            headers = account.headers(settings)
            paths = [f"/api/v1/properties/{property_id}" for property_id in ids]
            of_organisations.append(
                [Change(port, [request_bytes("PUT", path, headers, body) for body in BODIES]) for path in paths]
            )
    finally:
        await database.close()
    return [change for turn in zip(*of_organisations, strict=True) for change in turn]


@dataclass(frozen=True)
class Round:
    """What so many clients got done."""

    rate: float  # changes a second
    cpu: float  # seconds of the server and of Postgres, a change
    times: list[float]


def cpu_seconds() -> float:
    """For how long all programs that this one has started have computed: the server, and Postgres with its own."""
    ticks, waiting = 0, [os.getpid()]
    while waiting:
        pid = waiting.pop()
        with suppress(FileNotFoundError):
            waiting += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
            if pid != os.getpid():
                ticks += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


async def load(changes: list[Change], seconds: float) -> Round:
    """Let so many clients work; what they get done in so long once each has had an answer."""
    loop = asyncio.get_running_loop()
    ends = [loop.create_future() for _ in changes]
    clients = []
    for change, ended in zip(changes, ends, strict=True):
        change.times.clear()
        client = Client(change.requests, change.times, float("inf"), ended)
        clients.append(client)
        await loop.create_connection(lambda client=client: client, "127.0.0.1", change.port)
    while not all(change.times for change in changes):
        await asyncio.sleep(0.01)
    for change in changes:
        change.times.clear()
    began, cpu = time.perf_counter(), cpu_seconds()
    await asyncio.sleep(seconds)
    took, cpu = time.perf_counter() - began, cpu_seconds() - cpu
    times = [each for change in changes for each in change.times]
    for client in clients:
        client.until = 0
    await asyncio.gather(*ends)
    return Round(len(times) / took, cpu / len(times), times)


async def measure(changes: list[Change], rounds: int, seconds: float) -> dict[int, list[Round]]:
    await load(changes[: CLIENTS[0]], 1)
    results: dict[int, list[Round]] = {number: [] for number in CLIENTS}
    for turn in range(rounds):
        for number in CLIENTS if turn % 2 == 0 else reversed(CLIENTS):
            results[number].append(await load(changes[:number], seconds))
    return results


def report(results: dict[int, list[Round]]) -> tuple[str, bool]:
    """Print the figures; what they say about the goal, and whether it was reached.

    What others do on the machine meets a whole round, so that the ratio is the median of the rounds'. Where all cores
    are busy, as they are here, the ratio of the time computed a change says the same with less noise.
    """
    few = min(CLIENTS)
    print(f"{'clients':>8}{'changes/s':>11}{'p50 ms':>9}{'p99 ms':>9}{'ratio':>8}{'CPU ms':>9}{'ratio':>8}")
    cost = {number: statistics.median(each.cpu for each in rounds) for number, rounds in results.items()}
    ratios = {}
    for number, rounds in results.items():
        times = [took for each in rounds for took in each.times]
        p50, p99 = (1000 * statistics.quantiles(times, n=100)[n] for n in (49, 98))
        pairs = zip(rounds, results[few], strict=True)
        ratios[number] = statistics.median(each.rate / other.rate for each, other in pairs)
        rate = statistics.mean(each.rate for each in rounds)
        print(
            f"{number:8}{rate:11.0f}{p50:9.1f}{p99:9.1f}{ratios[number]:8.0%}{1000 * cost[number]:9.2f}"
            f"{cost[few] / cost[number]:8.0%}"
        )
    many = ratios.pop(max(CLIENTS)) / max(ratios.values())
    return f"{max(CLIENTS)} clients get {many:.0%} of the best with fewer; goal {GOAL:.0%}", many >= GOAL


async def compare(postgres: EmbeddedPostgres, directory: Path, rounds: int, seconds: float) -> tuple[str, bool]:
    """Measure on a server of its own and report."""
    with server("service", postgres.dsn, directory) as (port, _):
        changes = await fill(make_settings(postgres.dsn, directory), port)
        return report(await measure(changes, rounds, seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each number of clients in each round")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="reos-bench-"))
    directory.chmod(0o755)  # The account that Postgres runs as for root has to reach its data.
    try:
        with embedded.start(directory) as postgres:
            migrate.migrate(postgres.owner_dsn, embedded.SERVICE_LOGIN)
            text, is_met = uvloop.run(compare(postgres, directory, options.rounds, options.seconds))
    finally:
        embedded.remove(directory)
        shutil.rmtree(directory)
    print(text)
    sys.exit(0 if is_met else "The goal was not met.")


if __name__ == "__main__":
    main()
