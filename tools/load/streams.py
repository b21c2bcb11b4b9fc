"""Thousands of event streams, some of which nobody reads: who pays for them, and how fast an event reaches all."""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import dataclass
from typing import Any

from event_streams import until

from reos.db import Database
from tools.load.service import Account, Service, add_user, kernel_memory, organisation
from tools.load.wire import Probe, ask, probing, quantiles, request, usual

STREAMS_OF_USER = 50
MARK = b'"type":"property.created"'
OPENING = 100  # at a time
GRACE_SECONDS = 15.0  # until all is gone after SIGTERM
FOREIGN = 0.05  # the part of the streams that are another organisation's, and as many of users who may not read


class Listener(asyncio.Protocol):
    """One stream: what it got, and when it saw an event."""

    def __init__(self, data: bytes):
        self.data = data
        self.is_open = asyncio.Event()
        self.text = b""  # until then
        self.rest = b""
        self.events = 0
        self.seen_at = 0.0  # when the first came
        self.was_told = False  # to connect again
        self.is_lost = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(self.data)

    def data_received(self, data: bytes) -> None:
        # A mark may come in two pieces.
        joined = self.rest + data
        self.rest = joined[1 - len(MARK) :]
        self.events += joined.count(MARK)
        if self.events and not self.seen_at:
            self.seen_at = time.monotonic()
        if not self.is_open.is_set():
            self.text += data
            if b'"connected"' in self.text:
                self.is_open.set()
        self.was_told = self.was_told or b"\nretry: " in joined

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self.is_open.set()


@dataclass
class StreamRun:
    """What so many streams cost, and what all others met meanwhile."""

    opened: int
    seeing: int  # of those that read: how many must get an event
    opening_seconds: float
    reached: list[float]  # after how many seconds from the request an event reached each stream that may see it
    wrongly_reached: int
    answered: float  # seconds until the request itself was answered
    cut_off: int  # of those that do not read, after more events than fit into their connection
    kept: int  # of those that do
    probe: Probe
    memory: dict[str, float]
    kernel: dict[str, float]

    def lines(self) -> list[str]:
        return [
            f"{self.opened} streams opened in {self.opening_seconds:.1f} s",
            f"an event reached {len(self.reached)} after {quantiles(self.reached)}",
            f"(the request itself took {1000 * self.answered:.0f} ms); {self.wrongly_reached} saw it that must not",
            f"{self.cut_off} that read nothing were cut off, {self.kept} others kept",
            *self.probe.lines(),
            "memory: " + ", ".join(f"{name} {size:.0f} MiB" for name, size in self.memory.items()),
            "of the kernel: " + ", ".join(f"{name} {size:.0f} MiB" for name, size in self.kernel.items()),
        ]

    def misses(self) -> list[str]:
        """What breaks the promise that each stream gets what its user may see, and who does not read hurts nobody."""
        found = self.probe.misses()
        if len(self.reached) != self.seeing:
            found.append(f"an event reached {len(self.reached)} of {self.seeing} streams")
        if self.wrongly_reached:
            found.append(f"{self.wrongly_reached} saw what they must not")
        if self.cut_off + self.kept != self.opened:
            found.append(f"{self.opened - self.cut_off - self.kept} streams were lost that were read")
        return found


async def open_streams(port: int, tokens: list[dict[str, str]], *, reads: bool = True) -> list[Listener]:
    """A stream for each; fails when one is refused."""
    loop = asyncio.get_running_loop()
    opening = asyncio.Semaphore(OPENING)

    async def open_one(headers: dict[str, str]) -> Listener:
        async with opening:
            sock = socket.socket()
            if not reads:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            sock.setblocking(False)
            await loop.sock_connect(sock, ("127.0.0.1", port))
            listener = Listener(request("GET", "/api/v1/sse/stream", headers, close=False))
            await loop.create_connection(lambda: listener, sock=sock)
            async with asyncio.timeout(60):
                await listener.is_open.wait()
        assert not listener.is_lost, listener.text
        if not reads:
            listener.transport.pause_reading()
        return listener

    return await asyncio.gather(*map(open_one, tokens))


