"""Many log-ins at once, right and wrong ones: what others notice, and what it costs."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from uuid import uuid4

from reos.auth.passwords import hash_password
from reos.db import Database, tenant_transaction
from reos.queries import users
from tools.load.service import Service, organisation
from tools.load.wire import Answer, Probe, ask, probing, quantiles, request, usual

PASSWORD = "Correct-horse-7"  # noqa: S105


@dataclass
class LoginRun:
    """What the log-ins were answered, and what all others met meanwhile."""

    right: list[Answer]
    wrong: list[Answer]
    probe: Probe
    threads: tuple[int, int]  # before, afterwards
    memory: tuple[float, float]  # MiB before, at most
    limit: int = 0  # of the log-ins that may pass

    def lines(self) -> list[str]:
        return [
            *(
                f"{name}: {dict(Counter(answer.status for answer in answers))} after"
                f" {quantiles(answer.seconds for answer in answers)}"
                for name, answers in (("right", self.right), ("wrong", self.wrong))
            ),
            *self.probe.lines(),
            f"threads before and after: {self.threads[0]}, {self.threads[1]}",
            "memory before, at most: " + ", ".join(f"{size:.0f} MiB" for size in self.memory),
        ]

    def misses(self) -> list[str]:
        """What breaks the promise that log-ins are done in their turn or refused plainly, and nobody else waits."""
        found = self.probe.misses()
        for name, answers, status in (("right", self.right, 200), ("wrong", self.wrong, 401)):
            strange = {answer.status for answer in answers} - {status, 503, *([429] if self.limit else [])}
            if strange:
                found.append(f"{name} log-ins were answered {sorted(strange)}")
            if any(answer.status in (429, 503) and "retry-after" not in answer.headers for answer in answers):
                found.append(f"{name} log-ins were refused without Retry-After")
        passed = sum(answer.status != 429 for answer in self.right + self.wrong)
        if self.limit and passed != self.limit:
            found.append(f"{passed} log-ins passed the limit of {self.limit}")
        if not any(answer.status == 200 for answer in self.right):
            found.append("nobody was let in")
        return found


async def run(service: Service, database: Database, number: int) -> LoginRun:
    """So many right and so many wrong log-ins at once, each with an address of its own."""
    account = await organisation(database)
    emails = await _add_people(database, account.organization_id, number)
    right = [request("POST", "/api/v1/auth/login", None, {"email": email, "password": PASSWORD}) for email in emails]
    wrong = [
        request("POST", "/api/v1/auth/login", None, {"email": f"{uuid4().hex}@example.com", "password": PASSWORD})
        for _ in range(number)
    ]
    headers = account.headers(service.settings)
    before, threads = service.memory(), service.threads()
    most = before
    with probing(service.port, usual(headers), pause=1.2 if service.limit else 0.05) as probe:
        logging_in = asyncio.gather(
            *(ask(service.port, data) for pair in zip(right, wrong, strict=True) for data in pair)
        )
        while not logging_in.done():
            most = max(most, service.memory())
            await asyncio.wait([logging_in], timeout=0.1)
        answers = await logging_in
    return LoginRun(answers[::2], answers[1::2], probe, (threads, service.threads()), (before, most), service.limit)


async def _add_people(database: Database, organization_id: int, number: int) -> list[str]:
    """Users who can log in; their addresses."""
    password_hash = await hash_password(PASSWORD)
    emails = [f"{uuid4().hex}@example.com" for _ in range(number)]
    async with tenant_transaction(database, organization_id) as conn:
        for email in emails:
            await users.create(
                conn,
                email=email,
                first_name="Ann",
                last_name="Lee",
                phone=None,
                password_hash=password_hash,
                role_ids=[],
            )
    return emails
