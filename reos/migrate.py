"""Roles and migrations: whatever brings a database to what this version of the service needs.

The roles are made here and not by a migration, because they belong to the whole cluster and a rollback never drops
them. The migrations in `migrations/` are run by yoyo as `reos_owner`. All of it happens under one advisory lock, so
that any number of processes may start at once.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict

from reos import sql

if TYPE_CHECKING:
    from yoyo.backends.base import DatabaseBackend
    from yoyo.migrations import MigrationList

logger = logging.getLogger(__name__)

MIGRATIONS = Path(__file__).parent.parent / "migrations"
TABLE = "_yoyo_migration"
CONNECT_SECONDS = 10
ROLE_TRIES = 10  # Another database of the cluster may be making the same roles at this moment.
ROLE_WAIT = 0.1  # seconds between the tries

_TEMPLATE = "-- {idea}\nset local lock_timeout = '5s';\n\n"


class MigrationError(Exception):
    """The database cannot be brought to where it should be. The message is one sentence that says why."""


def migrate(owner_dsn: str, service_login: str = "", directory: Path = MIGRATIONS) -> list[str]:
    """Make the roles that are missing and apply the migrations that are pending; the names of those applied.

    `service_login` is the log-in of the service, by default the one of `owner_dsn`. Raises MigrationError.
    """
    with _locked(owner_dsn) as conn:
        prepare_roles(conn, service_login or _login(conn))
        if not _missing(conn, directory):
            return []
        applied = []
        with _backend(owner_dsn, conn) as backend:
            for migration in backend.to_apply(_read(directory)):
                with _reported(migration.id):
                    backend.apply_one(migration)
                applied.append(migration.id)
        return applied


def migrate_down(owner_dsn: str, number: int, directory: Path = MIGRATIONS) -> list[str]:
    """Undo the last `number` migrations; their names, the last one first. Raises MigrationError."""
    undone = []
    with _locked(owner_dsn) as conn, _backend(owner_dsn, conn) as backend:
        for migration in backend.to_rollback(_read(directory))[:number]:
            if not (directory / f"{migration.id}.rollback.sql").exists():
                raise MigrationError(f"{migration.id} cannot be undone: it has no .rollback.sql beside it.")
            with _reported(migration.id):
                backend.rollback_one(migration)
            undone.append(migration.id)
    return undone


def mark(owner_dsn: str, name: str, directory: Path = MIGRATIONS) -> str:
    """Record a migration as applied without running it; `name` may be shortened. Raises MigrationError."""
    with _locked(owner_dsn) as conn:
        prepare_roles(conn, _login(conn))
        with _backend(owner_dsn, conn) as backend:
            found = [m for m in backend.to_apply(_read(directory)) if name and m.id.startswith(name)]
            if len(found) != 1:
                count = "No pending migration starts" if not found else f"{len(found)} pending migrations start"
                raise MigrationError(f"{count} with {name}.")
            backend.mark_migrations(found)
            return str(found[0].id)


def new(name: str, directory: Path = MIGRATIONS) -> list[Path]:
    """Write the two files of the next migration, `NNNN.<name>.sql` and `.rollback.sql`."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if not slug:
        raise MigrationError("A migration needs a name of letters and digits.")
    number = max((int(m[0]) for m in (re.match(r"\d+", known) for known in names(directory)) if m), default=0) + 1
    paths = [directory / f"{number:04d}.{slug}.sql", directory / f"{number:04d}.{slug}.rollback.sql"]
    for path in paths:
        path.write_text(_TEMPLATE.format(idea=slug.replace("-", " ").capitalize() + "."))
    return paths


def names(directory: Path = MIGRATIONS) -> list[str]:
    """The names of all migrations, in their order."""
    return sorted(path.stem for path in directory.glob("*.sql") if not path.name.endswith(".rollback.sql"))


def applied(dsn: str) -> list[str]:
    """The names of the migrations that the database has had. Raises MigrationError when it cannot be reached."""
    with connect(dsn) as conn:
        return _applied(conn)


def pending(dsn: str, directory: Path = MIGRATIONS) -> list[str]:
    """The names of the migrations that the database still needs. Raises MigrationError when it cannot be reached."""
    with connect(dsn) as conn:
        return _missing(conn, directory)


def behind(pending: list[str]) -> str:
    """The sentence that says how far behind a database is."""
    if len(pending) == 1:
        return f"The database is one migration behind ({pending[0]})."
    return f"The database is {len(pending)} migrations behind ({pending[0]} to {pending[-1]})."


def login_of(dsn: str) -> str:
    """The log-in that a DSN leads to. Raises MigrationError when it does not say and cannot be reached."""
    user = conninfo_to_dict(dsn).get("user")
    if user:
        return str(user)
    with connect(dsn) as conn:
        return _login(conn)


def missing_role_statements(owner_dsn: str, service_login: str) -> list[tuple[bool, str]]:
    """What a DBA would have to say so that roles, memberships and rights are there: (is it required, statement)."""
    with connect(owner_dsn) as conn:
        return _role_statements(conn, service_login)


