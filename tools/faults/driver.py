"""What is done to the service: each kind of fault is a function; a seed says which comes when.

A new kind is one function with a line in KINDS. It says what it does in `fault.text`, sets `fault.has_struck` when it
has done it, and has undone it when it ends.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import asyncpg
from aiohttp import web
from mail_sink import MailSink
from webhook_receiver import Receiver, receiving

from tools.faults import load
from tools.faults.clients import Clients
from tools.faults.model import Fault, Model
from tools.faults.service import AWAY, Service, until_ready
from tools.faults.wire import Cut

HELD_WRITES = 40  # more than the connections of all pools
PATIENCE_SECONDS = 30.0  # for which a fault waits for something to strike at
LOSS_SECONDS = 1.0  # after a server's death for which its clients may still find out


@dataclass(eq=False)
class Scene:
    """All that faults are done to."""

    service: Service
    model: Model
    clients: Clients
    sink: MailSink
    receiver: Receiver
    open_sink: AsyncExitStack = field(default_factory=AsyncExitStack)
    open_receiver: AsyncExitStack = field(default_factory=AsyncExitStack)
    receivers_answer: Callable[[int], web.StreamResponse] = lambda _: web.Response(status=204)
    is_quick: bool = False

    async def open(self) -> None:
        """Open the mail server and the receiver of webhooks, on the ports that they had before."""
        await self.open_sink.enter_async_context(self.sink)
        await self.open_receiver.enter_async_context(receiving(self.receiver))
        self.receiver.answer = self.receivers_answer

    async def close(self) -> None:
        await self.open_sink.aclose()
        await self.open_receiver.aclose()


FaultKind = Callable[[Scene, random.Random, Fault], Awaitable[None]]


@dataclass(frozen=True)
class Planned:
    """A fault to come: when, what, and the seed of its own chances."""

    at: float
    kind: str
    seed: int


def plan(seed: int, seconds: float, kinds: list[str], pause: float) -> list[Planned]:
    """Faults over so many seconds, one in each `pause` on average: every kind once before one comes again."""
    dice = random.Random(seed)  # noqa: S311
    planned: list[Planned] = []
    bag: list[str] = []
    at = pause
    while at < seconds:
        if not bag:
            bag = dice.sample(kinds, len(kinds))
        planned.append(Planned(at, bag.pop(), dice.getrandbits(32)))
        at += pause * dice.uniform(0.3, 1.7)
    return planned


async def drive(scene: Scene, planned: list[Planned], say: Callable[[str], None]) -> None:
    """Carry out the plan. A fault that takes long does not hold up the next."""
    tasks = []
    for step in planned:
        await asyncio.sleep(max(0.0, step.at - scene.model.seconds))
        tasks.append(asyncio.create_task(_carry_out(scene, step, say)))
    for error in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(error, BaseException):
            raise error


async def _carry_out(scene: Scene, step: Planned, say: Callable[[str], None]) -> None:
    """One fault. While what it strikes at is not there (another fault has just ended it), it waits for it."""
    fault = Fault(step.kind, "", time.monotonic())
    scene.model.faults.append(fault)
    patience = fault.began + PATIENCE_SECONDS
    while not fault.has_struck and time.monotonic() < patience:
        fault.began = time.monotonic()
        try:
            await KINDS[step.kind](scene, random.Random(step.seed), fault)  # noqa: S311
        except AWAY as error:
            fault.text += f" (cut short: {type(error).__name__})"
        if not fault.has_struck:
            await asyncio.sleep(0.1)
    fault.ended = time.monotonic()
    say(f"{step.kind:<18} {fault.text if fault.has_struck else 'found nothing to strike at'}")


def _signal(pid: int, signum: int) -> bool:
    """Signal a process; whether it was still there."""
    with suppress(ProcessLookupError):
        os.kill(pid, signum)
        return True
    return False


def _signal_one(kind: str, pids: list[int], signum: int, dice: random.Random, fault: Fault) -> None:
    """Signal one of the processes, if there is any."""
    if pids:
        pid = dice.choice(pids)
        fault.text = f"{kind} {pid}"
        fault.has_struck = _signal(pid, signum)


# --- processes -------------------------------------------------------------------------------------------------


async def kill_server(scene: Scene, dice: random.Random, fault: Fault) -> None:
    """SIGKILL to a server process."""
    _signal_one("server process", scene.service.servers(), signal.SIGKILL, dice, fault)
    fault.loses_connections = fault.has_struck


async def stop_server(scene: Scene, dice: random.Random, fault: Fault) -> None:
    """SIGTERM to a server process: nobody may notice."""
    _signal_one("server process", scene.service.servers(), signal.SIGTERM, dice, fault)


async def freeze_server(scene: Scene, dice: random.Random, fault: Fault) -> None:
    """A server process that stands still for some seconds."""
    if pids := scene.service.servers():
        await _freeze(dice.choice(pids), dice.uniform(1, 5), fault)


async def kill_worker(scene: Scene, dice: random.Random, fault: Fault) -> None:
    """SIGKILL to a worker."""
    _signal_one("worker", scene.service.workers(), signal.SIGKILL, dice, fault)


async def stop_worker(scene: Scene, dice: random.Random, fault: Fault) -> None:
    """SIGTERM to a worker: its jobs go back into the queue."""
    _signal_one("worker", scene.service.workers(), signal.SIGTERM, dice, fault)


async def freeze_worker(scene: Scene, dice: random.Random, fault: Fault) -> None:
    """A worker that stands still, now and then for so long that it is taken for dead and then comes back."""
    if pids := scene.service.workers():
        is_long = not scene.is_quick and dice.random() < 0.4
        await _freeze(dice.choice(pids), dice.uniform(35, 50) if is_long else dice.uniform(1, 8), fault)


async def _freeze(pid: int, seconds: float, fault: Fault) -> None:
    fault.text = f"process {pid} for {seconds:.1f} s"
    try:
        if _signal(pid, signal.SIGSTOP):
            fault.has_struck = True
            await asyncio.sleep(seconds)
    finally:
        _signal(pid, signal.SIGCONT)


async def kill_everything(scene: Scene, dice: random.Random, fault: Fault) -> None:
    """SIGKILL to all processes at once, and a new start."""
    fault.has_struck = fault.loses_connections = True
    fault.text = "supervisor, servers, workers and Postgres"
    scene.service.kill_all()
    scene.service.launch()
    await until_ready(scene.service)


# --- Postgres --------------------------------------------------------------------------------------------------


async def kill_postgres(scene: Scene, dice: random.Random, fault: Fault) -> None:
    """SIGKILL to the process that all others of Postgres come from."""
    if pid := scene.service.postgres():
        fault.text = f"process {pid}"
        fault.has_struck = _signal(pid, signal.SIGKILL)


async def kill_backend(scene: Scene, dice: random.Random, fault: Fault) -> None:
    """SIGKILL to one connection's process, after which Postgres ends all others and recovers."""
    pid = await _some_backend(scene, dice)
    fault.text = f"process {pid}"
    fault.has_struck = _signal(pid, signal.SIGKILL)


