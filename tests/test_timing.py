"""A known and an unknown address: the same answer, in the same time."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count
from uuid import uuid4

import pytest
from api import Api, Client
from raw_http import RawAnswer, RawClient, raw_client

from reos.auth import login as login_module

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.auth]

PAIRS = 60  # of a known and an unknown address, in turn
MOST_PAIRS = 360  # before it fails: a busy machine needs more of them
ALLOWED = 0.10  # of the median time
PASSWORD = "Correct-horse-7"

Ask = Callable[[RawClient, str], Awaitable[RawAnswer]]
_numbers = count(1)


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The waits after wrong tries are the same for all, and would hide everything else."""
    monkeypatch.setattr(login_module, "waits", lambda attempts: (0.0,) * attempts)


@pytest.fixture(scope="module")
async def known(api: Api) -> list[str]:
    """The addresses of users, one for each try."""
    admin = await api.register()
    return [await _add_person(admin) for _ in range(PAIRS)]


async def _add_person(admin: Client) -> str:
    email = f"{uuid4().hex}@example.com"
    person = {"email": email, "first_name": "Ann", "last_name": "Lee", "password": PASSWORD}
    await admin.post("/users", json=person)
    return email


@pytest.fixture
async def line(api: Api) -> AsyncIterator[RawClient]:
    """A client whose own time is short and always the same."""
    async with raw_client(api.url, lines=1) as client:
        yield client


async def log_in(client: RawClient, email: str) -> RawAnswer:
    body = f'{{"email":"{email}","password":"Wrong-horse-7"}}'.encode()
    return await client.request("POST", "/api/v1/auth/login", {"Content-Type": "application/json"}, body)


async def ask_reset(client: RawClient, email: str) -> RawAnswer:
    body = f'{{"email":"{email}"}}'.encode()
    path = "/api/v1/auth/password-reset-request"
    return await client.request("POST", path, {"Content-Type": "application/json"}, body)


def without_id(answer: RawAnswer) -> tuple[object, ...]:
    """All of an answer but the clock and what names the request."""
    request_id = answer.header("x-request-id") or ""
    headers = tuple(entry for entry in answer.headers if entry[0] not in ("date", "x-request-id"))
    return answer.status, headers, answer.body.replace(request_id.encode(), b"")


@pytest.mark.parametrize(("ask", "status"), [(log_in, 401), (ask_reset, 204)], ids=["log-in", "reset"])
async def test_known_and_unknown_addresses_take_the_same_time(
    api: Api, known: list[str], line: RawClient, ask: Ask, status: int
) -> None:
    times: dict[bool, list[float]] = {True: [], False: []}
    answers = set()
    gc.disable()
    try:
        for turn in range(MOST_PAIRS):
            if turn and turn % PAIRS == 0:
                if _differ_little(times):
                    break
                await api.value("delete from login_attempts")  # The same people try again.
            # Each of the two comes first as often as second.
            for is_known in (True, False) if turn % 2 else (False, True):
                email = known[turn % PAIRS] if is_known else f"{uuid4().hex}@example.com"
                began = time.perf_counter()
                answer = await ask(line, email)
                times[is_known].append(time.perf_counter() - began)
                answers.add(without_id(answer))
    finally:
        gc.enable()
    assert _differ_little(times), _medians(times)
    assert len(answers) == 1
    assert answers.pop()[0] == status


def _differ_little(times: dict[bool, list[float]]) -> bool:
    known, unknown = _medians(times)
    return abs(known - unknown) < ALLOWED * max(known, unknown)


def _medians(times: dict[bool, list[float]]) -> tuple[float, float]:
    return statistics.median(times[True]), statistics.median(times[False])
