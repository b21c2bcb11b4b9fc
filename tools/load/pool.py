"""No connection of the pool is free, because somebody outside holds a lock: who waits, for how long, and what then."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass

import asyncpg
from event_streams import until

from reos.db import ACQUIRE_TIMEOUT, Database
from tools.load.service import Service, organisation
from tools.load.wire import SECOND, Answer, Probe, ask, probing, quantiles, request

COMING = 50  # requests every 50 ms


@dataclass
class PoolRun:
    """What was answered while a table was locked, and afterwards."""

    refused: list[Answer]
    granted: list[Answer]  # those that held a connection when the lock was gone
    probe: Probe  # /live alone
    ready: Answer
    recovered: float  # seconds from the end of the lock until a GET was answered with 200
    memory: tuple[float, float]

    def lines(self) -> list[str]:
        statuses = Counter(answer.status for answer in self.refused)
        return [
            f"refused: {dict(statuses)} after {quantiles(answer.seconds for answer in self.refused)}",
            f"all of them with Retry-After: {all('retry-after' in answer.headers for answer in self.refused)}",
            f"/ready meanwhile: {self.ready.status} after {self.ready.seconds:.1f} s",
            f"granted when the lock was gone: {len(self.granted)}; the next GET {1000 * self.recovered:.0f} ms later",
            *self.probe.lines(),
            "memory before, with all waiting: " + ", ".join(f"{size:.0f} MiB" for size in self.memory),
        ]

    def misses(self) -> list[str]:
        """What breaks the promise that a full pool refuses plainly and in time, and recovers at once."""
        found = self.probe.misses()
        if {answer.status for answer in self.refused} != {503}:
            found.append(f"refused with {sorted({answer.status for answer in self.refused})}")
        if not all("retry-after" in answer.headers for answer in self.refused):
            found.append("refused without Retry-After")
        if (longest := max(answer.seconds for answer in self.refused)) >= ACQUIRE_TIMEOUT + SECOND:
            found.append(f"refused after {longest:.1f} s, the wait for a connection is {ACQUIRE_TIMEOUT:.0f} s")
        if {answer.status for answer in self.granted} - {200}:
            found.append(f"those that waited got {sorted({answer.status for answer in self.granted})}")
        if self.ready.status != 503:
            found.append(f"/ready was {self.ready.status} without a connection")
        if self.recovered >= SECOND:
            found.append(f"the next GET took {self.recovered:.1f} s")
        return found


async def run(service: Service, database: Database, number: int) -> PoolRun:
    """Lock the properties from outside, and ask for them so many times at once."""
    account = await organisation(database)
    get = request("GET", "/api/v1/properties?page_size=3", account.headers(service.settings))
    assert (await ask(service.port, get)).status == 200
    before = service.memory()
    holder = await asyncpg.connect(service.owner_dsn)
    try:
        await holder.execute("set role reos_owner; begin; lock table properties in access exclusive mode")
        with probing(service.port, {"/live": request("GET", "/live")}) as probe:
            asking = []
            for turn in range(number):
                asking.append(asyncio.create_task(ask(service.port, get)))
                if turn % COMING == 0:
                    await asyncio.sleep(0.05)
            await until(lambda: any(task.done() for task in asking), 30)
            waiting = service.memory()
            ready = await ask(service.port, request("GET", "/ready"))
            await until(lambda: sum(not task.done() for task in asking) <= service.settings.db_pool_max, 30)
            refused = [task.result() for task in asking if task.done()]
            await holder.execute("rollback")
            ended = time.monotonic()
            while (await ask(service.port, get)).status != 200:
                pass
            recovered = time.monotonic() - ended
            answers = await asyncio.gather(*asking)
    finally:
        await holder.close()
    granted = [answer for answer in answers if answer not in refused]
    return PoolRun(refused, granted, probe, ready, recovered, (before, waiting))
