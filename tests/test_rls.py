"""`reos rls`: what it shows of a sound database, and what it says of one in which something is out of line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from conftest import TestDatabase
from running import ROOT, reos

from reos import embedded, rls

pytestmark = pytest.mark.integration

# A table as a migration makes one, and what would be out of line with it.
SOUND = """
    create table visits (
        organization_id bigint not null references organizations (id), id bigint, lead_id bigint,
        primary key (organization_id, id),
        foreign key (organization_id, lead_id) references leads (organization_id, id)
    );
    alter table visits owner to reos_owner;
    alter table visits enable row level security, force row level security;
    create policy tenant on visits to reos_app using (organization_id = (select current_organization_id()));
    create policy owner on visits to reos_owner using (true);
    grant select, insert on visits to reos_app;
    create view lead_names with (security_invoker = true) as select first_name from leads;
    alter view lead_names owner to reos_owner;
    create function count_visits() returns bigint language sql security definer
        set search_path = pg_catalog, public, pg_temp return (select count(*) from visits);
    alter function count_visits() owner to reos_owner;
    revoke all on function count_visits() from public;
"""
BROKEN = {
    "alter table visits disable row level security": "visits: row security is off.",
    "alter table visits no force row level security": "visits: row security is not forced",
    "drop policy tenant on visits": "visits: has no policy for reos_app",
    "drop policy owner on visits": "visits: has no policy for reos_owner",
    "create policy more on visits for select to reos_app using (lead_id is null)": "lets reos_app at more than its",
    "create policy more on visits for select to public using (false)": "lets public at more than its own",
    "create policy more on visits to reos_app using (organization_id = (select current_organization_id()))"
    " with check (true)": "policy more lets reos_app at more",
    "create policy all_of_them on organizations for select to reos_app using (true)": "organizations: policy all_of",
    "alter table visits drop constraint visits_pkey": "visits: has no primary key that begins with organization_id.",
    "create unique index one_lead on visits (lead_id)": "visits: the key one_lead (lead_id) does not begin with",
    "create unique index one_each on visits ((id % 7))": "visits: the key one_each (an expression) does not begin with",
    "alter table leads add unique (id); alter table visits add foreign key (lead_id) references leads (id)": (
        "visits: the foreign key visits_lead_id_fkey (lead_id) can point at another organisation's leads."
    ),
    "alter table visits owner to reos_admin": "visits: belongs to reos_admin instead of reos_owner.",
    "alter view lead_names reset (security_invoker)": "lead_names: is a view without security_invoker",
    "create materialized view copies as select * from leads; grant select on copies to reos_app": (
        "copies: knows no row security"
    ),
    "grant execute on function count_visits() to public": "count_visits(): may be executed by public.",
    "alter function count_visits() reset search_path": "count_visits(): is a definer function whose search_path is not",
    "alter function count_visits() set search_path = public": "as it should be: public.",
    "alter function count_visits() owner to reos_admin": "count_visits(): belongs to reos_admin instead of reos_owner.",
    "alter role reos_app bypassrls": "reos_app: may go past row security (BYPASSRLS).",
    "alter role reos_owner login": "reos_owner: may log in.",
    "grant reos_owner to reos_app": "reos_app: is a member of reos_owner.",
    "grant truncate on visits to reos_app": "visits: reos_app has truncate on it, which asks no row security.",
    "grant references (id) on visits to reos_app": "visits: reos_app has references on it",
    "grant select on visits to public": "visits: public has select on it.",
    "grant select on visits to reos_jobs": "visits: reos_jobs has select on it, outside of the queue.",
    "grant usage on schema procrastinate to reos_app": "schema procrastinate: reos_app has rights on the queue",
    "grant create on schema public to reos_app": "schema public: reos_app has create on it",
}


@pytest.fixture(scope="module")
def superuser(database: TestDatabase) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database.superuser_dsn, autocommit=True) as conn:
        yield conn


def found_after(conn: psycopg.Connection, *statements: str) -> list[str]:
    """What is out of line after these, which are taken back."""
    with conn.transaction(force_rollback=True):
        for statement in statements:
            conn.execute(statement)  # type: ignore[arg-type]
        return [str(problem) for problem in rls.problems(rls.ask(conn))]


def test_what_a_migration_makes_is_in_line(superuser: psycopg.Connection) -> None:
    assert found_after(superuser, SOUND) == []
    narrower = "create policy mine on visits as restrictive to reos_app using (lead_id is not null)"
    assert found_after(superuser, SOUND, narrower) == []


@pytest.mark.parametrize("statement", BROKEN)
def test_what_is_out_of_line_is_found(superuser: psycopg.Connection, statement: str) -> None:
    found = found_after(superuser, SOUND, statement)
    assert any(BROKEN[statement] in problem for problem in found), found


def test_a_database_without_roles_and_tables_is_told_so(superuser: psycopg.Connection) -> None:
    roles = ("reos_owner", "reos_app", "reos_jobs")
    renamed = [f"alter role {role} rename to former_{role}" for role in roles]
    found = found_after(superuser, *renamed)
    assert [f"{role}: there is no such role; run `reos migrate`." for role in sorted(roles)] == found[:3]


def run(database: TestDatabase, tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return reos(tmp_path, "rls", *arguments, DB_DSN=database.dsn, DB_OWNER_DSN=database.owner_dsn)


def test_the_report_shows_each_table_policy_and_right(database: TestDatabase, tmp_path: Path) -> None:
    ran = run(database, tmp_path)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "!!" not in ran.stdout
    lines = [" ".join(line.split()) for line in ran.stdout.splitlines()]
    assert max(map(len, ran.stdout.splitlines())) <= rls.WIDTH
    assert "audit_logs forced P2 P1 reos_owner reos_app: insert, select" in lines
    assert "event_counters forced P2 P1 reos_owner reos_app: select, update (last_id)" in lines
    assert "job_health() reos_owner reos_app pg_catalog, public, pg_temp" in lines
    assert any(line.endswith("owner reos_owner all using (true)") for line in lines)
    tenant = "tenant reos_app all using (organization_id = (select current_organization_id()))"
    assert any(line.endswith(tenant) for line in lines)
    names = {line.split(" ")[0] for line in lines}
    with psycopg.connect(database.superuser_dsn) as conn:
        tables = {row["label"] for row in rls.ask(conn).relations if row["kind"] in "rp"}
    assert tables <= names
    assert lines[-1].endswith(": nothing is out of line.")


def test_what_is_out_of_line_is_loud(fresh_database: TestDatabase, tmp_path: Path) -> None:
    with psycopg.connect(fresh_database.superuser_dsn) as conn:
        conn.execute("alter table deals no force row level security")
        conn.execute("grant execute on function job_health() to public")
    ran = run(fresh_database, tmp_path)
    assert ran.returncode == 1
    lines = ran.stdout.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("  deals "))
    assert "NOT FORCED" in lines[at]
    assert lines[at + 1].startswith("  !! row security is not forced")
    assert [line for line in lines if line.startswith("!! ")] == [
        "!! deals: row security is not forced, so its owner's functions go past it.",
        "!! job_health(): may be executed by public.",
    ]
    assert lines[-1].endswith("2 OUT OF LINE.")


def test_the_door_in_tools_is_the_same(database: TestDatabase, tmp_path: Path) -> None:
    said = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "rls_report.py")],
        env={**os.environ, "DB_DSN": database.dsn, "DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (said.returncode, said.stdout) == (0, run(database, tmp_path).stdout)


def test_the_statements_can_be_pasted_into_psql(database: TestDatabase, tmp_path: Path) -> None:
    ran = run(database, tmp_path, "--sql")
    assert ran.returncode == 0
    assert ran.stdout.count("Look for: ") == len(rls.statements()) == ran.stdout.count(" -- name: ")
    for dsn in (database.dsn, database.owner_dsn):
        psql = subprocess.run(
            [embedded.find_binaries() / "psql", dsn, "--no-psqlrc", "--set=ON_ERROR_STOP=1"],
            input=ran.stdout,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (psql.returncode, psql.stderr) == (0, "")
        assert psql.stdout.count(" rows)\n") == len(rls.statements())
