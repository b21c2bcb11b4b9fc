"""docs/scaling.md: its lists for Citus against the catalogue, and Citus' rules for each table that they name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

pytestmark = pytest.mark.integration

GUIDE = (Path(__file__).parent.parent / "docs" / "scaling.md").read_text()
KEY = "organization_id"

KEYS = """
    select conrelid::regclass::text as "table", conname::text as name, contype::text as type,
        confrelid::regclass::text as target, confdeltype::text as on_delete,
        array(select attname::text from unnest(conkey) with ordinality k (n, place)
            join pg_attribute a on a.attrelid = conrelid and a.attnum = k.n order by place) as columns,
        array(select attname::text from unnest(confkey) with ordinality k (n, place)
            join pg_attribute a on a.attrelid = confrelid and a.attnum = k.n order by place) as target_columns
    from pg_constraint where connamespace = 'public'::regnamespace and contype in ('p', 'u', 'f', 'x')
"""
TABLES = """
    select c.relname::text as name, c.relpersistence::text as persistence,
        array(select a.attname::text from pg_attribute a where a.attrelid = c.oid and a.attidentity <> ''
            and a.atttypid <> 'bigint'::regtype) as narrow_identities
    from pg_class c where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p')
        and c.relname !~ '^_?yoyo'
"""
UNIQUE_INDEXES = """
    select indrelid::regclass::text as "table", indexrelid::regclass::text as name,
        array(select attname::text from unnest(indkey::int2[]) k (n)
            left join pg_attribute a on a.attrelid = indrelid and a.attnum = k.n and k.n > 0) as columns
    from pg_index
    where indisunique and indrelid in (select oid from pg_class where relnamespace = 'public'::regnamespace)
"""
TRIGGERS = """
    select tgname::text as name, tgrelid::regclass::text as "table" from pg_trigger
    where not tgisinternal and tgrelid in (select oid from pg_class where relnamespace = 'public'::regnamespace)
"""


@pytest.fixture(scope="module")
def catalogue(owner_dsn: str) -> dict[str, list[dict[str, Any]]]:
    queries = {"keys": KEYS, "tables": TABLES, "indexes": UNIQUE_INDEXES, "triggers": TRIGGERS}
    with psycopg.connect(owner_dsn, row_factory=dict_row) as conn:
        return {name: conn.execute(query).fetchall() for name, query in queries.items()}  # type: ignore[arg-type]


def named(call: str) -> list[str]:
    return re.findall(rf"select {call}\('(\w+)'", GUIDE)


def distributed() -> set[str]:
    return set(named("create_distributed_table"))


def reference() -> set[str]:
    return set(named("create_reference_table"))


def local() -> set[str]:
    sentence = re.search(r"Local to the coordinator stay (.*?)\.\n", GUIDE, re.DOTALL)
    assert sentence
    return set(re.findall(r"`(\w+)`", sentence[1])) - {"procrastinate"}


def test_every_table_has_its_place(catalogue: dict[str, list[dict[str, Any]]]) -> None:
    tables = sorted(row["name"] for row in catalogue["tables"])
    assert sorted([*distributed(), *reference(), *local()]) == tables
    statements = re.findall(r"^select create_distributed_table\(.*$", GUIDE, re.MULTILINE)
    assert len(statements) == len(distributed())
    assert all(re.fullmatch(rf"select create_distributed_table\('\w+', '{KEY}'\);", each) for each in statements)


def test_referenced_tables_are_distributed_before_who_refers_to_them(
    catalogue: dict[str, list[dict[str, Any]]],
) -> None:
    order = named("create_reference_table") + named("create_distributed_table")
    for key in catalogue["keys"]:
        is_there = f"drop constraint {key['name']};" not in GUIDE
        if key["type"] == "f" and is_there and key["table"] in order and key["target"] != key["table"]:
            assert order.index(key["target"]) < order.index(key["table"]), key


def test_keys_keep_the_rules(catalogue: dict[str, list[dict[str, Any]]]) -> None:
    dropped = set(re.findall(r"drop constraint (\w+);", GUIDE)) - set(re.findall(r"add constraint (\w+)\n", GUIDE))
    assert dropped <= {key["name"] for key in catalogue["keys"]}
    for index in catalogue["indexes"]:
        assert index["table"] not in distributed() or KEY in index["columns"], index
    for key in catalogue["keys"]:
        if key["type"] == "x":
            assert key["table"] not in distributed(), key
        if key["type"] != "f" or key["name"] in dropped:
            continue
        assert key["on_delete"] not in ("n", "d"), key
        if key["target"] in distributed():
            assert key["table"] in distributed(), key
            assert KEY in key["columns"], key
            assert key["target_columns"][key["columns"].index(KEY)] == KEY, key
        elif key["table"] in distributed() | reference():
            assert key["target"] in reference(), key


def test_distributed_tables_keep_the_rules(catalogue: dict[str, list[dict[str, Any]]]) -> None:
    for table in catalogue["tables"]:
        if table["name"] in distributed() | reference():
            assert table["persistence"] == "p", table
            assert table["narrow_identities"] == [], table


def test_triggers_that_need_a_decision_are_named(catalogue: dict[str, list[dict[str, Any]]]) -> None:
    paragraph = re.search(r"These triggers need(.*?)\.\n", GUIDE, re.DOTALL)
    assert paragraph
    given = set(re.findall(r"`(\w+)`", paragraph[1])) - distributed()
    assert given == {row["name"] for row in catalogue["triggers"]}
