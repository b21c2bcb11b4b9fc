"""What tests of plans share: PostgreSQL itself tells, by auto_explain, what the service's own functions have it do.

Plans inside of functions are told too. Everything runs as the service does, under row security.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import psycopg
from conftest import TestDatabase

from reos.db import Connection, begin_tenant, prepare_connection

RUNS = 7  # asyncpg prepares a statement at once, and PostgreSQL may choose a generic plan from the sixth run on

_SETTINGS = (
    "session_preload_libraries = 'auto_explain'",
    "auto_explain.log_min_duration = 0",
    "auto_explain.log_nested_statements = on",
    "auto_explain.log_analyze = on",
    "auto_explain.log_format = json",
    "auto_explain.log_level = notice",
)


@dataclass
class Explained:
    """What some work came to: its result, and the nodes of every plan."""

    result: Any
    nodes: list[dict[str, Any]]

    def scans(self, table: str) -> list[dict[str, Any]]:
        """The nodes that read the table or one of its indexes."""
        return [
            node
            for node in self.nodes
            if node.get("Relation Name") == table or node.get("Index Name", "").startswith(f"{table}_")
        ]


@dataclass
class Plans:
    """A connection of the service within one organisation."""

    conn: asyncpg.Connection
    organization_id: int
    _messages: list[str] = field(default_factory=list)

    async def explain(self, work: Callable[[Connection], Awaitable[Any]]) -> Explained:
        """Do the work often enough that a generic plan would have been chosen."""
        found: list[dict[str, Any]] = []
        for _ in range(RUNS):
            self._messages.clear()
            result = await self._do(work)
            for message in self._messages:
                found += _nodes(json.loads(message.partition("plan:")[2])["Plan"])
        return Explained(result, found)

    async def row(self, statement: str, *args: Any) -> Any:
        return await self._do(lambda conn: conn.fetchrow(statement, *args))

    async def _do(self, work: Callable[[Connection], Awaitable[Any]]) -> Any:
        await self.conn.execute(begin_tenant(self.organization_id, read_only=True))
        try:
            return await work(self.conn)
        finally:
            await self.conn.execute("COMMIT")

    def hear(self, _: Any, message: Any) -> None:
        if " plan:" in message.message:
            self._messages.append(message.message)


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", []):
        yield from _nodes(part)


def new_organization(conn: psycopg.Connection[Any], name: str) -> int:
    row = conn.execute("insert into organizations (name, slug) values (%s, %s) returning id", [name, name]).fetchone()
    assert row is not None
    return int(row[0])


@asynccontextmanager
async def explaining(database: TestDatabase, organization_id: int) -> AsyncIterator[Plans]:
    """A connection as the service has them, whose plans are told."""
    with psycopg.connect(database.superuser_dsn, autocommit=True) as conn:
        conn.execute("vacuum (analyze)")
        for setting in _SETTINGS:
            conn.execute(f'alter database "{database.name}" set {setting}')  # type: ignore[arg-type]
    service = await asyncpg.connect(database.dsn)
    try:
        await prepare_connection(service)
        assert await service.fetchval("select current_user") == "reos_app"
        plans = Plans(service, organization_id)
        service.add_log_listener(plans.hear)
        yield plans
    finally:
        await service.close()
