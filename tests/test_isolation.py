"""Another organisation's id is as absent as one that does not exist: for every route with an id, byte for byte.

The attacker is an Admin, so nothing but the tenant wall is in the way.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from api import Api
from raw_http import RawAnswer, RawClient, raw_client
from route_walk import (
    ABSENT,
    ENDPOINTS,
    MALFORMED,
    PREFIX,
    Endpoint,
    IdField,
    World,
    fill,
    find,
    form_fields,
    home_of,
    id_fields,
    label,
    multipart,
    path_ids,
    picture,
    put_in,
)

pytestmark = [pytest.mark.integration, pytest.mark.slow]

REQUEST_ID = "the-same-for-all"
# The same for all organisations, so that no id of theirs is foreign.
GLOBAL = {"permission_id"}
NOT_IDS_IN_BODIES = (0, -1, 1.5, 2**63, 10**20, 10**400, True, "1", "abc", [1], {}, float("nan"))


@dataclass
class Attack:
    """One route and one of its ids, and what was answered for each id that shall be refused."""

    name: str
    reference: str
    answers: dict[str, RawAnswer] = field(default_factory=dict)

    def different(self) -> list[str]:
        """What is not answered as the reference is."""
        wanted = self.answers[self.reference]
        return [
            f"{self.name}: {what} is answered {answer.status} {answer.body[:300]!r},"
            f" {self.reference} {wanted.status} {wanted.body[:300]!r}"
            for what, answer in self.answers.items()
            if answer.comparable != wanted.comparable
        ]


@dataclass
class Attacker:
    """The Admin of an organisation who names ids of another."""

    own: World
    raw: RawClient

    async def send(self, method: str, path: str, content: tuple[str, bytes] | None = None) -> RawAnswer:
        """Send a request; `content` is a body with its type."""
        headers = {**self.own.admin.headers, "X-Request-ID": REQUEST_ID}
        if content is None:
            return await self.raw.request(method, path, headers)
        return await self.raw.request(method, path, {**headers, "Content-Type": content[0]}, content[1])


def as_json(body: Any) -> tuple[str, bytes]:
    return "application/json", json.dumps(body).encode()


@pytest.fixture(scope="module")
async def victim(api: Api) -> World:
    return World(api, await api.register())


@pytest.fixture(scope="module")
async def attacker(api: Api) -> AsyncIterator[Attacker]:
    async with raw_client(api.url) as raw:
        yield Attacker(World(api, await api.register()), raw)


async def all_of(work: Iterable[Awaitable[Any]], at_once: int = 8) -> list[Any]:
    """The results of all, so many at a time."""
    places = asyncio.Semaphore(at_once)

    async def one(item: Awaitable[Any]) -> Any:
        async with places:
            return await item

    return list(await asyncio.gather(*(one(item) for item in work)))


# --- what the database holds -------------------------------------------------------------------------------------


async def rows_of(api: Api, organization_id: int) -> dict[str, str]:
    """A digest of all rows of an organisation, by table."""
    tables = await api.fetch(
        "select c.table_name::text as name from information_schema.columns c join information_schema.tables t"
        " using (table_schema, table_name) where c.table_schema = 'public' and c.column_name = 'organization_id'"
        " and t.table_type = 'BASE TABLE' order by 1"
    )
    digest = (
        "select '{0}' as name, md5(string_agg(r::text, ' ' order by r::text)) from {0} r where organization_id = $1"
    )
    parts = [digest.format(row["name"]) for row in tables]
    return {row[0]: row[1] for row in await api.fetch(" union all ".join(parts), organization_id) if row[1]}


async def crossings(api: Api) -> list[str]:
    """What points from one organisation to another, in whatever column. Ids are numbered over all organisations."""
    found = []
    for key in await api.fetch(FOREIGN_KEYS):
        pairs = list(zip(key["columns"], key["target_columns"], strict=True))
        on = " and ".join(f"p.{target} = c.{column}" for column, target in pairs if column != "organization_id")
        if on and await api.value(
            f"select exists (select from {key['source']} c join {key['target']} p on {on}"
            " where p.organization_id <> c.organization_id)"
        ):
            found.append(f"{key['source']} ({', '.join(key['columns'])})")
    targets = {row["singular"]: row["name"] for row in await api.fetch(SINGULARS)}
    for column in await api.fetch(PLAIN_ID_COLUMNS):
        source, name = column["source"], column["name"]
        kind = {"actor_id": "user", "created_by": "user"}.get(name, name.removesuffix("_id"))
        if name == "resource_id":
            kinds = await api.fetch(f"select distinct resource_type from {source} where resource_id is not null")
        elif name in NO_ROWS:
            continue
        else:
            assert kind in targets, f"what does {source}.{name} name? This test wants to know."
            kinds = [{"resource_type": kind}]
        for row in kinds:
            target = targets.get(row["resource_type"])
            condition = f"and c.resource_type = '{row['resource_type']}'" if name == "resource_id" else ""
            if target and await api.value(
                f"select exists (select from {source} c join {target} p on p.id = c.{name}"
                f" where p.organization_id <> c.organization_id {condition})"
            ):
                found.append(f"{source}.{name} ({target})")
    found += [
        f"events {row['id']} of {row['organization_id']}"
        for row in await api.fetch(
            "select id, organization_id from events where (data ->> 'organization_id')::bigint <> organization_id"
        )
    ]
    return found


FOREIGN_KEYS = """
    select f.conrelid::regclass::text as source, f.confrelid::regclass::text as target,
        (select array_agg(a.attname::text order by n) from unnest(f.conkey) with ordinality k (number, n)
            join pg_attribute a on a.attrelid = f.conrelid and a.attnum = k.number) as columns,
        (select array_agg(a.attname::text order by n) from unnest(f.confkey) with ordinality k (number, n)
            join pg_attribute a on a.attrelid = f.confrelid and a.attnum = k.number) as target_columns
    from pg_constraint f where f.contype = 'f' and exists (select from pg_attribute a
        where a.attrelid = f.confrelid and a.attname = 'organization_id')
