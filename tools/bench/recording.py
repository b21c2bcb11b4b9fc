"""Which statements the service runs for a request, as it ran them: what the bare handler and pgbench then do alone."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

import asyncpg
import httpx
import orjson
from event_streams import serving

import reos.db
from reos import encoding
from reos.settings import Settings

_TENANT = re.compile(r"SELECT authorise\((\d+), (\d+), ")


@dataclass
class Script:
    """A request's transaction: its tenant, whether it only reads, and its statements with their values."""

    organization_id: int
    user_id: int
    read_only: bool
    statements: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)

    @property
    def begin(self) -> str:
        return reos.db.begin_tenant(self.organization_id, self.user_id, read_only=self.read_only)


@dataclass
class Recorder:
    """A service of its own in this process, with one connection, all of whose statements are kept."""

    http: httpx.AsyncClient
    log: list[tuple[str, tuple[Any, ...]]]

    async def record(self, method: str, path: str, headers: dict[str, str], body: Any = None) -> tuple[Script, Any]:
        """What the service runs for a request, and the parsed answer. Raises HTTPStatusError when it is refused."""
        self.log.clear()
        response = await self.http.request(method, path, headers=headers, json=body)
        response.raise_for_status()
        return self._script(), response.json()

    def _script(self) -> Script:
        """The transaction that the guard began: what it did between its BEGIN and its COMMIT."""
        scripts: list[Script] = []
        is_open = False
        for text, args in self.log:
            if text.startswith("BEGIN"):
                tenant = _TENANT.search(text)
                is_open = tenant is not None
                if tenant is not None:
                    scripts.append(Script(int(tenant[1]), int(tenant[2]), text.startswith("BEGIN READ ONLY")))
            elif text in ("COMMIT", "ROLLBACK"):
                is_open = False
            elif is_open:
                scripts[-1].statements.append((text, args))
        assert len(scripts) == 1, self.log
        return scripts[0]


@asynccontextmanager
async def recording(settings: Settings) -> AsyncIterator[Recorder]:
    """Serve with statements being kept."""
    log: list[tuple[str, tuple[Any, ...]]] = []
    prepare = reos.db.prepare_connection

    def keep(query: Any) -> None:
        log.append((query.query, tuple(_plain(value) for value in query.args or ())))

    async def prepare_and_keep(conn: asyncpg.Connection, role: str = "reos_app") -> None:
        await prepare(conn, role)
        conn.add_query_logger(keep)

    reos.db.prepare_connection = prepare_and_keep
    try:
        alone = settings.model_copy(update={"db_pool_min": 1, "db_pool_max": 1, "log_level": "WARNING"})
        async with serving(alone) as served, httpx.AsyncClient(base_url=served.url, timeout=60) as http:
            yield Recorder(http, log)
    finally:
        reos.db.prepare_connection = prepare


def _plain(value: Any) -> Any:
    """The value with rows of the database as objects, so that another process can be told."""
    if isinstance(value, asyncpg.Record | dict):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


# --- pgbench -----------------------------------------------------------------------------------------------------


async def pgbench_script(conn: asyncpg.Connection, script: Script) -> str:
    """The same transaction for pgbench, with its values written into the statements. `conn` tells their types."""
    lines = [f"{script.begin};"]
    for text, args in script.statements:
        prepared = await conn.prepare(text)
        values = [_literal(value, _name(kind)) for value, kind in zip(args, prepared.get_parameters(), strict=True)]
        lines.append(
            re.sub(r"\$(\d+)", lambda found, values=values: values[int(found[1]) - 1], _without_notes(text)) + ";"
        )
    return "\n".join([*lines, "COMMIT;\n"])


def _without_notes(text: str) -> str:
    # pgbench sees a variable in every colon that a word follows, also behind `--`.
    return re.sub(r"--.*", "", text)


def _name(kind: asyncpg.Type) -> str:
    return f"{kind.name}" if kind.schema == "pg_catalog" else f"{kind.schema}.{kind.name}"


def _literal(value: Any, kind: str) -> str:
    if value is None:
        return f"null::{kind}"
    text = _text(value, kind)
    escaped = text.replace("\\", "\\\\").replace("'", "''").replace(":", "\\003A")
    return f"(U&'{escaped}'::{kind})"


def _text(value: Any, kind: str) -> str:
    if kind.endswith("[]"):
        element = kind.removesuffix("[]")
        return "{" + ",".join("NULL" if item is None else _quoted(_text(item, element)) for item in value) + "}"
    if kind in ("jsonb", "json"):
        return encoding.dumps(value).decode()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, dict | list):
        return orjson.dumps(value).decode()
    return str(value)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