async def freeze_backend(scene: Scene, dice: random.Random, fault: Fault) -> None:
    """A connection that stands still, with whatever it has locked."""
    await _freeze(await _some_backend(scene, dice), dice.uniform(0.5, 4), fault)


async def end_connections(scene: Scene, dice: random.Random, fault: Fault) -> None:
    """Some of the service's connections are ended, as an administrator does."""
    ended = await _query(
        scene,
        "select pg_terminate_backend(pid) from pg_stat_activity where usename = $1 order by state, random() limit $2",
        "reos_service",
        dice.randrange(1, 6),
    )
    fault.text = f"{len(ended)} connections"
    fault.has_struck = bool(ended)


async def end_listeners(scene: Scene, dice: random.Random, fault: Fault) -> None:
    """The connections are ended on which the service hears of events and jobs."""
    ended = await _query(
        scene,
        "select pg_terminate_backend(pid) from pg_stat_activity where usename = $1"
        " and (application_name = 'reos events' or query ~* '^listen')",
        "reos_service",
    )
    fault.text = f"{len(ended)} listening connections"
    fault.has_struck = bool(ended)


async def hold_locks(scene: Scene, dice: random.Random, fault: Fault) -> None:
    """Somebody locks what all writes of an organisation need, and so many of them come that the pools are full."""
    organization = dice.choice(scene.model.organizations)
    seconds = dice.uniform(2, 9)
    fault.text = f"organisation {organization.id} for {seconds:.1f} s"
    conn = await scene.service.connect()
    try:
        async with conn.transaction():
            await conn.fetch("select from event_counters where organization_id = $1 for update", organization.id)
            fault.has_struck = True
            users = [dice.choice(organization.users) for _ in range(HELD_WRITES)]
            writing = [asyncio.create_task(load.create_property(scene.clients, user)) for user in users]
            await asyncio.sleep(seconds)
    finally:
        conn.terminate()
    await asyncio.gather(*writing)


