"""What the database's own catalogue says of the tenant wall: row security, keys, functions, rights.

Nothing here names a table, so a new one is covered by itself. Two lists are kept by hand, because widening them has to
be a decision: DEFINER_FUNCTIONS below and `grants.txt` beside this file. A failure prints the lines to put there.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conftest import Cluster

pytestmark = pytest.mark.integration

GRANTS = Path(__file__).with_name("grants.txt")
OUR_ROLES = ("reos_app", "reos_jobs", "reos_owner")
TENANT_POLICY = "(organization_id = ( SELECT current_organization_id() AS current_organization_id))"

# Keyed by what is unique over all organisations, because no tenant is known when it is looked up.
GLOBAL_KEYS = {
    "login_identities_pkey": "an address logs in to one organisation",
    "organizations_pkey": "the tenants themselves",
    "organizations_slug_key": "a slug stands in addresses",
}

# What goes around the wall, each with the reason why row security cannot serve it. Sorted by name.
DEFINER_FUNCTIONS = {
    "add_address_lookup": "log-in and reset: no tenant is known of an address that somebody typed",
    "announce_streams": "a web process tells of its streams of all organisations at once",
    "change_login": "as create_login",
    "claim_public_idempotency_key": "before log-in there is no tenant",
    "clear_login_attempts": "attempts are counted for an address, known or not",
    "count_jobs": "the queue has no row security; the tenant's own jobs only",
    "create_login": "addresses are unique over all organisations, and nobody reads hashes",
    "create_organization": "registration: the tenant does not exist yet",
    "deal_lead_text_changed": "a trigger; as deal_texts_inserted",
    "deal_property_text_changed": "a trigger; as deal_texts_inserted",
    "deal_text_changed": "a trigger; as deal_texts_inserted",
    "deal_texts_inserted": "a trigger: the app role writes no text that deals are found by",
    "defer_job": "the queue knows no tenant; this writes the transaction's into the job",
    "find_jobs": "as count_jobs",
    "finish_address_lookup": "as add_address_lookup",
    "forget_webhook_secrets": "secrets lie where the app role has no rights",
    "give_back_rate_limits": "requests are counted before a tenant is known",
    "job_health": "three numbers over all organisations",
    "keep_public_answer": "before log-in there is no tenant",
    "list_abandoned_files": "the sweep of all organisations; ids and storage keys only",
    "list_due_reports": "the schedule of all organisations; ids and days only",
    "list_due_webhooks": "the sweep of all organisations; ids only",
    "list_old_audit_logs": "the clean-up of all organisations; ids only",
    "live_sessions": "the streams of all organisations that a web process serves",
    "purge_audit_logs": "append-only for the app role; refuses what is inside its retention",
    "purge_events": "append-only for the app role; refuses what is inside its retention",
    "purge_idempotency_keys": "the clean-up of all organisations",
    "purge_jobs": "the queue's upkeep, which knows no tenant",
    "purge_rate_limits": "the clean-up of what has no tenant",
    "purge_sessions": "the clean-up of all organisations",
    "purge_soft_deleted": "the clean-up of all organisations",
    "purge_webhooks": "the clean-up of all organisations",
    "queue_deliveries": "the app role writes no deliveries, and the queue knows no tenant",
    "read_login": "log-in: no tenant is known yet",
    "read_password_hash": "hashes lie where the app role has no rights",
    "read_webhook_secrets": "as forget_webhook_secrets",
    "record_login_failure": "as read_login",
    "record_login_success": "as read_login",
    "refresh_deal_search_texts": "called by triggers only; as deal_texts_inserted",
    "refresh_user_permissions": "called by triggers only: users.permissions is no column that the app role may write",
    "register_organization": "registration: the tenant does not exist yet",
    "rescue_stalled_jobs": "the queue's upkeep, which knows no tenant",
    "retry_job": "as count_jobs",
    "role_permissions_changed": "a trigger; as refresh_user_permissions",
    "search_campaign_ids": "trigram indexes are not leakproof",
    "search_deal_ids": "trigram indexes are not leakproof",
    "search_lead_ids": "trigram indexes are not leakproof",
    "search_portfolio_ids": "trigram indexes are not leakproof",
    "search_property_ids": "trigram indexes are not leakproof",
    "search_user_ids": "trigram indexes are not leakproof",
    "set_password_hash": "as read_password_hash",
    "set_webhook_secret": "as forget_webhook_secrets",
    "show_jobs": "as count_jobs",
    "take_address_lookup": "as add_address_lookup",
    "take_rate_limit": "requests are counted before a tenant is known",
    "user_roles_changed": "a trigger; as refresh_user_permissions",
    "wake_webhooks": "as defer_job",
}


@dataclass(frozen=True)
class Catalogue:
    """Questions to a migrated database, asked as superuser: nothing is hidden from it."""

    conn: psycopg.Connection[dict[str, Any]]

    def rows(self, statement: str, *args: Any) -> list[dict[str, Any]]:
        return self.conn.execute(statement, args).fetchall()  # type: ignore[arg-type]

    def values(self, statement: str, *args: Any) -> list[Any]:
        return [next(iter(row.values())) for row in self.rows(statement, *args)]


@pytest.fixture(scope="module", params=["postgres_server", "postgres_15"])
def catalogue(request: pytest.FixtureRequest) -> Iterator[Catalogue]:
    """The catalogue of a migrated database on each supported PostgreSQL."""
    cluster: Cluster = request.getfixturevalue(request.param)
    with (
        cluster.database() as database,
        psycopg.connect(
            database.superuser_dsn, autocommit=True, cursor_factory=psycopg.RawCursor, row_factory=psycopg.rows.dict_row
        ) as conn,
    ):
        yield Catalogue(conn)


# Everything that is neither Postgres' own nor an extension's. yoyo keeps its books in tables of its own.
OURS = (
    "n.nspname not in ('pg_catalog', 'information_schema') and n.nspname !~ '^pg_' and not exists (select from"
    " pg_depend d where d.objid = {oid} and d.deptype = 'e')"
)
TABLES = f"""
    select c.oid, n.nspname as schema, c.relname as name, c.relrowsecurity as is_enabled,
        c.relforcerowsecurity as is_forced, c.relkind as kind, pg_get_userbyid(c.relowner) as owner,
        n.nspname = 'public' and exists (select from pg_attribute a
            where a.attrelid = c.oid and a.attname = 'organization_id' and not a.attisdropped) as is_tenant
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p', 'v', 'm', 'f', 'S') and {OURS.format(oid="c.oid")} and c.relname !~ '^_?yoyo_'
    order by 2, 3
