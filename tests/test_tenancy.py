"""The tenant wall at the level of SQL: what the service's role sees and may write, table by table.

The tables come from the catalogue, and each gets a row of two organisations, so that a new table is covered by itself.
Only a new security definer function wants a line (CALLS): how to call it with another organisation's ids.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from conftest import Cluster
from psycopg import errors

pytestmark = pytest.mark.integration

OURS, THEIRS = 1_000_001, 1_000_002  # organisations

# Something for each type that a required column has.
FILLERS = {
    "bigint": "1", "integer": "1", "smallint": "1", "numeric": "1", "double precision": "1", "boolean": "true",
    "text": "'x'", "character varying": "'x'", "bytea": "'x'", "jsonb": "'{}'", "uuid": "gen_random_uuid()",
    "date": "now()", "timestamp with time zone": "now()", "text[]": "'{}'", "bigint[]": "'{}'",
}  # fmt: skip

# Calls of the functions that look past row security but filter on the tenant themselves, each naming what is another
# organisation's. The ids are those of the rows below.
ID = 500
CALLS = {
    "change_login": f"change_login({ID}, 'moved@example.com')",
    "count_jobs": "count_jobs(null, null, null)",
    "forget_webhook_secrets": f"forget_webhook_secrets({ID})",
    "find_jobs": "find_jobs(null, null, null, null, null, true, 10, 0)",
    "read_password_hash": f"read_password_hash({ID})",
    "read_webhook_secrets": f"unnest(read_webhook_secrets({ID}))",
    "retry_job": f"retry_job({ID})",
    "set_password_hash": f"set_password_hash({ID}, 'mine now')",
    "show_jobs": f"show_jobs(array[{ID}])",
    "wake_webhooks": f"wake_webhooks(array[{ID}])",
}
# These touch only what is older than any row below; test_retention.py holds them to the tenant.
OF_OLD_ROWS = {"purge_audit_logs"}
SEARCH = "{}(array['%x%'], 10)"
# These make something new for the tenant that is set, and name nothing of anybody's.
MAKERS = {"create_login", "defer_job", "queue_deliveries", "set_webhook_secret"}


@dataclass(frozen=True)
class Table:
    name: str
    tenant: str  # the column
    columns: dict[str, str]  # that can be written, with their types


@dataclass(frozen=True)
class Walled:
    """A database in which two organisations have a row in every tenant table."""

    dsn: str
    superuser: psycopg.Connection
    tables: dict[str, Table]

    @contextmanager
    def service(self, organization_id: int | None) -> Iterator[psycopg.Connection]:
        """A transaction of the service, which is rolled back, with a tenant or none."""
        with psycopg.connect(self.dsn) as conn:
            assert conn.execute("select current_user").fetchone() == ("reos_app",)
            if organization_id is not None:
                conn.execute(f"set local reos.organization_id = '{organization_id}'")
            yield conn
            conn.rollback()

    def may(self, privilege: str, table: Table, column: str | None = None) -> bool:
        """Whether the service's role has a right on the table, or on a column of it."""
        function = "has_table_privilege" if column is None else "has_column_privilege"
        names = [table.name] if column is None else [table.name, column]
        places = ", ".join(["%s"] * len(names))
        row = self.superuser.execute(f"select {function}('reos_app', {places}, %s)", [*names, privilege]).fetchone()
        assert row is not None
        return bool(row[0])

    def digest(self) -> dict[str, Any]:
        """All rows, to tell whether anything has changed."""
        return {
            name: self.superuser.execute(f"select array_agg(r::text order by r::text) from {name} r").fetchone()
            for name in [*self.tables, "procrastinate.procrastinate_jobs"]
        }


