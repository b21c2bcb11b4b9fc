"""What is wrong with an installation, and what to do about it.

Nothing that is shown holds a secret: of a DSN or a URL only what the other side itself says of it, and never its text.
Whatever does not answer is given up after ANSWER_SECONDS, all at once, so that there is always an end.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row
from redis.exceptions import RedisError

from reos import migrate, rls, sql
from reos.errors import ReosError
from reos.integrations.email import SmtpMailer
from reos.integrations.sms import make_texter
from reos.integrations.storage import make_storage
from reos.middleware.redis_counter import connect
from reos.migrate import MigrationError
from reos.settings import Settings, SettingsError

OLDEST_POSTGRES = 150000  # server_version_num

ANSWER_SECONDS = 10.0  # for everything that is asked over the network, at the same time
NOTIFY_SECONDS = 2.0  # for a notification
FREE_BYTES = (1024**3, 100 * 1024**2)  # on the disk of DATA_DIR: an advice below the first, a fault below the second
CLOCK_SECONDS = (1.0, 30.0)  # between two clocks: an advice above the first, a fault above the second
REPLICA_SECONDS = 30.0  # that a replica may lag behind
WAIT_SECONDS = (
    60.0,
    300.0,
)  # of the oldest job: a fault above the first without a worker, else advice above the second
WORKER_CONNECTIONS = 14  # of a worker process: its pools and what it listens on
SHOWN_PROBLEMS = 5

Verdict = Literal["ok", "advice", "fault"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. A fault keeps the service from running as it should; an advice does not."""

    verdict: Verdict
    text: str


Check = Callable[[Settings], Iterator[Finding]]


def examine(settings: Settings) -> Iterator[Finding]:
    """Look at everything that the settings lead to. `settings` have their DSNs filled in. Raises SettingsError."""
    _check_settings(settings)
    yield Finding("ok", "The settings are valid.")
    yield from _addresses(settings)
    yield from _files(settings)
    checks: dict[str, Check] = {"Postgres": _database, "The listening connection": _listening}
    if settings.db_replica_dsn:
        checks["The replica"] = _replica
    if settings.redis_url:
        checks["Redis"] = _redis
    checks["S3" if settings.uses_s3 else "The file storage"] = _storage
    if settings.smtp_host:
        checks["The mail server"] = _mail_server
    yield from _all_at_once(checks, settings)


def _all_at_once(checks: dict[str, Check], settings: Settings) -> Iterator[Finding]:
    """What the checks find, in their order. Each has a thread, which is left behind when it takes too long."""
    running = {name: _start(name, check, settings) for name, check in checks.items()}
    deadline = time.monotonic() + ANSWER_SECONDS
    for name, (thread, found) in running.items():
        thread.join(max(deadline - time.monotonic(), 0))
        is_late = thread.is_alive()
        yield from list(found)
        if is_late:
            yield Finding("fault", f"{name} did not answer within {ANSWER_SECONDS:.0f} s.")


def _start(name: str, check: Check, settings: Settings) -> tuple[threading.Thread, list[Finding]]:
    found: list[Finding] = []

    def run() -> None:
        try:
            found.extend(check(settings))  # One after the other, so that what was found is kept whatever comes.
        except (MigrationError, ReosError, RedisError, psycopg.Error, OSError) as error:
            found.append(Finding("fault", f"{name} does not answer as it should: {_sentence(error)}"))
        except Exception as error:
            # Whatever else it is may hold what must not be shown.
            found.append(Finding("fault", f"{name} cannot be looked at: {type(error).__name__}."))

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread, found


def _sentence(error: Exception) -> str:
    """What went wrong, in one line. The errors of ours say little; what they came from says more."""
    cause = error.__cause__ if isinstance(error, ReosError) and error.__cause__ else error
    text = " ".join(str(cause).split())[:300].rstrip(".")
    return f"{text or type(cause).__name__}."


# --- settings and files ------------------------------------------------------------------------------------------


