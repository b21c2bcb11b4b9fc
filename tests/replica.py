"""A streaming replica of a throw-away PostgreSQL, for the tests that need one."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import psycopg

from reos import embedded
from reos.embedded import EmbeddedPostgres

PORT = 5433  # Only a part of the socket's name; the primary has 5432.


@dataclass
class Replica:
    """A standby of a primary, on the same socket directory."""

    primary: EmbeddedPostgres
    process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        return self.primary.layout.home / "replica"

    def dsn(self, login: str, database: str) -> str:
        return self.primary.layout.dsn(login, database).replace(f"port={embedded.PORT}", f"port={PORT}")

    def copy(self) -> None:
        """Take a copy of the primary that will follow it."""
        layout = self.primary.layout
        with open(layout.data / "pg_hba.conf", "a") as rules:
            rules.write("local replication all trust\n")
        with psycopg.connect(self.primary.superuser_dsn, autocommit=True) as conn:
            conn.execute("select pg_reload_conf()")
        command = ["pg_basebackup", "-D", str(self.data), "-h", str(layout.socket), "-U", "postgres", "-R"]
        process = embedded._popen(layout, [*command, "--checkpoint=fast"], stderr=subprocess.PIPE)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said

    def start(self) -> None:
        options = {
            "port": PORT,
            "listen_addresses": "",
            "unix_socket_directories": f'"{self.primary.layout.socket}"',
            "max_connections": 200,
            "fsync": "off",
        }
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        self.process = embedded._popen(self.primary.layout, ["postgres", "-D", str(self.data), *settings])

    def is_ready(self) -> bool:
        try:
            return bool(self.ask("select pg_is_in_recovery()"))
        except psycopg.OperationalError:
            return False

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None

    def ask(self, statement: str) -> object:
        with psycopg.connect(self.dsn("postgres", "postgres"), autocommit=True) as conn:
            row = conn.execute(statement).fetchone()  # type: ignore[arg-type]
            return None if row is None else row[0]