@pytest.fixture(scope="module", params=["postgres_server", "postgres_15"])
def walled(request: pytest.FixtureRequest) -> Iterator[Walled]:
    cluster: Cluster = request.getfixturevalue(request.param)
    with cluster.database() as database, psycopg.connect(database.superuser_dsn, autocommit=True) as superuser:
        tables = read_tables(superuser)
        # Keys, checks and triggers are others' matter: here any row will do.
        superuser.execute("set session_replication_role = replica")
        for table in tables.values():
            drop_checks(superuser, table)
            for organization_id in (OURS, THEIRS):
                superuser.execute(row_of(table, organization_id))
        superuser.execute(
            "insert into procrastinate.procrastinate_jobs (id, task_name, queue_name, args, status) overriding system"
            " value values (%s, 'x', 'x', jsonb_build_object('organization_id', %s::bigint), 'failed')",
            [ID, THEIRS],
        )
        superuser.execute("set session_replication_role = origin")
        yield Walled(database.dsn, superuser, tables)


def read_tables(conn: psycopg.Connection) -> dict[str, Table]:
    rows = conn.execute(
        "select c.relname::text, a.attname::text, format_type(a.atttypid, null), a.attnotnull and not a.atthasdef,"
        " a.attgenerated = '' from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0"
        " and not a.attisdropped where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p')"
        " order by 1, a.attnum"
    ).fetchall()
    columns: dict[str, dict[str, str]] = {}
    for table, column, kind, is_required, is_written in rows:
        if is_written and (is_required or column == "search_text"):
            columns.setdefault(table, {})[column] = kind
    tenants = {row[0] for row in rows if row[1] == "organization_id"}
    assert len(tenants) > 10
    found = {name: Table(name, "organization_id", columns[name]) for name in sorted(tenants)}
    return found | {"organizations": Table("organizations", "id", columns["organizations"])}


def drop_checks(conn: psycopg.Connection, table: Table) -> None:
    for (name,) in conn.execute(
        "select conname from pg_constraint where conrelid = %s::regclass and contype = 'c'", [table.name]
    ).fetchall():
        conn.execute(f'alter table {table.name} drop constraint "{name}"')
    # What a required column is generated from may be left out.
    for (name,) in conn.execute(
        "select attname from pg_attribute where attrelid = %s::regclass and attgenerated <> '' and attnotnull",
        [table.name],
    ).fetchall():
        conn.execute(f'alter table {table.name} alter column "{name}" drop not null')


def row_of(table: Table, organization_id: int) -> str:
    """An insert with the least that the table takes. All ids of an organisation are one number, so that they fit."""
    number = ID + (organization_id == OURS)
    values = {column: FILLERS[kind] for column, kind in table.columns.items()}
    values |= {column: str(number) for column, kind in table.columns.items() if is_id(column) and kind == "bigint"}
    if "email_key" in values:
        values["email_key"] = f"'{organization_id}@example.com'"
    if "slug" in values:
        values["slug"] = f"'x-{organization_id}'"
    values[table.tenant] = str(organization_id)
    names = ", ".join(f'"{name}"' for name in values)
    return f"insert into {table.name} ({names}) overriding system value values ({', '.join(values.values())})"


def is_id(column: str) -> bool:
    return column == "id" or column.endswith("_id")


def insert_into(table: Table) -> str:
    return f"insert into {table.name} ({table.tenant}) overriding system value"


def refusal(conn: psycopg.Connection, statement: str) -> str | None:
    """What Postgres says against a statement, which is undone either way."""
    try:
        with conn.transaction(force_rollback=True):
            conn.execute(statement)
    except psycopg.Error as error:
        return str(error)
    return None


def is_walled(said: str | None) -> bool:
    """Whether it was refused because of whose row it is, or because the role may not write there at all."""
    return said is not None and ("row-level security" in said or "permission denied" in said)


def assignments(walled: Walled, table: Table) -> str | None:
    """An update that changes nothing, of a column that the role may write."""
    if table.name == "organizations":
        return "name = name"
    columns = walled.superuser.execute(
        "select attname::text from pg_attribute where attrelid = %s::regclass and attnum > 0 and not attisdropped"
        " and attgenerated = '' and attidentity = '' and has_column_privilege('reos_app', attrelid, attnum, 'update')",
        [table.name],
    ).fetchall()
    return f'"{columns[0][0]}" = "{columns[0][0]}"' if columns else None