"""
# Columns of numbers that name rows, beyond those of foreign keys.
PLAIN_ID_COLUMNS = """
    select c.oid::regclass::text as source, a.attname::text as name
    from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and a.atttypid = 'bigint'::regtype
    where c.relnamespace = 'public'::regnamespace and c.relkind = 'r'
        and exists (select from pg_attribute t where t.attrelid = c.oid and t.attname = 'organization_id')
        and a.attname ~ '(_id|_by)$' and a.attname <> 'organization_id'
        and not exists (select from pg_constraint f where f.conrelid = c.oid and f.contype = 'f'
            and a.attnum = any (f.conkey))
"""
SINGULARS = """
    select c.oid::regclass::text as name,
        regexp_replace(regexp_replace(c.relname, 'ies$', 'y'), 's$', '') as singular
    from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'id'
    join pg_attribute o on o.attrelid = c.oid and o.attname = 'organization_id'
    where c.relnamespace = 'public'::regnamespace and c.relkind = 'r'
"""
# Numbers that name no row of an organisation.
NO_ROWS = {
    "job_id": "the queue's own",
    "last_id": "an event's number, which every organisation counts for itself",
}


async def assert_untouched(api: Api, victim: World, before: dict[str, str]) -> None:
    after = await rows_of(api, victim.admin.organization_id)
    assert {name for name in before | after if before.get(name) != after.get(name)} == set()
    assert await crossings(api) == []


async def test_the_scan_sees_a_row_that_points_across(api: Api) -> None:
    """Or the scans after the attacks would prove nothing. Where no key stands in the way, a row is put there."""
    one, other = await api.register(), await api.register()
    await api.value(
        "insert into audit_logs (organization_id, action, resource_type, resource_id, user_id)"
        " values ($1, 'update', 'user', $2, $2)",
        one.organization_id,
        other.user_id,
    )
    assert await crossings(api) == ["audit_logs.resource_id (users)", "audit_logs.user_id (users)"]
    await api.value("delete from audit_logs where organization_id = $1", one.organization_id)
    assert await crossings(api) == []


async def test_the_service_works_as_the_role_that_is_walled_in(api: Api) -> None:
    """What every test of the API runs as: neither the owner of anything, nor able to go around row security."""
    async with api.database.acquire() as conn:
        role = await conn.fetchrow(
            "select r.rolname, r.rolsuper, r.rolbypassrls, exists (select from pg_class c where c.relowner = r.oid)"
            " as owns, pg_has_role(session_user, 'reos_owner', 'member') as may_own, l.rolsuper as login_is_super"
            " from pg_roles r, pg_roles l where r.rolname = current_user and l.rolname = session_user"
        )
    assert role is not None
    assert tuple(role) == ("reos_app", False, False, False, False, False)


# --- ids in paths ------------------------------------------------------------------------------------------------


def with_path_ids() -> list[Endpoint]:
    return [endpoint for endpoint in ENDPOINTS if path_ids(endpoint.path)]


async def test_a_foreign_id_in_a_path_is_an_absent_one(api: Api, attacker: Attacker, victim: World) -> None:
    targets = {endpoint: await victim.ids(endpoint.path) for endpoint in with_path_ids()}
    before = await rows_of(api, victim.admin.organization_id)
    attacks = [attack_path(attacker, endpoint, targets[endpoint]) for endpoint in with_path_ids()]
    found = [attack for several in await all_of(attacks) for attack in several]
    assert len(found) > 50
    wrong = [line for attack in found for line in attack.different()]
    wrong += [
        f"{attack.name}: an id that does not exist is {attack.answers['absent'].status}, not 404"
        for attack in found
        if attack.answers["absent"].status != 404
    ]
    assert not wrong, "\n".join(wrong)
    await assert_untouched(api, victim, before)


async def attack_path(attacker: Attacker, endpoint: Endpoint, foreign: dict[str, int]) -> list[Attack]:
    """Each id of the path in turn: the other organisation's, deleted, malformed and absent ones."""
    body = await attacker.own.body(endpoint)
    contents = [None if body is None else as_json(body)]
    if endpoint.form is not None:
        contents.append(multipart(form_fields(endpoint), picture()))
    own = await attacker.own.ids(endpoint.path)
    attacks = []
    names = path_ids(endpoint.path)
    for place, name in enumerate(names):
        before, after = names[:place], names[place + 1 :]
        ids = {
            # What hangs below is the foreign one's too: the request would be right if the wall were not there.
            "foreign": {**own, **{other: foreign[other] for other in (name, *after)}},
            "foreign above own": {**own, name: foreign[name]},
            "absent": {**own, name: ABSENT},
            **{f"malformed {text[:30]}": {**own, name: text} for text in MALFORMED},
        }
        if name in GLOBAL:
            del ids["foreign"], ids["foreign above own"]
        deleted = await attacker.own.ids(endpoint.path)
        if not endpoint.path.endswith("/restore") and await attacker.own.delete(endpoint.path, name, deleted):
            ids["deleted"] = {**own, name: deleted[name], **{other: deleted[other] for other in (*before, *after)}}
        for content in contents:
            attack = Attack(f"{label(endpoint)}, {name}", "absent")
            for what, numbers in ids.items():
                attack.answers[what] = await attacker.send(endpoint.method, fill(endpoint.path, numbers), content)
            attacks.append(attack)
    return attacks


