"""What slows down guessing, as far as one process can tell: the waits, and the answers that are held back.

The count of failures and the lock are in the database (`login_attempts`), where all processes see them.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from reos.errors import OverloadedError, RateLimitExceededError

WAITS = (0.0, 1.0, 2.0, 5.0, 10.0)  # seconds before the answer to the 1st, 2nd, … wrong try in a row
MAX_HELD = 1000
RETRY_SECONDS = 10  # the longest that an answer is held
READERS = 4  # tries that look into the database at a time: a storm of them shall not be all that waits for the pool
READ_SECONDS = 5.0  # that a try waits for its turn


def waits(max_attempts: int) -> tuple[float, ...]:
    """The seconds that the answer to each wrong try up to the locking one is late."""
    return (*WAITS, *[WAITS[-1]] * (max_attempts - len(WAITS)))[:max_attempts]


def too_early(retry_after: float) -> RateLimitExceededError:
    """The 429 for a try that comes before the last one is answered; `retry_after` in seconds."""
    seconds = max(1, math.ceil(retry_after))
    return RateLimitExceededError(
        "Another log-in with this address has not been answered yet.",
        headers={"Retry-After": str(seconds)},
        limit=1,
        window=seconds,
        retry_after=seconds,
    )


class Attempt:
    """A try that is being checked or whose answer is held back."""

    def __init__(self) -> None:
        self.answered_at = 0.0  # on the monotonic clock; 0: not known yet

    async def hold(self, seconds: float) -> None:
        """Wait before a wrong try is answered. The caller holds no connection, lock or thread meanwhile."""
        self.answered_at = time.monotonic() + seconds
        await asyncio.sleep(seconds)


class LoginGuard:
    """The tries that are under way in this process: one an address, and a bounded number of them.

    Every try may end as a held answer, so each takes one of the places from its beginning: a full house says
    nothing about a password, because none was checked.
    """

    def __init__(self, max_held: int = MAX_HELD):
        self._max_held = max_held
        self._attempts: dict[bytes, Attempt] = {}
        self._readers = asyncio.Semaphore(READERS)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        """Wait for the turn to look into the database. Raises OverloadedError (503)."""
        try:
            async with asyncio.timeout(READ_SECONDS):
                await self._readers.acquire()
        except TimeoutError:
            raise OverloadedError(headers={"Retry-After": str(RETRY_SECONDS)}) from None
        try:
            yield
        finally:
            self._readers.release()

    @contextmanager
    def attempt(self, address_key: bytes) -> Iterator[Attempt]:
        """Take a place for the length of the block.

        Raises RateLimitExceededError (429) while a try for the same address is under way, and OverloadedError
        (503) when no place is left.
        """
        present = self._attempts.get(address_key)
        if present is not None:
            raise too_early(present.answered_at - time.monotonic())
        if len(self._attempts) >= self._max_held:
            raise OverloadedError(headers={"Retry-After": str(RETRY_SECONDS)})
        attempt = self._attempts[address_key] = Attempt()
        try:
            yield attempt
        finally:
            del self._attempts[address_key]