def reachable(walled: Walled) -> list[Table]:
    """The tables of which the service reads something. The others are behind functions alone."""
    found = [table for table in walled.tables.values() if walled.may("select", table)]
    hidden = set(walled.tables) - {table.name for table in found}
    assert hidden == {"login_identities", "user_credentials", "webhook_secrets"}
    return found


# --- without a tenant --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", [None, "", "0"])
def test_without_a_tenant_every_table_is_empty_and_refuses_writes(walled: Walled, setting: str | None) -> None:
    """Unset, and as a setting reads whose transaction has ended."""
    with walled.service(None) as conn:
        if setting is not None:
            conn.execute(f"set local reos.organization_id = '{setting}'")
        for table in reachable(walled):
            assert conn.execute(f"select count(*) from {table.name}").fetchone() == (0,), table.name
            for organization_id in ("null", OURS, THEIRS):
                said = refusal(conn, f"{insert_into(table)} values ({organization_id})")
                assert is_walled(said), (table.name, said)
            if assigned := assignments(walled, table):
                assert conn.execute(f"update {table.name} set {assigned}").rowcount == 0, table.name
            if walled.may("delete", table):
                assert conn.execute(f"delete from {table.name}").rowcount == 0, table.name


def test_a_tenant_ends_with_its_transaction(walled: Walled) -> None:
    with psycopg.connect(walled.dsn, autocommit=True) as conn:
        with conn.transaction():
            conn.execute(f"set local reos.organization_id = '{OURS}'")
            assert conn.execute("select count(*) from properties").fetchone() == (1,)
        assert conn.execute("select count(*) from properties").fetchone() == (0,)
        conn.execute(f"set local reos.organization_id = '{OURS}'")  # outside of any transaction it does nothing
        assert conn.execute("select count(*) from properties").fetchone() == (0,)


def test_a_tenant_that_is_no_number_is_an_error(walled: Walled) -> None:
    with walled.service(None) as conn:
        conn.execute("set local reos.organization_id = '1 or true'")
        with pytest.raises(errors.InvalidTextRepresentation):
            conn.execute("select count(*) from properties")


def test_what_is_behind_functions_alone_cannot_be_read_or_written(walled: Walled) -> None:
    with walled.service(OURS) as conn:
        for name in (
            "login_identities",
            "user_credentials",
            "webhook_secrets",
            "login_attempts",
            "procrastinate.procrastinate_jobs",
        ):
            for statement in (f"select 1 from {name}", f"delete from {name}", f"insert into {name} default values"):
                assert "permission denied" in str(refusal(conn, statement)), statement


# --- with the other tenant ---------------------------------------------------------------------------------------


def test_rows_of_others_are_invisible_and_unwritable(walled: Walled) -> None:
    written = 0
    with walled.service(OURS) as conn:
        for table in reachable(walled):
            seen = conn.execute(f"select {table.tenant} from {table.name}").fetchall()
            assert seen == [(OURS,)], f"{table.name} shows {seen}"
            theirs = f"where {table.tenant} = {THEIRS}"
            assert conn.execute(f"select count(*) from {table.name} {theirs}").fetchone() == (0,)
            said = refusal(conn, f"{insert_into(table)} values ({THEIRS})")
            assert is_walled(said), (table.name, said)
            if walled.may("insert", table, table.tenant):
                # What keeps the row out is whose it is: ours is let through the wall, whatever else it lacks.
                own = refusal(conn, f"{insert_into(table)} values ({OURS})")
                assert not is_walled(own), (table.name, own)
            if assigned := assignments(walled, table):
                written += 1
                assert conn.execute(f"update {table.name} set {assigned} {theirs}").rowcount == 0, table.name
                assert conn.execute(f"update {table.name} set {assigned}").rowcount == 1, table.name
            if table.name != "organizations":  # whose id nobody can set
                moved = refusal(conn, f"update {table.name} set {table.tenant} = {THEIRS}")
                assert is_walled(moved), (table.name, moved)
            if walled.may("delete", table):
                assert conn.execute(f"delete from {table.name} {theirs}").rowcount == 0, table.name
    assert written > 5