async def _some_backend(scene: Scene, dice: random.Random) -> int:
    rows = await _query(
        scene, "select pid from pg_stat_activity where usename = $1 order by state, pid", "reos_service"
    )
    if not rows:
        raise OSError("nobody is connected")
    return int(dice.choice(rows)["pid"])


async def _query(scene: Scene, statement: str, *values: Any) -> list[asyncpg.Record]:
    conn = await scene.service.connect()
    try:
        return list(await conn.fetch(statement, *values))
    finally:
        conn.terminate()


# --- clients and the outside -----------------------------------------------------------------------------------


async def cut_clients(scene: Scene, dice: random.Random, fault: Fault) -> None:
    """The next requests lose their connection: within the request, or while the answer is awaited."""
    number = dice.randrange(3, 10)
    for _ in range(number):
        is_early = dice.random() < 0.3
        scene.clients.cuts.append(Cut(dice.random() if is_early else None, dice.uniform(0, 0.05)))
    fault.text = f"{number} requests"
    fault.has_struck = True


async def crowd(scene: Scene, dice: random.Random, fault: Fault) -> None:
    """Many clients at once."""
    number = dice.randrange(100, 300)
    fault.text = f"{number} requests at once"
    fault.has_struck = True
    users = [user for organization in scene.model.organizations for user in organization.users]
    paths = ("/properties?page_size=20", "/leads?search=hop", "/analytics/dashboard", "/auth/me")
    await asyncio.gather(*(scene.clients.read(dice.choice(users), dice.choice(paths)) for _ in range(number)))


async def stop_mail(scene: Scene, dice: random.Random, fault: Fault) -> None:
    """The mail server is away."""
    seconds = dice.uniform(0.5, 6)
    fault.text = f"for {seconds:.1f} s"
    await scene.open_sink.aclose()
    fault.has_struck = True
    await asyncio.sleep(seconds)
    await scene.open_sink.enter_async_context(scene.sink)


async def cut_mail(scene: Scene, dice: random.Random, fault: Fault) -> None:
    """The mail server cuts its connections, with what has come in but is not answered."""
    seconds = dice.uniform(0.2, 1)
    fault.text = f"again and again for {seconds:.1f} s"
    scene.sink.hang_up_after_data = fault.has_struck = True
    await asyncio.sleep(seconds)
    scene.sink.hang_up()
    scene.sink.hang_up_after_data = False


async def stop_receiver(scene: Scene, dice: random.Random, fault: Fault) -> None:
    """Who receives webhooks is away."""
    seconds = dice.uniform(0.5, 6)
    fault.text = f"for {seconds:.1f} s"
    await scene.open_receiver.aclose()
    fault.has_struck = True
    await asyncio.sleep(seconds)
    await scene.open_receiver.enter_async_context(receiving(scene.receiver))


async def fail_receiver(scene: Scene, dice: random.Random, fault: Fault) -> None:
    """Who receives webhooks answers with errors."""
    seconds = dice.uniform(0.5, 6)
    fault.text = f"for {seconds:.1f} s"
    scene.receiver.answer = lambda _: web.Response(status=500)
    fault.has_struck = True
    await asyncio.sleep(seconds)
    scene.receiver.answer = scene.receivers_answer


KINDS: dict[str, FaultKind] = {
    kind.__name__.replace("_", "-"): kind
    for kind in (
        kill_server, stop_server, freeze_server, kill_worker, stop_worker, freeze_worker, kill_everything,
        kill_postgres, kill_backend, freeze_backend, end_connections, end_listeners, hold_locks,
        cut_clients, crowd, stop_mail, cut_mail, stop_receiver, fail_receiver,
    )
}  # fmt: skip