# --- ids in bodies -----------------------------------------------------------------------------------------------


def with_body_ids() -> list[tuple[Endpoint, IdField]]:
    return [(endpoint, entry) for endpoint in ENDPOINTS for entry in id_fields(endpoint.json_model)]


async def test_a_foreign_id_in_a_body_is_an_absent_one(api: Api, attacker: Attacker, victim: World) -> None:
    targets = {entry.kind: await victim.kept_kind(entry.kind) for _, entry in with_body_ids()}
    before = await rows_of(api, victim.admin.organization_id)
    attacks = [attack_body(attacker, endpoint, entry, targets[entry.kind]) for endpoint, entry in with_body_ids()]
    found: list[Attack] = await all_of(attacks)
    assert len(found) > 10
    has_rule = [repeats_path(endpoint, entry) for endpoint, entry in with_body_ids()]
    wrong = [line for attack in found for line in attack.different()]
    wrong += [
        f"{attack.name}: an id that does not exist is {answer.status} {answer.body!r}"
        for attack, is_ruled in zip(found, has_rule, strict=True)
        if (answer := attack.answers["absent"]).status != 422
        or not (is_ruled or [e["type"] for e in answer.json()["error"]["details"]["errors"]] == ["foreign_key"])
    ]
    assert not wrong, "\n".join(wrong)
    await assert_untouched(api, victim, before)


def repeats_path(endpoint: Endpoint, entry: IdField) -> bool:
    """Whether the field must agree with the path, which is another rule than that of being there."""
    return entry.name in path_ids(endpoint.path)


