"""Roles and migrations, on every supported PostgreSQL and with every kind of log-in that may run them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

import psycopg
import pytest
from conftest import Cluster, TestDatabase

from reos import migrate
from reos.__main__ import main
from reos.migrate import MigrationError

pytestmark = pytest.mark.integration

_numbers = count(1)

# What a database looks like: each relation, column, function, policy and so on with its owner and rights, as text.
SHAPE = """
    with mine as (
        select oid, nspname from pg_namespace where nspname in ('public', 'procrastinate')
    ),
    facts (kind, text) as (
        select 'relation', concat_ws(' ', nspname, relname, relkind, relrowsecurity, relforcerowsecurity,
            pg_get_userbyid(relowner), relacl) from pg_class join mine on relnamespace = mine.oid
        union all
        select 'column', concat_ws(' ', attrelid::regclass, attname, format_type(atttypid, atttypmod), attnotnull,
            pg_get_expr(adbin, adrelid), attacl)
            from pg_attribute join pg_class c on attrelid = c.oid join mine on relnamespace = mine.oid
            left join pg_attrdef on adrelid = attrelid and adnum = attnum
            where attnum > 0 and not attisdropped and relkind in ('r', 'p', 'v')
        union all
        select 'function', concat_ws(' ', pg_get_functiondef(p.oid), pg_get_userbyid(proowner), proacl)
            from pg_proc p join mine on pronamespace = mine.oid
            where prokind <> 'a' and not exists (select from pg_depend where objid = p.oid and deptype = 'e')
        union all
        select 'policy', concat_ws(' ', tablename, policyname, roles, cmd, qual, with_check) from pg_policies
        union all
        select 'constraint', concat_ws(' ', conrelid::regclass, conname, pg_get_constraintdef(c.oid))
            from pg_constraint c join mine on connamespace = mine.oid
        union all
        select 'index', indexdef from pg_indexes join mine on schemaname = nspname
        union all
        select 'trigger', pg_get_triggerdef(t.oid) from pg_trigger t where not tgisinternal
        union all
        select 'enum', concat_ws(' ', enumtypid::regtype, enumlabel, enumsortorder) from pg_enum
    )
    select kind, text from facts where text !~ 'yoyo' order by kind, text
