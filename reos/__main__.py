"""The command line: `reos run`, `serve`, `worker`, `migrate`, `seed`, `create-admin`, `doctor`, `rls`, `reset`."""

from __future__ import annotations

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # A fresh installation compiles for seconds what is imported below. Nothing has to be cleaned up yet, so that Ctrl-C
    # may end the process at once, instead of showing which import it met.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import asyncio
import os
import re
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reos import demo, embedded, metrics, migrate, rls
from reos.embedded import EmbeddedPostgres, EmbeddedPostgresError
from reos.errors import ReosError
from reos.migrate import MigrationError
from reos.processes import stop_with_parent
from reos.settings import Settings, SettingsError, load_settings, read_settings


class CommandError(Exception):
    """A command cannot do what it was told. The message is one sentence that says why."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command. The exit code is 0, 1 (it failed, a sentence says why) or 2 (a wrong setting or argument)."""
    parsed = _parser().parse_args(arguments)
    try:
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        # A secret that is made for what is to be removed would make DATA_DIR as well, under a mistyped name too.
        settings = read_settings() if parsed.command is reset else load_settings()
        code = parsed.command(settings, parsed)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    except (CommandError, EmbeddedPostgresError, MigrationError, ReosError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return int(code or 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="reos", description="Real Estate OS")
    commands = parser.add_subparsers(required=True, metavar="command")

    def add(name: str, command: Callable[[Settings, argparse.Namespace], Any], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(command=command)
        return added

    all_parts = add("run", run, "all parts together, with an embedded Postgres unless DB_DSN is set")
    all_parts.add_argument("--reload", action="store_true", help="start again when a source file changes")
    all_parts.add_argument("--with-parent", action="store_true", help="stop when the program that started it ends")
    add("serve", serve, "the HTTP servers alone")
    add("worker", worker, "the job worker alone")
    migrations = add("migrate", run_migrations, "bring the database up to date").add_mutually_exclusive_group()
    migrations.add_argument("--down", type=_number, metavar="N", help="undo the last N migrations")
    migrations.add_argument("--list", action="store_true", help="show which are applied")
    migrations.add_argument("--mark", metavar="NAME", help="record one as applied without running it")
    migrations.add_argument("--new", metavar="NAME", help="write the files of a new one")
    add("seed", run_seed, "load the demo data, or a volume to measure with").add_argument(
        "--scale",
        type=_scale,
        metavar="NxM",
        help="instead: N organisations of M properties, M leads and 2 M / 5 deals, such as 20x5000",
    )
    admin = add("create-admin", run_create_admin, "add an Admin to an organisation, which is made when it is missing")
    admin.add_argument("email")
    admin.add_argument("password", help="a single - reads it from the first line of the standard input")
    admin.add_argument("organization", metavar="organisation", help="its name or slug")
    add("doctor", run_doctor, "look for what is wrong with the installation")
    add("rls", run_rls, "show who may read and write which rows, and what of it is out of line").add_argument(
        "--sql", action="store_true", help="print the questions to the catalogue instead, to paste into psql"
    )
    add("reset", reset, "remove DATA_DIR with the embedded database").add_argument(
        "--yes", action="store_true", help="do not ask"
    )
    return parser


# --- Commands ---------------------------------------------------------------------------------------------------


def run(settings: Settings, arguments: argparse.Namespace) -> None:
    """Database, demo data, servers and worker; says where everything is once it is there."""
    from reos.log import setup_logging

    if arguments.with_parent:
        stop_with_parent()
    setup_logging(settings, "supervisor")
    sockets = _bind(settings)
    with _database(settings) as (resolved, postgres):
        _bring_up_to_date(settings, resolved)
        has_demo = _seed(settings, resolved)
        outbox = settings.dev_outbox or ("dev_outbox" not in settings.model_fields_set and not settings.proxies_count)
        environment = {"DB_DSN": resolved.db_dsn, "DEV_OUTBOX": str(outbox).lower()}
        _supervise(
            sockets,
            environment,
            postgres,
            with_worker=True,
            reload=(lambda: _bring_up_to_date(settings, resolved)) if arguments.reload else None,
            on_ready=lambda: _announce(settings, outbox, has_demo),
        )


def serve(settings: Settings, arguments: argparse.Namespace) -> None:
    """The HTTP servers."""
    from reos.log import setup_logging

    setup_logging(settings, "supervisor")
    sockets = _bind(settings)
    with _database(settings) as (resolved, postgres):
        _bring_up_to_date(settings, resolved)
        _supervise(sockets, {"DB_DSN": resolved.db_dsn}, postgres)


def worker(settings: Settings, arguments: argparse.Namespace) -> None:
    """The job worker, in this process."""
    import uvloop

    from reos.log import setup_logging

    setup_logging(settings, "worker")
    with _database(settings) as (resolved, _):
        _bring_up_to_date(settings, resolved)
        from reos.jobs.worker import run_worker

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run_worker(resolved))


def run_migrations(settings: Settings, arguments: argparse.Namespace) -> None:
    """Up, or what the options say."""
    if arguments.new is not None:
        for path in migrate.new(arguments.new):
            print(path)
        return
    with _database(settings) as (resolved, _):
        owner_dsn = resolved.db_owner_dsn or resolved.db_dsn
        if arguments.list:
            applied = set(migrate.applied(owner_dsn))
            for name in migrate.names():
                print("applied" if name in applied else "pending", name)
        elif arguments.mark is not None:
            print("marked", migrate.mark(owner_dsn, arguments.mark))
        elif arguments.down is not None:
            for name in migrate.migrate_down(owner_dsn, arguments.down):
                print("undone", name)
        else:
            for name in migrate.migrate(owner_dsn, migrate.login_of(resolved.db_dsn)):
                print("applied", name)
            print("The database is up to date.")


def _number(text: str) -> int:
    """How many, from 1. With a negative number all migrations but that many would be undone."""
    if not re.fullmatch("[1-9][0-9]{0,8}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1")
    return int(text)


def run_seed(settings: Settings, arguments: argparse.Namespace) -> None:
    """Demo data, or a volume to measure with, and who can log in to it."""
    from reos.seed import scale, seed

    size: scale.Scale | None = arguments.scale
    with _database(settings) as (resolved, _):
        _bring_up_to_date(settings, resolved)
        if size is None:
            print("The demo data is loaded." if asyncio.run(seed(resolved)) else "The demo data is there already.")
            logins = demo.LOGINS
        else:
            is_new = asyncio.run(scale.load(resolved, size))
            print(f"The organisations of {size} are {'loaded' if is_new else 'there already'}.")
            logins = [("Admin", email, demo.SCALE_PASSWORD) for email in size.admins]
    for who, email, password in logins:
        print(f"  {email}  {password}  ({who})")


def _scale(text: str) -> Any:
    from reos.seed import scale

    try:
        return scale.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def run_create_admin(settings: Settings, arguments: argparse.Namespace) -> None:
    """A verified Admin."""
    from reos.admin import create_admin

    password = arguments.password
    if password == "-":  # noqa: S105 - it stands for what comes on the standard input
        password = sys.stdin.readline().rstrip("\r\n")
    with _database(settings) as (resolved, _):
        _bring_up_to_date(settings, resolved)
        print(asyncio.run(create_admin(resolved, arguments.email, password, arguments.organization)))


def run_doctor(settings: Settings, arguments: argparse.Namespace) -> int:
    """One line for each thing looked at, as soon as it is known; 1 when something is at fault."""
    from reos.doctor import examine

    verdicts = set()
    with _database(settings) as (resolved, _):
        for finding in examine(resolved):
            print(f"{finding.verdict:<7} {finding.text}", flush=True)
            verdicts.add(finding.verdict)
    return int("fault" in verdicts)


def run_rls(settings: Settings, arguments: argparse.Namespace) -> int:
    """The report; 1 when something is out of line. With --sql only the statements, without asking the database."""
    if arguments.sql:
        print("\n".join(rls.questions()))
        return 0
    with _database(settings) as (resolved, _):
        catalogue = rls.read(resolved.db_owner_dsn or resolved.db_dsn)
    red, plain = ("\x1b[1;31m", "\x1b[0m") if sys.stdout.isatty() and "NO_COLOR" not in os.environ else ("", "")
    is_loud = [(line.lstrip().startswith("!!"), line) for line in rls.report(catalogue)]
    # In one go, so that a pager may be left early.
    print("\n".join(f"{red}{line}{plain}" if loud else line for loud, line in is_loud))
    return int(bool(rls.problems(catalogue)))


def reset(settings: Settings, arguments: argparse.Namespace) -> None:
    """Remove DATA_DIR and the embedded database, wherever its files are."""
    directory = settings.data_dir.resolve()
    if not directory.exists():
        raise CommandError(f"There is no {directory}; nothing was removed.")
    question = f"Remove {directory} with the embedded database and all files? [y/N] "
    if not arguments.yes and not _is_agreed(question):
        raise CommandError("Nothing was removed.")
    if directory in (Path.cwd(), *Path.cwd().parents):
        raise CommandError(f"DATA_DIR {directory} holds the present folder; it is not removed.")
    embedded.remove(directory)
    shutil.rmtree(directory)
    print(f"{directory} is gone.")


def _is_agreed(question: str) -> bool:
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:  # There is nobody to ask.
        print()
        return False


# --- What they share --------------------------------------------------------------------------------------------


@contextmanager
def _database(settings: Settings) -> Iterator[tuple[Settings, EmbeddedPostgres | None]]:
    """The settings with all DSNs filled in, and the embedded Postgres while it is the one."""
    if not settings.is_embedded:
        yield settings, None
        return
    try:
        started = embedded.start(settings.data_dir)
    except OSError as error:
        raise CommandError(f"DATA_DIR: {error.filename} cannot be used: {error.strerror}.") from error
    with started as postgres:
        yield settings.model_copy(update={"db_dsn": postgres.dsn, "db_owner_dsn": postgres.owner_dsn}), postgres


def _bring_up_to_date(settings: Settings, resolved: Settings) -> None:
    """Migrate if that is wanted, else refuse to go on with a database that is behind."""
    wanted = settings.is_embedded if settings.auto_migrate is None else settings.auto_migrate
    if wanted:
        owner_dsn = resolved.db_owner_dsn or resolved.db_dsn
        if applied := migrate.migrate(owner_dsn, migrate.login_of(resolved.db_dsn)):
            print(f"Applied {len(applied)} migrations, up to {applied[-1]}.", flush=True)
    elif pending := migrate.pending(resolved.db_dsn):
        raise CommandError(f"{migrate.behind(pending)} Run `reos migrate`.")


def _seed(settings: Settings, resolved: Settings) -> bool:
    """Fill the embedded database with demo data; whether that is there.

    Somebody's own database is filled only when SEED_DEMO was set on purpose.
    """
    wanted = settings.seed_demo and (settings.is_embedded or "seed_demo" in settings.model_fields_set)
    if wanted:
        from reos.seed import seed

        if asyncio.run(seed(resolved)):
            print("Loaded the demo data.", flush=True)
    return wanted


def _bind(settings: Settings) -> list[socket.socket]:
    """The sockets of the server processes: first of all, since a port that is taken ends the start."""
    from reos import server

    try:
        return server.bind_sockets(settings.host, settings.port, settings.workers)
    except server.ServerError as error:
        raise CommandError(str(error)) from error


def _supervise(
    sockets: list[socket.socket],
    environment: dict[str, str],
    postgres: EmbeddedPostgres | None,
    *,
    with_worker: bool = False,
    reload: Callable[[], None] | None = None,
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    from reos import server
    from reos.reload import Watcher

    watcher = Watcher()

    def keep() -> None:
        if postgres is not None:
            postgres.revive()
        if reload is not None and watcher.has_changed():
            print("A source file has changed.", flush=True)
            reload()
            supervisor.restart()

    children = server.web_children(sockets)
    if with_worker:
        children.append(server.worker_child())
    try:
        with metrics.shared_directory() as shared:
            given = {**environment, **shared}
            supervisor = server.Supervisor(children, given, keep=keep, on_ready=on_ready, gives_up=reload is None)
            supervisor.run()
    except server.ServerError as error:
        raise CommandError(str(error)) from error


def _announce(settings: Settings, outbox: bool, has_demo: bool) -> None:
    base = settings.base_url
    lines = [("Start", f"{base}/"), ("API", f"{base}/api/v1"), ("Docs", f"{base}/docs")]
    if outbox and not settings.smtp_host:
        lines.append(("Mails", f"{base}/dev/outbox"))
    if has_demo:
        lines += [(f"{role}:", f"{email}  {password}") for role, email, password in demo.LOGINS[:3]]
    print("\nReal Estate OS is ready. Ctrl-C stops it.\n")
    for name, value in lines:
        print(f"  {name:<9} {value}")
    print(flush=True)


if __name__ == "__main__":
    sys.exit(main())
