"""What tests of the API share: a served app on the module's database, organisations, users and their clients.

    async def test_something(api: Api) -> None:
        admin = await api.register()
        created = await admin.post("/properties", json={...}, status=201)

Every test registers organisations of its own, so nothing has to be cleaned up and real commits, jobs and
notifications take part.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import documented
import httpx
from conftest import TestDatabase
from event_streams import Account, add_user, make_settings, register, serving
from sanic import Sanic

from reos.context import Context
from reos.db import Database
from reos.settings import Settings

PREFIX = "/api/v1"


@dataclass
class Client:
    """A user of the API (or, without an account, somebody who is not logged in)."""

    http: httpx.AsyncClient
    headers: dict[str, str] = field(default_factory=dict)
    account: Account | None = None

    @property
    def organization_id(self) -> int:
        assert self.account is not None
        return self.account.organization_id

    @property
    def user_id(self) -> int:
        assert self.account is not None
        return self.account.user_id

    async def request(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **options: Any
    ) -> httpx.Response:
        """Any request below /api/v1. The answer's form is checked against the API's document."""
        sent = {**self.headers, **(headers or {})}
        response = await self.http.request(method, PREFIX + path, headers=sent, **options)
        documented.check(method, response)
        return response

    async def call(self, method: str, path: str, *, status: int, **options: Any) -> Any:
        """The parsed body of an answer that must have this status (None when it is empty, text of what is no JSON)."""
        response = await self.request(method, path, **options)
        assert response.status_code == status, f"{method} {path}: {response.status_code} {response.text}"
        if response.headers.get("content-type", "").startswith("text/"):
            return response.text
        return response.json() if response.content else None

    async def get(self, path: str, *, status: int = 200, **options: Any) -> Any:
        return await self.call("GET", path, status=status, **options)

    async def post(self, path: str, *, status: int = 201, **options: Any) -> Any:
        return await self.call("POST", path, status=status, **options)

    async def put(self, path: str, *, status: int = 200, **options: Any) -> Any:
        return await self.call("PUT", path, status=status, **options)

    async def patch(self, path: str, *, status: int = 200, **options: Any) -> Any:
        return await self.call("PATCH", path, status=status, **options)

    async def delete(self, path: str, *, status: int = 204, **options: Any) -> Any:
        return await self.call("DELETE", path, status=status, **options)

    async def error(self, method: str, path: str, *, status: int, **options: Any) -> dict[str, Any]:
        """The `error` of an envelope that must be one."""
        content = await self.call(method, path, status=status, **options)
        assert set(content) == {"error"}, content
        error: dict[str, Any] = content["error"]
        assert set(error) == {"type", "message", "details", "request_id"}, error
        return error

    async def fields_refused(self, method: str, path: str, **options: Any) -> dict[str, str]:
        """The fields that a 422 names, each with its code."""
        error = await self.error(method, path, status=422, **options)
        return {entry["field"]: entry["type"] for entry in error["details"]["errors"]}


@dataclass
class Api:
    """A served app and the ways to its database."""

    app: Sanic
    url: str
    http: httpx.AsyncClient
    settings: Settings
    context: Context
    owner_dsn: str
    owner: asyncpg.Pool

    @property
    def database(self) -> Database:
        return self.context.database

    @property
    def anonymous(self) -> Client:
        """Somebody who is not logged in."""
        return Client(self.http)

    def client(self, account: Account) -> Client:
        return Client(self.http, account.headers(self.settings), account)

    async def register(self) -> Client:
        """The Admin of a new organisation."""
        return self.client(await register(self.database))

    async def add_user(self, admin: Client, role: str | None = None) -> Client:
        """Another user of the organisation, with a system role (Admin, Manager, Agent) or none."""
        assert admin.account is not None
        return self.client(await add_user(self.database, admin.account, role))

    async def add_user_with(self, admin: Client, permissions: list[str]) -> Client:
        """Another user of the organisation, with exactly these permissions, by a role of their own."""
        member = await self.add_user(admin)
        statement = (
            "with role as (insert into roles (organization_id, name) values ($1, 'Only ' || $2::bigint) returning id),"
            " granted as (insert into role_permissions (organization_id, role_id, permission_id)"
            "  select $1, role.id, p.id from role, permissions p where p.name = any($3))"
            " insert into user_roles (organization_id, user_id, role_id) select $1, $2, id from role"
        )
        await self.value(statement, admin.organization_id, member.user_id, permissions)
        return member

    async def fetch(self, statement: str, *args: Any) -> list[asyncpg.Record]:
        """Rows as the owner of all tables sees them."""
        return list(await self.owner.fetch(statement, *args))

    async def value(self, statement: str, *args: Any) -> Any:
        """Do what the service may not, such as moving times. The first value of the result."""
        return await self.owner.fetchval(statement, *args)

    async def audits(self, client: Client) -> list[asyncpg.Record]:
        """The organisation's audit rows, oldest first."""
        return await self.fetch(
            "select * from audit_logs where organization_id = $1 order by id", client.organization_id
        )

    async def events(self, client: Client) -> list[asyncpg.Record]:
        """The organisation's events, oldest first; `data` is text."""
        return await self.fetch("select * from events where organization_id = $1 order by id", client.organization_id)


@asynccontextmanager
async def served_api(
    database: TestDatabase, data_dir: Path, protocol: type | None = None, **overrides: Any
) -> AsyncIterator[Api]:
    """An app on a database, without rate limits unless `overrides` (settings) set some."""
    settings = make_settings(database.dsn, data_dir, **overrides)
    async with serving(settings, protocol) as served:
        # Without TLS there is nothing to verify, and loading the certificates takes longer than most tests.
        # Before each request the pool looks at every connection that it keeps.
        limits = httpx.Limits(max_connections=200, max_keepalive_connections=10)
        async with (
            httpx.AsyncClient(base_url=served.url, timeout=30, verify=False, limits=limits) as http,
            asyncpg.create_pool(database.owner_dsn, min_size=0, max_size=4, init=_become_owner) as owner,
        ):
            yield Api(served.app, served.url, http, settings, served.app.ctx.context, database.owner_dsn, owner)


async def _become_owner(conn: asyncpg.Connection) -> None:
    await conn.execute("set role reos_owner")


__all__ = ["Account", "Api", "Client", "served_api"]