async def run(service: Service, database: Database, number: int, unread: int, events: int) -> StreamRun:
    """Open the streams, publish, publish `events` more than the unread can hold, and close them all."""
    account = await organisation(database)
    foreign = await organisation(database)
    auth = account.headers(service.settings)
    few = int(number * FOREIGN)
    seeing = await tokens_of(service, database, account, "Agent", number - 2 * few)
    blind = await tokens_of(service, database, account, None, few)
    others = await tokens_of(service, database, foreign, "Admin", few)
    memory, kernel = {"before": service.memory()}, {"before": kernel_memory()}
    began = time.monotonic()
    silent = await open_streams(service.port, seeing[:unread], reads=False)
    readers = await open_streams(service.port, seeing[unread:])
    unseeing = await open_streams(service.port, blind + others)
    opening_seconds = time.monotonic() - began
    memory["open"], kernel["open"] = service.memory(), kernel_memory()
    with probing(service.port, usual(auth)) as probe:
        asked_at = time.monotonic()
        answer = await ask(service.port, creation(auth, "first"))
        assert answer.status == 201, answer
        await until(lambda: all(listener.events for listener in readers), 30)
        reached = [listener.seen_at - asked_at for listener in readers]
        for turn in range(events):
            assert (await ask(service.port, creation(auth, f"{turn} " + "x" * 2000))).status == 201
        await until(lambda: all(listener.events == events + 1 for listener in readers), 60)
        if events:
            await _wait_cut_off(service, unread)
        memory["after events"], kernel["after events"] = service.memory(), kernel_memory()
        kept = sum(not listener.is_lost for listener in readers + unseeing)
        for listener in silent + readers + unseeing:
            listener.transport.abort()
        await until(lambda: _is_count(service, auth, 0), 30)
        memory["closed"], kernel["closed"] = service.memory(), kernel_memory()
    wrongly_reached = sum(bool(listener.events) for listener in unseeing)
    return StreamRun(
        number, len(readers), opening_seconds, reached, wrongly_reached, answer.seconds,
        unread if events else 0, kept, probe, memory, kernel,
    )  # fmt: skip


async def tokens_of(
    service: Service, database: Database, account: Account, role: str | None, number: int
) -> list[dict[str, str]]:
    """So many Authorization headers, of as few users as may open that many streams."""
    users = [await add_user(database, account, role) for _ in range(-(-number // STREAMS_OF_USER))]
    return [users[turn % len(users)].headers(service.settings) for turn in range(number)]


def creation(auth: dict[str, str], description: str) -> bytes:
    listing = {"address": "1 Main St", "city": "Austin", "state": "TX", "zip_code": "78701", "property_type": "condo"}
    return request("POST", "/api/v1/properties", auth, listing | {"description": description})


async def _wait_cut_off(service: Service, number: int) -> None:
    """Wait until the service has let go of the streams that nobody reads."""
    await until(lambda: service.said().count("cut: its client takes nothing") >= number, 60)


async def _is_count(service: Service, auth: dict[str, str], number: int) -> bool:
    answer = await ask(service.port, request("GET", "/api/v1/sse/status", auth))
    return f'"active_connections":{number},'.encode() in answer.body


@dataclass(frozen=True)
class Stop:
    """How the service stopped with so many streams open."""

    opened: int
    memory: float  # MiB, before
    seconds: float
    told: int  # how many streams were told to connect again

    def lines(self) -> list[str]:
        return [
            (
                f"with {self.opened} open again ({self.memory:.0f} MiB) it stopped in {self.seconds:.1f} s;"
                f" {self.told} were told to connect again"
            )
        ]

    def misses(self) -> list[str]:
        """What breaks the promise that each stream is told to come again, and the service is gone in time."""
        found = []
        if self.told != self.opened:
            found.append(f"{self.opened - self.told} streams ended without a word")
        if self.seconds >= GRACE_SECONDS:
            found.append(f"the stop took {self.seconds:.1f} s")
        return found


async def stop(service: Service, database: Database, number: int) -> Stop:
    """Open streams and stop the service."""
    account = await organisation(database)
    listeners = await open_streams(service.port, await tokens_of(service, database, account, "Agent", number))
    memory = service.memory()
    seconds = await asyncio.to_thread(service.stop)
    await until(lambda: all(listener.is_lost for listener in listeners))
    return Stop(number, memory, seconds, sum(listener.was_told for listener in listeners))
