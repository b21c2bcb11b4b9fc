"""Requests as bytes, one connection each, and how long the answers took."""

from __future__ import annotations

import asyncio
import json
import socket
import statistics
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float

    @property
    def error(self) -> str:
        """The type in the envelope. Raises what says that there is none."""
        return str(json.loads(self.body)["error"]["type"])


def request(
    method: str, path: str, headers: dict[str, str] | None = None, body: Any = None, close: bool = True
) -> bytes:
    """The bytes of a request, with JSON if it has a body."""
    lines = {"Host": "load", **(headers or {})}
    if close:
        lines["Connection"] = "close"
    data = b""
    if body is not None:
        data = json.dumps(body).encode()
        lines |= {"Content-Type": "application/json", "Content-Length": str(len(data))}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + data


def parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    status_line, *lines = head.decode("latin-1").split("\r\n")
    fields = (line.partition(":") for line in lines if line)
    return int(status_line.split(" ")[1]), {name.lower(): value.strip() for name, _, value in fields}


async def read_answer(reader: asyncio.StreamReader, began: float) -> Answer:
    """Raises OSError or IncompleteReadError when the connection ends before."""
    status, headers = parse_head(await reader.readuntil(b"\r\n\r\n"))
    length = int(headers.get("content-length", 0))
    body = await reader.readexactly(length) if status not in (204, 304) else b""
    return Answer(status, headers, body, time.monotonic() - began)


async def ask(port: int, data: bytes) -> Answer:
    """One request on a connection of its own."""
    began = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
    try:
        writer.write(data)
        return await read_answer(reader, began)
    finally:
        writer.close()


SECOND = 1.0  # what anybody else may have to wait


@dataclass
class Probe:
    """What somebody met who asked all the time."""

    times: dict[str, list[float]] = field(default_factory=dict)
    statuses: dict[str, Counter[int]] = field(default_factory=dict)

    @property
    def slowest(self) -> float:
        return max(max(times) for times in self.times.values())

    def misses(self, allowed: Collection[int] = (200,)) -> list[str]:
        """What was not as it must be, whatever others do: an answer within a second, with a status that is allowed."""
        found = []
        for name, times in self.times.items():
            if max(times) >= SECOND:
                found.append(f"{name} took {max(times):.1f} s")
            if strange := set(self.statuses[name]) - set(allowed):
                found.append(f"{name} was answered {sorted(strange)}")
        return found

    def lines(self) -> list[str]:
        return [
            f"{name}: {len(times)} answers {dict(self.statuses[name])},"
            f" median {1000 * statistics.median(times):.1f} ms, slowest {1000 * max(times):.0f} ms"
            for name, times in self.times.items()
        ]


@contextmanager
def probing(port: int, requests: dict[str, bytes], pause: float = 0.05) -> Iterator[Probe]:
    """Ask for each of these all the time, on a new connection each, and keep how long each answer took.

    Each has a thread of its own, so that it does not wait for what else this process does.
    """
    probe = Probe({name: [] for name in requests}, {name: Counter() for name in requests})
    stop = threading.Event()
    failures: list[Exception] = []

    def keep_asking(name: str, data: bytes) -> None:
        try:
            while not stop.is_set():
                began = time.monotonic()
                status = _ask_at_once(port, data)
                probe.times[name].append(time.monotonic() - began)
                probe.statuses[name][status] += 1
                stop.wait(pause)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=keep_asking, args=item) for item in requests.items()]
    for thread in threads:
        thread.start()
    try:
        yield probe
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]


def _ask_at_once(port: int, data: bytes) -> int:
    """The status of the answer, when all of it has come. The request must say that the connection closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(data)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return parse_head(answer.partition(b"\r\n\r\n")[0])[0]


def usual(headers: dict[str, str]) -> dict[str, bytes]:
    """The requests that must be answered within a second, whatever others do."""
    return {
        "/live": request("GET", "/live"),
        "/ready": request("GET", "/ready"),
        "GET": request("GET", "/api/v1/properties?page_size=3", headers),
    }


def quantiles(times: Iterable[float]) -> str:
    """Median, 99th percentile and longest, in milliseconds."""
    ordered = sorted(times)
    return ", ".join(
        f"{name} {1000 * ordered[min(len(ordered) - 1, int(part * len(ordered)))]:.0f} ms"
        for name, part in (("p50", 0.5), ("p99", 0.99), ("max", 1))
    )
