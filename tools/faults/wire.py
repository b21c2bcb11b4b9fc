"""One request over HTTP, and exactly how it ended. What goes wrong is told, never repaired or sent again here."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from raw_http import RawAnswer, read_answer

ANSWER_SECONDS = 75.0  # more than the service ever lets a request wait
# A connection is kept for less than the service's drain time, so that no idle one is closed while it is used.
KEEP_SECONDS = 1.0


class LostError(Exception):
    """The connection ended before the whole answer was there."""


class SilentError(Exception):
    """There was no answer within ANSWER_SECONDS."""


class BrokenError(Exception):
    """What came was no answer: not HTTP, or not what its headers say."""


class CutError(Exception):
    """We have cut the connection, as was told."""


@dataclass(frozen=True)
class Cut:
    """Where a client's connection breaks: after this part of the request's bytes, or so long after the last one."""

    part: float | None
    seconds: float = 0.0


class Wire:
    """The connections to a service, new ones and kept ones."""

    def __init__(self, url: str):
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self.host, self.port = parts.hostname, parts.port
        self._kept: deque[tuple[asyncio.StreamReader, asyncio.StreamWriter, float]] = deque()

    async def request(
        self, method: str, path: str, headers: Mapping[str, str], body: Any = None, *, cut: Cut | None = None
    ) -> RawAnswer:
        """Send a request, JSON if it has a body. Raises LostError, SilentError, BrokenError or CutError."""
        data = b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.host}:{self.port}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if body is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(data)}"]
        sent = "\r\n".join([*lines, "", ""]).encode() + data
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await self._exchange(sent, cut)
        except TimeoutError:
            raise SilentError(f"no answer within {ANSWER_SECONDS:.0f} s") from None

    async def _exchange(self, data: bytes, cut: Cut | None) -> RawAnswer:
        reader, writer = await self._connection()
        is_whole = False
        try:
            if cut is not None:
                await _send_and_cut(writer, data, cut)
            writer.write(data)
            answer = await read_answer(reader)
            is_whole = answer.header("connection") != "close"
            if is_whole:
                self._kept.append((reader, writer, time.monotonic()))
            return answer
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            partial = len(error.partial) if isinstance(error, asyncio.IncompleteReadError) else 0
            raise LostError(f"{type(error).__name__} after {partial} bytes of an answer") from error
        except (ValueError, KeyError, IndexError, asyncio.LimitOverrunError) as error:
            raise BrokenError(f"{type(error).__name__}: {error}") from error
        finally:
            if not is_whole:
                _drop(writer)

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._kept:
            reader, writer, since = self._kept.pop()
            if time.monotonic() - since < KEEP_SECONDS and not reader.at_eof() and not writer.is_closing():
                return reader, writer
            _drop(writer)
        try:
            return await asyncio.open_connection(self.host, self.port, limit=2**20)
        except OSError as error:
            raise LostError(f"{type(error).__name__} before a connection was there") from error

    def close(self) -> None:
        while self._kept:
            _drop(self._kept.pop()[1])


def _drop(writer: asyncio.StreamWriter) -> None:
    """End a connection at once; one that is lost already takes no abort, but still wants to be closed."""
    writer.transport.abort()
    writer.close()


async def _send_and_cut(writer: asyncio.StreamWriter, data: bytes, cut: Cut) -> None:
    size = len(data) if cut.part is None else int(len(data) * cut.part)
    writer.write(data[:size])
    with suppress(ConnectionError):
        await writer.drain()
    await asyncio.sleep(cut.seconds)
    _drop(writer)
    raise CutError
