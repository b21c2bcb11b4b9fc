"""The hub of a web process: it hears of new events, reads them once for each organisation, and feeds the streams.

Three numbers of an organisation's feed say where everybody stands: `heard`, the newest event that the process knows
of, from notifications and from a regular look at the counters; `position`, up to where events have been handed to the
live streams; and each stream's own position. A stream reads from the table whatever lies between its own position and
the feed's, and turns live in the moment in which the two meet, without waiting for anything in between, so that no
event falls into a gap and none comes twice. Whoever falls behind is cut off and reads the table when it comes again.

Nobody is notified where nobody listens: a process announces an organisation before it asks where the first stream
starts (see migration 0015), and says again every ANNOUNCE_SECONDS that it is still there.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import asyncpg
from loguru import logger

from reos.auth.guard import Principal
from reos.db import Database, Record, plain_transaction, prepare_connection, tenant_transaction
from reos.errors import DatabaseError, OverloadedError, RateLimitExceededError
from reos.locks import SessionLocks
from reos.metrics import STREAM_LAG
from reos.queries import events
from reos.settings import Settings
from reos.streams import Line, Message, Start, Stream, connected_message, find_start, resync_message

CHANNEL = "reos_events"  # payload: organization_id:last_id

HEARTBEAT_SECONDS = 15.0
STALL_SECONDS = 15.0  # without a byte taken
WATCH_SECONDS = 2.0  # how often it is looked for stalled clients
CHECK_SECONDS = 5.0  # how often sessions, permissions and counters are read again
ANNOUNCE_SECONDS = 20.0  # an announcement is good for a minute
END_SECONDS = 5.0  # for the last words of a stream
STOP_SECONDS = 0.8
FIRST_CONNECT_SECONDS = 5.0  # that the start of the process waits for the listening connection
CONNECT_SECONDS = 10.0
PROBE_SECONDS = 15.0  # how often the listening connection is tried, since a dead peer may stay silent
RETRY_SECONDS = (0.1, 5.0)  # the shortest and the longest wait before another try

MAX_STREAMS = 10_000  # of a process
MAX_STREAMS_OF_USER = 100  # in a process
PAGE_ROWS = 200
READERS = 2  # statements at a time for feeds, and as many for streams that catch up: the pool is for requests
PUTS_AT_A_TIME = 2000  # before other tasks get their turn

HEARTBEAT = b": heartbeat\n\n"
GOODBYE = b": the stream ends\nretry: 1000\n\n"  # milliseconds until the client connects again

_PAYLOAD = re.compile(r"([0-9]{1,19}):([0-9]{1,19})")


@dataclass(eq=False, slots=True)
class Feed:
    """The streams of one organisation, and up to where its events have been handed to them."""

    organization_id: int
    streams: set[Stream] = field(default_factory=set)
    position: int | None = None  # None until the organisation is announced
    heard: int = 0
    task: asyncio.Task[None] | None = None

    @property
    def is_behind(self) -> bool:
        """Whether there are events to read for somebody."""
        return bool(self.streams) and self.position is not None and self.heard > self.position


class Hub:
    """Feeds all event streams of a process. One a process; start it, and stop it before the pool."""

    def __init__(self, settings: Settings, database: Database, locks: SessionLocks):
        self.is_listening = False
        self._dsn = settings.db_listen_dsn or settings.db_dsn
        self._database = database
        self._locks = locks  # which are taken on the listening connection
        self._process_id = uuid4()
        self._feeds: dict[int, Feed] = {}
        self._of_users: Counter[tuple[int, int]] = Counter()
        self._stream_count = 0
        self._is_draining = False
        self._is_empty = asyncio.Event()
        self._feed_readers = asyncio.Semaphore(READERS)
        self._stream_readers = asyncio.Semaphore(READERS)
        self._is_connected = asyncio.Event()
        self._check_wanted = asyncio.Event()
        self._announcement_wanted = asyncio.Event()
        self._is_announced = False
        self._awaiting_announcement: list[asyncio.Future[None]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def stream_count(self) -> int:
        """The open streams of this process."""
        return self._stream_count

    # --- life ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to listen. Goes on without the listening connection when that takes long: it is tried again."""
        for work in (self._listen, self._announce, self._check, self._watch):
            self._run(work(), work.__name__.lstrip("_"))
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_CONNECT_SECONDS):
                await self._is_connected.wait()

    def drain(self) -> None:
        """Take no more streams, and let those that there are end, so that their clients connect anew elsewhere."""
        self._is_draining = True
        for stream in self._streams():
            stream.end()

    async def stop(self) -> None:
        """End all streams within a second, and say that none is left. The pool must still be open."""
        self.drain()
        if self._feeds:
            self._is_empty.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_SECONDS):
                    await self._is_empty.wait()
        for stream in self._streams():
            stream.cut("the service stops")
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._refuse_waiting()
        if self._is_announced:
            await self._try_to(self._announce_none)

    def _run(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work, name=f"events: {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _try_to(self, work: Callable[[], Awaitable[None]]) -> bool:
        """Do a piece of background work, which must not end with its failure. Says whether it succeeded."""
        try:
            await work()
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, OverloadedError, DatabaseError) as error:
            logger.warning("Events: {} failed: {}: {}", work.__name__.lstrip("_"), type(error).__name__, error)
        except Exception as error:
            logger.opt(exception=error).error("Events: {} failed", work.__name__.lstrip("_"))
        else:
            return True
        return False

    # --- streams -------------------------------------------------------------------------------------------------

    def admit(
        self, principal: Principal, permissions: Iterable[str], types: frozenset[str] | None, transport: Any
    ) -> Stream:
        """Count a new stream in; whoever gets it must `release` it, whatever happens.

        Raises OverloadedError (503) when there is no room or the service stops, RateLimitExceededError (429) when
        the user has too many.
        """
        user = (principal.organization_id, principal.user_id)
        if self._is_draining or self.stream_count >= MAX_STREAMS:
            raise OverloadedError(headers={"Retry-After": "1"})
        if self._of_users[user] >= MAX_STREAMS_OF_USER:
            raise RateLimitExceededError(
                "Too many event streams at a time.",
                headers={"Retry-After": str(int(HEARTBEAT_SECONDS))},
                limit=MAX_STREAMS_OF_USER,
                window=0,
                retry_after=int(HEARTBEAT_SECONDS),
            )
        stream = Stream(principal, permissions, types, Line(transport))
        feed = self._feeds.setdefault(principal.organization_id, Feed(principal.organization_id))
        feed.streams.add(stream)
        self._of_users[user] += 1
        self._stream_count += 1
        return stream

    def release(self, stream: Stream) -> None:
        """Forget a stream that has ended."""
        stream.end()
        organization_id = stream.principal.organization_id
        feed = self._feeds[organization_id]
        feed.streams.discard(stream)
        user = (organization_id, stream.principal.user_id)
        self._stream_count -= 1
        self._of_users[user] -= 1
        if not self._of_users[user]:
            del self._of_users[user]
        if not feed.streams:
            del self._feeds[organization_id]
        if not self._feeds:
            self._is_empty.set()
        self._announcement_wanted.set()

    async def place(self, stream: Stream, last_event_id: str | None) -> Start:
        """Find where a stream starts; from here on it misses nothing.

        Raises DatabaseError (503) or OverloadedError (503).
        """
        await self._announced()
        organization_id = stream.principal.organization_id
        async with self._stream_readers, self._reading(organization_id) as conn:
            bounds = await events.get_bounds(conn)
        feed = self._feeds[organization_id]
        if feed.position is None:
            feed.position = bounds["last_id"]
        self._follow(feed)
        start = find_start(last_event_id, bounds["first_id"], bounds["last_id"])
        stream.position = start.position
        return start

    async def chunks(self, stream: Stream, start: Start) -> AsyncIterator[bytes]:
        """What is to be written to the client, from the first message to the last, in pieces of bounded size."""
        yield connected_message(start.position)
        if start.is_resync:
            yield resync_message(start.position)
        call_later = asyncio.get_running_loop().call_later
        timer = call_later(HEARTBEAT_SECONDS, stream.beat)
        try:
            while stream.ended_at is None:
                if stream.is_heartbeat_due:
                    stream.is_heartbeat_due = False
                    timer = call_later(HEARTBEAT_SECONDS, stream.beat)
                    yield HEARTBEAT
                elif not stream.is_live:
                    if chunk := await self._catch_up(stream):
                        yield chunk
                elif chunk := stream.take():
                    yield chunk
                    # Written; an event is created directly before its commit. The two clocks may differ.
                    STREAM_LAG.observe(max(0.0, time.time() - stream.oldest_taken))
                else:
                    await stream.wait()
        finally:
            timer.cancel()
        if not stream.is_cut:
            yield GOODBYE

    async def _catch_up(self, stream: Stream) -> bytes:
        """A page of what the stream has missed. When that is nothing it turns live, in this very moment."""
        feed = self._feeds[stream.principal.organization_id]
        assert feed.position is not None
        if stream.position >= feed.position:
            stream.is_live = True
            return b""
        try:
            return await self._read_missed(stream)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, OverloadedError) as error:
            # The client comes again with the number of what it has got.
            logger.warning("Events: an event stream ends after {}: {}", type(error).__name__, error)
            stream.end()
            return b""

    async def _read_missed(self, stream: Stream) -> bytes:
        async with self._stream_readers, self._reading(stream.principal.organization_id) as conn:
            rows = await events.list_after(conn, stream.position, PAGE_ROWS)
            bounds = await events.get_bounds(conn) if _has_gap(stream.position, rows) else None
            alive = await events.list_live_sessions(conn, [stream.session])
        _apply([stream], {stream.session}, alive)
        if stream.ended_at is not None:
            return b""
        if bounds:
            # Purged while the client was reading.
            stream.position = bounds["last_id"]
            return resync_message(stream.position)
        stream.position = rows[-1]["id"]
        messages = (Message.of(row) for row in rows)
        return b"".join(message.text for message in messages if stream.may_see(message))

    def _reading(self, organization_id: int) -> Any:
        return tenant_transaction(self._database, organization_id, read_only=True)

    def _streams(self) -> list[Stream]:
        return [stream for feed in self._feeds.values() for stream in feed.streams]

    # --- feeds ---------------------------------------------------------------------------------------------------

    def _hear(self, organization_id: int, last_id: int) -> None:
        """Somebody says that the organisation's events go up to `last_id`."""
        feed = self._feeds.get(organization_id)
        if feed is not None:
            feed.heard = max(feed.heard, last_id)
            self._follow(feed)

    def _follow(self, feed: Feed) -> None:
        if feed.is_behind and feed.task is None and not self._is_draining:
            feed.task = self._run(self._hand_out_new(feed), "feed")

    async def _hand_out_new(self, feed: Feed) -> None:
        """Read and hand out what is new, page by page. After a failure the next check goes on."""

        async def read_events() -> None:
            while feed.is_behind:
                async with self._feed_readers:
                    rows = await self._read_new(feed)
                await self._hand_out(feed, rows)

        try:
            await self._try_to(read_events)
        finally:
            feed.task = None

    async def _read_new(self, feed: Feed) -> list[Record]:
        """A page of events. In the same transaction, and after them, what the streams' users may read."""
        assert feed.position is not None
        async with self._reading(feed.organization_id) as conn:
            rows = await events.list_after(conn, feed.position, PAGE_ROWS)
            # Collected now: a stream that comes later finds its start later, so after these events.
            sessions = {stream.session for stream in feed.streams}
            alive = await events.list_live_sessions(conn, list(sessions))
        _apply(feed.streams, sessions, alive)
        return rows

    async def _hand_out(self, feed: Feed, rows: list[Record]) -> None:
        """Queue the events for the live streams. Nothing is awaited between an event's first and last stream."""
        assert feed.position is not None
        if _has_gap(feed.position, rows):
            # Purged before they were read, after an absence of days. The clients come again and are told.
            logger.warning("Events of organisation {} after {} are gone", feed.organization_id, feed.position)
            for stream in feed.streams:
                stream.end()
            feed.position = feed.heard
            return
        puts = 0
        for row in rows:
            message = Message.of(row)
            for stream in feed.streams:
                if stream.is_live:
                    stream.put(message)
            feed.position = message.id
            puts += len(feed.streams)
            if puts >= PUTS_AT_A_TIME:
                puts = 0
                await asyncio.sleep(0)

    # --- what runs all the time ----------------------------------------------------------------------------------

    async def _listen(self) -> None:
        """Keep the listening connection; when it is lost make another, and look for what was missed meanwhile."""
        shortest, longest = RETRY_SECONDS
        wait = shortest
        while True:
            began = time.monotonic()
            await self._try_to(self._listen_once)
            if time.monotonic() - began > longest:
                wait = shortest
            await asyncio.sleep(wait)
            wait = min(wait * 2, longest)

    async def _listen_once(self) -> None:
        """Listen until the connection is lost. Raises what stops it from being made or found alive."""
        names = {"application_name": "reos events"}
        conn = await asyncpg.connect(self._dsn, timeout=CONNECT_SECONDS, server_settings=names)
        lost = asyncio.Event()
        try:
            conn.add_termination_listener(lambda _: lost.set())
            await prepare_connection(conn)
            await conn.add_listener(CHANNEL, self._on_notification)
            self.is_listening = True
            self._locks.use(conn)
            self._is_connected.set()
            self._check_wanted.set()
            while not lost.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(PROBE_SECONDS):
                        await lost.wait()
                if not lost.is_set():
                    async with asyncio.timeout(CONNECT_SECONDS), self._locks.turn():
                        await events.probe(conn)
            logger.warning("Events: the listening connection is lost")
        finally:
            self.is_listening = False
            self._locks.use(None)
            conn.terminate()

    def _on_notification(self, conn: Any, pid: int, channel: str, payload: object) -> None:
        if match := _PAYLOAD.fullmatch(str(payload)):
            self._hear(int(match[1]), int(match[2]))

    async def _announce(self) -> None:
        """Say how many streams there are: soon after that changes, and before the last announcement runs out."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(ANNOUNCE_SECONDS):
                    await self._announcement_wanted.wait()
            self._announcement_wanted.clear()
            if not self._feeds and not self._is_announced:
                continue
            if not await self._try_to(self._announce_once):
                self._refuse_waiting()
                self._announcement_wanted.set()
                await asyncio.sleep(RETRY_SECONDS[0])

    async def _announce_once(self) -> None:
        waiting, self._awaiting_announcement = self._awaiting_announcement, []
        try:
            await self._say({feed.organization_id: len(feed.streams) for feed in self._feeds.values()})
        except BaseException:
            self._awaiting_announcement += waiting
            raise
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def _announce_none(self) -> None:
        await self._say({})

    async def _say(self, connections: dict[int, int]) -> None:
        async with plain_transaction(self._database) as conn:
            await events.announce_streams(conn, self._process_id, connections)
        self._is_announced = bool(connections)

    async def _announced(self) -> None:
        """Wait until an announcement that begins from now on is made. Raises DatabaseError."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._awaiting_announcement.append(future)
        self._announcement_wanted.set()
        await future

    def _refuse_waiting(self) -> None:
        waiting, self._awaiting_announcement = self._awaiting_announcement, []
        for future in waiting:
            if not future.done():
                future.set_exception(DatabaseError(headers={"Retry-After": "1"}))

    async def _check(self) -> None:
        """Look regularly, and after each new listening connection, for ended sessions and unheard events."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(CHECK_SECONDS):
                    await self._check_wanted.wait()
            self._check_wanted.clear()
            if self._feeds:
                await self._try_to(self._check_once)

    async def _check_once(self) -> None:
        streams = self._streams()
        sessions = {stream.session for stream in streams}
        async with plain_transaction(self._database) as conn:
            alive = await events.list_live_sessions(conn, list(sessions))
        _apply(streams, sessions, alive)
        for row in alive:
            self._hear(row["organization_id"], row["last_event_id"])

    async def _watch(self) -> None:
        """Cut off clients that take nothing, and those that do not let their stream end."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            await self._try_to(self._watch_once)

    async def _watch_once(self) -> None:
        now = time.monotonic()
        for stream in self._streams():
            if stream.line.stalled_for(now) >= STALL_SECONDS:
                stream.cut("its client takes nothing")
            elif stream.ended_at is not None and now - stream.ended_at >= END_SECONDS:
                stream.cut("its client does not let it end")


def _has_gap(position: int, rows: Sequence[Record]) -> bool:
    """Whether the rows do not follow directly: numbers are given without gaps, so others have been purged."""
    return not rows or rows[0]["id"] != position + 1


def _apply(streams: Iterable[Stream], asked: set[tuple[int, int]], alive: Iterable[Record]) -> None:
    """Give streams the permissions of their users; end those whose session was asked for and is not alive."""
    found = {(row["organization_id"], row["session_id"]): frozenset(row["permissions"]) for row in alive}
    for stream in streams:
        if stream.session in found:
            stream.permissions = found[stream.session]
        elif stream.session in asked:
            stream.end()