def _check_settings(settings: Settings) -> None:
    """What only its user would find wrong. Raises SettingsError, which shows nothing of the value."""
    for name in ("db_dsn", "db_owner_dsn", "db_listen_dsn", "db_replica_dsn"):
        try:
            conninfo_to_dict(getattr(settings, name))
        except psycopg.ProgrammingError:
            raise SettingsError(
                f"{name.upper()}: cannot be read; are % and @ in its password written as %25 and %40?"
            ) from None
    try:
        _ = urlsplit(settings.redis_url).port
    except ValueError:
        raise SettingsError("REDIS_URL: cannot be read; are / and @ in its password written as %2F and %40?") from None
    make_texter(settings)
    if settings.smtp_host:
        SmtpMailer(settings)


def _addresses(settings: Settings) -> Iterator[Finding]:
    """How people come to the service, and what they can see there."""
    base = settings.base_url
    if settings.proxies_count and not settings.public_url:
        yield Finding("advice", f"PUBLIC_URL is not set behind a proxy: links in mails would lead to {base}.")
    if base.startswith("http://") and not _is_local(base):
        yield Finding("advice", f"Links in mails lead to {base}: passwords and tokens go in plain text without https.")
    if settings.public_url.startswith("https://") and not settings.proxies_count:
        yield Finding(
            "advice", "PUBLIC_URL is https, which a proxy must speak: set PROXIES_COUNT, or all clients look like one."
        )
    if settings.debug:
        yield Finding("advice", "DEBUG is on: it is for development.")
    if settings.dev_outbox and not settings.proxies_count:
        yield Finding("advice", "DEV_OUTBOX is on: whoever reaches the service can read its mails.")
    if not settings.smtp_host and (settings.public_url or settings.proxies_count):
        yield Finding("advice", "SMTP_HOST is not set: mails are files in DATA_DIR/outbox and reach nobody.")