"""
# Columns of a key in its order, as text.
COLUMNS = (
    "(select array_agg(a.attname::text order by k.n) from unnest({keys}) with ordinality k (number, n)"
    " join pg_attribute a on a.attrelid = {table} and a.attnum = k.number)"
)
FOREIGN_KEYS = f"""
    select f.conname as name, f.conrelid as oid, c.relname as "table", t.relname as target,
        {COLUMNS.format(keys="f.conkey", table="f.conrelid")} as columns,
        {COLUMNS.format(keys="f.confkey", table="f.confrelid")} as target_columns,
        f.confdeltype as on_delete, f.confupdtype as on_update
    from pg_constraint f join pg_class c on c.oid = f.conrelid join pg_class t on t.oid = f.confrelid
    join pg_namespace n on n.oid = c.relnamespace
    where f.contype = 'f' and n.nspname = 'public' order by 3, 1
"""
INDEXES = f"""
    select i.indexrelid::regclass::text as name, i.indrelid as oid, c.relname as "table",
        i.indisunique as is_unique, i.indisprimary as is_primary, pg_get_expr(i.indpred, i.indrelid) as predicate,
        {COLUMNS.format(keys="string_to_array(i.indkey::text, ' ')::int[]", table="i.indrelid")} as columns,
        am.amname as method
    from pg_index i join pg_class c on c.oid = i.indrelid join pg_namespace n on n.oid = c.relnamespace
    join pg_class x on x.oid = i.indexrelid join pg_am am on am.oid = x.relam
    where n.nspname = 'public' and c.relname !~ '^_?yoyo_' order by 1
