"""A client that sends whatever it is given, byte for byte, and tells exactly what came back.

httpx refuses or repairs what a hostile client sends, and costs more time than the service's answer.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

ANSWER_SECONDS = 30


@dataclass(frozen=True)
class RawAnswer:
    """An answer as it came over the wire: the headers in their order, names in lower case."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """The value of a header that stands there at most once."""
        values = [value for known, value in self.headers if known == name.lower()]
        assert len(values) <= 1, (name, values)
        return values[0] if values else None

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def comparable(self) -> tuple[int, tuple[tuple[str, str], ...], bytes]:
        """All of it but the clock."""
        return self.status, tuple(sorted(entry for entry in self.headers if entry[0] != "date")), self.body


async def read_answer(reader: asyncio.StreamReader, *, is_head: bool = False) -> RawAnswer:
    """Read one answer off a connection; of an event stream only its head. Raises IncompleteReadError where it ends."""
    status_line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
    status = int(status_line.split(" ")[1])
    headers = tuple((name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines))
    known = dict(headers)
    body = b""
    if known.get("content-type", "").startswith("text/event-stream"):
        pass  # It has no end.
    elif not is_head and status not in (204, 304):
        if known.get("transfer-encoding") == "chunked":
            while size := int(await reader.readline(), 16):
                body += await reader.readexactly(size + 2)
                body = body[:-2]
            await reader.readline()
        else:
            body = await reader.readexactly(int(known["content-length"]))
    return RawAnswer(status, headers, body)


class Line:
    """One connection, opened again when the server has closed it."""

    def __init__(self, host: str, port: int):
        self.host, self.port = host, port
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def exchange(self, data: bytes, *, is_head: bool = False) -> RawAnswer:
        """Send the bytes of a request and read the answer to it."""
        async with asyncio.timeout(ANSWER_SECONDS):
            # The server may have closed a connection that it had kept, just before this is sent.
            is_fresh = self.writer is None
            try:
                return await self._exchange(data, is_head)
            except (ConnectionError, asyncio.IncompleteReadError):
                await self.close()
                if is_fresh:
                    raise
                return await self._exchange(data, is_head)

    async def _exchange(self, data: bytes, is_head: bool) -> RawAnswer:
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection(self.host, self.port, limit=2**20)
        assert self.reader is not None
        self.writer.write(data)
        answer = await read_answer(self.reader, is_head=is_head)
        if (
            answer.header("connection") == "close"
            or answer.header("content-type") == "text/event-stream; charset=utf-8"
        ):
            await self.close()
        return answer

    async def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


class RawClient:
    """As many requests at a time as it has lines."""

    def __init__(self, url: str, lines: int):
        parts = urlsplit(url)
        assert parts.hostname is not None and parts.port is not None
        self.host = f"{parts.hostname}:{parts.port}"
        self._free: asyncio.Queue[Line] = asyncio.Queue()
        for _ in range(lines):
            self._free.put_nowait(Line(parts.hostname, parts.port))

    async def request(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str | bytes] | None = None,
        body: bytes | None = None,
    ) -> RawAnswer:
        """Nothing is escaped or checked. With a body comes its length, unless a header says how it is framed."""
        lines = {"Host": self.host, **(headers or {})}
        if body is not None and not {"content-length", "transfer-encoding"} & {name.lower() for name in lines}:
            lines["Content-Length"] = str(len(body))
        head = f"{method} {target} HTTP/1.1\r\n".encode()
        for name, value in lines.items():
            head += name.encode() + b": " + (value if isinstance(value, bytes) else value.encode()) + b"\r\n"
        line = await self._free.get()
        try:
            return await line.exchange(head + b"\r\n" + (body or b""), is_head=method == "HEAD")
        except BaseException:
            await line.close()
            raise
        finally:
            self._free.put_nowait(line)

    async def close(self) -> None:
        while not self._free.empty():
            await self._free.get_nowait().close()


@asynccontextmanager
async def raw_client(url: str, lines: int = 8) -> AsyncIterator[RawClient]:
    """A client for a served app."""
    client = RawClient(url, lines)
    try:
        yield client
    finally:
        await client.close()