async def attack_body(attacker: Attacker, endpoint: Endpoint, entry: IdField, foreign: int) -> Attack:
    """The other organisation's id, a deleted one, an absent one, and what is none, in one field."""
    own = attacker.own
    body = await own.body(endpoint) or {}
    path = fill(endpoint.path, await own.ids(endpoint.path))
    values: dict[str, Any] = {"absent": ABSENT}
    if entry.kind not in GLOBAL:
        values["foreign"] = foreign
        if (deleted := await make_deleted(own, entry.kind)) is not None:
            values["deleted"] = deleted
    if not repeats_path(endpoint, entry):
        values |= {f"malformed {str(value)[:30]}": value for value in NOT_IDS_IN_BODIES}
    attack = Attack(f"{label(endpoint)}, {entry.name}", "absent")
    for what, value in values.items():
        sent = put_in(_without_rivals(endpoint, body, entry), entry.path, [value] if entry.is_list else value)
        attack.answers[what] = await attacker.send(endpoint.method, path, as_json(sent))
    return attack


def _without_rivals(endpoint: Endpoint, body: dict[str, Any], entry: IdField) -> dict[str, Any]:
    """The body without what was put in only because one of several fields is needed; this one will do."""
    model = endpoint.json_model
    assert model is not None
    return {name: value for name, value in body.items() if model.model_fields[name].is_required()}


async def make_deleted(world: World, kind: str) -> int | None:
    """One that was deleted (or a deactivated user), if there is such a thing."""
    home = home_of(next(e.path for e in ENDPOINTS if f"{{{kind}}}" in e.path), kind)
    if find("DELETE", home) is None:
        return None
    ids = await world.ids(home)
    await world.delete(home, kind, ids)
    return ids[kind]


# --- ids in queries ----------------------------------------------------------------------------------------------


async def test_a_foreign_id_in_a_query_is_an_absent_one(api: Api, attacker: Attacker, victim: World) -> None:
    queries = [(endpoint, entry) for endpoint in ENDPOINTS for entry in id_fields(endpoint.query)]
    assert queries
    # Rows of the victim that the filters would find.
    targets = [(endpoint, entry, await found_by(victim, endpoint, entry)) for endpoint, entry in queries]
    before = await rows_of(api, victim.admin.organization_id)
    found = await all_of(attack_query(attacker, endpoint, entry, foreign) for endpoint, entry, foreign in targets)
    wrong = [line for attack in found for line in attack.different()]
    wrong += [f"{attack.name}: {a.status}" for attack in found if (a := attack.answers["absent"]).status != 200]
    assert not wrong, "\n".join(wrong)
    await assert_untouched(api, victim, before)


async def found_by(world: World, endpoint: Endpoint, entry: IdField) -> int:
    """The id by which the filter finds something: of a new item that names it, where items can."""
    number = await world.kept_kind(entry.kind)
    create = find("POST", endpoint.path)
    named = [other for other in id_fields(create.json_model) if other.kind == entry.kind] if create else []
    if create is not None and named:
        body = put_in(await world.body(create) or {}, named[0].path, [number] if named[0].is_list else number)
        path = fill(create.path, await world.ids(create.path)).removeprefix(PREFIX)
        await world.admin.post(path, json=body)
        own_path = fill(endpoint.path, await world.ids(endpoint.path)).removeprefix(PREFIX)
        seen = await world.admin.get(own_path, params={entry.name: number})
        assert seen["items"], f"{label(endpoint)} does not find by {entry.name}"
    return number


async def attack_query(attacker: Attacker, endpoint: Endpoint, entry: IdField, foreign: int) -> Attack:
    path = fill(endpoint.path, await attacker.own.ids(endpoint.path))
    attack = Attack(f"{label(endpoint)}, {entry.name}", "absent")
    values: dict[str, int | None] = {"absent": ABSENT, "foreign": foreign}
    if entry.name == "resource_id":
        # Without its type it is any number, and the audit log tells of what was deleted.
        path += "?resource_type=property&"
    else:
        path += "?"
        # A deactivated user is still there.
        values["deleted"] = None if entry.kind == "user_id" else await make_deleted(attacker.own, entry.kind)
    for what, value in values.items():
        if value is not None:
            attack.answers[what] = await attacker.send("GET", f"{path}{entry.name}={value}")
    return attack
