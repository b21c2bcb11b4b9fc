"""What docs/dba.md says is run: its statements, its commands, its migration; its table of indexes is held."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psycopg
import pytest
from conftest import Cluster, TestDatabase
from running import ROOT, environment

from reos import embedded, migrate, rls, sql
from reos.db import begin_tenant, fetch_all, fetch_value
from reos.embedded import EmbeddedPostgres
from reos.queries import teams
from reos.queries.listing import PageRequest, fetch_page

pytestmark = pytest.mark.integration

TEXT = (ROOT / "docs" / "dba.md").read_text(encoding="utf-8")


def block(language: str, words: str) -> str:
    """The document's block of a language that holds these words."""
    found = [text for text in re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL) if words in text]
    assert len(found) == 1, words
    return str(found[0])


def psql(dsn: str, script: str) -> str:
    ran = subprocess.run(
        [embedded.find_binaries() / "psql", dsn, "--no-psqlrc", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"],
        input=script,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stderr
    return ran.stdout


def shell(script: str, directory: Path, **settings: str) -> str:
    """Run a block as somebody would who has the service and PostgreSQL's programs at hand."""
    path = f"{embedded.find_binaries()}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    ran = subprocess.run(
        ["sh", "-e"],
        input=script,
        cwd=directory,
        env=environment(**settings) | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout + ran.stderr
    return ran.stdout


def add_organization(database: TestDatabase, name: str, leads: int) -> int:
    with psycopg.connect(database.superuser_dsn) as conn:
        values = [name, name.lower(), f"{name}@example.com", f"{name}@example.com", "hash", "Ann", "Lee", None]
        made = conn.execute("select * from register_organization(%s, %s, %s, %s, %s, %s, %s, %s)", values).fetchone()
        found = conn.execute("select id from organizations where slug = %s", [name.lower()]).fetchone()
        assert made and found
        conn.execute(
            "insert into leads (organization_id, first_name, last_name, source)"
            " select %s, 'Lead', n::text, 'website' from generate_series(1, %s) n",
            [found[0], leads],
        )
        return int(found[0])


@pytest.fixture(scope="module")
def organizations(database: TestDatabase) -> list[int]:
    """Two organisations with two and three leads."""
    return [add_organization(database, "First", 2), add_organization(database, "Second", 3)]


# --- roles and policies ------------------------------------------------------------------------------------------


def test_a_transaction_sees_the_organisation_that_it_names(database: TestDatabase, organizations: list[int]) -> None:
    script = block("sql", "begin read only;")
    for organization_id, number in zip(organizations, (2, 3), strict=True):
        said = psql(database.dsn, script.replace("'1'", f"'{organization_id}'"))
        assert said.split() == ["BEGIN", "SET", str(number), "COMMIT"]
    without = "".join(line for line in script.splitlines(keepends=True) if "set local" not in line)
    assert psql(database.dsn, without).split() == ["BEGIN", "0", "COMMIT"]
    assert psql(database.owner_dsn, "set role reos_owner; select count(*) from leads").split() == ["SET", "5"]


def test_the_policies_are_the_ones_shown() -> None:
    shown = re.findall(r"^(\w+) +to (\w+) +using (.*)$", block("text", "to reos_app"), re.MULTILINE)
    tenant = rls._plain(rls.TENANT_POLICY)
    assert shown == [("tenant", "reos_app", tenant), ("owner", "reos_owner", "(true)")]


def test_the_commands_that_look_at_it_work(database: TestDatabase, tmp_path: Path) -> None:
    said = shell(block("sh", "reos rls --sql"), tmp_path, DB_DSN=database.dsn)
    assert "nothing is out of line." in said
    assert "-- name: list_policies" in said
    assert "\nadvice  DB_OWNER_DSN is not set here" in said


# --- the SQL -----------------------------------------------------------------------------------------------------


def test_the_statement_shown_is_one_of_the_service() -> None:
    assert block("text", "-- name: ") in (ROOT / "reos" / "sql" / "health.sql").read_text()
    assert sql.load("health").count_migrations.text.startswith("select -- name: count_migrations\n")


async def test_pg_stat_statements_tells_statements_by_their_names(every_postgres: Cluster) -> None:
    with every_postgres.database() as database:
        with psycopg.connect(database.superuser_dsn, autocommit=True) as conn:
            conn.execute(block("sql", "create extension"))  # type: ignore[arg-type]
        service = await asyncpg.connect(database.dsn)
        try:
            await service.execute(begin_tenant(1, read_only=True))
            for _ in range(3):
                await fetch_value(service, sql.load("health").count_migrations)
            await fetch_all(service, sql.load("permissions").list_permissions, 100, 0)
            await fetch_page(service, teams.LISTING, {}, PageRequest(limit=1, sort=(("created_at", True),)))
        finally:
            await service.close()
        with psycopg.connect(database.superuser_dsn) as conn:
            rows = conn.execute(block("sql", "from pg_stat_statements")).fetchall()  # type: ignore[arg-type]
    found = {row[0]: row[1] for row in rows}
    assert {name: found.get(name) for name in ("count_migrations", "list_permissions", "list_teams")} == {
        "count_migrations": 3,
        "list_permissions": 1,
        "list_teams": 1,
    }


# --- indexes -----------------------------------------------------------------------------------------------------


def test_the_table_of_indexes_is_complete(database: TestDatabase) -> None:
    section = TEXT.partition("\n## Indexes\n")[2]
    shown = re.findall(r"^\| `(\w+)` \| `(.+)` \| (.+) \|$", section, re.MULTILINE)
    assert all(why.strip(" …") for *_, why in shown)
    with psycopg.connect(database.superuser_dsn) as conn:
        rows = conn.execute(
            "select x.relname, pg_get_indexdef(x.oid) from pg_index i join pg_class x on x.oid = i.indexrelid"
            " join pg_class c on c.oid = i.indrelid where x.relnamespace = 'public'::regnamespace"
            " and not i.indisprimary and c.relname !~ '^_?yoyo_' order by c.relname, x.relname"
        ).fetchall()
    found = [(name, text.partition(" USING ")[2].lower().removeprefix("btree ")) for name, text in rows]
    missing = "\n".join(
        f"| `{name}` | `{text}` | … |" for name, text in found if (name, text) not in {s[:2] for s in shown}
    )
    assert not missing, f"docs/dba.md lacks:\n{missing}"
    assert sorted(entry[:2] for entry in shown) == sorted(found), "docs/dba.md shows an index that is gone"


# --- backup ------------------------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere() -> Iterator[EmbeddedPostgres]:
    """A new cluster: the two log-ins and an empty database, none of the roles."""
    directory = Path(tempfile.mkdtemp(prefix="reos-test-"))
    directory.chmod(0o755)
    try:
        with embedded.start(directory, durable=False) as server:
            yield server
    finally:
        embedded.remove(directory)
        shutil.rmtree(directory)


def counts(dsn: str) -> dict[str, int]:
    """The rows of each table of ours."""
    with psycopg.connect(dsn) as conn:
        tables = [row["label"] for row in rls.ask(conn).relations if row["kind"] == "r"]
        found = {table: conn.execute(f"select count(*) from {table}").fetchone() for table in tables}  # type: ignore[arg-type]
        return {table: row[0] for table, row in found.items() if row}


def test_a_dump_is_restored_into_a_new_cluster(
    database: TestDatabase, organizations: list[int], elsewhere: EmbeddedPostgres, tmp_path: Path
) -> None:
    shell(block("sh", "pg_dump "), tmp_path, DB_OWNER_DSN=database.owner_dsn)

    wanted = block("sql", "create role reos_app nologin")
    missing = migrate.missing_role_statements(elsewhere.owner_dsn, embedded.SERVICE_LOGIN)
    assert [f"{statement};" for _, statement in missing] == wanted.splitlines()
    superuser_dsn = elsewhere.layout.dsn("postgres")
    psql(superuser_dsn, wanted)
    assert migrate.missing_role_statements(elsewhere.owner_dsn, embedded.SERVICE_LOGIN) == []

    dsns = {"DB_DSN": elsewhere.dsn, "DB_OWNER_DSN": elsewhere.owner_dsn}
    said = shell(block("sh", "pg_restore "), tmp_path, **dsns)
    assert "The database is up to date.\n" in said
    assert "fault" not in said
    assert counts(superuser_dsn) == counts(database.superuser_dsn)
    assert counts(superuser_dsn)["leads"] == 5
    with psycopg.connect(superuser_dsn) as conn:
        assert rls.problems(rls.ask(conn)) == []
    script = block("sql", "begin read only;").replace("'1'", f"'{organizations[1]}'")
    assert psql(elsewhere.dsn, script).split() == ["BEGIN", "SET", "3", "COMMIT"]


def test_a_dump_that_would_leave_rows_out_stops(database: TestDatabase, tmp_path: Path) -> None:
    command = [embedded.find_binaries() / "pg_dump", "--role=reos_owner", f"--file={tmp_path / 'dump'}"]
    ran = subprocess.run([*command, database.owner_dsn], capture_output=True, text=True, timeout=60)
    assert ran.returncode != 0
    assert "row-level security" in ran.stderr


# --- care and change ---------------------------------------------------------------------------------------------


def test_the_advice_on_vacuum_can_be_followed(fresh_database: TestDatabase) -> None:
    script = block("sql", "autovacuum_vacuum_scale_factor")
    psql(fresh_database.owner_dsn, script)
    psql(fresh_database.owner_dsn, block("sql", "pg_stat_user_tables"))
    with psycopg.connect(fresh_database.superuser_dsn) as conn:
        (changed,) = conn.execute("select count(*) from pg_class where reloptions::text ~ 'autovacuum'").fetchone() or (
            0,
        )
    assert changed == script.count("alter table") == 5


def test_the_migration_shown_makes_a_table_as_it_should_be(fresh_database: TestDatabase, tmp_path: Path) -> None:
    directory = shutil.copytree(migrate.MIGRATIONS, tmp_path / "migrations")
    up, down = migrate.new("visits", directory)
    up.write_text(block("sql", "create table visits"))
    down.write_text(block("sql", "drop table visits"))
    assert migrate.migrate(fresh_database.owner_dsn, embedded.SERVICE_LOGIN, directory) == [up.stem]
    with psycopg.connect(fresh_database.superuser_dsn) as conn:
        catalogue = rls.ask(conn)
    assert rls.problems(catalogue) == []
    rights = [row["privilege"] for row in catalogue.grants if row["object"] == "visits"]
    assert block("text", "reos_app visits") == f"reos_app visits: {', '.join(sorted(rights))}\n"
    later, _ = migrate.new("visits-by-day", directory)
    statement = "create index concurrently visits_by_day on visits (organization_id, visited_at);"
    later.write_text(f"-- transactional: false\n{statement}\n")
    assert migrate.migrate(fresh_database.owner_dsn, embedded.SERVICE_LOGIN, directory) == [later.stem]
    later.with_suffix(".rollback.sql").write_text("drop index visits_by_day;\n")
    assert migrate.migrate_down(fresh_database.owner_dsn, 2, directory) == [later.stem, up.stem]
    with psycopg.connect(fresh_database.superuser_dsn) as conn:
        assert "visits" not in {row["label"] for row in rls.ask(conn).relations}