def prepare_roles(conn: psycopg.Connection, service_login: str) -> None:
    """Make roles, memberships and rights that are missing. What is there needs no right to make it.

    Raises MigrationError with the statements that a DBA has to run when the log-in may not.
    """
    for row in _all(conn, "list_unsafe_roles"):
        raise MigrationError(f"The role {row[0]} is superuser or BYPASSRLS, so row security would not hold; alter it.")
    for attempt in range(ROLE_TRIES):
        try:
            for required, statement in _role_statements(conn, service_login):
                _say(conn, required, statement)
            return
        except (errors.DuplicateObject, errors.UniqueViolation, errors.InternalError):
            # "tuple concurrently updated" is an internal error: two databases of a cluster at once.
            if attempt == ROLE_TRIES - 1:
                raise
            time.sleep(ROLE_WAIT)


def _say(conn: psycopg.Connection, required: bool, statement: str) -> None:
    try:
        conn.execute(statement)
    except errors.InsufficientPrivilege as error:
        login = _login(conn)
        if required:
            raise MigrationError(
                f"The log-in {login} may not run `{statement}` ({_sentence(error)}): give it CREATEROLE and the "
                "database, or have a DBA run the statements that `reos doctor` shows."
            ) from error
        logger.warning("%s may not run `%s`; the service takes its role at each connect", login, statement)


def _role_statements(conn: psycopg.Connection, service_login: str) -> list[tuple[bool, str]]:
    return _all(conn, "list_role_statements", _login(conn), service_login)


@contextmanager
def connect(dsn: str) -> Iterator[psycopg.Connection]:
    """A connection in autocommit mode. Raises MigrationError when Postgres cannot be reached."""
    try:
        conn = psycopg.connect(dsn, autocommit=True, connect_timeout=CONNECT_SECONDS, cursor_factory=psycopg.RawCursor)
    except psycopg.OperationalError as error:
        raise MigrationError(f"Postgres cannot be reached: {_sentence(error)}.") from error
    with conn:
        yield conn


@contextmanager
def _locked(dsn: str) -> Iterator[psycopg.Connection]:
    with connect(dsn) as conn:
        _all(conn, "reset_role")
        _all(conn, "lock_migrations")
        yield conn


def _all(conn: psycopg.Connection, name: str, *args: Any) -> list[Any]:
    """Run a statement of `database_roles.sql`; its rows."""
    statement = getattr(sql.load("database_roles"), name)
    cursor = conn.execute(statement.text, args)
    return cursor.fetchall() if cursor.description else []


def _login(conn: psycopg.Connection) -> str:
    return str(_all(conn, "get_login")[0][0])


def _applied(conn: psycopg.Connection) -> list[str]:
    if not _all(conn, "has_migrations")[0][0]:
        return []
    try:
        return [row[0] for row in _all(conn, "list_applied")]
    except errors.InsufficientPrivilege as error:
        login = _login(conn)
        raise MigrationError(f"The log-in {login} may not read {TABLE}: run `reos migrate` for it.") from error


def _missing(conn: psycopg.Connection, directory: Path) -> list[str]:
    present = set(_applied(conn))
    return [name for name in names(directory) if name not in present]


def _read(directory: Path) -> MigrationList:
    from yoyo import read_migrations

    return read_migrations(str(directory).replace("[", "[[]"))  # It is a glob pattern.


@contextmanager
def _backend(dsn: str, conn: psycopg.Connection) -> Iterator[DatabaseBackend]:
    """yoyo's side of the database, on connections that work as reos_owner, with yoyo's own tables and lock.

    yoyo's lock is a row that a crash leaves behind. We hold the advisory lock, so an old one may be broken.
    """
    from yoyo.connections import DatabaseURI

    kind = _backend_class(dsn)
    with kind(DatabaseURI("postgresql", None, None, None, None, "", {}), TABLE) as backend:
        if not _all(conn, "has_lock_table")[0][0]:
            backend.create_lock_table()
        backend.break_lock()
        with backend.lock():
            backend.ensure_internal_schema_updated()
            backend.execute(sql.load("database_roles").grant_list_of_applied.text)
            yield backend


def _backend_class(dsn: str) -> Callable[..., DatabaseBackend]:
    from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend

    statements = sql.load("database_roles")

    class OwnerBackend(PostgresqlPsycopgBackend):  # type: ignore[misc]  # yoyo has no types
        """A connection by our DSN, unparsed, as reos_owner; and a log that asks neither DNS nor the password file."""

        def connect(self, dburi: object) -> psycopg.Connection:
            return psycopg.connect(dsn, autocommit=True, connect_timeout=CONNECT_SECONDS)

        def init_connection(self, connection: psycopg.Connection) -> None:
            connection.execute(statements.become_owner.text)
            connection.execute(statements.set_search_path.text)

        def get_log_data(self, migration: Any = None, operation: str = "apply") -> dict[str, Any]:
            return {
                "id": str(uuid.uuid4()),
                "migration_id": migration.id if migration else None,
                "migration_hash": migration.hash if migration else None,
                "username": login_of(dsn),
                "hostname": "",
                "created_at_utc": datetime.now(UTC).replace(tzinfo=None),
                "operation": operation,
            }

    return OwnerBackend


@contextmanager
def _reported(name: str) -> Iterator[None]:
    """Name the migration in whatever Postgres says against it."""
    try:
        yield
    except psycopg.Error as error:
        raise MigrationError(f"{name} failed: {_sentence(error)}.") from error


def _sentence(error: psycopg.Error) -> str:
    return " ".join((error.diag.message_primary or str(error)).split()).rstrip(".")
