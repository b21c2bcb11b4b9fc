"""What a client should never send, in every field of every body, every query parameter, every path and header.

The answer is 4xx in the error envelope and never 5xx; or it is accepted, and then it comes back as it was sent.
The fields come from the models of the routes, so that a new route is covered by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import re
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count
from operator import itemgetter
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest
from api import Api, served_api
from conftest import TestDatabase
from documented import endpoint_of
from raw_http import RawAnswer, RawClient, raw_client
from route_walk import (
    ENDPOINTS,
    PASSWORD,
    Endpoint,
    Leaf,
    World,
    fill,
    form_fields,
    label,
    leaves,
    multipart,
    path_ids,
    picture,
    put_in,
)

from reos.auth.passwords import hash_password
from reos.middleware.endpoint import PREFIX
from reos.schemas.bounces import Bounce
from reos.schemas.common import ErrorEnvelope

pytestmark = [pytest.mark.integration, pytest.mark.slow]

LINES = 8  # connections of the client
MILLION = "a" * 10**6
DEEP = 5_000

# As JSON, because much of it no encoder writes.
VALUES: dict[str, str] = {
    "NUL": r'"\u0000"',
    "NUL within": r'"a\u0000b"',
    "half a surrogate pair": r'"\ud800"',
    "the other half": r'"x\udc00"',
    "an escape sequence": r'"\u001b[31m"',
    "text that is trimmed": '"  a b  "',
    "nothing but spaces": '"   "',
    "an empty text": '""',
    "a text of signs": '"\'; drop table users; -- %_\\\\ \U0001f600 \u202e"',
    "10^6 characters": f'"{MILLION}"',
    "2^63": "9223372036854775808",
    "-2^63 - 1": "-9223372036854775809",
    "10^30": "1" + "0" * 30,
    "a number of 5,000 digits": "9" * 5000,
    "-1": "-1",
    "0": "0",
    "-0": "-0",
    "1e999": "1e999",
    "-1e999": "-1e999",
    "1e999999999": "1e999999999",
    "1e-999": "1e-999",
    "1e9999999999999999999": "1e9999999999999999999",
    "NaN": "NaN",
    "Infinity": "Infinity",
    "-Infinity": "-Infinity",
    "true": "true",
    "1.5": "1.5",
    "1.0": "1.0",
    "0.005": "0.005",
    "a number as text": '"1"',
    "NaN as text": '"NaN"',
    "Infinity as text": '"Infinity"',
    "null": "null",
    "an array": "[]",
    "an array of null": "[null]",
    "an array of everything": '[1, "a", {}, [], true]',
    "an object": "{}",
    "an object with fields": r'{"a": 1, "b\u0000": 2}',
    "deep arrays": "[" * DEEP + "]" * DEEP,
    "deep objects": '{"a":' * DEEP + "1" + "}" * DEEP,
    "40 levels": '{"a":' * 40 + "1" + "}" * 40,
    "30 levels": '{"a":' * 30 + "1" + "}" * 30,
    "a number in an object that a double changes": '{"a": 0.1234567890123456789}',
    "the year 0": '"0000-01-01"',
    "the year 1": '"0001-01-01T00:00:00Z"',
    "the year 10000": '"10000-01-01"',
    "the end of the year 9999": '"9999-12-31T23:59:59.999999-23:59"',
    "the 30th of February": '"2026-02-30"',
    "a leap second": '"2026-12-31T23:59:60Z"',
    "a time with an offset": '"2026-03-04T05:06:07.123456+05:45"',
    "a day": '"2026-03-04"',
}

QUERY_VALUES: dict[str, str] = {
    "empty": "",
    "NUL": "%00",
    "a control character": "%1B",
    "half a surrogate pair": "%ED%A0%80",
    "no UTF-8": "%FF",
    "half a percent": "%",
    "no percent": "%zz",
    "spaces": "%20%20",
    "signs": quote("'; drop table users; -- %_\\ \U0001f600"),
    "2^63": "9223372036854775808",
    "-2^63 - 1": "-9223372036854775809",
    "10^30": "1" + "0" * 30,
    "5,000 digits": "9" * 5000,
    "-1": "-1",
    "0": "0",
    "1e999": "1e999",
    "1e-999": "1e-999",
    "1e9": "1e9",
    "NaN": "NaN",
    "Infinity": "-Infinity",
    "true": "true",
    "1.5": "1.5",
    "wide digits": quote("\uff11\uff12"),
    "5,000 characters": "a" * 5000,
    "10^5 characters": "a" * 10**5,
    "nested": "[" * 1000,
    "null": "null",
    "a list": "a,b,,c",
    "a list of one thing": ",".join(["id"] * 200),
    "the year 0": "0000-01-01",
    "the year 10000": "10000-01-01T00:00:00Z",
    "the end of the year 9999": "9999-12-31T23:59:59Z",
    "a day": "2026-03-04",
}


@dataclass
class Hostile:
    """Somebody who is logged in, and sends what they like."""

    world: World
    raw: RawClient

    async def send(
        self,
        method: str,
        target: str,
        content: tuple[str, bytes] | None = None,
        headers: dict[str, str | bytes] | None = None,
    ) -> RawAnswer:
        """Send a request, with a body of a type. The answer is below 500 and, if it refuses, in the envelope."""
        sent = {**self.world.admin.headers, **(headers or {})}
        if content is not None:
            sent = {"Content-Type": content[0], **sent}
        answer = await self.raw.request(method, target, sent, None if content is None else content[1])
        if answer.status >= 400:
            told = f"{answer.status} {answer.body[:300]!r}"
            assert answer.status < 500, told
            if method != "HEAD":
                assert answer.header("content-type") == "application/json", told
                envelope = ErrorEnvelope.model_validate_json(answer.body)
                assert envelope.error.request_id == answer.header("x-request-id"), told
                assert len(answer.body) < 20_000, "an error of that size tells too much"
        return answer


@pytest.fixture(scope="module")
async def hostile(api: Api) -> AsyncIterator[Hostile]:
    async with raw_client(api.url, LINES) as raw:
        world = World(api, await api.register())
        # What the harness puts there is no hash.
        await api.value(
            "update user_credentials set password_hash = $1 where user_id = $2",
            await hash_password(PASSWORD),
            world.admin.user_id,
        )
        yield Hostile(world, raw)


async def failures(work: Iterable[tuple[str, Awaitable[None]]]) -> list[str]:
    """What went wrong, with the name of the try; as many at a time as the client has lines."""

    places = asyncio.Semaphore(LINES)

    async def one(name: str, item: Awaitable[None]) -> str | None:
        try:
            async with places:
                await item
        except AssertionError as error:
            return f"{name}: {str(error)[:500]}"
        return None

    found = await asyncio.gather(*(one(name, item) for name, item in work))
    return [line for line in found if line]


def fresh(text: str) -> str:
    """The body with other addresses and names, so that one try does not stand in the way of the next."""
    text = re.sub(r"[0-9a-f]{32}@example\.com", lambda _: f"{uuid4().hex}@example.com", text)
    return re.sub(r'"x[0-9a-f]{8}"', lambda _: f'"x{uuid4().hex[:8]}"', text)


# --- bodies ------------------------------------------------------------------------------------------------------

WITH_BODIES = [endpoint for endpoint in ENDPOINTS if endpoint.json_model is not None]
MARK = "@@here@@"


@pytest.mark.parametrize("endpoint", WITH_BODIES, ids=label)
async def test_every_field_of_a_body(hostile: Hostile, endpoint: Endpoint) -> None:
    assert endpoint.json_model is not None
    body = await hostile.world.body(endpoint) or {}
    path = fill(endpoint.path, await hostile.world.ids(endpoint.path))
    fields = leaves(endpoint.json_model)
    assert fields
    turn = asyncio.Lock()

    async def one(leaf: Leaf, value: str) -> None:
        # Nobody else changes what has an id, or what is kept once, before it is read again.
        async with contextlib.nullcontext() if is_creating(endpoint) else turn:
            await try_field(hostile, endpoint, path, body, leaf, value)

    wrong = await failures(
        (f"{leaf.name} is {name}", one(leaf, value)) for leaf in fields for name, value in VALUES.items()
    )
    assert not wrong, "\n".join(wrong)


def is_creating(endpoint: Endpoint) -> bool:
    return endpoint.method == "POST" and not path_ids(endpoint.path)


async def try_field(
    hostile: Hostile, endpoint: Endpoint, path: str, body: dict[str, Any], leaf: Leaf, value: str
) -> None:
    text = fresh(json.dumps(put_in(body, leaf.path, MARK))).replace(f'"{MARK}"', value)
    content = ("application/json", text.encode())
    answer = await hostile.send(endpoint.method, path, content)
    if answer.status == 409 and path_ids(endpoint.path):
        # Something that can be done once only, and has been.
        path = fill(endpoint.path, await hostile.world.ids(endpoint.path))
        answer = await hostile.send(endpoint.method, path, content)
    if answer.status < 300 and answer.body:
        sent = json.loads(value, parse_float=Decimal)
        compare(endpoint, leaf, sent, json.loads(answer.body, parse_float=Decimal))
        stored = await read_again(hostile, endpoint, path, answer)
        if stored is not None:
            compare(endpoint, leaf, sent, stored)


def ids_in(name: str) -> Callable[[Any], Any]:
    return lambda answer: [row["id"] for row in answer[name]]


# Where an answer says what was sent under another name: the field of any endpoint, or of one.
ELSEWHERE: dict[str, Callable[[Any], Any]] = {
    "role_ids": ids_in("roles"),
    "permission_ids": ids_in("permissions"),
    "property_ids": ids_in("properties"),
    "POST /leads/{lead_id}/assign user_id": itemgetter("assigned_to"),
}
# What no answer says.
UNTOLD = {
    "POST /auth/register organization_name",
    "POST /campaigns/{campaign_id}/preview lead_id",  # for whom the text is made, which is all that comes back
}

# What leaves nothing to read again.
UNKEPT = {"POST /campaigns/{campaign_id}/preview"}


def compare(endpoint: Endpoint, leaf: Leaf, sent: Any, answer: Any) -> None:
    """What was accepted comes back as it was sent."""
    name = f"{label(endpoint)} {leaf.name}"
    if leaf.schema.get("writeOnly") or name in UNTOLD:
        return
    if sent is None and leaf.name in path_ids(endpoint.path):
        return  # The path says it.
    try:
        given = given_for(answer, leaf, ELSEWHERE.get(name) or ELSEWHERE.get(str(leaf.path[0])))
    except (KeyError, IndexError, TypeError):
        # A part of an object is cleared by taking it away.
        is_cleared = sent is None and len(leaf.path) > 1
        assert is_cleared, f"sent {str(sent)[:100]!r}, and the answer does not say what became of it"
        return
    assert is_same(sent, given), f"sent {str(sent)[:100]!r}, got {str(given)[:100]!r}"


def given_for(answer: Any, leaf: Leaf, elsewhere: Callable[[Any], Any] | None) -> Any:
    """What an answer says of a field. Raises what a look at the wrong place raises."""
    first, *rest = leaf.path
    given = elsewhere(answer) if elsewhere else answer.get("user", answer)[first]
    for part in rest:
        given = given[part]
    return given


async def read_again(hostile: Hostile, endpoint: Endpoint, path: str, answer: RawAnswer) -> Any:
    """What was stored, as a GET tells it afterwards: what the answer said. None where nothing is kept."""
    if label(endpoint) in UNKEPT:
        return None
    told = json.loads(answer.body, parse_float=Decimal)
    if "access_token" in told:
        # It is another organisation, whose Admin alone sees it.
        bearer: dict[str, str | bytes] = {"Authorization": f"Bearer {told['access_token']}"}
        return {"user": (await hostile.send("GET", f"{PREFIX}/auth/me", headers=bearer)).json()}
    own = answer.header("location") or path
    above = own.rpartition("/")[0]
    for target in (own, above):
        if answer.header("etag") and endpoint_of("GET", target):
            read = await hostile.send("GET", target)
            assert (read.status, read.header("etag")) == (200, answer.header("etag")), read.body[:300]
            return json.loads(read.body, parse_float=Decimal)
    row = await find_row(hostile, above, told["id"])
    assert row == {name: told.get(name) for name in row}, f"stored as {row}"
    return row


async def find_row(hostile: Hostile, path: str, number: int) -> Any:
    """A row of a list, which has no GET of its own."""
    for page in count(1):
        answer = await hostile.send("GET", f"{path}?page={page}&page_size=100")
        listed = json.loads(answer.body, parse_float=Decimal)
        rows = listed["items"] if isinstance(listed, dict) else listed
        assert rows, f"{path} does not list {number}"
        for row in rows:
            if row["id"] == number:
                return row
    return None


def is_same(sent: Any, given: Any) -> bool:
    if isinstance(sent, bool) or isinstance(given, bool) or sent is None or given is None:
        return sent is given
    if isinstance(sent, str):
        if not isinstance(given, str):
            return False
        same_number = is_number(sent) and is_number(given) and Decimal(sent) == Decimal(given)
        return given == sent.strip() or same_number or is_same_time(sent, given)
    if isinstance(sent, int | Decimal):
        # Money comes back as text.
        return is_number(given) and Decimal(str(given)) == Decimal(sent)
    if isinstance(sent, dict) and isinstance(given, dict):
        # Where it is merged into what is there, more comes back.
        return all(name in given and is_same(value, given[name]) for name, value in sent.items())
    if isinstance(sent, list) and isinstance(given, list):
        return len(sent) == len(given) and all(is_same(*pair) for pair in zip(sent, given, strict=True))
    return False


def is_number(value: Any) -> bool:
    return bool(re.fullmatch(r"-?\d+(\.\d+)?([eE][+-]?\d+)?", str(value)))


def is_same_time(sent: str, given: str) -> bool:
    """Whether it is the same moment or, where a day comes back, the day that it is in UTC."""
    try:
        moment, answered = datetime.fromisoformat(sent.strip()), datetime.fromisoformat(given)
    except ValueError:
        return False
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment.date() == answered.date() if len(given) == 10 else moment == answered


RAW_BODIES: dict[str, bytes] = {
    "empty": b"",
    "a brace": b"{",
    "half a key": b'{"a',
    "a word": b"nul",
    "an array": b"[]",
    "an array of an object": b"[{}]",
    "a text": b'"x"',
    "a number": b"1",
    "null": b"null",
    "true": b"true",
    "NaN": b"NaN",
    "two objects": b"{} {}",
    "a comma too many": b'{"a": 1,}',
    "single quotes": b"{'a': 1}",
    "a comment": b'{"a": 1 /* b */}',
    "no UTF-8": b'{"a": "\xff\xfe"}',
    "an overlong NUL": b'{"a": "\xc0\x80"}',
    "a surrogate in UTF-8": b'{"a": "\xed\xa0\x80"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf{}",
    "NUL bytes": b"\x00\x00\x00\x00",
    "a raw control character": b'{"a": "\x01"}',
    "100,000 arrays": b"[" * 100_000,
    "100,000 arrays in a field": b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "100,000 objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "100,000 unknown fields": ("{" + ",".join(f'"a{n}":{n}' for n in range(60_000)) + "}").encode(),
    "an unknown field": b'{"no_such_field": 1}',
    "an unknown field with a name of half a surrogate pair": rb'{"\ud800": 1}',
    "an unknown field with NUL in its name": rb'{"\u0000": 1}',
    "an unknown field with an endless name": b'{"' + b"x" * 500_000 + b'": 1}',
    "the empty name": b'{"": 1}',
    "more than a body may have": b'{"a": "' + b"x" * 2**20 + b'"}',
}
NOT_OBJECTS = {"empty", "an array", "an array of an object", "a text", "a number", "null", "true", "NaN"}


@pytest.mark.parametrize("endpoint", WITH_BODIES, ids=label)
async def test_what_is_no_body(hostile: Hostile, endpoint: Endpoint) -> None:
    path = fill(endpoint.path, await hostile.world.ids(endpoint.path))
    wrong = await failures((name, try_body(hostile, endpoint, path, name, data)) for name, data in RAW_BODIES.items())
    assert not wrong, "\n".join(wrong)


async def try_body(hostile: Hostile, endpoint: Endpoint, path: str, name: str, data: bytes) -> None:
    answer = await hostile.send(endpoint.method, path, ("application/json", data))
    is_json = name.startswith(("100,000 unknown", "an unknown", "the empty name"))
    if name == "more than a body may have":
        expected = 413
    elif name == "empty" and endpoint.takes_body_optionally:
        return
    else:
        expected = 422 if is_json else 400
    assert answer.status == expected, f"{answer.status} {answer.body[:200]!r}"


@pytest.mark.parametrize("endpoint", WITH_BODIES, ids=label)
async def test_a_name_that_stands_there_twice_means_one_thing(hostile: Hostile, endpoint: Endpoint) -> None:
    """Whatever it means: it is judged, written and told alike."""
    body = await hostile.world.body(endpoint) or {}
    path = fill(endpoint.path, await hostile.world.ids(endpoint.path))
    for name, value in body.items():
        text = json.dumps(body)[:-1] + f", {json.dumps(name)}: {json.dumps(value)}}}"
        text = text.replace("{", f"{{{json.dumps(name)}: [null], ", 1)
        answer = await hostile.send(endpoint.method, path, ("application/json", fresh(text).encode()))
        if answer.status < 300 and answer.body:
            given = answer.json().get(name, value)
            assert given == value or isinstance(value, int | str), (name, given)


# --- reports of bounces, which stand beside the API ------------------------------------------------------------

BOUNCE_SECRET = "bounces are signed with this one"
BOUNCE = {"message_id": "<nobody@example.com>", "type": "bounce", "is_permanent": True, "reason": "550"}


def bounce_bodies() -> Iterator[tuple[str, bytes]]:
    yield "as it should be", json.dumps({"bounces": [BOUNCE]}).encode()
    yield from RAW_BODIES.items()
    for name, value in VALUES.items():
        yield f"bounces is {name}", f'{{"bounces": {value}}}'.encode()
        yield f"bounces.0 is {name}", f'{{"bounces": [{value}]}}'.encode()
        for leaf in leaves(Bounce):
            text = json.dumps({"bounces": [put_in(BOUNCE, leaf.path, MARK)]}).replace(f'"{MARK}"', value)
            yield f"{leaf.name} is {name}", text.encode()


async def test_every_field_of_a_report_of_bounces(hostile: Hostile, database: TestDatabase, tmp_path: Path) -> None:
    async with (
        served_api(database, tmp_path, bounce_secret=BOUNCE_SECRET) as api,
        raw_client(api.url, LINES) as raw,
    ):
        provider, seen = Hostile(hostile.world, raw), set[int]()

        async def one(data: bytes) -> None:
            at = str(int(time.time()))
            digest = hmac.digest(BOUNCE_SECRET.encode(), f"r1.{at}.".encode() + data, "sha256")
            headers: dict[str, str | bytes] = {
                "webhook-id": "r1",
                "webhook-timestamp": at,
                "webhook-signature": f"v1,{b64encode(digest).decode()}",
            }
            answer = await provider.send("POST", "/bounces/generic", ("application/json", data), headers)
            seen.add(answer.status)
            assert answer.status in (400, 413, 422) or answer.json() == {"accepted": 0}, answer.status

        wrong = await failures((name, one(data)) for name, data in bounce_bodies())
        assert not wrong, "\n".join(wrong)
        assert seen == {200, 400, 413, 422}


# --- what is around a body ---------------------------------------------------------------------------------------

WRONG_TYPES: tuple[str | bytes, ...] = (
    "", "text/plain", "application/x-www-form-urlencoded", "application/jsonp", "application/vnd.api+json", "json",
    "application/json; charset=latin-1", "application/json; charset=utf-16", "multipart/form-data; boundary=x",
    "text/json", "application/json, text/plain", b"\xff", "a" * 5000, ";", "application/ json", "*/*",
)  # fmt: skip


@pytest.mark.parametrize("endpoint", WITH_BODIES, ids=label)
async def test_what_is_no_json_by_its_type(hostile: Hostile, endpoint: Endpoint) -> None:
    body = json.dumps(await hostile.world.body(endpoint)).encode()
    path = fill(endpoint.path, await hostile.world.ids(endpoint.path))

    async def one(kind: str | bytes) -> None:
        headers: dict[str, str | bytes] = {**hostile.world.admin.headers, "Content-Type": kind}
        answer = await hostile.raw.request(endpoint.method, path, headers, body)
        is_form = endpoint.form is not None and b"multipart" in (kind if isinstance(kind, bytes) else kind.encode())
        assert answer.status == (400 if is_form else 415), f"{answer.status} {answer.body[:200]!r}"
        ErrorEnvelope.model_validate_json(answer.body)

    wrong = await failures((repr(kind)[:60], one(kind)) for kind in WRONG_TYPES)
    assert not wrong, "\n".join(wrong)


FORM_VALUES = {
    "NUL": b"\x00", "no UTF-8": b"\xff", "10^6 characters": MILLION.encode(), "empty": b"", "NaN": b"NaN", "-1": b"-1",
    "1.5": b"1.5", "2^63": b"9223372036854775808", "true": b"true", "null": b"null", "lines": b"a\r\nb",
    "text": "ä b".encode(), "an array": b"[]", "1e999": b"1e999", "half a surrogate pair": b"\xed\xa0\x80",
}  # fmt: skip
WITH_FORMS = [endpoint for endpoint in ENDPOINTS if endpoint.form is not None]


@pytest.mark.parametrize("endpoint", WITH_FORMS, ids=label)
async def test_every_field_of_a_form(hostile: Hostile, endpoint: Endpoint) -> None:
    assert endpoint.form is not None
    path = fill(endpoint.path, await hostile.world.ids(endpoint.path))
    valid = form_fields(endpoint)

    async def one(leaf: Leaf, value: bytes) -> None:
        answer = await hostile.send("POST", path, multipart({**valid, leaf.name: value}, picture()))
        if answer.status < 300:
            given = answer.json()[leaf.name]
            same = given == value.decode().strip()
            assert same or (not isinstance(given, str) and json.dumps(given) == value.decode()), given

    wrong = await failures(
        (f"{leaf.name} is {name}", one(leaf, value))
        for leaf in leaves(endpoint.form)
        for name, value in FORM_VALUES.items()
    )
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("endpoint", WITH_FORMS, ids=label)
async def test_what_is_no_form(hostile: Hostile, endpoint: Endpoint) -> None:
    path = fill(endpoint.path, await hostile.world.ids(endpoint.path))
    kind, good = multipart(form_fields(endpoint), picture())
    boundary = kind.partition("boundary=")[2].encode()
    bad: dict[str, tuple[str, bytes]] = {
        "no file": multipart(form_fields(endpoint), None),
        "an unknown field": multipart({**form_fields(endpoint), "no_such_field": b"1"}, picture()),
        "a field with an endless name": multipart({"x" * 3000: b"1"}, picture()),
        "nothing": (kind, b""),
        "no end": (kind, good.removesuffix(b"--\r\n")),
        "half": (kind, good[: len(good) // 2]),
        "another boundary": ("multipart/form-data; boundary=other", good),
        "no boundary": ("multipart/form-data", good),
        "a boundary with a line end": ('multipart/form-data; boundary="a\tb"', good),
        "a part without a header": (kind, b"--" + boundary + b"\r\n\r\nx\r\n--" + boundary + b"--\r\n"),
        "a part without a name": (
            kind,
            b"--" + boundary + b"\r\nContent-Disposition: form-data\r\n\r\nx\r\n--" + boundary + b"--\r\n",
        ),
        "1,000 parts": multipart({f"a{n}": b"" for n in range(1000)}, picture()),
        "two files": (kind, good.replace(b"--" + boundary + b"--", good[good.rindex(b"--" + boundary + b"\r\n") :])),
    }

    async def one(content: tuple[str, bytes]) -> None:
        answer = await hostile.send("POST", path, content)
        assert answer.status in (400, 415, 422), answer.status

    wrong = await failures((name, one(content)) for name, content in bad.items())
    assert not wrong, "\n".join(wrong)


# --- queries and paths -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", [e for e in ENDPOINTS if e.query is not None], ids=label)
async def test_every_parameter_of_a_query(hostile: Hostile, endpoint: Endpoint) -> None:
    assert endpoint.query is not None
    path = fill(endpoint.path, await hostile.world.ids(endpoint.path))

    async def one(query: str) -> None:
        answer = await hostile.send(endpoint.method, f"{path}?{query}")
        assert answer.status in (200, 413, 414, 422) or (endpoint.is_stream and answer.status == 401), answer.status

    queries = {
        f"{name} is {what}": f"{name}={value}"
        for name in endpoint.query.model_fields
        for what, value in QUERY_VALUES.items()
    }
    for name in endpoint.query.model_fields:
        queries[f"{name} twice"] = f"{name}=1&{name}=1"
        queries[f"{name} as a list"] = f"{name}[]=1"
        queries[f"{name} without a value"] = name
    queries |= {
        "an unknown parameter": "no_such_parameter=1",
        "a name of no UTF-8": "%FF=1",
        "a name with NUL": "%00=1",
        "1,000 parameters": "&".join(f"a{n}=1" for n in range(1000)),
        "no name": "=1",
        "signs": "?&&==;",
    }
    wrong = await failures((name, one(query)) for name, query in queries.items())
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("endpoint", [e for e in ENDPOINTS if e.query is not None and not e.is_stream], ids=label)
async def test_unknown_parameters_are_told(hostile: Hostile, endpoint: Endpoint) -> None:
    path = fill(endpoint.path, await hostile.world.ids(endpoint.path))
    answer = await hostile.send(endpoint.method, f"{path}?no_such_parameter=1")
    assert answer.status == 422
    assert answer.json()["error"]["details"]["errors"][0]["field"] == "no_such_parameter"


PATH_TEXTS = (
    "%00", "%FF", "%2F", "%2e%2e", "..", ".", "%", "%zz", "a" * 5000, "9" * 5000, "\u00e4", "\U0001f600", "*", "{}",
    "<int>", "1;a=b", "1%0d%0aX: y", "-", "'", '"', "\\", "|",
)  # fmt: skip


@pytest.mark.parametrize("endpoint", [e for e in ENDPOINTS if path_ids(e.path)], ids=label)
async def test_every_id_of_a_path(hostile: Hostile, endpoint: Endpoint) -> None:
    ids = await hostile.world.ids(endpoint.path)
    body = await hostile.world.body(endpoint)
    content = None if body is None else ("application/json", json.dumps(body).encode())

    async def one(name: str, text: str) -> None:
        answer = await hostile.send(endpoint.method, fill(endpoint.path, {**ids, name: text}), content)
        # A few of them are another path, which may have other methods.
        assert answer.status in (404, 405, 414, 413, 400), answer.status

    wrong = await failures((f"{name} is {text[:30]}", one(name, text)) for name in ids for text in PATH_TEXTS)
    assert not wrong, "\n".join(wrong)


async def test_what_stands_beside_the_api(hostile: Hostile, api: Api) -> None:
    """Files, pages, documents and probes: their paths and queries take anything without an error of ours."""
    routes = ["/" + route.path for route in api.app.router.routes if not route.path.startswith("api/")]
    assert "/healthz" in routes
    targets = [
        re.sub(r"<[^>]*>", lambda _: text, path) + query  # noqa: B023
        for path in routes
        for text in (PATH_TEXTS if "<" in path else ("",))
        for query in ("", "?token=%00", "?token=" + "a" * 5000, "?token=%FF&token=%zz", "?%00")
    ]

    async def one(target: str) -> None:
        answer = await hostile.raw.request("GET", target)
        assert answer.status < 500, (answer.status, answer.body[:200])

    wrong = await failures((target[:80], one(target)) for target in targets)
    assert not wrong, "\n".join(wrong)


# --- headers -----------------------------------------------------------------------------------------------------

HEADER_VALUES: tuple[str | bytes, ...] = (
    "", " ", "\t", ",", ",,,", '"', '""', "*", "* ", 'W/"a"', 'W/"', '"a', '"a", *', "a" * 255, "a" * 256, "a" * 7000,
    b"\x00", b"\x01", b"\x7f", b"\x80\xff", b"a\nX: b", b"a\rX: b", "\u00e4", "\U0001f600", "-1", "0",
    "9223372036854775808", "99999999999999999999", "1e5", "1.5", "NaN", "null", "%00", "'; drop table users; --",
    "${jndi:ldap://x}", "a, b; q=1", "\u0661",
)  # fmt: skip
HEADERS = (
    "Idempotency-Key", "If-Match", "If-None-Match", "X-Request-ID", "Last-Event-ID", "Authorization", "User-Agent",
    "Accept", "Accept-Encoding", "Accept-Language", "Cookie", "Origin", "Referer", "Range", "If-Modified-Since",
    "X-Forwarded-For", "Forwarded", "X-HTTP-Method-Override", "Content-Type", "Expect", "Connection",
    "X-Scheme", "X-Forwarded-Host", "Host",
)  # fmt: skip


# No length, so that nobody can say where the request ends.
BAD_FRAMES: tuple[tuple[str, str | bytes], ...] = (
    *(
        ("Content-Length", value)
        for value in ("-1", "+5", "5, 5", "abc", "1e3", b"\xb2", b"\xd9\xa1", "0x10", "", "1_0", "1 0")
    ),
    *(("Transfer-Encoding", value) for value in ("identity", "chunked, chunked", "gzip", "xchunked", "")),
    ("Transfer-Encoding ", "chunked"),
    ("Content-Length ", "3"),
    ("X-A", b"b\nTransfer-Encoding: chunked"),
    ("X-A", b"b\rTransfer-Encoding: chunked"),
    ("X-A", b"b\x00"),
    ("X-A", b"b\r\n c"),
    ("X A", "b"),
    ("", "b"),
)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", ["/api/v1/properties", "/no/such/path", "/healthz"])
async def test_a_request_whose_end_is_not_sure_is_the_last(hostile: Hostile, method: str, path: str) -> None:
    """What follows on the connection must not be taken for a request: it may be the body of this one."""
    for name, value in BAD_FRAMES:
        answer = await hostile.send(method, path, ("application/json", b"{}"), {name: value})
        assert answer.status == 400 or (path != "/api/v1/properties" and answer.status in (404, 405)), (name, answer)
        assert answer.header("connection") == "close", (name, value, answer)


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "DELETE", "HEAD", "GET stream"])
async def test_every_header(hostile: Hostile, method: str) -> None:
    world = hostile.world
    method, _, stream = method.partition(" ")
    create = next(e for e in WITH_BODIES if label(e) == "POST /properties")
    body = json.dumps(await world.body(create)).encode()
    path = "/api/v1/sse/stream" if stream else "/api/v1/properties"

    async def one(name: str, value: str | bytes) -> None:
        target = path
        if method in ("PATCH", "DELETE"):
            target = f"{path}/{await world.make_kind('property_id')}"
        content = ("application/json", body) if method in ("POST", "PATCH") else None
        try:
            answer = await hostile.send(method, target, content, {name: value})
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            raise AssertionError(f"no answer: {error!r}") from error
        assert 200 <= answer.status < 500, answer.status

    tries = [(name, value) for name in HEADERS for value in HEADER_VALUES]
    wrong = await failures((f"{name}: {value!r:.60}", one(name, value)) for name, value in tries)
    assert not wrong, "\n".join(wrong)


async def test_the_service_still_stands(hostile: Hostile, api: Api) -> None:
    assert (await hostile.raw.request("GET", "/ready")).status == 200
    assert (await hostile.raw.request("GET", "/health")).status == 200
