"""What the clients know: every write that they sent, how each attempt at it ended, and what they were promised.

The checks compare this with the database. A write is known there by its request ids, `w<write>-<attempt>`, which the
audit log keeps, and by its Idempotency-Key, `k<write>`.
"""

from __future__ import annotations

import re
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

_REQUEST_ID = re.compile(r"w([0-9]+)-([0-9]+)")


@dataclass(eq=False)
class User:
    """A user of an organisation, with the token of a session that lasts."""

    organization: Organization
    email: str
    password: str
    id: int = 0
    token: str = ""
    permissions: frozenset[str] = frozenset()


@dataclass(eq=False)
class Organization:
    """An organisation, and the rows that its users know of."""

    number: int
    id: int = 0
    users: list[User] = field(default_factory=list)
    rows: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    # What is true of a row now, as far as anybody knows: whether it is deleted, its last tag.
    deleted: set[tuple[str, int]] = field(default_factory=set)
    newest: dict[tuple[str, int], str] = field(default_factory=dict)  # updated_at of the newest acknowledged state


@dataclass(eq=False)
class Attempt:
    """One request of a write (or a read) and how it ended: a status, or why there is none."""

    number: int
    began: float
    ended: float = 0.0
    status: int | None = None
    lost: str | None = None  # the connection ended
    was_cut: bool = False  # by us


@dataclass(eq=False)
class Write:
    """A change that a client wants: sent again under the same key until it gets a final answer."""

    id: int
    user: User
    kind: str  # such as property.update
    method: str
    path: str
    body: Any
    if_match: str | None = None
    seen: str | None = None  # the mark in the row that the client had read when it sent If-Match
    is_abandoned: bool = False  # its client gave up without an answer
    attempts: list[Attempt] = field(default_factory=list)
    status: int | None = None  # of the final answer
    content: Any = None
    raw: bytes = b""

    @property
    def is_done(self) -> bool:
        """Whether its work was acknowledged as done."""
        return self.status is not None and self.status < 300

    def __str__(self) -> str:
        tries = ", ".join(str(a.status or a.lost or ("cut" if a.was_cut else "no answer")) for a in self.attempts)
        return f"w{self.id} {self.method} {self.path} ({self.kind}; {tries})"


@dataclass(eq=False)
class Family:
    """A session as its client knows it."""

    user: User
    session_id: int
    rotations: int = 0
    refresh_token: str = ""
    access_token: str = ""
    is_ended: bool = False  # by an acknowledged log-out
    is_sure: bool = True  # False: an answer was lost for so long that nobody can know


@dataclass(frozen=True)
class Reaction:
    """What somebody did with a campaign's mail, and was answered."""

    mark: str  # of the campaign
    address: str
    kind: str  # o: opened, c: clicked, u: unsubscribed


@dataclass(frozen=True)
class Violation:
    """A promise that was broken, with its evidence."""

    check: str
    text: str


@dataclass(eq=False)
class Fault:
    """What was done to the service, from when to when (seconds of time.monotonic())."""

    kind: str
    text: str
    began: float
    ended: float | None = None
    has_struck: bool = False  # there was something to do it to
    loses_connections: bool = False  # a server process was killed: what it had in its hands is gone


class Model:
    """All that the clients know."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.organizations: list[Organization] = []
        self.writes: dict[int, Write] = {}
        self.families: list[Family] = []
        self.faults: list[Fault] = []
        self.violations: list[Violation] = []
        self.statuses: Counter[str] = Counter()
        self.lost: list[tuple[float, float, str]] = []  # requests without a whole answer: began, ended, what
        self.webhooks: dict[int, tuple[Organization, str, frozenset[str]]] = {}  # secret and types
        self.campaigns: dict[int, str] = {}  # the mark in the subject
        self.reactions: list[Reaction] = []

    def new_write(self, user: User, kind: str, method: str, path: str, body: Any, **options: Any) -> Write:
        write = Write(len(self.writes) + 1, user, kind, method, path, body, **options)
        self.writes[write.id] = write
        return write

    def blame(self, check: str, text: str) -> None:
        """Keep a violation that was seen while the load ran."""
        self.violations.append(Violation(check, text))

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self.began


def parse_request_id(text: str | None) -> tuple[int, int] | None:
    """The write and the attempt that a request id names."""
    match = _REQUEST_ID.fullmatch(text or "")
    return (int(match[1]), int(match[2])) if match else None
