"""Clients that keep what they were told: a write goes out under one key again and again until it has a final answer."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import deque
from contextlib import suppress
from datetime import datetime
from typing import Any

from raw_http import RawAnswer

from tools.faults.model import Attempt, Model, User, Write
from tools.faults.wire import BrokenError, Cut, CutError, LostError, SilentError, Wire

PREFIX = "/api/v1"
ABANDONED = 0.3  # the part of the writes that were cut which nobody sends again
# Where a write puts its mark, so that every state of a row can be told from every other.
MARKED = {
    "property": "description",
    "lead": "notes",
    "deal": "notes",
    "portfolio": "description",
    "transaction": "description",
    "campaign": "description",
}


class Clients:
    """All clients of a run: they share the wire, and what the driver has in store for their connections."""

    def __init__(self, model: Model, wire: Wire, dice: random.Random):
        self.model = model
        self.wire = wire
        self.dice = dice
        self.cuts: deque[Cut] = deque()  # the next requests meet these
        self.over = asyncio.Event()  # nothing new is begun
        self.gives_up = False  # nothing is tried again
        self.open = 0  # writes without a final answer

    @property
    def is_over(self) -> bool:
        """Whether nothing new is to be begun."""
        return self.over.is_set()

    async def rest(self, mean: float) -> bool:
        """Do nothing for a while; whether work goes on then."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.over.wait(), min(self.dice.expovariate(1 / mean), 5 * mean))
        return not self.is_over

    # --- writes --------------------------------------------------------------------------------------------------

    async def write(self, user: User, kind: str, method: str, path: str, body: Any = None, **options: Any) -> Write:
        """Send a write until it has a final answer. `times` sends it so often at once, under the same key.

        `marked` names the field of the body that gets the write's mark, if not its kind's; None: no field.
        """
        times = options.pop("times", 1)
        marked = options.pop("marked", MARKED.get(kind.partition(".")[0]))
        write = self.model.new_write(user, kind, method, path, body, **options)
        if isinstance(body, dict) and marked and marked not in body:
            body[marked] = f"m{write.id}"
        await asyncio.gather(*(self._carry_out(write) for _ in range(times)))
        return write

    async def _carry_out(self, write: Write) -> None:
        self.open += 1
        try:
            while not self.gives_up:
                attempt, answer = await self._attempt(write)
                if answer is not None and not is_temporary(answer):
                    self._settle(write, answer)
                    return
                if attempt.was_cut and self.dice.random() < ABANDONED:
                    write.is_abandoned = True
                    return
                await asyncio.sleep(self.dice.uniform(0.05, 0.6))
        finally:
            self.open -= 1

    async def _attempt(self, write: Write) -> tuple[Attempt, RawAnswer | None]:
        attempt = Attempt(len(write.attempts) + 1, time.monotonic())
        write.attempts.append(attempt)
        headers = {"X-Request-ID": f"w{write.id}-{attempt.number}", "Idempotency-Key": f"k{write.id}"}
        if write.if_match is not None:
            headers["If-Match"] = write.if_match
        what = f"w{write.id}-{attempt.number} {write.method} {write.path}"
        return attempt, await self._send(write.user, write.method, write.path, headers, write.body, attempt, what)

    def _settle(self, write: Write, answer: RawAnswer) -> None:
        """Keep the final answer. Every other attempt, at once or later, has to get the same."""
        if write.status is not None:
            if (answer.status, answer.body) != (write.status, write.raw):
                self.model.blame("replay", f"{write}: first {write.status} {write.raw!r}, then {answer.body!r}")
            return
        write.status, write.raw = answer.status, answer.body
        write.content = json.loads(answer.body) if answer.body else None
        if write.is_done:
            self._learn(write)

    def _learn(self, write: Write) -> None:
        kind, _, action = write.kind.partition(".")
        organization, content = write.user.organization, write.content
        if action == "convert":
            kind = "deal"
        if action in ("create", "convert", "send") and kind != "organization":
            known = organization.rows[kind]
            if content["id"] not in known[-50:]:
                known.append(content["id"])
        if action in ("delete", "restore"):
            row = (kind, int(write.path.removesuffix("/restore").rpartition("/")[2]))
            (organization.deleted.add if action == "delete" else organization.deleted.discard)(row)
        if isinstance(content, dict) and content.get("updated_at") and MARKED.get(kind):
            row = (kind, content["id"])
            organization.newest[row] = max(organization.newest.get(row, ""), sortable(content["updated_at"]))

    # --- reads ---------------------------------------------------------------------------------------------------

    async def read(self, user: User, path: str, *, token: str | None = None) -> RawAnswer | None:
        """One GET; None when it was not answered."""
        attempt = Attempt(1, time.monotonic())
        return await self._send(user, "GET", path, {}, None, attempt, f"GET {path}", token=token)

    async def post_plain(self, user: User, path: str, body: Any, *, token: str | None = None) -> RawAnswer | None:
        """One POST without a key, such as a log-in; None when it was not answered."""
        attempt = Attempt(1, time.monotonic())
        return await self._send(user, "POST", path, {}, body, attempt, f"POST {path}", token=token)

    async def get_row(self, user: User, kind: str, row_id: int, path: str) -> tuple[str, Any] | None:
        """A row and its tag; it must not be older than what was acknowledged before it was asked for."""
        organization = user.organization
        newest = organization.newest.get((kind, row_id), "")
        answer = await self.read(user, f"{path}/{row_id}")
        if answer is None or answer.status != 200:
            return None
        content = answer.json()
        if sortable(content["updated_at"]) < newest:
            self.model.blame("reads", f"GET {path}/{row_id} gave {content['updated_at']}, older than {newest}")
        return answer.header("etag") or "", content

    # --- the wire ------------------------------------------------------------------------------------------------

    async def visit(self, method: str, path: str) -> RawAnswer | None:
        """Follow a link of a mail, which belongs to no user; None when it was not answered.

        Whoever has got a mail is known to the database, and answered 200 or 302, or asked to come again.
        """
        what = f"{method} {path}"
        answer = await self._exchange(method, path, {}, None, Attempt(1, time.monotonic()), what)
        if answer is not None and answer.status not in (200, 302):
            problem = problem_of(answer, 0) if answer.status == 503 else "is no answer to who has got a mail"
            if problem:
                self.model.blame("answers", f"{what}: {answer.status} {problem}: {answer.body[:500]!r}")
        return answer

    async def _send(
        self,
        user: User,
        method: str,
        path: str,
        headers: dict[str, str],
        body: Any,
        attempt: Attempt,
        what: str,
        *,
        token: str | None = None,
    ) -> RawAnswer | None:
        token = user.token if token is None else token
        if token:
            headers["Authorization"] = f"Bearer {token}"
        answer = await self._exchange(method, PREFIX + path, headers, body, attempt, what)
        if answer is not None:
            self._judge(answer, user, what)
        return answer

    async def _exchange(
        self, method: str, path: str, headers: dict[str, str], body: Any, attempt: Attempt, what: str
    ) -> RawAnswer | None:
        cut = self.cuts.popleft() if self.cuts else None
        try:
            answer = await self.wire.request(method, path, headers, body, cut=cut)
        except LostError as error:
            attempt.lost = str(error)
            self.model.lost.append((attempt.began, time.monotonic(), f"{what}: {error}"))
            self.model.statuses["lost"] += 1
        except CutError:
            attempt.was_cut = True
            self.model.statuses["cut"] += 1
        except (SilentError, BrokenError) as error:
            self.model.blame("answers", f"{what}: {error}")
        else:
            attempt.status = answer.status
            self.model.statuses[str(answer.status)] += 1
            return answer
        finally:
            attempt.ended = time.monotonic()
        return None

    def _judge(self, answer: RawAnswer, user: User, what: str) -> None:
        """What must be true of every answer by itself."""
        problem = problem_of(answer, user.organization.id)
        if problem:
            self.model.blame("answers", f"{what}: {answer.status} {problem}: {answer.body[:500]!r}")


