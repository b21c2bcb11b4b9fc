"""What a pooler and a second host cost and bring: one host without a pooler, one with it, and two, in turns.

    .venv/bin/python tools/bench/hosts.py --rounds 3 --seconds 4

Every host is a server process and a worker; they share Postgres, its replica, PgBouncer and an S3 server, all on this
machine, which also makes the load: so the figures tell what
coordination costs, not how far hosts of their own would go.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))  # The parts are those of test_two_hosts.py.

from crm import HOUSE
from hosts import Host, Hosts, hosts

LIMITS_OFF = {"RATE_LIMIT_PER_MINUTE": 0, "RATE_LIMIT_PER_HOUR": 0, "RATE_LIMIT_PER_DAY": 0}
PERSON = {"email": "bench@example.com", "password": "correct Horse 7", "first_name": "Ann", "last_name": "Lee"}


async def measure(hosts: list[Host], token: str, path: str, seconds: float, clients: int) -> float:
    """Requests a second that the hosts answer together."""
    end = time.monotonic() + seconds
    done = 0

    async def ask(http: httpx.AsyncClient) -> None:
        nonlocal done
        while time.monotonic() < end:
            response = await http.get(path, headers={"Authorization": f"Bearer {token}"})
            response.raise_for_status()
            done += 1

    opened = [httpx.AsyncClient(base_url=host.url, timeout=30) for host in hosts]
    try:
        await asyncio.gather(*(ask(http) for http, _ in zip(itertools.cycle(opened), range(clients), strict=False)))
    finally:
        for http in opened:
            await http.aclose()
    return done / seconds


async def prepare(host: Host) -> tuple[str, dict[str, str]]:
    """A token, and what is read: a name and a path for each."""
    async with httpx.AsyncClient(base_url=f"{host.url}/api/v1", timeout=30) as http:
        token: str = (await http.post("/auth/register", json=PERSON)).raise_for_status().json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        for _ in range(50):
            answer = await http.post("/properties", json=HOUSE, headers=headers)
        one: Any = answer.raise_for_status().json()
    return token, {
        "by id": f"/api/v1/properties/{one['id']}",
        "list of 20": "/api/v1/properties?page_size=20",
        "dashboard (replica)": "/api/v1/analytics/dashboard",
    }


def direct(pair: Hosts) -> Host:
    """A host that talks to Postgres itself."""
    directory = pair.hosts[0].directory.parent / "direct"
    directory.mkdir()
    own = {"DB_DSN": pair.cluster.dsn(pair.database), "DB_STATEMENT_CACHE_SIZE": 256}
    return Host(directory, {**pair.settings, **own})


async def compare(pair: Hosts, without: Host, options: argparse.Namespace) -> None:
    token, paths = await prepare(pair.hosts[0])
    targets = {"no pooler": [without], "pooler": pair.hosts[:1], "pooler, two hosts": pair.hosts}
    for name, path in paths.items():
        found: dict[str, list[float]] = {target: [] for target in targets}
        for _ in range(options.rounds):
            for target, running in targets.items():
                found[target].append(await measure(running, token, path, options.seconds, options.clients))
        base = statistics.median(found["no pooler"])
        for target, rates in found.items():
            rate = statistics.median(rates)
            print(f"{name:<20} {target:<18} {rate:7.0f} requests/s  {rate / base:5.0%}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--clients", type=int, default=16)
    options = parser.parse_args()
    with hosts(2, **LIMITS_OFF) as pair:
        without = direct(pair)
        try:
            without.start("serve")
            without.wait_ready()
            asyncio.run(compare(pair, without, options))
        finally:
            without.stop()


if __name__ == "__main__":
    main()
