"""A real PgBouncer in transaction mode, in front of a throw-away PostgreSQL."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from reos.embedded import SERVICE_LOGIN, EmbeddedPostgres
from reos.processes import die_with_parent

PORT = 6432  # Only a part of the socket's name.
START_SECONDS = 15
CONNECTIONS = 10  # to Postgres, for all who come


def find_pgbouncer() -> str:
    """The program; skips where it is not installed."""
    found = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        pytest.skip("PgBouncer is not installed")
    return found


@contextmanager
def pgbouncer(server: EmbeddedPostgres, database: str) -> Iterator[str]:
    """A pooler that leads to a database as the service; its DSN."""
    program = find_pgbouncer()
    account = server.layout.account
    directory = Path(tempfile.mkdtemp(prefix="reos-pooler-"))
    if account.uid is not None:
        os.chown(directory, account.uid, account.gid or 0)
    target = f"host={server.layout.socket} port=5432 dbname={database} user={SERVICE_LOGIN}"
    (directory / "pgbouncer.ini").write_text(
        f"[databases]\n{database} = {target}\n[pgbouncer]\npool_mode = transaction\nauth_type = any\n"
        f"listen_addr =\nlisten_port = {PORT}\nunix_socket_dir = {directory}\nmax_client_conn = 500\n"
        f"default_pool_size = {CONNECTIONS}\nlogfile = {directory}/log\n"
    )
    (directory / "pgbouncer.ini").chmod(0o644)
    process = subprocess.Popen(
        [program, "-q", str(directory / "pgbouncer.ini")],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        user=account.uid, group=account.gid, extra_groups=None if account.uid is None else [],
        preexec_fn=die_with_parent(signal.SIGINT),  # noqa: PLW1509 - it takes no lock
    )  # fmt: skip
    dsn = f"postgresql://{SERVICE_LOGIN}@/{database}?host={directory}&port={PORT}"
    try:
        _wait_for(dsn, process, directory / "log")
        yield dsn
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(directory)


def _wait_for(dsn: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            psycopg.connect(dsn).close()
            return
        except psycopg.OperationalError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                said = log.read_text() if log.exists() else ""
                raise RuntimeError(f"PgBouncer does not answer: {error} {said}") from error
            time.sleep(0.02)