def problem_of(answer: RawAnswer, organization_id: int) -> str | None:
    """What is wrong with an answer, whatever it was asked; None when it is a plain one."""
    try:
        content = answer.json() if answer.body else None
    except ValueError:
        return "is no JSON"
    if answer.status in (204, 304):
        return "has a body" if answer.body else None
    if answer.status >= 400:
        if not isinstance(content, dict) or set(content) != {"error"} or "type" not in content["error"]:
            return "has no error envelope"
        if answer.status >= 500 and answer.status != 503:
            return "is an error of the inside"
        return "has no Retry-After" if answer.status == 503 and not answer.header("retry-after") else None
    if content is None:
        return "has no body"
    rows = content.get("items", [content]) if isinstance(content, dict) else content
    owners = {row["organization_id"] for row in rows if isinstance(row, dict) and "organization_id" in row}
    return f"is of organisation {owners}" if organization_id and owners - {organization_id} else None


def is_temporary(answer: RawAnswer) -> bool:
    """Whether the same request may get another answer later."""
    if answer.status in (429, 503) or answer.status >= 500:
        return True
    return answer.status == 409 and answer.json()["error"]["type"] == "IdempotencyConflictError"


def sortable(time: str) -> str:
    """A time of an answer in a form that sorts."""
    return datetime.fromisoformat(time).isoformat(timespec="microseconds")
