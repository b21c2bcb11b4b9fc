"""Every named statement is one that Postgres takes, says why it is so, and gives what its callers and models expect."""

from __future__ import annotations

import ast
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache
from importlib import import_module
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import asyncpg
import pytest
from conftest import TestDatabase
from pydantic import BaseModel

import reos.app  # noqa: F401  It fills the registry of endpoints.
from reos import sql
from reos.middleware.endpoint import ENDPOINTS
from reos.queries.listing import Listing, PageRequest, fetch_page
from reos.schemas.common import Page
from reos.sql import Statement

pytestmark = pytest.mark.integration

REOS = Path(sql.__file__).parent.parent

# Which helper of reos/db.py runs which kind of statement.
HELPERS = {
    "fetch_one": "one",
    "fetch_existing": "one",
    "fetch_all": "many",
    "fetch_sublist": "many",
    "fetch_value": "value",
    "execute": "exec",
}
# Where a handler makes something else of a row than what it is. Each column and field that the other side lacks.
PRESENTED = {
    "list_property_images": {"file_id", "thumbnail_file_id", "thumbnail_url"},
    "create_property_image": {"file_id", "thumbnail_file_id", "thumbnail_url"},
    "get_role": {"permissions"},
    "get_team": {"members"},
    "get_portfolio": {"properties", "property_count", "total_value"},
    "create_portfolio": {"properties", "property_count", "total_value"},
    "update_portfolio": {"properties", "property_count", "total_value"},
    "restore_portfolio": {"properties", "property_count", "total_value"},
}


@dataclass(frozen=True)
class Named:
    """A statement and the file that it stands in."""

    resource: str
    statement: Statement

    @property
    def comment(self) -> str:
        """The sentences above it, in one line."""
        return " ".join(self.statement.comment.split())

    @property
    def where(self) -> str:
        return f"{self.resource}.sql: {self.statement.name}"


@cache
def named() -> tuple[Named, ...]:
    return tuple(entry for resource in sql.resources() for entry in _read(resource))


def _read(resource: str) -> Iterator[Named]:
    for statement in vars(sql.load(resource)).values():
        if isinstance(statement, Statement):
            yield Named(resource, statement)


def modules() -> Iterator[tuple[Path, str]]:
    for path in sorted(REOS.rglob("*.py")):
        yield path, path.read_text()


def resource_of(source: str) -> list[str]:
    """The files whose statements a module loads."""
    return re.findall(r"\bload\(\"(\w+)\"\)", source)


@cache
def migrating() -> frozenset[str]:
    """The files that belong to the migrating log-in: their modules speak to Postgres by psycopg."""
    return frozenset(name for _, source in modules() if "psycopg" in source for name in resource_of(source))


def test_changes_bear_the_time_at_which_they_were_made() -> None:
    """Not `now()`, when the transaction began: one that waited for another would seem older than what it follows, and
    who asks for what was `updated_since` would never see it.
    """
    changes = ((entry, re.split(r"\bwhere\b", entry.statement.text)[0]) for entry in named())
    wrong = [
        entry.where
        for entry, change in changes
        if re.search(r"\bupdate\s+(--.*\s+)?\w+", change)
        and "updated_at" in change
        and re.search(r"(?<![_\w])now\(\)", change)
    ]
    assert wrong == []


@pytest.fixture(scope="module")
async def connections(database: TestDatabase) -> AsyncIterator[dict[str, asyncpg.Connection]]:
    """One connection for each role that statements are run as."""
    app, jobs = await asyncpg.connect(database.dsn), await asyncpg.connect(database.dsn)
    owner = await asyncpg.connect(database.owner_dsn)
    assert await app.fetchval("select current_user") == "reos_app"
    await jobs.execute("set role reos_jobs")
    yield {"reos_app": app, "reos_jobs": jobs, "owner": owner}
    for conn in (app, jobs, owner):
        await conn.close()


def role_of(entry: Named) -> str:
    if entry.resource in migrating():
        return "owner"
    return "reos_jobs" if "As reos_jobs" in entry.comment else "reos_app"


# --- the statements themselves -----------------------------------------------------------------------------------


