"""What the processes' parts share: made once at the start, handed to every request and job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from reos.auth.login_guard import LoginGuard
from reos.auth.signing import Signer
from reos.db import Database
from reos.locks import SessionLocks
from reos.settings import Settings


@dataclass(slots=True)
class Context:
    """The wired parts of a web process."""

    settings: Settings
    database: Database
    signer: Signer
    login_guard: LoginGuard
    limiter: Any
    storage: Any
    hub: Any
    locks: SessionLocks
    webhooks: Any
    scraper: Any
    replica: Database | None = None  # what reads_replica endpoints read
    redis: Any = None  # the client of Redis, where one is configured
    mailer: Any = None  # for the health check, where a mail server is configured
