"""A service under load: started as processes of its own, watched from outside, and the accounts that use it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from event_streams import Account, add_user, make_settings, register
from running import ROOT, end_process, environment, free_port

from reos.db import Database, tenant_transaction
from reos.settings import Settings

SECRET = "a secret for measuring only, of no worth"  # noqa: S105
POOL = 8
FILL = """
insert into properties (organization_id, address, city, state, zip_code, property_type, price, description)
select $1, n || ' Main St', 'Austin', 'TX', '78701', 'condo', n * 1000, repeat('A place like any other. ', $3::int)
from generate_series(1, $2::int) n
"""


class Service:
    """A supervisor with server processes and perhaps workers, on a database that is there."""

    def __init__(
        self,
        dsn: str,
        owner_dsn: str,
        directory: Path,
        *,
        processes: int = 1,
        workers: int = 0,
        constants: str = "",
        **settings: Any,
    ):
        self.owner_dsn = owner_dsn
        self.port = free_port()
        self.output = directory / f"output-{self.port}"
        values = {
            "DB_POOL_MAX": POOL,
            "RATE_LIMIT_PER_MINUTE": 0,
            "RATE_LIMIT_PER_HOUR": 0,
            "RATE_LIMIT_PER_DAY": 0,
            **settings,
        }
        self.settings: Settings = make_settings(dsn, directory / "data", jwt_secret_key=SECRET, db_pool_max=POOL)
        self.limit: int = values["RATE_LIMIT_PER_MINUTE"]  # of requests of a client; 0: none
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tools.load.serve", str(self.port), str(processes), str(workers)],
                cwd=ROOT,
                env=environment(
                    DB_DSN=dsn, DATA_DIR=directory / "data", JWT_SECRET_KEY=SECRET, LOAD_CONSTANTS=constants, **values
                ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
                start_new_session=True,
            )

    def wait_ready(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n", self.said()

    def said(self) -> str:
        return self.output.read_text()

    def children(self) -> list[int]:
        """The processes of the supervisor, the servers first, oldest first of each kind."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def servers(self) -> list[int]:
        found = []
        for pid in self.children():
            with suppress(FileNotFoundError):
                if b"\0web-" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
        return found

    def memory(self) -> float:
        """MiB that the server processes hold, without what the kernel holds for them."""
        return sum(_status(pid, "VmRSS") for pid in self.servers()) / 1024

    def threads(self) -> int:
        return sum(_status(pid, "Threads") for pid in self.servers())

    def stop(self) -> float:
        """Tell it to stop; how many seconds that took. Fails when a part of it had to be killed."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(30) == 0
        assert "is killed" not in self.said()
        return time.monotonic() - began

    def end(self) -> None:
        """Whatever happened, nothing of it goes on."""
        end_process(self.process)
        self.process.communicate()


def _status(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise KeyError(name)


def kernel_memory() -> float:
    """MiB that the kernel holds for all TCP connections of the machine."""
    for line in Path("/proc/net/sockstat").read_text().splitlines():
        if line.startswith("TCP:"):
            return int(line.split()[-1]) * 4096 / 2**20
    raise KeyError("TCP")


@contextmanager
def serving(dsn: str, owner_dsn: str, directory: Path, **options: Any) -> Iterator[Service]:
    service = Service(dsn, owner_dsn, directory, **options)
    try:
        service.wait_ready()
        yield service
    finally:
        service.end()


async def organisation(database: Database, properties: int = 3, words: int = 10) -> Account:
    """A new organisation with an Admin and properties, whose descriptions have so many times 24 characters."""
    account = await register(database)
    async with tenant_transaction(database, account.organization_id) as conn:
        await conn.execute(FILL, account.organization_id, properties, words)
    return account


__all__ = ["Account", "Service", "add_user", "kernel_memory", "organisation", "serving"]
