"""What the database's own catalogue says of the tenant wall: row security, keys, functions, rights.

Nothing here names a table, so a new one is covered by itself. Two lists are kept by hand, because widening them has to
be a decision: DEFINER_FUNCTIONS below and `grants.txt` beside this file. A failure prints the lines to put there.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conftest import Cluster

from reos import rls
from reos.rls import GLOBAL_KEYS, OUR_ROLES, PINNED_PATH, SHARED_POLICIES, TENANT_POLICY

pytestmark = pytest.mark.integration

GRANTS = Path(__file__).with_name("grants.txt")
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
    "job_backlog": "four numbers over all organisations",
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
    """What `reos rls` reads of a migrated database, and more questions, asked as superuser: nothing is hidden."""

    conn: psycopg.Connection[dict[str, Any]]
    facts: rls.Catalogue

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
        yield Catalogue(conn, rls.read(database.superuser_dsn))


def tables(catalogue: Catalogue) -> list[dict[str, Any]]:
    return catalogue.facts.tables


def tenant_tables(catalogue: Catalogue) -> set[str]:
    found = catalogue.facts.tenants
    assert len(found) > 10
    return found


def indexes(catalogue: Catalogue) -> list[dict[str, Any]]:
    return [row for row in catalogue.facts.indexes if row["schema"] == "public"]


def foreign_keys(catalogue: Catalogue) -> list[dict[str, Any]]:
    return [row for row in catalogue.facts.foreign_keys if row["schema"] == "public"]


def test_the_report_finds_nothing_out_of_line(catalogue: Catalogue) -> None:
    assert [str(problem) for problem in rls.problems(catalogue.facts)] == []


# --- row security ------------------------------------------------------------------------------------------------


def test_every_table_has_row_security_enabled_and_forced(catalogue: Catalogue) -> None:
    open_tables = [row["name"] for row in tables(catalogue) if not (row["is_enabled"] and row["is_forced"])]
    assert open_tables == []


def test_tenant_tables_have_the_two_policies_and_no_other(catalogue: Catalogue) -> None:
    found: dict[str, list[Any]] = {name: [] for name in tenant_tables(catalogue)}
    for row in catalogue.facts.policies:
        found.setdefault(row["label"], []).append(tuple(row.values())[2:])
    expected = [
        ("tenant", True, ["reos_app"], "ALL", TENANT_POLICY, None),
        ("owner", True, ["reos_owner"], "ALL", "true", None),
    ]
    wrong = {name: found[name] for name in tenant_tables(catalogue) if found[name] != expected}
    assert wrong == {}


def test_tables_without_tenant_show_the_app_role_no_more_than_one_policy_says(catalogue: Catalogue) -> None:
    """What knows no tenant is either the organisations themselves, global and read-only, or out of reach."""
    tenants = tenant_tables(catalogue)
    policies = {
        (row["label"], row["command"], row["using_text"])
        for row in catalogue.facts.policies
        if row["label"] not in tenants and {"reos_app", "public"} & set(row["roles"])
    }
    assert policies == SHARED_POLICIES


def test_views_look_with_the_eyes_of_who_asks(catalogue: Catalogue) -> None:
    views = [row for row in catalogue.facts.relations if row["kind"] in "vm"]
    assert [row["label"] for row in views if not row["is_invoker"]] == []


# --- keys --------------------------------------------------------------------------------------------------------


def test_keys_of_tenant_tables_start_with_the_tenant(catalogue: Catalogue) -> None:
    """A key over all organisations would tell whether a value exists elsewhere; and Citus could not shard by it."""
    tenants = tenant_tables(catalogue)
    keys = [row for row in indexes(catalogue) if row["is_unique"]]
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
    keys = foreign_keys(catalogue)
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
    keys = foreign_keys(catalogue)
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
    unserved = []
    for key in foreign_keys(catalogue):
        wanted = set(key["columns"]) if key["target"] in deleted else {"organization_id"} & set(key["columns"])
        not_null = {f"({column} IS NOT NULL)" for column in key["columns"]}
        if wanted and not any(
            index["oid"] == key["oid"]
            and set((index["columns"] or [])[: len(wanted)]) == wanted
            and index["method"] == "btree"
            and (index["predicate"] is None or index["predicate"] in not_null)
            for index in indexes(catalogue)
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


def test_definer_functions_are_pinned_named_here_and_closed_to_the_public(catalogue: Catalogue) -> None:
    functions = [row for row in catalogue.facts.functions if row["is_definer"]]
    for row in functions:
        path = next((s for s in row["settings"] or [] if s.startswith("search_path=")), "")
        assert PINNED_PATH.fullmatch(path), (row["name"], path)
        assert row["owner"] == "reos_owner", row["name"]
        assert not row["is_public"], row["name"]
    found = sorted({row["name"] for row in functions})
    missing = [name for name in found if name not in DEFINER_FUNCTIONS]
    lines = "\n".join(f'    "{name}": "…",' for name in missing)
    assert not missing, f"Security definer functions that DEFINER_FUNCTIONS does not name:\n{lines}"
    assert found == list(DEFINER_FUNCTIONS), "DEFINER_FUNCTIONS is sorted and names no function that is gone"


def test_no_function_is_executable_by_the_public(catalogue: Catalogue) -> None:
    assert [row["signature"] for row in catalogue.facts.functions if row["is_public"]] == []


def test_the_owner_owns_everything(catalogue: Catalogue) -> None:
    others = [(row["name"], row["owner"]) for row in catalogue.facts.relations if row["owner"] != "reos_owner"]
    others += [(row["name"], row["owner"]) for row in catalogue.facts.functions if row["owner"] != "reos_owner"]
    assert others == []


def test_our_roles_cannot_go_around_row_security(catalogue: Catalogue) -> None:
    roles = {row.pop("name"): row for row in map(dict, catalogue.facts.roles)}
    assert set(roles) == set(OUR_ROLES)
    for name, row in roles.items():
        assert row.pop("members"), name
        assert row.pop("member_of") == [], f"{name} is a member of nothing"
        assert len(row) == 6 and not any(row.values()), f"{name} can do nothing special"


def granted(catalogue: Catalogue) -> list[str]:
    """Everything that the two working roles can do, in whatever way they came to it, as lines of `grants.txt`."""
    lines: dict[tuple[str, str], list[str]] = {}
    for row in catalogue.facts.grants:
        assert row["role"] != "public" or row["object"] == "schema public"
        if row["role"] != "public":
            columns = f" ({row['columns']})" if row["columns"] else ""
            lines.setdefault((row["role"], row["object"]), []).append(row["privilege"] + columns)
    text = [f"{role} {table}: {', '.join(sorted(rights))}" for (role, table), rights in lines.items()]
    for row in catalogue.facts.functions:
        text += [f"{role} function {row['signature']}: execute" for role in row["executed_by"] if not row["is_trigger"]]
    return sorted(text)


def test_the_roles_can_do_what_their_list_says_and_no_more(catalogue: Catalogue) -> None:
    listed = [line for line in GRANTS.read_text().splitlines() if line and not line.startswith("#")]
    found = granted(catalogue)
    change = [line for line in difflib.ndiff(listed, found) if line[0] in "+-"]
    assert found == listed, "tests/grants.txt has to change by these lines:\n" + "\n".join(change)
