"""The service against a bare handler and pgbench that run the same statements in the same kind of transaction."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
from event_streams import Account, open_session

from reos import embedded
from reos.db import Database, plain_transaction, prepare_connection, tenant_transaction
from reos.embedded import EmbeddedPostgres
from reos.seed.scale import Scale
from reos.settings import Settings
from tools.bench.clients import Target, load, measure, request_bytes
from tools.bench.recording import Recorder, Script, pgbench_script, recording
from tools.bench.servers import SCRIPTS, make_settings, server

PAGE = 20
DEEP = 200  # the page that a cursor leads to
GOAL = 0.8
# For so long the service counts the requests of each client singly that another process, here the recorder's, has
# counted for before.
WARM_SECONDS = 6.0
HOUSE = {
    "address": "12 Oak Street", "city": "Austin", "state": "TX", "zip_code": "78701", "property_type": "condo",
    "price": "500000.00", "description": "A place like any other. " * 10,
}  # fmt: skip


@dataclass
class Member:
    """An Admin of an organisation, and a property and a cursor of it."""

    headers: dict[str, str]
    property_id: int = 0
    cursor: str = ""


@dataclass
class Case:
    """A kind of request: what each organisation sends."""

    name: str
    method: str
    path: str  # with {property_id} and {cursor}
    goal: float | None = GOAL  # of the ratio to the bare handler
    organizations: int = 1000  # that take part, at most
    bodies: list[dict[str, Any]] = field(default_factory=list)  # one after the other


CASES = [
    Case("GET by id", "GET", "/properties/{property_id}"),
    Case(f"list of {PAGE}", "GET", f"/properties?page_size={PAGE}"),
    Case(
        "list, filters",
        "GET",
        f"/properties?property_type=condo&status=available&min_price=200000&sort=-price&page_size={PAGE}",
    ),
    Case(f"page {DEEP} by cursor", "GET", f"/properties?page_size={PAGE}&cursor={{cursor}}", organizations=4),
    Case("search", "GET", f"/properties?search=garden&page_size={PAGE}"),
    Case("statistics of leads", "GET", "/leads/stats"),
    Case("dashboard", "GET", "/analytics/dashboard"),
    Case("GET /auth/me", "GET", "/auth/me"),
    Case("PUT", "PUT", "/properties/{property_id}", bodies=[{"price": "1.00"}, {"price": "2.00"}]),
    Case("POST", "POST", "/properties", bodies=[HOUSE]),
    Case(
        "PUT, one organisation",
        "PUT",
        "/properties/{property_id}",
        goal=None,
        organizations=1,
        bodies=[{"price": "1.00"}, {"price": "2.00"}],
    ),
]


@dataclass
class Result:
    """A case with its two targets and what pgbench gets."""

    case: Case
    bare: Target
    service: Target
    pgbench: float  # transactions a second

    @property
    def ratio(self) -> float:
        return self.service.rate / self.bare.rate

    @property
    def is_reached(self) -> bool:
        return self.case.goal is None or self.ratio >= self.case.goal


async def members(settings: Settings, scale: Scale) -> list[Member]:
    """Somebody logged in of each organisation."""
    database = await Database.connect(settings)
    found = []
    try:
        for address in scale.admins:
            async with plain_transaction(database) as conn:
                row = await conn.fetchrow("select * from read_login($1, '', interval '0')", address)
            organization_id, user_id = row["organization_id"], row["user_id"]
            async with tenant_transaction(database, organization_id) as conn:
                account = Account(organization_id, user_id, await open_session(conn, organization_id, user_id))
                property_id = await conn.fetchval("select id from properties order by id offset 500 limit 1")
            found.append(Member(account.headers(settings), property_id))
    finally:
        await database.close()
    return found


async def find_cursors(recorder: Recorder, people: list[Member]) -> None:
    """Walk to the page before the deep one."""
    for person in people:
        for _ in range(DEEP - 1):
            path = f"/api/v1/properties?page_size={PAGE}&include_total=false&cursor={person.cursor}"
            answer = await recorder.http.get(path.removesuffix("&cursor="), headers=person.headers)
            person.cursor = answer.json()["next_cursor"]


def path_of(case: Case, person: Member) -> str:
    return "/api/v1" + case.path.format(property_id=person.property_id, cursor=person.cursor)


async def record(settings: Settings, cases: list[Case], people: list[Member]) -> dict[str, list[Script]]:
    """What the service runs for each case and organisation. A change has to change something, so bodies take turns."""
    scripts: dict[str, list[Script]] = {}
    async with recording(settings) as recorder:
        if any("{cursor}" in case.path for case in cases):
            await find_cursors(recorder, people[:4])
        for number, case in enumerate(cases):
            scripts[f"case-{number}"] = found = []
            for person in people[: case.organizations]:
                for body in case.bodies or [None]:
                    script, _ = await recorder.record(case.method, path_of(case, person), person.headers, body)
                found.append(script)
    return scripts


def targets_of(
    number: int, case: Case, people: list[Member], bare: tuple[int, int], service: tuple[int, int]
) -> tuple[Target, Target]:
    """What the clients send to the bare handler and to the service."""
    people = people[: case.organizations]
    bodies = [json.dumps(body).encode() for body in case.bodies] or [b""]
    of_bare = [
        [request_bytes(case.method, f"/case-{number}/{place}", person.headers, body) for body in bodies]
        for place, person in enumerate(people)
    ]
    of_service = [
        [request_bytes(case.method, path_of(case, person), person.headers, body) for body in bodies]
        for person in people
    ]
    return (
        Target(f"{case.name}, bare", bare[0], of_bare, bare[1]),
        Target(f"{case.name}, service", service[0], of_service, service[1]),
    )


# --- pgbench -----------------------------------------------------------------------------------------------------

_numbers = count(1)


async def write_pgbench(directory: Path, dsn: str, scripts: list[Script]) -> list[Path]:
    """A file for each organisation."""
    conn = await asyncpg.connect(dsn)
    paths = []
    try:
        await prepare_connection(conn)
        for script in scripts:
            await conn.execute(script.begin)
            path = directory / f"{next(_numbers)}.sql"
            path.write_text(await pgbench_script(conn, script))
            path.chmod(0o644)
            await conn.execute("ROLLBACK")
            paths.append(path)
    finally:
        await conn.close()
    return paths


def run_pgbench(postgres: EmbeddedPostgres, paths: list[Path], clients: int, seconds: float) -> float:
    """Transactions a second."""
    layout = postgres.layout
    command = ["pgbench", "-n", "-M", "prepared", "-c", str(clients), "-j", "2", "-T", str(max(1, round(seconds)))]
    command += [part for path in paths for part in ("-f", str(path))]
    command += ["-h", str(layout.socket), "-p", str(embedded.PORT), "-U", embedded.SERVICE_LOGIN, "reos"]
    process = embedded._popen(layout, command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    output, errors = process.communicate(timeout=seconds + 60)
    found = re.search(rb"tps = ([\d.]+)", output)
    if process.returncode != 0 or found is None:
        raise RuntimeError(f"pgbench: {errors.decode()[-1000:]}")
    return float(found[1])


# --- the run -----------------------------------------------------------------------------------------------------


async def compare(
    postgres: EmbeddedPostgres,
    directory: Path,
    scale: Scale,
    cases: list[Case],
    *,
    rounds: int,
    clients: int,
    seconds: float,
) -> list[Result]:
    """Measure all cases, the bare handler and the service in turns, pgbench between the cases."""
    settings = make_settings(postgres.dsn, directory, postgres.owner_dsn)
    people = await members(settings, scale)
    scripts = await record(settings, cases, people)
    (directory / SCRIPTS).write_bytes(pickle.dumps(scripts))
    results = []
    with ExitStack() as stack:
        bare = stack.enter_context(server("bare", postgres.dsn, directory))
        service = stack.enter_context(server("service", postgres.dsn, directory))
        await load(targets_of(0, cases[0], people, bare, service)[1], clients, WARM_SECONDS)
        for number, case in enumerate(cases):
            pair = targets_of(number, case, people, bare, service)
            await measure(list(pair), rounds, clients, seconds)
            paths = await write_pgbench(directory, postgres.dsn, scripts[f"case-{number}"])
            results.append(Result(case, *pair, run_pgbench(postgres, paths, clients, seconds)))
            print_result(results[-1])
    return results


def print_head() -> None:
    print(f"{'':34}{'requests/s':>11}{'p50 ms':>8}{'p99 ms':>8}{'CPU us':>8}{'of bare':>9}{'of pgbench':>12}")


def print_result(result: Result) -> None:
    for target, ratio in ((result.bare, ""), (result.service, f"{result.ratio:.0%}")):
        cpu = 1e6 * sum(target.cpu) / len(target.cpu)
        print(
            f"{target.name:34}{target.rate:11.0f}{target.quantile(50):8.2f}{target.quantile(99):8.2f}{cpu:8.0f}"
            f"{ratio:>9}{target.rate / result.pgbench:12.0%}",
            flush=True,
        )


def inner_ratios(results: list[Result]) -> list[tuple[str, float, float]]:
    """What must hold between cases of the service: a sentence, the ratio, and its limit."""
    of = {result.case.name: result.service for result in results}
    wanted = [
        (f"page {DEEP} by cursor", f"list of {PAGE}", 1.2),
        ("search", f"list of {PAGE}", 3.0),
    ]
    return [
        (f"time of '{slow}' to that of '{fast}'", of[fast].rate / of[slow].rate, limit)
        for slow, fast, limit in wanted
        if slow in of and fast in of
    ]
