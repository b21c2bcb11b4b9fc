"""What is wrong with an installation, and what to do about it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from psycopg.rows import dict_row

from reos import migrate, sql
from reos.migrate import MigrationError
from reos.settings import Settings

OLDEST_POSTGRES = 150000  # server_version_num

Verdict = Literal["ok", "advice", "fault"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. A fault keeps the service from running as it should; an advice does not."""

    verdict: Verdict
    text: str


def examine(settings: Settings) -> Iterator[Finding]:
    """Look at the settings, the database, its roles and its migrations. `settings` have their DSNs filled in."""
    yield Finding("ok", "The settings are valid.")
    yield _data_dir(settings)
    owner_dsn = settings.db_owner_dsn or settings.db_dsn
    try:
        yield from _logins(settings.db_dsn, owner_dsn)
        yield from _roles(settings.db_dsn, owner_dsn)
        yield from _migrations(settings.db_dsn)
    except MigrationError as error:
        yield Finding("fault", str(error))


def _data_dir(settings: Settings) -> Finding:
    if os.access(settings.data_dir, os.W_OK):
        return Finding("ok", f"DATA_DIR {settings.data_dir} can be written.")
    return Finding("fault", f"DATA_DIR {settings.data_dir} cannot be written.")


def _logins(dsn: str, owner_dsn: str) -> Iterator[Finding]:
    version, service = _login_state(dsn)
    yield Finding("ok", f"PostgreSQL {version // 10000}.{version % 10000} answers as {service['login']}.")
    if version < OLDEST_POSTGRES:
        yield Finding("fault", "PostgreSQL 15 or newer is needed.")
    if service["superuser"] or service["bypasses_rls"]:
        yield Finding("advice", f"{service['login']} is superuser or BYPASSRLS; give the service a plain log-in.")
    _, owner = _login_state(owner_dsn)
    if owner["login"] == service["login"]:
        yield Finding("advice", "One log-in serves migrations and service; set DB_OWNER_DSN to another for migrations.")
    elif service["may_be_owner"] and not service["superuser"]:
        yield Finding("advice", f"{service['login']} is a member of reos_owner, which the service never needs.")


def _roles(dsn: str, owner_dsn: str) -> Iterator[Finding]:
    missing = migrate.missing_role_statements(owner_dsn, migrate.login_of(dsn))
    for required, statement in missing:
        yield Finding("fault" if required else "advice", f"Missing until `reos migrate` or a DBA says: {statement};")
    if not missing:
        yield Finding("ok", "The roles, their members and their rights are there.")


def _migrations(dsn: str) -> Iterator[Finding]:
    known, applied = migrate.names(), migrate.applied(dsn)
    pending = [name for name in known if name not in applied]
    if pending:
        yield Finding("fault", f"{behind(pending)} Run `reos migrate`.")
    else:
        yield Finding("ok", f"All {len(known)} migrations are applied.")
    unknown = [name for name in applied if name not in known]
    if unknown:
        yield Finding("advice", f"The database has had migrations that this version does not know: {unknown[0]} …")


def behind(pending: list[str]) -> str:
    """The sentence that says how far behind a database is."""
    if len(pending) == 1:
        return f"The database is one migration behind ({pending[0]})."
    return f"The database is {len(pending)} migrations behind ({pending[0]} to {pending[-1]})."


def _login_state(dsn: str) -> tuple[int, dict[str, Any]]:
    with migrate.connect(dsn) as conn, conn.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(sql.load("doctor").get_login_state.text).fetchone()
        assert row is not None
        return conn.info.server_version, row
