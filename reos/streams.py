"""One client's event stream: where it starts, what its user may see, what waits for it, and whether it is taken.

Nothing here knows the database; `events.Hub` reads the events and hands them to the streams.
"""

from __future__ import annotations

import asyncio
import fcntl
import re
import socket
import struct
import termios
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from loguru import logger

from reos import encoding
from reos.auth.guard import Principal
from reos.db import Record
from reos.metrics import STREAMS_CUT

MAX_QUEUED = 1000  # events of a stream
CHUNK_BYTES = 64 * 1024  # written at a time
SEND_BUFFER_BYTES = 128 * 1024  # of the kernel, which takes megabytes unless told otherwise

_EVENT_ID = re.compile(r"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True)
class Message:
    """An event in the form in which all streams send it, and who may see it."""

    id: int
    type: str
    permission: str | None  # that it takes to read the resource; None for a notification
    user_id: int | None  # the only one whom a notification is for; None: everybody
    text: bytes
    created_at: float  # seconds since 1970

    @classmethod
    def of(cls, row: Record) -> Message:
        """The message of a row of `events`."""
        is_notification = row["type"] == "notification"
        return cls(
            id=row["id"],
            type=row["type"],
            permission=None if is_notification else f"{row['resource_type']}:read",
            user_id=row["data"].get("user_id") if is_notification else None,
            text=_format(row["id"], {"type": row["type"], "data": row["data"], "timestamp": row["created_at"]}),
            created_at=row["created_at"].timestamp(),
        )


def _format(event_id: int, data: dict[str, Any]) -> bytes:
    """A message of an event stream (HTML standard, 9.2.5): no event field, so that `onmessage` sees it."""
    return b"id: %d\ndata: %b\n\n" % (event_id, encoding.dumps(data))


def connected_message(event_id: int) -> bytes:
    """The first message of a stream, with the number after which it starts."""
    return _format(event_id, {"type": "connected", "timestamp": datetime.now(UTC)})


def resync_message(event_id: int) -> bytes:
    """What tells a client that it missed events which nobody has any more; `event_id` is the newest."""
    return _format(event_id, {"type": "resync", "data": {"last_event_id": event_id}, "timestamp": datetime.now(UTC)})


@dataclass(frozen=True, slots=True)
class Start:
    """After which event a stream starts, and whether that is not where the client left off."""

    position: int
    is_resync: bool


def find_start(asked: str | None, first_id: int, last_id: int) -> Start:
    """Where a stream starts whose client has seen the events up to `asked` (None: wants new ones only).

    `first_id` and `last_id` bound the kept events; first_id is last_id + 1 when there are none. 0 asks for all
    that is kept. What is no number, lies in the future or before the kept events, makes a new start at the end.
    """
    if asked is None:
        return Start(last_id, is_resync=False)
    if not _EVENT_ID.fullmatch(asked):
        return Start(last_id, is_resync=True)
    number = int(asked)
    if number == 0:
        return Start(first_id - 1, is_resync=False)
    if first_id - 1 <= number <= last_id:
        return Start(number, is_resync=False)
    return Start(last_id, is_resync=True)


class Line:
    """The connection to one client, and how much of what was written to it the client has not taken yet."""

    def __init__(self, transport: asyncio.Transport):
        self._transport = transport
        self._socket: socket.socket | None = transport.get_extra_info("socket")
        self._written = 0
        self._taken = 0
        self._taken_at = time.monotonic()
        self._is_clear = True
        if self._socket is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)

    def wrote(self, size: int) -> None:
        """Count a chunk of so many bytes; its frame is added (RFC 9112, section 7.1)."""
        self._written += size + len(f"{size:x}") + 4
        if self._is_clear:
            self._is_clear = False
            self._taken_at = time.monotonic()

    def stalled_for(self, now: float) -> float:
        """For how many seconds the client has taken nothing although something waits for it."""
        waiting = self._transport.get_write_buffer_size() + self._in_kernel()
        taken = self._written - waiting
        self._is_clear = waiting <= 0
        if self._is_clear or taken > self._taken:
            self._taken_at = now
        self._taken = taken
        return now - self._taken_at

    def cut(self) -> None:
        """Close the connection at once, with what waits in the kernel, which else would keep it for minutes."""
        if self._socket is not None and self._socket.fileno() >= 0:
            with suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def _in_kernel(self) -> int:
        """The bytes that the peer has not acknowledged (TIOCOUTQ, tcp(7)); 0 where that cannot be told."""
        if self._socket is None or self._socket.fileno() < 0:
            return 0
        with suppress(OSError):
            answer: bytes = fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, struct.pack("i", 0))
            return int(struct.unpack("i", answer)[0])
        return 0


class Stream:
    """What one client follows: what its user may see of it, and what waits to be written."""

    def __init__(self, principal: Principal, permissions: Iterable[str], types: frozenset[str] | None, line: Line):
        self.principal = principal
        self.permissions = frozenset(permissions)
        self.types = types
        self.line = line
        self.position = 0  # the last event that was read or queued for it, shown or not
        self.is_live = False
        self.ended_at: float | None = None  # monotonic
        self.is_cut = False
        self.is_heartbeat_due = False
        self.oldest_taken = 0.0  # when the first event was created of what was taken last; seconds since 1970
        self._queue: deque[Message] = deque()
        self._waiter: asyncio.Future[None] | None = None

    @property
    def session(self) -> tuple[int, int]:
        """The organisation and the session that the stream ends with."""
        return self.principal.organization_id, self.principal.session_id

    def may_see(self, message: Message) -> bool:
        """Whether the client asked for the message's type and its user may read it now."""
        if self.types is not None and message.type not in self.types:
            return False
        if message.permission is None:
            return message.user_id is None or message.user_id == self.principal.user_id
        return message.permission in self.permissions

    def put(self, message: Message) -> None:
        """Queue a live message. A client that has let too many gather is cut off, so that nobody waits for it."""
        if message.id <= self.position or self.ended_at is not None:
            return
        self.position = message.id
        if not self.may_see(message):
            return
        if len(self._queue) >= MAX_QUEUED:
            self.cut("its client is too slow")
            return
        self._queue.append(message)
        self._wake()

    def take(self) -> bytes:
        """The next queued messages, as far as the user may still see them; empty when there are none."""
        parts: list[bytes] = []
        size = 0
        while self._queue and size < CHUNK_BYTES:
            message = self._queue.popleft()
            if self.may_see(message):
                if not parts:
                    self.oldest_taken = message.created_at
                parts.append(message.text)
                size += len(message.text)
        return b"".join(parts)

    async def wait(self) -> None:
        """Wait until there is something to write, or the stream is to end.

        There is one wait for each event and stream, so it has neither a timer of its own nor an asyncio.Event: the two
        would cost as much as all else that a stream does for an event.
        """
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def beat(self) -> None:
        """Let the stream write a heartbeat."""
        self.is_heartbeat_due = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def end(self) -> None:
        """Let the stream say its last words and end."""
        if self.ended_at is None:
            self.ended_at = time.monotonic()
            self._wake()

    def cut(self, reason: str) -> None:
        """End the stream without another word."""
        if not self.is_cut:
            organization_id, session_id = self.session
            logger.info("Event stream of session {} of organisation {} cut: {}", session_id, organization_id, reason)
            STREAMS_CUT.inc()
            self.is_cut = True
            self.end()
            self._queue.clear()
            self.line.cut()
