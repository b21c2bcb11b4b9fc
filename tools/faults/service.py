"""The service as its operators start it: `reos run` with several server processes, and a second worker beside it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg
from running import Run, command_of, environment, is_gone

from reos import embedded
from reos.jobs.connector import LOST
from reos.processes import die_with_parent
from tools.faults.wire import BrokenError, LostError, SilentError, Wire

START_SECONDS = 60.0
AWAY = (*LOST, asyncpg.PostgresError)  # what Postgres may answer that has just been killed


class Service:
    """The processes of a service in a directory of its own, and the ways to its database.

    Every method that starts a process must be called from the main thread, which the processes die with.
    """

    def __init__(self, directory: Path, **settings: Any):
        self.directory = directory
        self.settings = {
            "WORKERS": 2,
            "SEED_DEMO": 0,
            "RATE_LIMIT_PER_MINUTE": 0,
            "RATE_LIMIT_PER_HOUR": 0,
            "RATE_LIMIT_PER_DAY": 0,
            "DATA_DIR": directory / ".reos",
            **settings,
        }
        self.layout = embedded._layout(directory.resolve() / ".reos", embedded.find_binaries())
        self.worker: subprocess.Popen[bytes] | None = None
        self.run: Run | None = None
        self.is_up = False

    @property
    def url(self) -> str:
        assert self.run is not None
        return self.run.url

    @property
    def superuser_dsn(self) -> str:
        return self.layout.dsn("postgres", embedded.DATABASE)

    # --- processes -----------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Make the database, and have it remember when each transaction committed."""
        with embedded.start(self.directory / ".reos"):
            pass
        with (self.layout.data / "postgresql.conf").open("a") as file:
            file.write("track_commit_timestamp = on\n")

    def launch(self) -> None:
        """Start all, on the same port as before; the second worker follows when the first has its database."""
        if self.run is not None:
            # What it has said so far is evidence.
            self.run.output.rename(f"{self.run.output}.{time.time_ns()}")
        self.is_up = False
        self.run = Run(self.directory, "--with-parent", **self.settings)
        self.settings["PORT"] = self.run.port

    def start_worker(self) -> None:
        """Start the second worker, or start it again when it has ended, as whatever runs containers would."""
        if not self.is_up or (self.worker is not None and self.worker.poll() is None):
            return
        with (self.directory / "output-worker").open("ab") as output:
            self.worker = subprocess.Popen(
                [sys.executable, "-m", "reos", "worker"],
                cwd=self.directory,
                env=environment(**self.settings),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGKILL),  # noqa: PLW1509 - it takes no lock
            )

    def has_died(self) -> bool:
        """Whether the supervisor has ended although nobody has killed it."""
        return self.is_up and self.run is not None and self.run.process.poll() is not None

    def servers(self) -> list[int]:
        assert self.run is not None
        return self.run.children("reos.server")

    def workers(self) -> list[int]:
        assert self.run is not None
        second = [self.worker.pid] if self.worker is not None and self.worker.poll() is None else []
        return [*self.run.children("worker"), *second]

    def postgres(self) -> int | None:
        """The process that all others of Postgres come from."""
        assert self.run is not None
        found = [pid for pid in self.run.children("-D") if command_of(pid)[0].endswith("postgres")]
        return found[0] if found else None

    def kill_all(self) -> None:
        """Everything at once, the supervisor first."""
        assert self.run is not None
        self.is_up = False
        pids = [self.run.process.pid, *self.run.processes()]
        if self.worker is not None:
            pids.append(self.worker.pid)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.run.process.wait()
        if self.worker is not None:
            self.worker.wait()
        deadline = time.monotonic() + 10
        while not all(map(is_gone, pids)) and time.monotonic() < deadline:
            time.sleep(0.01)

    def end(self) -> None:
        """Nothing of it goes on, whatever state it is in."""
        if self.run is not None:
            self.kill_all()
            self.run.end()
        while left := embedded._processes_in(self.layout.data):
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)

    # --- the database --------------------------------------------------------------------------------------------

    async def connect(self) -> asyncpg.Connection:
        """A connection of the superuser, whom row security does not concern; jsonb comes parsed."""
        conn = await asyncpg.connect(self.superuser_dsn, timeout=5, command_timeout=60)
        await conn.execute("set search_path = public, procrastinate")
        return conn

    async def is_ready(self) -> bool:
        """Whether a server process says that it is ready."""
        wire = Wire(self.url)
        with suppress(LostError, BrokenError, SilentError):
            return (await wire.request("GET", "/ready", {"Connection": "close"})).status == 200
        return False


async def until_ready(service: Service, seconds: float = START_SECONDS) -> None:
    """Wait until a server process answers that it is ready."""
    async with asyncio.timeout(seconds):
        while not await service.is_ready():
            await asyncio.sleep(0.1)
    service.is_up = True
    service.start_worker()
