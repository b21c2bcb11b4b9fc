"""What the contract says of every route, walked over all of them: methods, HEAD, tags, keys, conditions.

What each of these means in detail, the tests of the mechanism say with one resource (test_errors,
test_conditional_requests, test_idempotency).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import groupby
from typing import Any
from uuid import uuid4

import documented
import httpx
import pytest
from api import Api, Client
from route_walk import (
    ENDPOINTS,
    PREFIX,
    PUBLIC,
    Endpoint,
    Leaf,
    Request,
    World,
    example,
    fill,
    find,
    label,
    leaves,
    path_ids,
)

from reos.schemas.common import ErrorEnvelope

pytestmark = [pytest.mark.integration, pytest.mark.slow]

WALKED = [e for e in ENDPOINTS if not e.is_stream and e.permission != PUBLIC and (e.permissions or path_ids(e.path))]
READS = [e for e in WALKED if e.is_read and e.response is not None]
KEYED = [e for e in WALKED if e.takes_idempotency_key]
# Whose row a condition can be about: there is a GET of the same path.
CONDITIONED = [e for e in WALKED if e.method in ("PUT", "PATCH", "DELETE")]
TAGGED = [e for e in CONDITIONED if find("GET", e.path)]
PARALLEL = 20

PATHS = {
    path: {e.method for e in group}
    for path, group in groupby(sorted(ENDPOINTS, key=lambda e: e.path), lambda e: e.path)
}


@pytest.fixture(scope="module")
async def world(api: Api) -> World:
    return World(api, await api.register())


async def send(client: Client, request: Request, headers: dict[str, str] | None = None) -> httpx.Response:
    return await client.request(request.method, request.path.removeprefix(PREFIX), headers=headers, **request.options())


# --- methods -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
async def test_other_methods_are_405_and_told_which_are_not(api: Api, path: str) -> None:
    allowed = PATHS[path] | ({"HEAD"} if "GET" in PATHS[path] else set())
    target = fill(path, dict.fromkeys(path_ids(path), 1))
    for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"} - allowed:
        for end in ("", "/"):
            response = await api.http.request(method, target + end)
            # A path beside one with an id may be one, such as /deals/stats.
            assert response.status_code == 405, (method, response.text)
            assert set(response.headers["Allow"].split(", ")) == allowed
            if method != "HEAD":
                assert ErrorEnvelope.model_validate_json(response.content).error.type == "MethodNotAllowedError"


@pytest.mark.parametrize("endpoint", READS, ids=label)
async def test_a_read_has_a_head_a_tag_and_304(world: World, endpoint: Endpoint) -> None:
    request = await world.request(endpoint)
    got = await send(world.admin, request)
    assert got.status_code == 200
    assert got.headers["Cache-Control"] == "private, no-cache"
    assert "Authorization" in got.headers["Vary"]
    head = await world.admin.request("HEAD", request.path.removeprefix(PREFIX))
    assert (head.status_code, head.content) == (200, b"")
    if endpoint.name not in NEVER_THE_SAME:
        assert told(head) == told(got)
        slashed = await world.admin.request("GET", request.path.removeprefix(PREFIX) + "/")
        assert (slashed.content, told(slashed)) == (got.content, told(got))
        known = await send(world.admin, request, {"If-None-Match": got.headers["ETag"]})
        assert (known.status_code, known.content) == (304, b"")
        assert known.headers["ETag"] == got.headers["ETag"]


# A link that expires is another one each time.
NEVER_THE_SAME = {"download_lead_document", "export_campaign"}


def told(response: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name not in ("date", "x-request-id")}


# They tell what came of something, and stand below what it was done with.
OUTCOMES = {"send_test_webhook"}
WRITES = [e for e in WALKED if e.response is not None and not e.is_read and e.name not in OUTCOMES]


@pytest.mark.parametrize("endpoint", WRITES, ids=label)
async def test_what_a_write_returns_is_what_get_gives(world: World, endpoint: Endpoint) -> None:
    """A resource with a GET of its own: its body and its tag, and for a new one where it is."""
    response = await send(world.admin, await world.request(endpoint))
    assert response.status_code == endpoint.status
    # Restoring, assigning and the like stand below what they return.
    place = str(response.request.url.path)
    home = response.headers.get("Location") or (place.rpartition("/")[0] if endpoint.method == "POST" else place)
    assert (endpoint.status == 201) == ("Location" in response.headers) or endpoint.name in WITHOUT_PLACE
    assert home.startswith(PREFIX)
    got = await world.admin.request("GET", home.removeprefix(PREFIX))
    place_of = documented.endpoint_of("GET", home)
    if got.status_code == 200 and place_of is not None and is_of(place_of.response, endpoint.response):
        answered = response.json()
        # It is shown once, by the write alone.
        assert (answered.pop("secret", None) is not None) == endpoint.is_secret
        assert got.json() == answered
        assert got.headers["ETag"] == response.headers["ETag"]
    else:
        assert "ETag" not in response.headers


def is_of(resource: Any, answered: Any) -> bool:
    """Whether what a write answers is the resource, perhaps with something that it shows once."""
    return isinstance(answered, type) and isinstance(resource, type) and issubclass(answered, resource)


# Something that is made, but nowhere.
WITHOUT_PLACE = {"create_stream_ticket"}


# --- Idempotency-Key ---------------------------------------------------------------------------------------------


async def counts(api: Api, organization_id: int) -> Counter[str]:
    """How many rows the organisation has in each table, and how many jobs."""
    statement = await api.value(
        "select string_agg(format('select %1$L, count(*) from %1$I where organization_id = $1', c.relname),"
        " ' union all ')"
        " from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'organization_id'"
        " where c.relnamespace = 'public'::regnamespace and c.relkind = 'r'"
    )
    queued = (
        "select 'jobs', count(*) from procrastinate.procrastinate_jobs where (args ->> 'organization_id')::bigint = $1"
    )
    rows = await api.fetch(f"{statement} union all {queued}", organization_id)
    return Counter({row[0]: row[1] for row in rows})


def change(before: Counter[str], after: Counter[str]) -> dict[str, int]:
    return {name: after[name] - before[name] for name in after if after[name] != before[name]}


@pytest.mark.parametrize("endpoint", KEYED, ids=label)
async def test_many_at_once_with_one_key_are_one(api: Api, endpoint: Endpoint) -> None:
    """They leave what one without a key leaves, in every table and in the queue; each answer is the result, or 409."""
    world = World(api, await api.register())
    organization_id = world.admin.organization_id
    single, request = await world.request(endpoint), await world.request(endpoint)

    before = await counts(api, organization_id)
    assert (await send(world.admin, single)).status_code == endpoint.status
    between = await counts(api, organization_id)
    headers = {"Idempotency-Key": uuid4().hex}
    answers = await asyncio.gather(*(send(world.admin, request, headers) for _ in range(PARALLEL)))
    after = await counts(api, organization_id)

    assert change(between, after) == {**change(before, between), "idempotency_keys": 1}
    assert {answer.status_code for answer in answers} <= {endpoint.status, 409}
    results = [answer for answer in answers if answer.status_code == endpoint.status]
    assert len([answer for answer in results if "Idempotency-Replayed" not in answer.headers]) == 1
    again = await send(world.admin, request, headers)
    assert again.headers["Idempotency-Replayed"] == "true"
    for answer in (*results, again):
        assert answer.content == again.content
        assert answer.headers.get("Location") == again.headers.get("Location")
    for answer in answers:
        if answer.status_code == 409:
            assert answer.json()["error"]["type"] == "IdempotencyConflictError"


@pytest.mark.parametrize("endpoint", KEYED, ids=label)
async def test_a_key_is_good_for_one_request(world: World, endpoint: Endpoint) -> None:
    headers = {"Idempotency-Key": uuid4().hex}
    assert (await send(world.admin, await world.request(endpoint), headers)).status_code == endpoint.status
    other = await world.request(next(e for e in KEYED if e is not endpoint))
    response = await send(world.admin, other, headers)
    assert response.status_code == 422
    assert response.json()["error"]["type"] == "IdempotencyKeyReusedError"


# --- If-Match ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", CONDITIONED, ids=label)
async def test_another_tag_writes_nothing(world: World, endpoint: Endpoint) -> None:
    request = await world.request(endpoint)
    before = await counts(world.api, world.admin.organization_id)
    for tag in ('"0123456789abcdef0123456789abcdef"', 'W/"x"', "no tag", ""):
        response = await send(world.admin, request, {"If-Match": tag})
        assert response.status_code == 412, (tag, response.text)
        assert response.json()["error"]["type"] == "PreconditionFailedError"
    assert await counts(world.api, world.admin.organization_id) == before
    assert (await send(world.admin, request, {"If-Match": "*"})).status_code == endpoint.status


@pytest.mark.parametrize("endpoint", TAGGED, ids=label)
async def test_of_many_writers_with_one_tag_one_succeeds(world: World, endpoint: Endpoint) -> None:
    request = await world.request(endpoint)
    tag = (await world.admin.request("GET", request.path.removeprefix(PREFIX))).headers["ETag"]
    bodies = [changing(endpoint, request.body) for _ in range(5)]
    answers = await asyncio.gather(
        *(send(world.admin, Request(request.method, request.path, body), {"If-Match": tag}) for body in bodies)
    )
    won = [answer for answer in answers if answer.status_code == endpoint.status]
    assert len(won) == 1, [answer.text for answer in answers]
    # What was deleted is not there any more.
    assert {answer.status_code for answer in answers if answer is not won[0]} <= (
        {412, 404} if endpoint.method == "DELETE" else {412}
    )
    if endpoint.method != "DELETE":
        now = await world.admin.request("GET", request.path.removeprefix(PREFIX))
        assert now.json() == won[0].json()
        assert now.headers["ETag"] == won[0].headers["ETag"] != tag


def changing(endpoint: Endpoint, body: dict[str, Any] | None) -> dict[str, Any] | None:
    """The body with a text that nothing had before, so that it changes the resource."""
    if endpoint.json_model is None:
        return body
    names = {leaf.name: leaf for leaf in leaves(endpoint.json_model) if is_plain_text(leaf)}
    assert names, f"{label(endpoint)} takes no text that could change"
    name, leaf = next(iter(names.items()))
    return {**(body or {}), name: example(leaf)}


def is_plain_text(leaf: Leaf) -> bool:
    is_text = len(leaf.path) == 1 and leaf.schema.get("type") == "string"
    return is_text and str(example(leaf)).startswith("x")
