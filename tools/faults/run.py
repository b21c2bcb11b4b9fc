"""A run from its beginning to its end: start, load and faults, quiet, a look at everything."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import asyncpg
from mail_sink import MailSink
from running import free_port
from webhook_receiver import Receiver

from tools.faults import load
from tools.faults.checks import Evidence, copy_tables, find_strays
from tools.faults.clients import Clients
from tools.faults.driver import KINDS, Scene, drive, plan
from tools.faults.followers import Follower, follow
from tools.faults.model import Model
from tools.faults.recipients import read_mails
from tools.faults.service import AWAY, Service, until_ready
from tools.faults.wire import Wire

STUCK_SECONDS = 60.0  # in which a job whose worker died runs again
# What also takes time before a job of a dead worker is found: each of these may come into its way.
IN_THE_WAY = {
    "kill-worker", "stop-worker", "freeze-worker", "kill-postgres", "kill-backend", "kill-everything", "freeze-backend",
    "hold-locks", "end-connections",
}  # fmt: skip
IN_THE_WAY_SECONDS = 10.0
QUIET_SECONDS = 180.0
MAIL_SECONDS = 0.15  # between a mail's arrival and the answer that it has arrived
PORTFOLIOS = 100  # that are looked at in the end


@dataclass(frozen=True)
class Options:
    """How a run goes."""

    seed: int
    seconds: float
    kinds: list[str] = field(default_factory=lambda: list(KINDS))
    fault_pause: float = 5.0  # seconds between two faults, on average
    organizations: int = 3
    clients: int = 5  # of each organisation
    pause: float = 0.15  # seconds between two actions of a client
    is_quick: bool = False  # nothing that takes long by itself: freezes past the rescue, waits for the rescue


async def run(options: Options, directory: Path, say: Callable[[str], None]) -> Evidence:
    """Carry out a run; what is left to do is to check its evidence."""
    model = Model()
    async with _scene(options, directory, model) as scene:

        def tell(text: str) -> None:
            say(f"{model.seconds:7.1f} s  {text}")

        followers = await _begin(scene, options)
        tell(f"{len(model.organizations)} organisations have settled in")
        stop_following = asyncio.Event()
        following = [asyncio.create_task(follow(scene.clients, each, stop_following)) for each in followers]
        watching = asyncio.create_task(_watch(scene, tell))
        working = _set_to_work(scene, options)
        began = model.seconds
        steps = plan(options.seed, options.seconds, options.kinds, options.fault_pause)
        steps = [replace(step, at=step.at + began) for step in steps]
        driving = asyncio.create_task(drive(scene, steps, tell))
        await asyncio.sleep(options.seconds)
        scene.clients.over.set()
        await driving
        tell("no more faults, no new work")
        await until_ready(scene.service)
        await _until_quiet(scene, options, tell)
        scene.clients.gives_up = True
        await _gather(working)
        tables, strays = await _look(scene)
        portfolios = await _read_portfolios(scene, tables)
        await _until_followed(followers, tables)
        stop_following.set()
        await _gather(following)
        assert not watching.done(), watching.exception()
        watching.cancel()
        hooks = list(scene.receiver.requests)
        return Evidence(model, tables, strays, list(scene.sink.mails), hooks, followers, portfolios)


class SlowSink(MailSink):
    """A mail server that has a mail for a moment before it says so, as real ones do: then nobody knows of it."""

    async def handle_DATA(self, *arguments: Any) -> str:
        answer = await super().handle_DATA(*arguments)
        await asyncio.sleep(MAIL_SECONDS)
        return answer


@asynccontextmanager
async def _scene(options: Options, directory: Path, model: Model) -> AsyncIterator[Scene]:
    """The service with its mail server and its receiver of webhooks, all running."""
    sink, receiver = SlowSink(), Receiver()
    settings = {
        "PORT": free_port(),
        "SMTP_HOST": "127.0.0.1",
        # So slow that campaigns take seconds, which is when they can be hit.
        "CAMPAIGN_MESSAGES_PER_SECOND": 20,
        "WEBHOOK_ALLOW_PRIVATE": "true",
        "WEBHOOK_MAX_ATTEMPTS": 12,
        "WEBHOOK_RETRY_SECONDS": "1,1,2,3,5",
        "LOG_FORMAT": "json",
        "PUBLIC_URL": "http://reos.example.com",
    }
    service = Service(directory, **settings)
    wire = Wire(f"http://127.0.0.1:{settings['PORT']}")
    clients = Clients(model, wire, random.Random(options.seed))  # noqa: S311
    scene = Scene(service, model, clients, sink, receiver, is_quick=options.is_quick)
    try:
        await scene.open()
        service.settings["SMTP_PORT"] = sink.port
        service.prepare()
        service.launch()
        await until_ready(service)
        yield scene
    finally:
        wire.close()
        service.end()
        await scene.close()


async def _begin(scene: Scene, options: Options) -> list[Follower]:
    hook = scene.receiver.url
    numbers = range(1, options.organizations + 1)
    organizations = await asyncio.gather(*(load.settle_in(scene.clients, number, hook) for number in numbers))
    return [Follower(user) for organization in organizations for user in organization.users]


def _set_to_work(scene: Scene, options: Options) -> list[asyncio.Task[None]]:
    clients = scene.clients
    work = []
    for organization in scene.model.organizations:
        users = organization.users
        work += [load.work(clients, users[number % len(users)], options.pause) for number in range(options.clients)]
        work += [load.send_campaigns(clients, organization, 4.0), load.suppress_somebody(clients, organization)]
        work += [load.come_and_go(clients, clients.dice.choice(users), 1.0)]
    work.append(read_mails(clients, scene.sink.mails))
    return [asyncio.create_task(each) for each in work]


async def _gather(tasks: list[asyncio.Task[None]]) -> None:
    for error in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(error, BaseException):
            raise error


# --- while it runs -----------------------------------------------------------------------------------------------


async def _watch(scene: Scene, tell: Callable[[str], None]) -> None:
    """Keep the second worker, look for jobs that nobody runs, and say now and then how it goes."""
    told: set[int] = set()
    said_at, said = time.monotonic(), Counter[str]()
    while True:
        await asyncio.sleep(1)
        scene.service.start_worker()
        if scene.service.has_died():
            scene.model.blame("processes", "the supervisor has ended, which nobody told it to")
            scene.service.is_up = False
        with suppress(*AWAY):
            await _look_for_stuck(scene, told)
        if time.monotonic() - said_at > 15:
            now = scene.model.statuses.copy()
            tell(f"-- {_in_short(now - said, time.monotonic() - said_at)}")
            said_at, said = time.monotonic(), now


def _in_short(statuses: Counter[str], seconds: float) -> str:
    return f"{sum(statuses.values()) / seconds:.0f} requests a second ({_listed(statuses)})"


async def _look_for_stuck(scene: Scene, told: set[int]) -> None:
    """Blame jobs that stand as running although their worker has been silent for longer than is promised."""
    now = time.monotonic()
    faults = [f for f in scene.model.faults if f.kind in IN_THE_WAY and now - f.began < 2 * STUCK_SECONDS]
    allowed = STUCK_SECONDS + IN_THE_WAY_SECONDS * len(faults)
    conn = await scene.service.connect()
    try:
        rows = await conn.fetch(
            "select j.id, j.task_name, extract(epoch from now() - w.last_heartbeat) as silent from procrastinate_jobs j"
            " join procrastinate_workers w on w.id = j.worker_id"
            " where j.status = 'doing' and w.last_heartbeat < now() - make_interval(secs => $1)",
            allowed,
        )
    finally:
        conn.terminate()
    for row in rows:
        if row["id"] not in told:
            told.add(row["id"])
            text = f"job {row['id']} ({row['task_name']}) is doing, its worker silent for {row['silent']:.0f} s"
            scene.model.blame("jobs", text)


# --- the quiet ---------------------------------------------------------------------------------------------------


async def _until_quiet(scene: Scene, options: Options, tell: Callable[[str], None]) -> None:
    """Wait until all writes are answered, the queue is empty, and campaigns and deliveries have come to their ends.

    Waits that only bide their time (the next try of a mail) are cut short.
    """
    until = time.monotonic() + QUIET_SECONDS
    left: Any = None
    while time.monotonic() < until:
        with suppress(*AWAY):
            conn = await scene.service.connect()
            try:
                await _hurry(conn, options)
                left = await _what_is_left(conn, scene.clients)
            finally:
                conn.terminate()
            if not any(left.values()):
                tell("all is quiet")
                return
        await asyncio.sleep(0.25)
    scene.model.blame("quiet", f"after {QUIET_SECONDS:.0f} s there is still {left}")


async def _hurry(conn: asyncpg.Connection, options: Options) -> None:
    await conn.execute(
        "update procrastinate_jobs set scheduled_at = null where status = 'todo' and scheduled_at > now()"
        " and args ->> 'organization_id' is not null"
    )
    await conn.execute(
        "update webhook_logs set next_attempt_at = now() where status = 'pending' and next_attempt_at > now()"
    )
    if options.is_quick:
        # Who has missed two heartbeats is dead; the rescue is to see it now and not in half a minute.
        await conn.execute(
            "update procrastinate_workers set last_heartbeat = now() - interval '1 minute'"
            " where last_heartbeat < now() - interval '11 seconds'"
        )
        await conn.execute(
            "update webhook_logs set next_attempt_at = now() where status = 'sending'"
            " and last_attempt_at < now() - interval '16 seconds' and next_attempt_at > now()"
        )


async def _what_is_left(conn: asyncpg.Connection, clients: Clients) -> dict[str, int]:
    row = await conn.fetchrow(
        "select (select count(*) from procrastinate_jobs where status in ('todo', 'doing')"
        "  and args ->> 'organization_id' is not null) as jobs,"
        " (select count(*) from webhook_logs where status in ('pending', 'sending')) as deliveries,"
        " (select count(*) from campaigns where status in ('scheduled', 'in_progress')) as campaigns"
    )
    return {"writes": clients.open, **row}


async def _look(scene: Scene) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    conn = await scene.service.connect()
    try:
        return await copy_tables(conn), await find_strays(conn)
    finally:
        await conn.close()


async def _read_portfolios(scene: Scene, tables: dict[str, list[dict[str, Any]]]) -> dict[int, dict[str, Any]]:
    """The newest portfolios as the API tells of them."""
    admins = {each.id: each.users[0] for each in scene.model.organizations}
    wanted = [row for row in tables["portfolios"] if row["deleted_at"] is None][-PORTFOLIOS:]
    found = {}
    for row in wanted:
        answer = await scene.clients.read(admins[row["organization_id"]], f"/portfolios/{row['id']}")
        if answer is None or answer.status != 200:
            scene.model.blame("reads", f"portfolio {row['id']} is there and was not answered when all was quiet")
        else:
            found[row["id"]] = answer.json()
    return found


async def _until_followed(followers: list[Follower], tables: dict[str, list[dict[str, Any]]]) -> None:
    """Wait until the readers have the last event that each may see, or long enough."""

    def is_behind(follower: Follower) -> bool:
        last = next(
            (
                event["id"]
                for event in reversed(tables["events"])
                if event["organization_id"] == follower.user.organization.id and follower.sees(event)
            ),
            0,
        )
        return (follower.last_id or 0) < last

    until = time.monotonic() + 30
    while any(map(is_behind, followers)) and time.monotonic() < until:
        await asyncio.sleep(0.1)


def summary(evidence: Evidence) -> list[str]:
    """The run in figures."""
    model, tables, followers = evidence.model, evidence.tables, evidence.followers
    writes = model.writes.values()
    kinds = Counter(fault.kind for fault in model.faults)
    recipients = Counter(row["status"] for row in tables["campaign_recipients"])
    conditional = [write for write in writes if write.if_match is not None]
    got, streams = sum(len(each.got) for each in followers), sum(each.connections for each in followers)
    again, given_up = sum(len(w.attempts) > 1 for w in writes), sum(w.status is None for w in writes)
    return [
        f"{len(model.faults)} faults: {_listed(kinds)}",
        f"{sum(model.statuses.values())} requests: {_listed(model.statuses)}",
        f"{len(writes)} writes, {sum(w.is_done for w in writes)} done, {again} sent again, {given_up} given up",
        f"{len(conditional)} writes with If-Match, {sum(w.status == 412 for w in conditional)} of them refused",
        f"{len(tables['events'])} events; {len(followers)} readers got {got} over {streams} streams",
        f"{len(tables['campaigns'])} campaigns, recipients: {_listed(recipients)}; {len(evidence.mails)} mails",
        f"{len(model.reactions)} mails were opened, clicked or unsubscribed from at once",
        f"{len(tables['procrastinate_jobs'])} jobs, {len(tables['job_runs'])} runs",
        f"{len(tables['webhook_logs'])} deliveries in {len(evidence.hooks)} requests",
        f"{len(model.families)} sessions came and went",
    ]


def _listed(numbers: Counter[str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in sorted(numbers.items()))
