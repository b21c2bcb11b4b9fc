"""The service on several hosts: each is `reos serve` and `reos worker` with a DATA_DIR of its own.

They share what docs/scaling.md says that hosts share: Postgres (through a pooler where one is installed, with a replica
for the numbers), an S3 server for the files, and the signing secret.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from conftest import Cluster
from pooler import pgbouncer
from replica import Replica
from running import START_SECONDS, environment, free_port, http_get, until
from s3_server import ACCESS_KEY, SECRET_KEY, s3_server

from reos import embedded, migrate
from reos.embedded import SERVICE_LOGIN

SECRET = "a secret that all hosts of this test have"


@dataclass
class Host:
    """A host's two processes."""

    directory: Path
    settings: dict[str, object]
    port: int = field(default_factory=free_port)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, *parts: str) -> None:
        """Start `serve`, `worker` or both."""
        given = environment(DATA_DIR=self.directory / "data", PORT=self.port, WORKERS=1, **self.settings)
        for part in parts:
            with (self.directory / f"{part}.log").open("ab") as log:
                self.processes[part] = subprocess.Popen(
                    [sys.executable, "-m", "reos", part],
                    cwd=self.directory, env=given, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                )  # fmt: skip

    def wait_ready(self) -> None:
        def is_ready() -> bool:
            log = self.directory / "serve.log"
            assert self.processes["serve"].poll() is None, log.read_text()[-3000:]
            with suppress(httpx.TransportError):
                return http_get(f"{self.url}/ready", timeout=5).status_code == 200
            return False

        until(is_ready, START_SECONDS)

    def stop(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()


@dataclass
class Hosts:
    """What runs, and the ways to the database."""

    hosts: list[Host]
    cluster: Cluster
    database: str
    replica: Replica
    settings: dict[str, object]


@contextmanager
def hosts(number: int, *, pooled: bool = True, **settings: object) -> Iterator[Hosts]:
    """Hosts on a throw-away primary with a streaming replica. Skips where `pooled` and PgBouncer is not installed."""
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="reos-test-"))
        directory.chmod(0o755)
        stack.callback(shutil.rmtree, directory)
        stack.callback(embedded.remove, directory / "primary")
        server = stack.enter_context(embedded.start(directory / "primary", durable=False))
        cluster = Cluster(server)
        database = cluster.create("shared")
        migrate.migrate(database.owner_dsn, SERVICE_LOGIN)
        replica = Replica(server)
        replica.copy()
        replica.start()
        stack.callback(replica.kill)
        until(replica.is_ready, 30)
        s3 = stack.enter_context(s3_server())
        given: dict[str, object] = {
            "DB_DSN": stack.enter_context(pgbouncer(server, database.name)) if pooled else database.dsn,
            # Debian 12 has PgBouncer 1.18, which knows no prepared statements of clients.
            "DB_STATEMENT_CACHE_SIZE": 0 if pooled else 256,
            "DB_LISTEN_DSN": database.dsn,
            "DB_REPLICA_DSN": replica.dsn(SERVICE_LOGIN, database.name),
            "JWT_SECRET_KEY": SECRET,
            "S3_ENDPOINT": f"http://{s3.endpoint}",
            "S3_ACCESS_KEY": ACCESS_KEY,
            "S3_SECRET_KEY": SECRET_KEY,
            **settings,
        }
        running = []
        for index in range(number):
            (directory / f"host-{index}").mkdir()
            host = Host(directory / f"host-{index}", given)
            stack.callback(host.stop)
            host.start("serve", "worker")
            running.append(host)
        for host in running:
            host.wait_ready()
        yield Hosts(running, cluster, database.name, replica, given)