"""


def tables(catalogue: Catalogue) -> list[dict[str, Any]]:
    return [row for row in catalogue.rows(TABLES) if row["kind"] in "rp"]


def tenant_tables(catalogue: Catalogue) -> set[str]:
    found = {row["name"] for row in tables(catalogue) if row["is_tenant"]}
    assert len(found) > 10
    return found


# --- row security ------------------------------------------------------------------------------------------------


def test_every_table_has_row_security_enabled_and_forced(catalogue: Catalogue) -> None:
    open_tables = [row["name"] for row in tables(catalogue) if not (row["is_enabled"] and row["is_forced"])]
    assert open_tables == []


def test_tenant_tables_have_the_two_policies_and_no_other(catalogue: Catalogue) -> None:
    found: dict[str, list[Any]] = {name: [] for name in tenant_tables(catalogue)}
    for row in catalogue.rows(
        "select tablename, policyname, permissive, roles::text[], cmd, qual, with_check from pg_policies"
        " where schemaname = 'public' order by policyname desc"
    ):
        found.setdefault(row["tablename"], []).append(tuple(row.values())[1:])
    expected = [
        ("tenant", "PERMISSIVE", ["reos_app"], "ALL", TENANT_POLICY, None),
        ("owner", "PERMISSIVE", ["reos_owner"], "ALL", "true", None),
    ]
    wrong = {name: found[name] for name in tenant_tables(catalogue) if found[name] != expected}
    assert wrong == {}


def test_tables_without_tenant_show_the_app_role_no_more_than_one_policy_says(catalogue: Catalogue) -> None:
    """What knows no tenant is either the organisations themselves, global and read-only, or out of reach."""
    tenants = tenant_tables(catalogue)
    policies = {
        (row["tablename"], row["cmd"], row["qual"])
        for row in catalogue.rows(
            "select tablename::text, cmd, qual from pg_policies where 'reos_app' = any(roles) or 'public' = any(roles)"
        )
        if row["tablename"] not in tenants
    }
    own = TENANT_POLICY.replace("organization_id =", "id =")
    assert policies == {("organizations", "ALL", own), ("permissions", "SELECT", "true")}


def test_views_look_with_the_eyes_of_who_asks(catalogue: Catalogue) -> None:
    views = catalogue.rows(
        "select c.relname::text, coalesce('security_invoker=true' = any(c.reloptions)"
        " or 'security_invoker=on' = any(c.reloptions), false) as is_invoker"
        f" from pg_class c join pg_namespace n on n.oid = c.relnamespace"
        f" where c.relkind in ('v', 'm') and {OURS.format(oid='c.oid')}"
    )
    assert [row["relname"] for row in views if not row["is_invoker"]] == []


# --- keys --------------------------------------------------------------------------------------------------------


def test_keys_of_tenant_tables_start_with_the_tenant(catalogue: Catalogue) -> None:
    """A key over all organisations would tell whether a value exists elsewhere; and Citus could not shard by it."""
    tenants = tenant_tables(catalogue)
    keys = [row for row in catalogue.rows(INDEXES) if row["is_unique"]]
    wrong = [
        row["name"]
        for row in keys
        if (row["table"] in tenants or row["table"] == "organizations")
        and (row["columns"] or [None])[0] != "organization_id"
    ]
    assert sorted(wrong) == sorted(GLOBAL_KEYS)
    assert tenants <= {row["table"] for row in keys if row["is_primary"]}


def test_foreign_keys_between_tenant_tables_hold_the_tenant(catalogue: Catalogue) -> None:
    """Foreign keys look past row security: one without the tenant could point to another organisation's row."""
    tenants = tenant_tables(catalogue)
    keys = catalogue.rows(FOREIGN_KEYS)
    assert len(keys) > 10
    for row in keys:
        where = f"{row['table']}.{row['name']}"
        if row["target"] in tenants:
            assert row["columns"][0] == row["target_columns"][0] == "organization_id", where
            assert row["table"] in tenants, where
        elif row["target"] == "organizations":
            assert row["columns"] == ["organization_id"], where
        else:
            assert row["target"] == "permissions", f"{where} points to a table that knows no tenant"
        # SET NULL would null the tenant too, and fail; Citus refuses both.
        assert row["on_delete"] not in ("n", "d"), where
        assert row["on_update"] == "a", where


def test_every_tenant_is_one_that_exists(catalogue: Catalogue) -> None:
    """By a foreign key to organizations, or to a tenant table that has one."""
    sure = {"organizations"}
    keys = catalogue.rows(FOREIGN_KEYS)
    while (
        more := {row["table"] for row in keys if row["target"] in sure and row["columns"][0] == "organization_id"}
        - sure
    ):
        sure |= more
    assert tenant_tables(catalogue) - sure == set()