def _is_local(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _files(settings: Settings) -> Iterator[Finding]:
    directory = settings.data_dir
    if not os.access(directory, os.W_OK):
        yield Finding("fault", f"DATA_DIR {directory} cannot be written.")
        return
    yield Finding("ok", f"DATA_DIR {directory} can be written.")
    free = shutil.disk_usage(directory).free
    if free < FREE_BYTES[0]:
        verdict: Verdict = "fault" if free < FREE_BYTES[1] else "advice"
        yield Finding(verdict, f"The disk of DATA_DIR has only {free // 1024**2:,} MiB left.")
    for path, bits, others in ((directory / "jwt_secret_key", 0o077, "others"), (Path(".env"), 0o007, "everybody")):
        if path.is_file() and stat.S_IMODE(path.stat().st_mode) & bits:
            yield Finding("advice", f"{path} can be read by {others}: say chmod 600 {path}.")


# --- the database ------------------------------------------------------------------------------------------------


def _database(settings: Settings) -> Iterator[Finding]:
    dsn, owner_dsn = settings.db_dsn, settings.db_owner_dsn or settings.db_dsn
    yield from _logins(dsn, owner_dsn)
    yield from _clock(dsn)
    yield from _room(settings)
    yield from _roles(settings)
    yield from _migrations(dsn)
    if migrate.applied(dsn):
        yield from _row_security(owner_dsn)
    if not migrate.pending(dsn):
        yield from _workers(dsn)


def _logins(dsn: str, owner_dsn: str) -> Iterator[Finding]:
    version, service = _login_state(dsn)
    yield Finding("ok", f"PostgreSQL {version // 10000}.{version % 10000} answers as {service['login']}.")
    if version < OLDEST_POSTGRES:
        yield Finding("fault", "PostgreSQL 15 or newer is needed.")
    if service["superuser"] or service["bypasses_rls"]:
        yield Finding("advice", f"{service['login']} is superuser or BYPASSRLS; give the service a plain log-in.")
    _, owner = _login_state(owner_dsn)
    if owner["login"] == service["login"] and service["may_be_owner"]:
        yield Finding("advice", "One log-in serves migrations and service; set DB_OWNER_DSN to another for migrations.")
    elif owner["login"] != service["login"] and service["may_be_owner"] and not service["superuser"]:
        yield Finding("advice", f"{service['login']} is a member of reos_owner, which the service never needs.")


def _clock(dsn: str) -> Iterator[Finding]:
    with migrate.connect(dsn) as conn:
        before = time.time()
        theirs = _ask(conn, "get_clock")["seconds"]
        after = time.time()
    # What came between question and answer may be anywhere on the way.
    ahead = theirs - (before + after) / 2
    off = max(abs(ahead) - (after - before) / 2, 0)
    if off <= CLOCK_SECONDS[0]:
        yield Finding("ok", "The clocks of this machine and of the database agree.")
        return
    which = "ahead of" if ahead > 0 else "behind"
    verdict: Verdict = "fault" if off > CLOCK_SECONDS[1] else "advice"
    yield Finding(verdict, f"The database's clock is {off:,.0f} s {which} this machine's: have NTP set both.")


def _room(settings: Settings) -> Iterator[Finding]:
    if settings.db_listen_dsn not in ("", settings.db_dsn):
        return  # There is a pooler, which shares out what there is.
    with migrate.connect(settings.db_dsn) as conn:
        room = _ask(conn, "get_connection_limit")["room"]
    wanted = settings.workers * (settings.db_pool_max + 1) + WORKER_CONNECTIONS
    if wanted > room:
        yield Finding(
            "advice",
            f"This machine may open {wanted} connections, the database takes {room}: lower WORKERS or DB_POOL_MAX, "
            "raise max_connections, or put a pooler in between.",
        )


def _roles(settings: Settings) -> Iterator[Finding]:
    dsn = settings.db_dsn
    missing = migrate.missing_role_statements(settings.db_owner_dsn or dsn, migrate.login_of(dsn))
    if not settings.db_owner_dsn and migrate.applied(dsn):
        # Only whoever migrates has to be a member of reos_owner, and that happened elsewhere.
        others = [(required, statement) for required, statement in missing if " reos_owner to " not in statement]
        if len(others) < len(missing):
            yield Finding("advice", "DB_OWNER_DSN is not set here: `reos migrate` has to run where it is.")
        missing = others
    for required, statement in missing:
        yield Finding("fault" if required else "advice", f"Missing until `reos migrate` or a DBA says: {statement};")
    if not missing:
        yield Finding("ok", "The roles, their members and their rights are there.")


def _migrations(dsn: str) -> Iterator[Finding]:
    known, applied = migrate.names(), migrate.applied(dsn)
    pending = [name for name in known if name not in applied]
    if pending:
        yield Finding("fault", f"{migrate.behind(pending)} Run `reos migrate`.")
    else:
        yield Finding("ok", f"All {len(known)} migrations are applied.")
    unknown = [name for name in applied if name not in known]
    if unknown:
        yield Finding("advice", f"The database has had migrations that this version does not know: {unknown[0]} …")


def _row_security(owner_dsn: str) -> Iterator[Finding]:
    catalogue = rls.read(owner_dsn)
    problems = rls.problems(catalogue)
    yield from (Finding("fault", f"Row security: {problem}") for problem in problems[:SHOWN_PROBLEMS])
    if len(problems) > SHOWN_PROBLEMS:
        yield Finding("fault", f"Row security: {len(problems) - SHOWN_PROBLEMS} more; see `reos rls`.")
    if not problems:
        yield Finding("ok", f"Row security: {rls.summary(catalogue)}")


def _workers(dsn: str) -> Iterator[Finding]:
    with migrate.connect(dsn) as conn:
        with conn.transaction():
            _say(conn, "become_app")
            queue = _ask(conn, "get_queue_state")
        with conn.transaction():
            _say(conn, "become_jobs")
            last_seen = _ask(conn, "get_last_heartbeat")["seconds_ago"]
    waiting = "no job waits"
    if queue["queued"]:
        waiting = f"jobs wait: {queue['queued']:,}, the oldest for {queue['oldest_seconds']:,.0f} s"
    seen = "none is known" if last_seen is None else f"the last sign of life came {last_seen:,.0f} s ago"
    if queue["workers"]:
        is_slow = queue["oldest_seconds"] > WAIT_SECONDS[1]
        yield Finding("advice" if is_slow else "ok", f"Workers that run: {queue['workers']} ({seen}); {waiting}.")
        return
    verdict: Verdict = "fault" if queue["oldest_seconds"] > WAIT_SECONDS[0] else "advice"
    yield Finding(verdict, f"No worker runs ({seen}) and {waiting}: start `reos worker`.")


def _login_state(dsn: str) -> tuple[int, dict[str, Any]]:
    with migrate.connect(dsn) as conn:
        return conn.info.server_version, _ask(conn, "get_login_state")


# --- what stands beside it ---------------------------------------------------------------------------------------


def _listening(settings: Settings) -> Iterator[Finding]:
    """Whether a notification sent over DB_DSN arrives: through a pooler in transaction mode none ever does."""
    name = "DB_LISTEN_DSN" if settings.db_listen_dsn else "DB_DSN"
    token = secrets.token_hex(8)
    with migrate.connect(settings.db_listen_dsn or settings.db_dsn) as listener:
        _say(listener, "listen")
        with migrate.connect(settings.db_dsn) as sender:
            _say(sender, "notify", token)
        heard = any(notify.payload == token for notify in listener.notifies(timeout=NOTIFY_SECONDS, stop_after=1))
    if heard:
        yield Finding("ok", f"A notification sent over DB_DSN arrives on {name}.")
    else:
        yield Finding(
            "fault",
            f"A notification sent over DB_DSN does not arrive on {name}: have DB_LISTEN_DSN lead straight to the same "
            "database, past any pooler in transaction mode. Live events and jobs come late without it.",
        )


def _replica(settings: Settings) -> Iterator[Finding]:
    with migrate.connect(settings.db_replica_dsn) as conn:
        state = _ask(conn, "get_replica_state")
    if not state["is_replica"]:
        yield Finding("advice", "DB_REPLICA_DSN leads to a primary, not to a replica.")
    elif state["lag_seconds"] > REPLICA_SECONDS:
        yield Finding("advice", f"The replica lags {state['lag_seconds']:,.0f} s behind.")
    else:
        yield Finding("ok", "The replica follows.")


def _redis(settings: Settings) -> Iterator[Finding]:
    async def check() -> None:
        client = connect(settings)
        try:
            await client.ping()
        finally:
            await client.aclose()

    asyncio.run(check())
    yield Finding("ok", "Redis answers.")


def _storage(settings: Settings) -> Iterator[Finding]:
    async def check() -> dict[str, Any]:
        storage = make_storage(settings)
        try:
            return await storage.check()
        finally:
            await storage.close()

    provider = asyncio.run(check())["provider"]
    yield Finding("ok", f"The {provider} file storage answers.")


def _mail_server(settings: Settings) -> Iterator[Finding]:
    async def check() -> None:
        mailer = SmtpMailer(settings)
        try:
            await mailer.check()
        finally:
            await mailer.close()

    asyncio.run(check())
    yield Finding("ok", "The mail server answers" + (" and takes the log-in." if settings.smtp_user else "."))


def _ask(conn: psycopg.Connection, name: str) -> dict[str, Any]:
    """The one row of a statement of doctor.sql."""
    with conn.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(getattr(sql.load("doctor"), name).text).fetchone()
    assert row is not None
    return row


def _say(conn: psycopg.Connection, name: str, *args: str) -> None:
    conn.execute(getattr(sql.load("doctor"), name).text, args)