def test_rows_of_others_cannot_be_locked_joined_or_copied(walled: Walled) -> None:
    with walled.service(OURS) as conn:
        for statement in (
            f"select 1 from properties where organization_id = {THEIRS} for update",
            "select 1 from properties p join users u on u.organization_id <> p.organization_id",
            "select 1 from leads l where exists (select from users u where u.organization_id <> l.organization_id)",
        ):
            assert conn.execute(statement).fetchall() == []
        assert "not supported" in str(refusal(conn, "copy properties (organization_id) from stdin"))


def test_an_upsert_cannot_reach_a_row_of_another(walled: Walled) -> None:
    """Unique keys look past row security, so each begins with the tenant."""
    with walled.service(OURS) as conn:
        said = refusal(
            conn,
            f"insert into event_counters (organization_id) values ({THEIRS})"
            " on conflict (organization_id) do update set last_id = 0",
        )
        assert is_walled(said), said


# --- definer functions -------------------------------------------------------------------------------------------


def filtering_functions(walled: Walled) -> list[str]:
    """The definer functions that the service may call and that know of the tenant, those first that only read."""
    rows = walled.superuser.execute(
        "select p.proname::text from pg_proc p where p.prosecdef and p.prokind = 'f'"
        " and p.pronamespace = 'public'::regnamespace and has_function_privilege('reos_app', p.oid, 'execute')"
        " and pg_get_functiondef(p.oid) ~ 'current_organization_id'"
        " group by 1 order by min(p.provolatile::text), 1"
    ).fetchall()
    return [name for (name,) in rows if name not in MAKERS | OF_OLD_ROWS]


def call_of(name: str) -> str:
    call = SEARCH.format(name) if name.startswith("search_") else CALLS.get(name)
    assert call is not None, f"CALLS wants a line for {name}"
    return call


def test_definer_functions_give_and_change_nothing_without_the_tenant(walled: Walled) -> None:
    names = filtering_functions(walled)
    assert set(CALLS) <= set(names)
    before = walled.digest()
    for tenant in (None, OURS):
        for name in names:
            with walled.service(tenant) as conn:
                rows = conn.execute(f"select * from {call_of(name)}").fetchall()
                conn.commit()
            given = {value for row in rows for value in row} - {None, False, ""}
            # A search of one's own rows finds those.
            own = {ID + 1} if tenant == OURS and name.startswith("search_") else set()
            assert given == own, (name, tenant, rows)
    assert walled.digest() == before


def test_definer_functions_work_for_the_tenant(walled: Walled) -> None:
    """The same calls, by whose ids they name: each gives or changes something, so the test above can fail."""
    for name in filtering_functions(walled):
        before = walled.digest()
        with walled.service(THEIRS) as conn:
            rows = conn.execute(f"select * from {call_of(name)}").fetchall()
            conn.commit()
        given = {value for row in rows for value in row} - {None, False, ""}
        assert given or walled.digest() != before, name


def test_functions_that_make_something_make_it_for_the_tenant_that_is_set(walled: Walled) -> None:
    with walled.service(None) as conn:
        said = refusal(conn, f"select create_login({ID}, 'new@example.com', 'x')")
        assert "null value" in str(said)
    with walled.service(OURS) as conn:
        # The key between tables holds the tenant, so the user of another organisation is none.
        said = refusal(conn, f"select create_login({ID}, 'new@example.com', 'x')")
        assert "foreign key" in str(said)
        said = refusal(conn, f"select set_webhook_secret({ID}, 'x', '1 day')")
        assert "foreign key" in str(said)
        (job_id,) = (
            conn.execute("select defer_job('x', 'x', '{\"organization_id\": 7}', null, null, null)").fetchone() or ()
        )
        conn.commit()
    args = walled.superuser.execute("select args from procrastinate.procrastinate_jobs where id = %s", [job_id])
    assert args.fetchone() == ({"organization_id": OURS},)
