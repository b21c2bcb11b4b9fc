"""A known and an unknown address: the same answer, in the same time."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import uuid4

import pytest
from api import Api, Client
from raw_http import RawAnswer, RawClient, raw_client

from reos.auth import login as login_module

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.auth]

PEOPLE = 60
ALLOWED = 0.10  # of the median time
PASSWORD = "Correct-horse-7"

Ask = Callable[[RawClient, str], Awaitable[RawAnswer]]


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The waits after wrong tries are the same for all, and would hide everything else."""
    monkeypatch.setattr(login_module, "waits", lambda attempts: (0.0,) * attempts)


@pytest.fixture(scope="module")
async def known(api: Api) -> list[str]:
    """The addresses of users, one for each try."""
    admin = await api.register()
    return [await _add_person(admin) for _ in range(PEOPLE)]


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


# How many pairs of a known and an unknown address are asked, one right after the other, is laid down beforehand: more
# of them where an answer takes so little time that a tenth of it is soon lost in the noise.
@pytest.mark.parametrize(
    ("ask", "status", "count"), [(log_in, 401, 60), (ask_reset, 204, 240)], ids=["log-in", "reset"]
)
async def test_known_and_unknown_addresses_take_the_same_time(
    api: Api, known: list[str], line: RawClient, ask: Ask, status: int, count: int
) -> None:
    """Judged once, by the median of the differences within the pairs: what else the machine does meanwhile hits both
    of a pair as a rule, and where it hits one of them, that is one pair among many.
    """
    pairs: list[dict[bool, float]] = []
    answers = set()
    gc.disable()
    try:
        for turn in range(count):
            if turn % PEOPLE == 0:
                await api.value("delete from login_attempts")  # The same people try again.
            pairs.append({})
            # Each of the two comes first as often as second.
            for is_known in (True, False) if turn % 2 else (False, True):
                email = known[turn % PEOPLE] if is_known else f"{uuid4().hex}@example.com"
                began = time.perf_counter()
                answer = await ask(line, email)
                pairs[-1][is_known] = time.perf_counter() - began
                answers.add(without_id(answer))
    finally:
        gc.enable()
    difference = statistics.median(pair[True] - pair[False] for pair in pairs)
    typical = statistics.median(seconds for pair in pairs for seconds in pair.values())
    assert abs(difference) < ALLOWED * typical, f"{difference * 1000:.2f} ms of {typical * 1000:.2f} ms"
    assert len(answers) == 1
    assert answers.pop()[0] == status