async def test_every_statement_can_be_prepared_by_the_role_that_runs_it(
    connections: dict[str, asyncpg.Connection],
) -> None:
    assert {"database_roles", "embedded"} <= migrating()
    wrong = []
    for entry in named():
        conn = connections[role_of(entry)]
        try:
            # Preparing checks names and types, explaining also rights; both are done as the role.
            prepared = await conn.prepare(entry.statement.text)
            if re.match(r"(select|insert|update|delete|with)\b", entry.statement.text):
                nulls = [None] * len(prepared.get_parameters())
                await conn.fetch(_generic_plan(entry.statement.text, prepared), *nulls)
        except asyncpg.PostgresError as error:
            wrong.append(f"{entry.where}: {error}")
            continue
        columns = [attribute.name for attribute in prepared.get_attributes()]
        if entry.statement.cardinality == "value" and len(columns) != 1:
            wrong.append(f"{entry.where}: a :value has one column, not {columns}")
        if entry.statement.cardinality in ("one", "many") and (not columns or len(columns) != len(set(columns))):
            wrong.append(f"{entry.where}: a row has columns of different names, not {columns}")
    assert not wrong, "\n".join(wrong)


def _generic_plan(text: str, prepared: asyncpg.prepared_stmt.PreparedStatement) -> str:
    """EXPLAIN with the types that Postgres found for the parameters."""
    for number, parameter in reversed(list(enumerate(prepared.get_parameters(), 1))):
        name = parameter.name if parameter.kind != "array" else f"{parameter.name.removesuffix('[]')}[]"
        text = re.sub(rf"\${number}\b(?!::)", f"${number}::{name}", text)
    return f"explain {text}"


def test_every_statement_says_why_it_is_so() -> None:
    assert len(named()) > 50
    silent = [entry.where for entry in named() if not re.search(r"\w.*[.:]", entry.comment)]
    assert not silent, "These want a sentence between their heading and their text:\n" + "\n".join(silent)


# --- lists, whose text is built ----------------------------------------------------------------------------------


def _listings() -> dict[str, Listing]:
    found = {}
    for path in sorted((REOS / "queries").glob("*.py")):
        for name, value in vars(import_module(f"reos.queries.{path.stem}")).items():
            if isinstance(value, Listing) and value.table:
                found[f"{path.stem}.{name}"] = value
    assert found
    return found


def _requests(listing: Listing) -> Iterator[tuple[dict[str, Any], PageRequest]]:
    """Every sort key in both directions, from the front and behind a null; every filter, alone and all together."""
    near = {"near": (0.0, 0.0, 1.0)} if listing.near else {}
    for name, key in listing.sort_keys.items():
        for is_descending in (False, True):
            sort = ((name, is_descending),)
            yield near, PageRequest(limit=1, sort=sort)
            if key.is_nullable:
                yield near, PageRequest(limit=1, sort=sort, after=(None, 1))
                other = next(other for other in listing.sort_keys if other != name)
                yield near, PageRequest(limit=1, sort=(*sort, (other, True)), include_total=False)
    first = next(iter(listing.sort_keys))
    values: dict[str, Any] = {name: (None,) * entry.arity for name, entry in listing.filters.items() if name != "near"}
    if "ids" in values:
        values["ids"] = ([],)
    for name, value in values.items():
        yield {name: value}, PageRequest(limit=1, sort=((first, True),))
    yield near | values, PageRequest(limit=1, sort=((first, True),))


@pytest.mark.parametrize("name", _listings())
async def test_every_filter_and_sort_of_a_list_is_one_that_postgres_takes(
    connections: dict[str, asyncpg.Connection], name: str
) -> None:
    listing = _listings()[name]
    for values, page in _requests(listing):
        try:
            rows = await fetch_page(connections["reos_app"], listing, values, page)
        except asyncpg.PostgresError as error:
            pytest.fail(f"{name} with {list(values)} by {page.sort}: {error}")
        assert rows.items == []


# --- their callers -----------------------------------------------------------------------------------------------