def test_foreign_keys_are_served_by_an_index(catalogue: Catalogue) -> None:
    """Or a deleted row would have every row that might refer to it read, with all of their organisation's at best.

    Rows that nobody deletes need the tenant in front of an index alone.
    """
    deleted = set(
        catalogue.values(
            "select c.relname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace"
            " where c.relkind = 'r' and n.nspname = 'public' and (has_table_privilege('reos_app', c.oid, 'delete')"
            " or exists (select from pg_proc p where p.prosecdef and pg_get_functiondef(p.oid)"
            "  ~* ('delete\\s+from\\s+(public\\.)?' || c.relname || '\\M')))"
        )
    )
    assert {"properties", "stored_files", "sessions"} & deleted
    indexes = catalogue.rows(INDEXES)
    unserved = []
    for key in catalogue.rows(FOREIGN_KEYS):
        wanted = set(key["columns"]) if key["target"] in deleted else {"organization_id"} & set(key["columns"])
        not_null = {f"({column} IS NOT NULL)" for column in key["columns"]}
        if wanted and not any(
            index["oid"] == key["oid"]
            and set((index["columns"] or [])[: len(wanted)]) == wanted
            and index["method"] == "btree"
            and (index["predicate"] is None or index["predicate"] in not_null)
            for index in indexes
        ):
            unserved.append(f"{key['table']} ({', '.join(key['columns'])})")
    assert unserved == []


# --- what Citus asks for -----------------------------------------------------------------------------------------


def test_the_schema_can_be_distributed_by_organisation(catalogue: Catalogue) -> None:
    """Beside the rules for keys above: what Citus refuses on a distributed table."""
    tenants = tenant_tables(catalogue)
    identities = catalogue.rows(
        'select c.relname::text as "table", a.attname::text as column, format_type(a.atttypid, null) as type'
        " from pg_attribute a join pg_class c on c.oid = a.attrelid where a.attidentity <> '' and not a.attisdropped"
    )
    assert [row for row in identities if row["table"] in tenants and row["type"] != "bigint"] == []
    exclusions = catalogue.values("select conname::text from pg_constraint where contype = 'x'")
    assert exclusions == []
    types = catalogue.rows(
        'select c.relname::text as "table", format_type(a.atttypid, a.atttypmod) as type, a.attnotnull as is_required'
        " from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace"
        " where a.attname = 'organization_id' and c.relkind = 'r' and n.nspname = 'public'"
    )
    # Tables that are distributed by the same column are co-located only if it has the same type in each.
    assert [row for row in types if row["type"] != "bigint" or not row["is_required"]] == []


# --- functions and rights ----------------------------------------------------------------------------------------

FUNCTIONS = f"""
    select p.oid, n.nspname as schema, p.proname as name, p.prosecdef as is_definer, p.proconfig as settings,
        pg_get_userbyid(p.proowner) as owner, p.prorettype = 'trigger'::regtype as is_trigger,
        has_function_privilege('public', p.oid, 'execute') as is_public,
        case when n.nspname <> 'public' then n.nspname || '.' else '' end || p.proname
            || '(' || oidvectortypes(p.proargtypes) || ')' as signature
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace where {OURS.format(oid="p.oid")} order by 2, 3
"""


def test_definer_functions_are_pinned_named_here_and_closed_to_the_public(catalogue: Catalogue) -> None:
    functions = [row for row in catalogue.rows(FUNCTIONS) if row["is_definer"]]
    for row in functions:
        path = next((s for s in row["settings"] or [] if s.startswith("search_path=")), "")
        # pg_temp stands last: in front, where it is unless named, a caller's table would take the place of ours.
        assert re.fullmatch(r"search_path=pg_catalog, (public, )?(procrastinate, )?pg_temp", path), (row["name"], path)
        assert row["owner"] == "reos_owner", row["name"]
        assert not row["is_public"], row["name"]
    found = sorted({row["name"] for row in functions})
    missing = [name for name in found if name not in DEFINER_FUNCTIONS]
    lines = "\n".join(f'    "{name}": "…",' for name in missing)
    assert not missing, f"Security definer functions that DEFINER_FUNCTIONS does not name:\n{lines}"
    assert found == list(DEFINER_FUNCTIONS), "DEFINER_FUNCTIONS is sorted and names no function that is gone"


def test_no_function_is_executable_by_the_public(catalogue: Catalogue) -> None:
    assert [row["signature"] for row in catalogue.rows(FUNCTIONS) if row["is_public"]] == []


