"""Clients that send a byte now and then, or take one: each is cut off by a deadline that nothing moves."""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from contextlib import suppress
from dataclasses import dataclass

from reos import server
from tools.load.service import Service, kernel_memory
from tools.load.wire import Answer, Probe, parse_head, probing, request, usual

LATE = 2 * server.DEADLINE_CHECK_SECONDS + 5  # seconds that a cut may come after its deadline
STARTING = 8  # large answers that are asked for at a time: it is slowness that is measured, not a rush


@dataclass
class SlowRun:
    """How the slow clients ended, and what all others met meanwhile."""

    headers: list[Answer]  # what those were told whose header dripped
    bodies: list[Answer]
    readers: list[float]  # after how many seconds those were cut off that did not take their answer
    probe: Probe
    memory: tuple[float, float, float]  # MiB before, at most meanwhile, after
    kernel: tuple[float, float]

    def lines(self) -> list[str]:
        return [
            f"headers cut off after {_range([answer.seconds for answer in self.headers])}",
            f"bodies cut off after {_range([answer.seconds for answer in self.bodies])}",
            f"answers not taken cut off after {_range(self.readers)}",
            *self.probe.lines(),
            "memory before, at most, after: " + ", ".join(f"{size:.0f} MiB" for size in self.memory),
            "of the kernel before, at most: " + ", ".join(f"{size:.0f} MiB" for size in self.kernel),
        ]

    def misses(self) -> list[str]:
        """What breaks the promise that slow clients are cut off and nobody else notices."""
        found = self.probe.misses()
        if strange := {answer.status for answer in self.headers + self.bodies} - {408}:
            found.append(f"slow clients were answered {sorted(strange)}")
        for name, times, deadline in (
            ("headers", [answer.seconds for answer in self.headers], server.HEADER_SECONDS),
            ("bodies", [answer.seconds for answer in self.bodies], server.BODY_SECONDS),
            ("answers not taken", self.readers, server.TAKE_SECONDS),
        ):
            if min(times) < deadline or max(times) > deadline + LATE:
                found.append(f"{name} were cut off after {_range(times)}, the deadline is {deadline:.0f} s")
        return found


def _range(seconds: list[float]) -> str:
    return f"{min(seconds):.1f} to {max(seconds):.1f} s ({len(seconds)})"


async def run(service: Service, auth: dict[str, str], number: int, pause: float) -> SlowRun:
    """So many clients of each kind at once, with a byte every `pause` seconds."""
    head = request("GET", "/api/v1/properties", {"X-Slow": ""}, close=False)[:-4]
    body = request("POST", "/api/v1/properties", auth | {"Content-Length": "100000"}, close=False)
    body = body.replace(b"Host", b"Content-Type: application/json\r\nHost")
    list_ = request("GET", "/api/v1/properties?page_size=100", auth, close=False)
    export = request("GET", "/api/v1/properties/export", auth, close=False)
    before, kernel_before = service.memory(), kernel_memory()
    with probing(service.port, usual(auth)) as probe:
        clients = [
            *(drip(service.port, head, pause) for _ in range(number)),
            *(drip(service.port, body, pause) for _ in range(number)),
        ]
        starting = asyncio.Semaphore(STARTING)
        readers = [sip(service.port, export if turn % 2 else list_, pause, starting) for turn in range(number)]
        ending = asyncio.gather(asyncio.gather(*clients), asyncio.gather(*readers))
        most, kernel_most = before, kernel_before
        while not ending.done():
            most, kernel_most = max(most, service.memory()), max(kernel_most, kernel_memory())
            await asyncio.wait([ending], timeout=0.2)
        answers, cuts = await ending
    after = service.memory()
    return SlowRun(answers[:number], answers[number:], cuts, probe, (before, most, after), (kernel_before, kernel_most))


async def drip(port: int, head: bytes, pause: float) -> Answer:
    """Send the head and then a byte now and then, until there is an answer and the connection has ended."""
    began = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head)
    answer = asyncio.create_task(reader.read(65536))
    while not answer.done():
        writer.write(b" ")
        await asyncio.wait([answer], timeout=pause)
    data = await answer
    with suppress(OSError):  # What was on its way when it closed resets the connection.
        while rest := await reader.read(65536):
            data += rest
    ended = time.monotonic() - began
    writer.close()
    head, _, content = data.partition(b"\r\n\r\n")
    return Answer(*parse_head(head), content, ended)


async def sip(port: int, data: bytes, pause: float, starting: asyncio.Semaphore) -> float:
    """Send a request and take a byte of the answer now and then; seconds until the connection is reset."""
    loop = asyncio.get_running_loop()
    await starting.acquire()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # The kernel's least.
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", port))
        began = time.monotonic()
        await loop.sock_sendall(client, data)
        assert await loop.sock_recv(client, 1)
        starting.release()
        while client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) not in (errno.ECONNRESET, errno.EPIPE):
            await asyncio.sleep(pause)
            with suppress(BlockingIOError, ConnectionResetError):
                assert client.recv(1), "the answer ended"
        return time.monotonic() - began