def _uses() -> Iterator[tuple[str, str, str, str]]:
    """Each statement given to a helper: (where, file of the statement, its name, the helper)."""
    for path, source in modules():
        loaded = resource_of(source)
        if len(loaded) != 1:
            continue
        for node in ast.walk(ast.parse(source)):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id not in HELPERS:
                continue
            for argument in node.args[:2]:
                if isinstance(argument, ast.Attribute) and getattr(argument.value, "id", "") == "SQL":
                    yield f"{path.relative_to(REOS)}:{node.lineno}", loaded[0], argument.attr, node.func.id


def test_statements_are_run_as_what_they_are() -> None:
    uses = list(_uses())
    assert len(uses) > 40
    kinds = {(entry.resource, entry.statement.name): entry.statement.cardinality for entry in named()}
    wrong = [
        f"{where}: {helper} runs {name}, which is :{kinds.get((resource, name), 'nowhere')}"
        for where, resource, name, helper in uses
        if kinds.get((resource, name)) != HELPERS[helper]
    ]
    assert not wrong, "\n".join(wrong)


def test_every_statement_is_used() -> None:
    words: dict[str, set[str]] = {}
    for _, source in modules():
        for resource in resource_of(source):
            words.setdefault(resource, set()).update(re.findall(r"\w+", source))
    unused = [entry.where for entry in named() if entry.statement.name not in words.get(entry.resource, set())]
    assert not unused, "Nobody uses:\n" + "\n".join(unused)


# --- their models ------------------------------------------------------------------------------------------------

# What the encoder makes of a column's type, as what a response model has to promise.
PYTHON_TYPES: dict[str, set[Any]] = {
    "int2": {int}, "int4": {int}, "int8": {int}, "text": {str}, "varchar": {str}, "bool": {bool}, "float8": {float},
    # Exact decimals are strings in JSON.
    "numeric": {str}, "timestamptz": {datetime}, "date": {date}, "jsonb": {dict, list}, "text[]": {list},
    "int8[]": {list}, "uuid": {str},
}  # fmt: skip


def _models() -> Iterator[tuple[str, str, type[BaseModel]]]:
    """The statements whose rows handlers answer: (file, statement, model), matched by the name that both have."""
    known = {
        (entry.resource, entry.statement.name) for entry in named() if entry.statement.cardinality in ("one", "many")
    }
    for endpoint in ENDPOINTS:
        resource, model = endpoint.handler.__module__.rpartition(".")[2], _model_of(endpoint.response)
        if model is not None and (resource, endpoint.name) in known:
            yield resource, endpoint.name, model


def _model_of(response: Any) -> type[BaseModel] | None:
    if get_origin(response) is list:
        return _model_of(get_args(response)[0])
    if not isinstance(response, type) or not issubclass(response, BaseModel):
        return None
    if issubclass(response, Page):
        return _model_of(response.model_fields["items"].annotation)
    return response


def _kinds(annotation: Any) -> set[Any]:
    """The Python types that an annotation is made of, without None."""
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return set().union(*(_kinds(part) for part in get_args(annotation))) - {type(None)}
    if origin is Annotated:
        return _kinds(get_args(annotation)[0])
    if origin is Literal:
        return {type(value) for value in get_args(annotation)}
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {dict}
    return {origin or annotation}


async def test_rows_have_the_columns_of_the_models_that_they_are_answered_as(
    connections: dict[str, asyncpg.Connection],
) -> None:
    pairs = {(resource, name): model for resource, name, model in _models()}
    assert len(pairs) > 5
    wrong = []
    for (resource, name), model in pairs.items():
        prepared = await connections["reos_app"].prepare(getattr(sql.load(resource), name).text)
        columns = {attribute.name: attribute.type.name for attribute in prepared.get_attributes()}
        columns.pop("total", None)  # the count of all beside each row of a sub-list
        if difference := (set(columns) ^ set(model.model_fields)) - PRESENTED.get(name, set()):
            wrong.append(f"{resource}.sql: {name} and {model.__name__} differ in {sorted(difference)}")
        for column, kind in columns.items():
            field = model.model_fields.get(column)
            kinds = _kinds(field.annotation) if field is not None else {Any}
            if Any not in kinds and not kinds <= PYTHON_TYPES.get(kind, set()):
                wrong.append(f"{resource}.sql: {name} gives {column} as {kind}, {model.__name__} says otherwise")
    assert not wrong, "\n".join(wrong)
