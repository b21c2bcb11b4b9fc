"""Clients that ask again as soon as they have their answer, and what they measure."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Target:
    """What is asked for, and how long the answers took, in seconds.

    `requests` holds what each client sends, one after the other and again: the first client the first of them.
    """

    name: str
    port: int
    requests: list[list[bytes]]
    pid: int = 0  # of the server, whose processor time is kept
    times: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)  # requests a second, of each round
    cpu: list[float] = field(default_factory=list)  # seconds of the processor a request, of each round

    @property
    def rate(self) -> float:
        return statistics.mean(self.rates)

    def quantile(self, part: int) -> float:
        """Milliseconds within which so many of a hundred answers came."""
        return 1000 * statistics.quantiles(self.times, n=100)[part - 1]


class Client(asyncio.Protocol):
    """A connection that asks again as soon as it has its answer."""

    def __init__(self, requests: list[bytes], times: list[float], until: float, ended: asyncio.Future[None]):
        self.requests, self.times, self.until, self.ended = cycle(requests), times, until, ended
        self.buffer = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        self.asked_at = time.perf_counter()
        self.transport.write(next(self.requests))

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.buffer[:end].lower()
        _, found, length = head.partition(b"content-length: ")
        if not found or not head.startswith(b"http/1.1 20"):
            self.fail(self.buffer)
            return
        if len(self.buffer) < end + 4 + int(length.partition(b"\r")[0]):
            return
        self.buffer = b""
        now = time.perf_counter()
        self.times.append(now - self.asked_at)
        if now < self.until:
            self.ask()
        else:
            self.transport.close()

    def fail(self, answer: bytes) -> None:
        self.transport.close()
        if not self.ended.done():
            self.ended.set_exception(RuntimeError(f"not an answer to measure: {answer[:500]!r}"))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


def request_bytes(method: str, path: str, headers: dict[str, str], body: bytes = b"") -> bytes:
    lines = {"Host": "bench", **headers}
    if body:
        lines |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body


async def load(target: Target, clients: int, seconds: float) -> None:
    """Ask for the target with so many clients for so long."""
    loop = asyncio.get_running_loop()
    before, began, cpu = len(target.times), time.perf_counter(), cpu_seconds(target.pid)
    ends: list[asyncio.Future[None]] = [loop.create_future() for _ in range(clients)]
    for number, ended in enumerate(ends):
        client = Client(target.requests[number % len(target.requests)], target.times, began + seconds, ended)
        await loop.create_connection(lambda client=client: client, "127.0.0.1", target.port)
    await asyncio.gather(*ends)
    done = len(target.times) - before
    target.rates.append(done / (time.perf_counter() - began))
    target.cpu.append((cpu_seconds(target.pid) - cpu) / done)


def cpu_seconds(pid: int) -> float:
    """Processor time of a process so far; 0 for no process."""
    if not pid:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


async def measure(targets: list[Target], rounds: int, clients: int, seconds: float) -> None:
    """Let the targets take turns, so that whatever else the machine does meets all of them."""
    for target in targets:
        await load(target, clients, min(seconds, 1))
        target.times.clear()
        target.rates.clear()
        target.cpu.clear()
    for number in range(rounds):
        # In turn forwards and backwards, so that none always comes after the same.
        for target in targets if number % 2 == 0 else reversed(targets):
            await load(target, clients, seconds)