def test_the_owner_owns_everything(catalogue: Catalogue) -> None:
    others = [(row["name"], row["owner"]) for row in catalogue.rows(TABLES) if row["owner"] != "reos_owner"]
    others += [(row["name"], row["owner"]) for row in catalogue.rows(FUNCTIONS) if row["owner"] != "reos_owner"]
    assert others == []


def test_our_roles_cannot_go_around_row_security(catalogue: Catalogue) -> None:
    roles = catalogue.rows(
        "select rolname::text, rolsuper or rolbypassrls or rolcanlogin or rolcreaterole or rolcreatedb"
        " or rolreplication as is_mighty from pg_roles where rolname like 'reos\\_%'"
    )
    mighty = {row["rolname"] for row in roles if row["is_mighty"]} & set(OUR_ROLES)
    assert mighty == set()
    assert {row["rolname"] for row in roles} >= set(OUR_ROLES)
    memberships = catalogue.rows(
        "select member::regrole::text, roleid::regrole::text from pg_auth_members"
        " where member = any($1::regrole[]) or roleid::regrole::text like 'pg\\_%' and member = any($1::regrole[])",
        list(OUR_ROLES),
    )
    assert memberships == [], "our roles are members of nothing"


NAME = "case when c.schema <> 'public' then c.schema || '.' else '' end || c.name"
PRIVILEGES = f"""
    select r.role, p.name as privilege, {NAME} as "table", null as columns
    from relations c, unnest(array['reos_app', 'reos_jobs']) r (role),
        unnest(array['select', 'insert', 'update', 'delete', 'truncate', 'references', 'trigger']) p (name)
    where c.kind <> 'S' and has_table_privilege(r.role, c.oid, p.name)
    union all
    select r.role, p.name, {NAME},
        (select string_agg(a.attname, ', ' order by a.attnum) from pg_attribute a where a.attrelid = c.oid
            and a.attnum > 0 and not a.attisdropped and has_column_privilege(r.role, c.oid, a.attnum, p.name))
    from relations c, unnest(array['reos_app', 'reos_jobs']) r (role),
        unnest(array['select', 'insert', 'update', 'references']) p (name)
    where c.kind <> 'S' and not has_table_privilege(r.role, c.oid, p.name)
        and has_any_column_privilege(r.role, c.oid, p.name)
    union all
    select r.role, p.name, 'sequence ' || {NAME}, null
    from relations c, unnest(array['reos_app', 'reos_jobs']) r (role),
        unnest(array['usage', 'select', 'update']) p (name)
    where c.kind = 'S' and has_sequence_privilege(r.role, c.oid, p.name)
    union all
    select r.role, p.name, 'schema ' || n.nspname, null
    from pg_namespace n, unnest(array['reos_app', 'reos_jobs']) r (role), unnest(array['usage', 'create']) p (name)
    where n.nspname !~ '^pg_' and n.nspname <> 'information_schema' and has_schema_privilege(r.role, n.oid, p.name)
    union all
    select r.role, 'create', 'database', null
    from unnest(array['reos_app', 'reos_jobs']) r (role)
    where has_database_privilege(r.role, current_database(), 'create')
"""


def granted(catalogue: Catalogue) -> list[str]:
    """Everything that the two working roles can do, in whatever way they came to it, as lines of `grants.txt`."""
    relations = TABLES.replace(" and c.relname !~ '^_?yoyo_'", "").replace("order by 2, 3", "")
    lines: dict[tuple[str, str], list[str]] = {}
    for row in catalogue.rows(f"with relations as ({relations}) {PRIVILEGES}"):
        columns = f" ({row['columns']})" if row["columns"] else ""
        lines.setdefault((row["role"], row["table"]), []).append(row["privilege"] + columns)
    text = [f"{role} {table}: {', '.join(sorted(rights))}" for (role, table), rights in lines.items()]
    for row in catalogue.rows(FUNCTIONS):
        text += [
            f"{role} function {row['signature']}: execute"
            for role in ("reos_app", "reos_jobs")
            if not row["is_trigger"]
            and catalogue.values("select has_function_privilege($1, $2::oid, 'execute')", role, row["oid"])[0]
        ]
    return sorted(text)


def test_the_roles_can_do_what_their_list_says_and_no_more(catalogue: Catalogue) -> None:
    listed = [line for line in GRANTS.read_text().splitlines() if line and not line.startswith("#")]
    found = granted(catalogue)
    change = [line for line in difflib.ndiff(listed, found) if line[0] in "+-"]
    assert found == listed, "tests/grants.txt has to change by these lines:\n" + "\n".join(change)