"""


def say(dsn: str, *statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        for statement in statements:
            conn.execute(statement)  # type: ignore[arg-type]


def ask(dsn: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn, autocommit=True) as conn:
        return conn.execute(query).fetchall()  # type: ignore[arg-type]


@contextmanager
def empty_database(cluster: Cluster) -> Iterator[TestDatabase]:
    """A database in a cluster that has none of our roles but the two log-ins, which are new."""
    number = next(_numbers)
    owner, service = f"owner_{number}", f"service_{number}"
    name = f"empty_{number}"
    cluster.execute(f"create role {owner} login createrole")
    cluster.execute(f"create role {service} login")
    cluster.execute(f"create database {name} owner {owner}")
    try:
        yield TestDatabase(
            name,
            dsn=cluster.dsn(name, service),
            owner_dsn=cluster.dsn(name, owner),
            superuser_dsn=cluster.dsn(name, "postgres"),
        )
    finally:
        cluster.drop(name)


@contextmanager
def without_roles(cluster: Cluster) -> Iterator[None]:
    """Give our roles other names for a while, so that they are missing: a role cannot be dropped while it is used."""
    roles = ("reos_owner", "reos_app", "reos_jobs")
    for role in roles:
        cluster.execute(f"alter role {role} rename to former_{role}")
    try:
        yield
    finally:
        for role in roles:
            for login in [row[0] for row in ask(cluster.server.superuser_dsn, "select datname from pg_database")]:
                if login != "template0":
                    say(cluster.dsn(str(login), "postgres"), f'drop owned by "{role}" cascade')
            cluster.execute(f"drop role if exists {role}")
            cluster.execute(f"alter role former_{role} rename to {role}")


def check_roles(database: TestDatabase) -> None:
    """The roles can do nothing special, and each log-in is what it should be."""
    rows = ask(
        database.superuser_dsn,
        "select rolname::text, rolcanlogin, rolsuper, rolbypassrls, rolcreaterole, rolcreatedb from pg_roles"
        " where rolname in ('reos_owner', 'reos_app', 'reos_jobs') order by 1",
    )
    nothing = (False,) * 5
    assert rows == [("reos_app", *nothing), ("reos_jobs", *nothing), ("reos_owner", *nothing)]
    for role in ("reos_app", "reos_jobs"):
        say(database.dsn, f"set role {role}")
    say(database.owner_dsn, "set role reos_owner")
    # Whatever was made belongs to reos_owner, and the service may not touch the schema.
    assert ask(database.owner_dsn, "select distinct tableowner::text from pg_tables where schemaname = 'public'") == [
        ("reos_owner",)
    ]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        say(database.dsn, "create table intruder ()")


def test_all_is_applied_undone_and_applied_again(every_postgres: Cluster) -> None:
    with every_postgres.database() as database:
        before = ask(database.superuser_dsn, SHAPE)
        assert len(before) > 100
        assert migrate.pending(database.dsn) == []
        undone = migrate.migrate_down(database.owner_dsn, 10_000)
        assert undone == migrate.names()[::-1]
        assert [row for row in ask(database.superuser_dsn, SHAPE) if row[0] in ("relation", "function", "enum")] == []
        assert migrate.pending(database.dsn) == migrate.names()
        assert migrate.migrate(database.owner_dsn, migrate.login_of(database.dsn)) == migrate.names()
        assert ask(database.superuser_dsn, SHAPE) == before


@pytest.mark.slow
def test_each_can_be_undone_and_applied_by_itself(every_postgres: Cluster) -> None:
    """Undoing one leaves exactly what was there before it."""
    with (
        every_postgres.database(migrated=False) as database,
        psycopg.connect(database.superuser_dsn, autocommit=True) as conn,
    ):
        service = migrate.login_of(database.dsn)
        before = {}
        for name in migrate.names():
            before[name] = conn.execute(SHAPE).fetchall()
            with directory_of([name]) as directory:
                assert migrate.migrate(database.owner_dsn, service, directory) == [name]
        for name in migrate.names()[:0:-1]:
            with directory_of([name]) as directory:
                assert migrate.migrate_down(database.owner_dsn, 1, directory) == [name]
            assert conn.execute(SHAPE).fetchall() == before[name], name


@contextmanager
def directory_of(names: list[str]) -> Iterator[Path]:
    """A directory with some of the migrations: reading all of them takes longer than applying one."""
    with tempfile.TemporaryDirectory() as directory:
        for name in names:
            for suffix in (".sql", ".rollback.sql"):
                (Path(directory) / (name + suffix)).symlink_to(migrate.MIGRATIONS / (name + suffix))
        yield Path(directory)


def test_a_plain_owner_that_may_create_roles_does_it_all(every_postgres: Cluster) -> None:
    with without_roles(every_postgres), empty_database(every_postgres) as database:
        service = migrate.login_of(database.dsn)
        assert migrate.migrate(database.owner_dsn, service) == migrate.names()
        check_roles(database)
        # On PostgreSQL 16 and newer the owner may not give settings to a log-in that somebody else has made.
        assert [required for required, _ in migrate.missing_role_statements(database.owner_dsn, service)] in (
            [],
            [False],
        )
        assert migrate.migrate(database.owner_dsn, service) == []


def test_a_superuser_does_it_all(every_postgres: Cluster) -> None:
    with without_roles(every_postgres), empty_database(every_postgres) as database:
        service = migrate.login_of(database.dsn)
        assert migrate.migrate(database.superuser_dsn, service) == migrate.names()
        assert migrate.missing_role_statements(database.superuser_dsn, service) == []
        say(database.superuser_dsn, f"grant reos_owner to {migrate.login_of(database.owner_dsn)}")
        check_roles(database)
        assert ask(database.dsn, "select current_user::text") == [("reos_app",)]


def test_one_log_in_may_serve_both(every_postgres: Cluster) -> None:
    with without_roles(every_postgres), empty_database(every_postgres) as database:
        assert migrate.migrate(database.owner_dsn) == migrate.names()
        say(database.owner_dsn, "set role reos_app", "set role reos_owner")
        assert ask(database.owner_dsn, "select current_user = session_user") == [(True,)]
        assert migrate.pending(database.owner_dsn) == []


def test_what_a_dba_has_said_needs_no_right(every_postgres: Cluster) -> None:
    """Without CREATEROLE it stops with a sentence; once a DBA has run the statements shown, it goes through."""
    with without_roles(every_postgres), empty_database(every_postgres) as database:
        owner, service = migrate.login_of(database.owner_dsn), migrate.login_of(database.dsn)
        every_postgres.execute(f"alter role {owner} nocreaterole")
        with pytest.raises(MigrationError, match="may not run `create role reos_app nologin`"):
            migrate.migrate(database.owner_dsn, service)
        statements = [text for _, text in migrate.missing_role_statements(database.owner_dsn, service)]
        say(database.superuser_dsn, *statements)
        assert migrate.missing_role_statements(database.owner_dsn, service) == []
        assert migrate.migrate(database.owner_dsn, service) == migrate.names()
        check_roles(database)
        assert ask(database.dsn, "select current_user::text") == [("reos_app",)]


def test_a_default_role_of_the_migrating_log_in_is_no_hindrance(every_postgres: Cluster) -> None:
    with every_postgres.database(migrated=False) as database:
        say(database.superuser_dsn, f"grant reos_app to {migrate.login_of(database.owner_dsn)}")
        say(database.superuser_dsn, f"alter role reos_admin in database {database.name} set role = 'reos_app'")
        assert migrate.migrate(database.owner_dsn, migrate.login_of(database.dsn)) == migrate.names()


def test_a_role_that_walks_past_row_security_is_refused(postgres_server: Cluster) -> None:
    with postgres_server.database() as database:
        for attribute in ("bypassrls", "superuser"):
            postgres_server.execute(f"alter role reos_app {attribute}")
            try:
                with pytest.raises(MigrationError, match="row security would not hold"):
                    migrate.migrate(database.owner_dsn)
            finally:
                postgres_server.execute(f"alter role reos_app no{attribute}")


def test_many_may_start_at_once(postgres_server: Cluster) -> None:
    """Several processes on each of two databases of a cluster: each migration runs once."""
    with without_roles(postgres_server), ExitStack() as stack:
        databases = [stack.enter_context(empty_database(postgres_server)) for _ in range(2)]
        results: list[list[str]] = []
        errors: list[BaseException] = []

        def run(database: TestDatabase) -> None:
            try:
                results.append(migrate.migrate(database.owner_dsn, migrate.login_of(database.dsn)))
            except BaseException as error:
                errors.append(error)

        # The first may make the roles before the owner of the other has any right on them; a DBA would say it once.
        for database in databases:
            postgres_server.execute(f"alter role {migrate.login_of(database.owner_dsn)} superuser")
        threads = [threading.Thread(target=run, args=(database,)) for database in databases * 3]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert sorted(map(len, results)) == [0, 0, 0, 0, len(migrate.names()), len(migrate.names())]


def test_a_lock_that_a_crash_left_behind_is_broken(postgres_server: Cluster) -> None:
    with postgres_server.database() as database:
        say(
            database.superuser_dsn,
            "insert into yoyo_lock (locked, ctime, pid) values (1, now(), 1)",
        )
        assert migrate.migrate_down(database.owner_dsn, 1) == [migrate.names()[-1]]
        assert migrate.migrate(database.owner_dsn, migrate.login_of(database.dsn)) == [migrate.names()[-1]]


@pytest.fixture
def scratch(tmp_path: Path) -> Callable[[str, str, str | None], None]:
    """Write a migration into tmp_path: name, what it does, how that is undone."""

    def write(name: str, up: str, down: str | None) -> None:
        (tmp_path / f"{name}.sql").write_text(up)
        if down is not None:
            (tmp_path / f"{name}.rollback.sql").write_text(down)

    return write


def test_a_migration_that_fails_is_named_and_leaves_nothing(
    postgres_server: Cluster, scratch: Callable[..., None], tmp_path: Path
) -> None:
    scratch("0001.good", "create table good ();", "drop table good;")
    scratch("0002.bad", "create table bad ();\nselect 1 / 0;", "drop table bad;")
    with postgres_server.database(migrated=False) as database:
        with pytest.raises(MigrationError, match=r"^0002\.bad failed: division by zero\.$"):
            migrate.migrate(database.owner_dsn, directory=tmp_path)
        assert migrate.pending(database.owner_dsn, tmp_path) == ["0002.bad"]
        assert ask(database.owner_dsn, "select to_regclass('good') is null, to_regclass('bad') is null") == [
            (False, True)
        ]


def test_a_migration_may_run_outside_a_transaction(
    postgres_server: Cluster, scratch: Callable[..., None], tmp_path: Path
) -> None:
    scratch("0001.table", "create table t (n int);", "drop table t;")
    scratch("0002.index", "-- transactional: false\ncreate index concurrently t_n on t (n);", "drop index t_n;")
    with postgres_server.database(migrated=False) as database:
        assert migrate.migrate(database.owner_dsn, directory=tmp_path) == ["0001.table", "0002.index"]
        assert migrate.migrate_down(database.owner_dsn, 1, tmp_path) == ["0002.index"]


def test_what_has_no_way_back_is_not_undone(
    postgres_server: Cluster, scratch: Callable[..., None], tmp_path: Path
) -> None:
    scratch("0001.one-way", "create table t ();", None)
    with postgres_server.database(migrated=False) as database:
        migrate.migrate(database.owner_dsn, directory=tmp_path)
        with pytest.raises(MigrationError, match=r"no \.rollback\.sql"):
            migrate.migrate_down(database.owner_dsn, 1, tmp_path)
        assert migrate.pending(database.owner_dsn, tmp_path) == []


def test_one_can_be_marked(postgres_server: Cluster, scratch: Callable[..., None], tmp_path: Path) -> None:
    scratch("0001.one", "create table one ();", "drop table one;")
    scratch("0002.two", "create table two ();", "drop table two;")
    with postgres_server.database(migrated=False) as database:
        assert migrate.mark(database.owner_dsn, "0002", tmp_path) == "0002.two"
        for name, words in (("0002", "No pending migration"), ("0003", "No pending migration")):
            with pytest.raises(MigrationError, match=words):
                migrate.mark(database.owner_dsn, name, tmp_path)
        assert migrate.migrate(database.owner_dsn, directory=tmp_path) == ["0001.one"]
        assert ask(database.owner_dsn, "select to_regclass('two') is null") == [(True,)]


def test_a_name_that_fits_two_is_not_marked(
    postgres_server: Cluster, scratch: Callable[..., None], tmp_path: Path
) -> None:
    scratch("0001.one", "select 1;", None)
    scratch("0002.two", "select 1;", None)
    with postgres_server.database(migrated=False) as database, pytest.raises(MigrationError, match="2 pending"):
        migrate.mark(database.owner_dsn, "000", tmp_path)


def test_no_name_is_not_marked(postgres_server: Cluster, scratch: Callable[..., None], tmp_path: Path) -> None:
    scratch("0001.one", "select 1;", None)
    with postgres_server.database(migrated=False) as database, pytest.raises(MigrationError, match="No pending"):
        migrate.mark(database.owner_dsn, "", tmp_path)


@pytest.mark.parametrize("number", ["-1", "0", "-10000", "all", "1.5", ""])
def test_what_is_no_number_of_migrations_undoes_none(
    postgres_server: Cluster, monkeypatch: pytest.MonkeyPatch, number: str
) -> None:
    with postgres_server.database() as database:
        monkeypatch.setenv("DB_DSN", database.dsn)
        monkeypatch.setenv("DB_OWNER_DSN", database.owner_dsn)
        monkeypatch.setenv("JWT_SECRET_KEY", "x" * 32)
        with pytest.raises(SystemExit):
            main(["migrate", f"--down={number}"])
        assert migrate.pending(database.dsn) == []


@pytest.mark.parametrize("option", ["--mark", "--new"])
def test_an_option_without_a_name_does_not_migrate(
    postgres_server: Cluster, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    with postgres_server.database(migrated=False) as database:
        monkeypatch.setenv("DB_DSN", database.dsn)
        monkeypatch.setenv("DB_OWNER_DSN", database.owner_dsn)
        monkeypatch.setenv("JWT_SECRET_KEY", "x" * 32)
        assert main(["migrate", option, ""]) == 1
        assert migrate.pending(database.owner_dsn) == migrate.names()


def test_new_writes_both_files_with_the_next_number(tmp_path: Path, scratch: Callable[..., None]) -> None:
    scratch("0041.old", "", "")
    paths = migrate.new("Deal stages!", tmp_path)
    assert [path.name for path in paths] == ["0042.deal-stages.sql", "0042.deal-stages.rollback.sql"]
    assert all("lock_timeout" in path.read_text() for path in paths)
    with pytest.raises(MigrationError):
        migrate.new("!", tmp_path)


def test_of_two_addresses_that_are_composed_alike_now_the_older_user_keeps_it(postgres_server: Cluster) -> None:
    composed, decomposed, half = "é-ü@example.com", "e\u0301-u\u0308@example.com", "é-u\u0308@example.com"
    alone = "o\u0308@example.com"
    change = (migrate.MIGRATIONS / "0131.composed-addresses.sql").read_text()
    with postgres_server.database() as database, psycopg.connect(database.superuser_dsn, autocommit=True) as conn:
        conn.execute("set session_replication_role = replica")  # Only the addresses matter here, no users.

        def after(*users: tuple[str, int]) -> dict[int, str]:
            conn.execute("truncate login_identities")
            with conn.cursor() as cursor:
                cursor.executemany(
                    "insert into login_identities (email_key, organization_id, user_id) values (%s, 1, %s)", users
                )
            conn.execute(change)
            return dict(conn.execute("select user_id, email_key from login_identities").fetchall())

        assert after((decomposed, 1), (half, 2), (alone, 3)) == {1: composed, 2: half, 3: "ö@example.com"}
        assert after((half, 5), (decomposed, 4)) == {4: composed, 5: half}
        # Who has it in normal form already keeps it, whoever is older: their log-in is not to end.
        assert after((decomposed, 1), (composed, 2)) == {1: decomposed, 2: composed}


def test_of_two_suppressions_that_are_composed_alike_now_the_older_stays(postgres_server: Cluster) -> None:
    composed, decomposed, alone = "é-ü@example.com", "e\u0301-u\u0308@example.com", "O\u0308@example.com"
    undo, change = (
        (migrate.MIGRATIONS / f"0146.composed-suppressions{kind}.sql").read_text() for kind in (".rollback", "")
    )
    with postgres_server.database() as database, psycopg.connect(database.superuser_dsn, autocommit=True) as conn:
        conn.execute("set session_replication_role = replica")  # Only the addresses matter here, no campaigns.
        conn.execute(undo)

        def insert(statement: str, *rows: tuple[object, ...]) -> None:
            with conn.cursor() as cursor:
                cursor.executemany(statement, rows)

        insert(
            "insert into suppressions (organization_id, email, reason) values (%s, %s, %s)",
            (1, decomposed, None), (1, composed, None), (1, alone, "bounced"), (1, "ann@example.com", None),
            (2, composed, "bounced"), (2, decomposed, "bounced"),
            (3, composed, "bounced"), (3, decomposed, "unsubscribed"),
        )  # fmt: skip
        insert(
            "insert into campaign_recipients (organization_id, campaign_id, lead_id, address, address_key)"
            " values (1, %s, 1, %s, lower(%s))",
            (1, decomposed, decomposed), (1, alone, alone), (2, composed, composed), (2, decomposed, decomposed),
        )  # fmt: skip
        conn.execute(change)
        kept = conn.execute("select organization_id, email, address_key from suppressions order by id").fetchall()
        assert kept == [
            (1, decomposed, composed),
            (1, alone, "ö@example.com"),
            (1, "ann@example.com", "ann@example.com"),
            (2, composed, composed),
            (3, decomposed, composed),  # What a person has said counts for more than a bounce.
        ]
        keys = conn.execute("select campaign_id, address_key from campaign_recipients order by id").fetchall()
        assert keys == [(1, composed), (1, "ö@example.com"), (2, composed), (2, decomposed)]


def test_every_migration_can_be_undone_and_waits_for_locks_only_so_long() -> None:
    for name in migrate.names():
        assert (migrate.MIGRATIONS / f"{name}.rollback.sql").exists(), name
        assert "lock_timeout" in (migrate.MIGRATIONS / f"{name}.sql").read_text(), name


def test_a_server_that_is_not_there_is_told_in_one_sentence() -> None:
    with pytest.raises(MigrationError, match=r"^Postgres cannot be reached: ") as caught:
        migrate.pending("postgresql://someone:secret@127.0.0.1:1/nowhere")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_on_a_database_that_is_behind_nothing_starts(postgres_server: Cluster, tmp_path: Path, command: str) -> None:
    with postgres_server.database() as database:
        last = migrate.migrate_down(database.owner_dsn, 1)[0]
        environment = {"DB_DSN": database.dsn, "DATA_DIR": str(tmp_path), "PYTHONPATH": str(migrate.MIGRATIONS.parent)}
        result = subprocess.run(
            [sys.executable, "-m", "reos", command], env=environment, cwd=tmp_path, capture_output=True, text=True
        )
        assert result.returncode == 1
        assert result.stderr == f"The database is one migration behind ({last}). Run `reos migrate`.\n"
