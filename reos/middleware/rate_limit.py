"""The rate limit: exact over all processes and hosts, because the counts are kept in one place.

A process asks for all requests of a client that wait at the same time in one statement. A client that comes
again at once is given a small reserve, which this process uses up without asking; what it has not used goes back
when its time is over. See migration 0035 for the counting itself.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import blake2b
from ipaddress import IPv6Address, IPv6Network
from itertools import islice
from typing import Any, Protocol

from loguru import logger

from reos.db import Database
from reos.errors import OverloadedError, RateLimitExceededError
from reos.queries import rate_limits
from reos.queries.rate_limits import Reserve, Taken
from reos.settings import Settings

WINDOWS = (("minute", 60), ("hour", 3600), ("day", 86400))  # names and seconds, in the order of the counts

# For how long a reserve may be used: twice as long each time, while the client goes on and no other process counts for
# it. One that wants to waits for the end of the reserve, so even the longest is much shorter than a second.
HOLD_SECONDS = 0.05
LONGEST_HOLD_SECONDS = 0.25
MAX_CLIENTS = 10_000  # that are remembered in this process
MAX_WAITING = 2000  # requests of one client
STOP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Allowance:
    """Whether a request may go on, and what is left in the tightest window."""

    allowed: bool
    limit: int = 0  # requests in the window
    remaining: int = 0
    reset: int = 0  # when the window ends, in seconds since the epoch
    window: str = ""  # its name; empty when there is no limit
    window_seconds: int = 0
    reset_seconds: int = 0  # until the window ends
    policy: str = ""  # all windows, as RateLimit-Policy writes them

    @property
    def retry_after(self) -> int:
        """The seconds after which a refused request may come again; 0 for an allowed one."""
        return 0 if self.allowed else self.reset_seconds

    def headers(self) -> dict[str, str]:
        """X-RateLimit-* as they are commonly read, and the fields of draft-ietf-httpapi-ratelimit-headers-10."""
        if not self.window:
            return {}
        return {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(self.remaining),
            "X-RateLimit-Reset": str(self.reset),
            "RateLimit": f'"{self.window}";r={self.remaining};t={self.reset_seconds}',
            "RateLimit-Policy": self.policy,
        }

    def error(self) -> RateLimitExceededError:
        """The 429 of a refused request."""
        return RateLimitExceededError(
            headers={"Retry-After": str(self.retry_after)},
            limit=self.limit,
            window=self.window_seconds,
            retry_after=self.retry_after,
        )


UNLIMITED = Allowance(True)


def network_of(address: str) -> str:
    """What an address counts on: itself, or of IPv6 the 64 bits that one line or host has to itself.

    Who has 2^64 addresses would otherwise have as many limits.
    """
    if ":" not in address:
        return address
    try:
        parsed = IPv6Address(address.partition("%")[0].strip("[]"))
    except ValueError:
        return address
    return str(parsed.ipv4_mapped or IPv6Network((parsed, 64), strict=False))


class Counter(Protocol):
    """Where the counts are kept."""

    async def take(self, key: bytes, wanted: int, hold: timedelta | None, returned: Reserve | None) -> Taken | float:
        """Count requests; see queries.rate_limits.take."""

    async def give_back(self, reserves: Sequence[Reserve]) -> None:
        """Take back what was not used; see queries.rate_limits.give_back."""


class PostgresCounter:
    """The counts in the table rate_limits."""

    def __init__(self, database: Database, limits: Sequence[int]):
        self._database = database
        self._limits = limits
        self._taker = secrets.randbits(63)

    async def take(self, key: bytes, wanted: int, hold: timedelta | None, returned: Reserve | None) -> Taken | float:
        async with self._database.acquire() as conn:
            return await rate_limits.take(conn, key, self._taker, wanted, self._limits, hold, returned)

    async def give_back(self, reserves: Sequence[Reserve]) -> None:
        async with self._database.acquire() as conn:
            await rate_limits.give_back(conn, reserves)


@dataclass(frozen=True, slots=True)
class _View:
    """The tightest window as it was counted last; `remaining` leaves out what this process may still use."""

    window: int
    remaining: int
    reset: int
    reset_seconds: int


@dataclass(slots=True, eq=False)
class _Client:
    """What a process knows of one client."""

    key: bytes
    waiting: deque[asyncio.Future[Allowance]] = field(default_factory=deque)
    is_busy: bool = False  # a statement about it is under way
    seen_at: float = -math.inf  # its last request; monotonic, as are the next two
    asked_at: float = -math.inf
    good_until: float = -math.inf
    hold: float = 0.0  # for how many seconds it was given its last reserve; 0 when there was none
    reserve: Reserve | None = None
    left: int = 0  # of the reserve
    view: _View | None = None

    @property
    def is_idle(self) -> bool:
        return not (self.is_busy or self.waiting or self.left)

    def drop_reserve(self) -> Reserve | None:
        """What has not been used; it is not used any more."""
        unused, self.left = self.left, 0
        return Reserve(self.key, unused, self.reserve.started_at) if unused and self.reserve else None


class RateLimiter:
    """Says for each request whether its client may go on. One a process; start it, and stop it before the pool."""

    def __init__(self, database: Database, settings: Settings, counter: Counter | None = None):
        self._limits = (settings.rate_limit_per_minute, settings.rate_limit_per_hour, settings.rate_limit_per_day)
        self._counter = counter or PostgresCounter(database, self._limits)
        self._policy = ", ".join(
            f'"{name}";q={limit};w={seconds}'
            for (name, seconds), limit in zip(WINDOWS, self._limits, strict=True)
            if limit
        )
        self._clients: OrderedDict[str, _Client] = OrderedDict()
        self._holding: set[_Client] = set()
        self._has_reserves = asyncio.Event()
        self._statements: set[asyncio.Task[None]] = set()
        self._giving_back: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to give back what is not used in time."""
        self._giving_back = asyncio.create_task(self._give_back_in_time(), name="rate-limit reserves")

    async def stop(self) -> None:
        """Give back everything. The pool must still be open."""
        if self._giving_back:
            self._giving_back.cancel()
            await asyncio.wait([self._giving_back])
        if self._statements:
            await asyncio.wait(self._statements, timeout=STOP_SECONDS)
        await self._give_back(math.inf)

    async def take(self, key: str) -> Allowance:
        """Count a request of the client that the key names, such as `user:7`.

        Raises OverloadedError when too many of its requests wait, and what the database raises when it is away.
        """
        if not any(self._limits):
            return UNLIMITED
        client = self._find(key)
        if not client.waiting and (allowance := self._from_reserve(client)):
            return allowance
        if len(client.waiting) >= MAX_WAITING:
            raise OverloadedError(headers={"Retry-After": "1"})
        answer: asyncio.Future[Allowance] = asyncio.get_running_loop().create_future()
        client.waiting.append(answer)
        self._go_on(client)
        return await answer

    def _find(self, key: str) -> _Client:
        client = self._clients.get(key)
        if client:
            self._clients.move_to_end(key)
            return client
        if len(self._clients) >= MAX_CLIENTS:
            # Those that have been quiet for longest are looked at; the busy ones are bounded by their requests.
            idle = [old for old, other in islice(self._clients.items(), 8) if other.is_idle]
            for old in idle:
                del self._clients[old]
        # A digest, because a key is only as short as the header that an address came in.
        client = _Client(blake2b(key.encode(errors="surrogatepass"), digest_size=16).digest())
        self._clients[key] = client
        return client

    def _from_reserve(self, client: _Client) -> Allowance | None:
        """The answer to one request without asking, if the reserve still has one."""
        now = time.monotonic()
        if not client.left or client.view is None or now >= client.good_until:
            return None
        client.seen_at = now
        client.left -= 1
        return self._allowance(client.view, client.left)

    def _go_on(self, client: _Client) -> None:
        """Answer those that wait from the reserve, and ask for the rest.

        The question is a task of its own: a client that goes away must not stop it for the others.
        """
        if client.is_busy:
            return
        while client.waiting:
            if not client.waiting[0].done():
                allowance = self._from_reserve(client)
                if allowance is None:
                    break
                client.waiting[0].set_result(allowance)
            client.waiting.popleft()
        if client.waiting:
            client.is_busy = True
            self._run(self._count_waiting(client))

    def _run(self, statement: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(statement)
        self._statements.add(task)
        task.add_done_callback(self._statements.discard)
        return task

    async def _count_waiting(self, client: _Client) -> None:
        waiting = [answer for answer in client.waiting if not answer.done()]
        client.waiting.clear()
        try:
            allowances = await self._count(client, len(waiting)) if waiting else []
        except Exception as error:
            for answer in waiting:
                if not answer.done():
                    answer.set_exception(error)
        else:
            for answer, allowance in zip(waiting, allowances, strict=True):
                if not answer.done():
                    answer.set_result(allowance)
        finally:
            client.is_busy = False
            self._go_on(client)

    async def _count(self, client: _Client, wanted: int) -> list[Allowance]:
        """The answers for so many requests, in the order in which they came."""
        # If the statement fails, the returned reserve stays counted: too few may pass then, never too many.
        returned = client.drop_reserve()
        now = time.monotonic()
        # Who has gone on for a while may pause for longer.
        comes_again = wanted > 1 or now - client.seen_at < max(HOLD_SECONDS, client.hold / 2)
        client.seen_at = now
        client.hold = min(max(2 * client.hold, HOLD_SECONDS), LONGEST_HOLD_SECONDS) if comes_again else 0.0
        hold = timedelta(seconds=client.hold) if client.hold else None
        while True:
            client.asked_at = time.monotonic()
            taken = await self._counter.take(client.key, wanted, hold, returned)
            if isinstance(taken, Taken):
                break
            await asyncio.sleep(taken)
        view = client.view = self._look(taken)
        if taken.reserved:
            self._hold(client, taken)
        else:
            client.hold = 0.0  # Others count as well, or few are left.
        return [
            self._allowance(view, taken.reserved + taken.granted - number) for number in range(1, taken.granted + 1)
        ] + [self._allowance(view, None)] * (wanted - taken.granted)

    def _hold(self, client: _Client, taken: Taken) -> None:
        """Keep a reserve until its time or the first window that it was counted in is over.

        Its time began at the latest when the question was asked, so it is over here before it is over there.
        """
        first_end = min(self._seconds_left(taken, window) for window in range(len(WINDOWS)))
        client.good_until = client.asked_at + min(client.hold, first_end)
        client.reserve = Reserve(client.key, taken.reserved, taken.started_at)
        client.left = taken.reserved
        self._holding.add(client)
        self._has_reserves.set()

    def _look(self, taken: Taken) -> _View:
        """The window with the fewest requests left; of several the one that ends last."""
        views = [
            _View(
                window,
                max(limit - taken.used[window], 0),
                math.ceil(taken.started_at[window].timestamp()) + WINDOWS[window][1],
                max(math.ceil(self._seconds_left(taken, window)), 1),
            )
            for window, limit in enumerate(self._limits)
            if limit
        ]
        return min(views, key=lambda view: (view.remaining, -view.reset))

    @staticmethod
    def _seconds_left(taken: Taken, window: int) -> float:
        return (taken.started_at[window] - taken.counted_at).total_seconds() + WINDOWS[window][1]

    def _allowance(self, view: _View, own: int | None) -> Allowance:
        """The answer to a request after which this process may still use `own` of its own; None: it is refused."""
        name, seconds = WINDOWS[view.window]
        return Allowance(
            allowed=own is not None,
            limit=self._limits[view.window],
            remaining=view.remaining + (own or 0),
            reset=view.reset,
            window=name,
            window_seconds=seconds,
            reset_seconds=view.reset_seconds,
            policy=self._policy,
        )

    async def _give_back_in_time(self) -> None:
        while True:
            await self._has_reserves.wait()
            await asyncio.sleep(HOLD_SECONDS)
            # A statement that has begun is finished even if this task is stopped.
            await asyncio.shield(self._run(self._give_back(time.monotonic())))

    async def _give_back(self, now: float) -> None:
        """Give back all reserves whose time was over at `now` (monotonic). Their clients' requests wait meanwhile."""
        over = {client for client in self._holding if client.good_until <= now and not client.is_busy}
        self._holding = {client for client in self._holding - over if client.left}
        if not self._holding:
            self._has_reserves.clear()
        reserves = [reserve for client in over if (reserve := client.drop_reserve())]
        if not reserves:
            return
        for client in over:
            client.is_busy = True
        try:
            await self._counter.give_back(reserves)
        except Exception as error:
            logger.warning("{} rate-limit reserves could not be given back: {}", len(reserves), error)
        finally:
            for client in over:
                client.is_busy = False
                self._go_on(client)
