"""What every answer has in common: the error envelope, the order of refusals, ids and headers."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx
import psycopg
import pytest
from api import Api, served_api
from conftest import TestDatabase

from reos import db
from reos.auth.tokens import issue_access_token
from reos.middleware.errors import as_reos_error

pytestmark = pytest.mark.integration

LISTING = {"address": "1 Main St", "city": "Austin", "state": "TX", "zip_code": "78701", "property_type": "condo"}
MIB = 1024 * 1024

JSON = {"Content-Type": "application/json"}


async def raw(api: Api, data: bytes, *, more: bytes = b"") -> tuple[int, dict[str, str], bytes]:
    """What the server answers to these very bytes: status, headers (names in lower case), body."""
    address = urlsplit(api.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        writer.write(data)
        if more:
            await writer.drain()
            writer.write(more)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        lines = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines[1:] if line)}
        body = await asyncio.wait_for(reader.readexactly(int(headers.get("content-length", 0))), 10)
        return int(lines[0].split(" ")[1]), headers, body
    finally:
        writer.close()


def envelope(response: httpx.Response) -> dict[str, Any]:
    """The error of a response, which must be in the envelope."""
    assert response.headers["Content-Type"] == "application/json"
    content = response.json()
    assert set(content) == {"error"}
    error: dict[str, Any] = content["error"]
    assert set(error) == {"type", "message", "details", "request_id"}
    assert error["request_id"] == response.headers["X-Request-ID"]
    assert isinstance(error["message"], str) and error["message"]
    assert isinstance(error["details"], dict)
    return error


# --- routes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["/nothing", "/api", "/api/v1", "/api/v1/nothing", "/api/v2/properties", "/api/v1/properties/1/rooms",
     "/api/v1/properties/1/images/2/3", "/api/v1//properties", "/api/v1/properties%2F1", "/%00",
     "/api/v1/properties.json", "/files", "/files/x", "/files/x/y", "/../etc/passwd", "/static/..%2f..%2fapp.py"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_unknown_routes_are_404(api: Api, path: str, method: str) -> None:
    response = await api.http.request(method, api.url + path)
    if response.status_code == 405:
        assert path.startswith(("/files/x", "/static/")) and method != "GET"
        return
    assert response.status_code == 404
    assert envelope(response)["type"] == "ResourceNotFoundError"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/properties", "GET, HEAD, POST"),
        ("PUT", "/properties/", "GET, HEAD, POST"),
        ("POST", "/properties/1", "DELETE, GET, HEAD, PATCH, PUT"),
        ("GET", "/properties/1/restore", "POST"),
        ("GET", "/properties/1/images/1", "DELETE"),
        ("OPTIONS", "/properties", "GET, HEAD, POST"),
        ("GET", "/auth/login", "POST"),
    ],
)
async def test_wrong_methods_are_405_with_allow(api: Api, method: str, path: str, allowed: str) -> None:
    response = await api.anonymous.request(method, path)
    assert response.status_code == 405
    assert response.headers["Allow"] == allowed
    assert envelope(response)["type"] == "MethodNotAllowedError"


@pytest.mark.parametrize("method", ["FOO", "TRACE", "PROPFIND", "get"])
async def test_unknown_methods_are_405(api: Api, method: str) -> None:
    status, headers, body = await raw(api, f"{method} /api/v1/properties HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert status == 405
    assert headers["allow"] == "GET, HEAD, POST"
    assert json.loads(body)["error"]["type"] == "MethodNotAllowedError"


async def test_trailing_slashes_are_tolerated(api: Api) -> None:
    admin = await api.register()
    created = await admin.post("/properties/", json=LISTING)
    path = f"/properties/{created['id']}"
    assert await admin.get(path + "/") == created
    assert (await admin.get("/properties/"))["total"] == 1
    assert (await admin.get("/properties/?page=1"))["total"] == 1
    assert await admin.patch(path + "/", json={"price": 1}) == await admin.get(path)
    await admin.post(path + "/notes/", json={"content": "x"})
    await admin.delete(path + "/")
    assert (await api.http.get("/healthz/")).status_code == 200


async def test_head_is_get_without_a_body(api: Api) -> None:
    admin = await api.register()
    created = await admin.post("/properties", json=LISTING)
    for path in (f"/properties/{created['id']}", "/properties", f"/properties/{created['id']}/notes", "/auth/me",
                 "/sse/status", "/properties/999999999", "/properties?page=0"):  # fmt: skip
        get, head = await admin.request("GET", path), await admin.request("HEAD", path)
        assert head.status_code == get.status_code
        assert head.content == b""
        varying = ("x-request-id", "date", "content-length") if get.status_code >= 400 else ("x-request-id", "date")
        assert {k: v for k, v in head.headers.items() if k not in varying} == {
            k: v for k, v in get.headers.items() if k not in varying
        }
    for path in ("/healthz", "/live", "/ready", "/health", "/metrics", "/openapi.json", "/docs", "/redoc"):
        assert (await api.http.head(path)).status_code == 200
    assert (await api.anonymous.request("HEAD", "/properties")).status_code == 401
    assert (await admin.request("HEAD", "/properties/1/restore")).status_code == 405


# --- bodies ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [b"", b" ", b"{", b"{'a': 1}", b"nope", b"[]", b"null", b'"text"', b"1", b"true", b'{"a": 1}{', b"\xff\xfe",
     b'{"a": "\xc3"}', b'{"a": 01}', b'{"a": .5}', b'{"a": +1}', b"\xef\xbb\xbf{}", b"[" * 100_000, b'{"a":' * 100_000,
     b'{"a": "\n"}', b"{}\x00"],
)  # fmt: skip
async def test_what_is_no_json_object_is_400(api: Api, content: bytes) -> None:
    admin = await api.register()
    for method, path in (("POST", "/properties"), ("PUT", "/properties/1"), ("PATCH", "/properties/1")):
        error = await admin.error(method, path, status=400, content=content, headers=JSON)
        assert error["type"] == "InvalidInputError"


@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "application/x-www-form-urlencoded", "application/xml", "application/jsonx",
     "application/json; charset=latin-1", "application/json; charset=utf-16", "multipart/form-data; boundary=x",
     "text/json", "*/*"],
)  # fmt: skip
async def test_another_content_type_is_415(api: Api, content_type: str) -> None:
    admin = await api.register()
    headers = {"Content-Type": content_type} if content_type else {}
    error = await admin.error("POST", "/properties", status=415, content=json.dumps(LISTING), headers=headers)
    assert error["type"] == "InvalidFileTypeError"


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "Application/JSON", "application/json; charset=utf-8", 'application/json;charset="UTF-8"',
     "application/json ; odd=1"],
)  # fmt: skip
async def test_json_is_json_by_any_spelling(api: Api, content_type: str) -> None:
    admin = await api.register()
    await admin.post("/properties", content=json.dumps(LISTING), headers={"Content-Type": content_type})


async def test_a_body_that_is_too_large_is_413(api: Api) -> None:
    admin = await api.register()

    def padded(size: int) -> bytes:
        body = json.dumps(LISTING).encode()
        return body + b" " * (size - len(body))

    async def chunks(data: bytes) -> Any:
        for start in range(0, len(data), 60_000):
            yield data[start : start + 60_000]

    for status, size in ((201, MIB), (413, MIB + 1), (413, 3 * MIB), (413, 30 * MIB)):
        for content in (padded(size), chunks(padded(size))):
            response = await admin.request("POST", "/properties", content=content, headers=JSON)
            assert response.status_code == status
            if status == 413:
                error = envelope(response)
                assert (error["type"], error["details"]) == ("FileTooLargeError", {"limit": MIB})


async def test_a_length_alone_is_refused_before_anything_is_sent(api: Api) -> None:
    admin = await api.register()
    head = (
        f"POST /api/v1/properties HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Authorization: {admin.headers['Authorization']}\r\nContent-Length: 99999999999\r\n"
        "Expect: 100-continue\r\n\r\n"
    )
    status, _, body = await raw(api, head.encode())
    assert status == 413
    assert json.loads(body)["error"]["type"] == "FileTooLargeError"


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GARBAGE\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST /api/v1/properties HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /api/v1/properties HTTP/1.1\r\nHost: x\r\nContent-Length: 1e3\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
async def test_what_is_no_request_is_400_in_the_envelope(api: Api, request_bytes: bytes) -> None:
    status, headers, body = await raw(api, request_bytes)
    assert status == 400
    error = json.loads(body)["error"]
    assert error["type"] == "InvalidInputError"
    assert error["request_id"] == headers["x-request-id"]
    assert headers["x-content-type-options"] == "nosniff"


async def test_a_header_without_end_is_413(api: Api) -> None:
    status, _, body = await raw(api, b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000)
    assert status == 413
    assert json.loads(body)["error"]["type"] == "FileTooLargeError"


async def test_bad_chunks_are_400(api: Api) -> None:
    admin = await api.register()
    head = (
        f"POST /api/v1/properties HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Authorization: {admin.headers['Authorization']}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    status, _, body = await raw(api, head.encode() + b"zz\r\nxx\r\n")
    assert status == 400
    assert json.loads(body)["error"]["type"] == "InvalidInputError"


async def test_a_body_where_none_belongs_is_read_and_ignored(api: Api) -> None:
    admin = await api.register()
    created = await admin.post("/properties", json=LISTING)
    path = f"/properties/{created['id']}"
    for _ in range(2):
        assert await admin.get(path, content=b"not json", headers={"Content-Type": "text/plain"}) == created
    await admin.error("GET", path, status=413, content=b"x" * (MIB + 1))
    await admin.delete(path, content=b"not json")
    await admin.post(f"{path}/restore", status=200, content=b"{}")


async def test_unknown_fields_of_a_body(api: Api) -> None:
    admin = await api.register()
    refused = await admin.fields_refused("POST", "/properties", json=LISTING | {"a": 1, "Price": 2, "": 3})
    assert refused == dict.fromkeys(("a", "Price", ""), "extra_forbidden")
    many = await admin.error("POST", "/properties", status=422, json={f"field{n}": n for n in range(50_000)})
    assert len(many["details"]["errors"]) == 100
    long = await admin.error("POST", "/properties", status=422, json=LISTING | {"x" * 100_000: 1})
    assert len(json.dumps(long)) < 1000


# --- the order of refusals -------------------------------------------------------------------------------------


async def test_the_order_of_refusals(api: Api) -> None:
    """401, 413/415/400, 403, 422, 404, 412, 409: each request below would earn all refusals from its own on."""
    admin = await api.register()
    reader = await api.add_user_with(admin, ["property:read"])
    property_id = (await admin.post("/properties", json=LISTING))["id"]
    path, absent = f"/properties/{property_id}", "/properties/999999999"
    stale = {"If-Match": '"stale"'}
    key = {"Idempotency-Key": "x" * 300}

    huge: dict[str, Any] = {"content": b"{" + b" " * (2 * MIB), "headers": JSON | stale | key}
    await api.anonymous.error("PUT", absent, status=401, **huge)
    await reader.error("PUT", absent, status=413, **huge)
    text = {"content": b"{", "headers": {"Content-Type": "text/plain"} | stale | key}
    await api.anonymous.error("PUT", absent, status=401, **text)
    await reader.error("PUT", absent, status=415, **text)
    broken = {"content": b"{", "headers": JSON | stale | key}
    await api.anonymous.error("PUT", absent, status=401, **broken)
    await reader.error("PUT", absent, status=400, **broken)
    wrong: dict[str, Any] = {"json": {"price": -1}, "headers": stale | key}
    await reader.error("PUT", absent, status=403, **wrong)
    assert await admin.fields_refused("PUT", absent, **wrong) == {"price": "greater_than_equal"}
    assert await admin.fields_refused("PUT", absent, json={}, headers=stale | key) == {
        "Idempotency-Key": "idempotency_key"
    }
    await admin.error("PUT", absent, status=404, json={"price": 1}, headers=stale)
    await admin.error("PUT", path, status=412, json={"price": 1}, headers=stale)
    await reader.error("GET", "/properties?page=0", status=422)
    await (await api.add_user(admin)).error("GET", "/properties?page=0", status=403)


@pytest.mark.auth
async def test_a_session_that_has_ended_is_401_before_the_body_is_judged(api: Api) -> None:
    admin = await api.register()
    assert admin.account is not None
    await api.value("update sessions set revoked_at = now() where id = $1", admin.account.session_id)
    await admin.error("POST", "/properties", status=401, json={"price": -1})
    await admin.error("POST", "/properties", status=400, content=b"{", headers=JSON)


@pytest.mark.auth
@pytest.mark.parametrize(
    ("authorization", "type"),
    [
        (None, "AuthenticationError"),
        ("", "AuthenticationError"),
        ("Bearer", "AuthenticationError"),
        ("Basic YTpi", "AuthenticationError"),
        ("Bearer x", "InvalidTokenError"),
        ("Bearer a.b.c", "InvalidTokenError"),
        ("Bearer " + "x" * 5000, "InvalidTokenError"),
    ],
)
async def test_401_names_the_scheme(api: Api, authorization: str | None, type: str) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    response = await api.anonymous.request("GET", "/properties", headers=headers)
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert envelope(response)["type"] == type


@pytest.mark.auth
async def test_two_tokens_are_none(api: Api) -> None:
    admin, other = await api.register(), await api.register()
    tokens = [("Authorization", client.headers["Authorization"]) for client in (admin, other)]
    assert (await api.http.get("/api/v1/auth/me", headers=tokens)).status_code == 401
    assert (await api.http.get("/api/v1/auth/me", headers=tokens[:1])).status_code == 200


async def test_an_expired_token_says_so(api: Api) -> None:
    admin = await api.register()
    assert admin.account is not None
    token = issue_access_token(
        api.settings, user_id=admin.user_id, organization_id=admin.organization_id,
        session_id=admin.account.session_id, now=0,
    )  # fmt: skip
    error = await api.anonymous.error("GET", "/properties", status=401, headers={"Authorization": f"Bearer {token}"})
    assert error["type"] == "TokenExpiredError"


@pytest.mark.auth
async def test_a_missing_permission_is_named_and_audited(api: Api) -> None:
    admin = await api.register()
    nobody = await api.add_user(admin)
    for method, path in (("GET", "/properties"), ("POST", "/properties/1/restore"), ("HEAD", "/properties/1")):
        response = await nobody.request(method, path)
        assert response.status_code == 403
    denied = [row for row in await api.audits(admin) if row["action"] == "denied"]
    assert [(row["user_id"], row["resource_type"]) for row in denied] == [(nobody.user_id, "property")] * 3
    assert [json.loads(row["changes"])["permission"][1] for row in denied] == [
        "property:read", "property:update", "property:read",
    ]  # fmt: skip


# --- ids and headers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["abc", "A-1_2.3:4", "x" * 128])
async def test_a_sane_request_id_comes_back(api: Api, given: str) -> None:
    admin = await api.register()
    for path in ("/properties", "/nothing", "/properties/1", "/properties?page=0"):
        assert (await admin.request("GET", path, headers={"X-Request-ID": given})).headers["X-Request-ID"] == given
    assert (await api.http.get("/healthz", headers={"X-Request-ID": given})).headers["X-Request-ID"] == given


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "<script>", 'a"b', "ä".encode(), "a,b", "a\tb"])
async def test_any_other_request_id_is_replaced(api: Api, given: str | bytes) -> None:
    headers = {b"X-Request-ID": given if isinstance(given, bytes) else given.encode()}
    ids = {(await api.http.get("/healthz", headers=headers)).headers["X-Request-ID"] for _ in range(3)}
    assert len(ids) == 3
    assert all(len(request_id) == 32 and request_id.isalnum() for request_id in ids)


async def test_every_request_has_an_id_of_its_own(api: Api) -> None:
    ids = {(await api.http.get("/nothing")).json()["error"]["request_id"] for _ in range(20)}
    assert len(ids) == 20


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/properties", "/nothing", "/healthz", "/api/v1/auth/me", "/openapi.json", "/", "/docs", "/redoc",
        "/verify-email?token=x", "/reset-password", "/static/swagger.js", "/static/icon.svg", "/metrics", "/files/x",
        "/t/o/x", "/t/c/x", "/t/u/x", "/api/v1/sse/stream", "/dev/outbox",
    ],
)  # fmt: skip
async def test_security_headers_are_everywhere(api: Api, path: str) -> None:
    response = await api.http.get(path)
    policy = dict(part.strip().split(" ", 1) for part in response.headers["Content-Security-Policy"].split(";"))
    for directive in ("default-src", "object-src", "base-uri", "frame-ancestors", "form-action"):
        assert policy[directive] == "'none'"
    is_page = response.headers["Content-Type"].startswith("text/html")
    assert response.headers.get("Cross-Origin-Opener-Policy") == ("same-origin" if is_page else None)
    assert response.headers["Cache-Control"]
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["X-Frame-Options"] == "DENY"
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert response.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "Strict-Transport-Security" not in response.headers
    assert "Server" not in response.headers


async def test_https_is_insisted_on_where_the_service_has_it(database: TestDatabase, tmp_path: Path) -> None:
    async with served_api(database, tmp_path, public_url="https://crm.example.com") as api:
        response = await api.http.get("/healthz")
        assert response.headers["Strict-Transport-Security"] == "max-age=31536000; includeSubDomains"


async def test_reads_may_be_kept_by_the_client_alone(api: Api) -> None:
    admin = await api.register()
    created = await admin.request("POST", "/properties", json=LISTING)
    path = f"/properties/{created.json()['id']}"
    reads = [
        await admin.request("GET", path),
        await admin.request("HEAD", path),
        await admin.request("GET", "/properties"),
        await admin.request("GET", path, headers={"If-None-Match": "*"}),
        await admin.request("GET", "/properties/999999999"),
        await admin.request("GET", "/properties?page=0"),
        await api.anonymous.request("GET", path),
        await api.anonymous.request("GET", "/nothing"),
    ]
    assert [response.status_code for response in reads] == [200, 200, 200, 304, 404, 422, 401, 404]
    for response in reads:
        assert response.headers["Cache-Control"] == "private, no-cache"
        assert response.headers["Vary"] == "Authorization"
    for response in (created, await admin.request("DELETE", path), await api.http.get("/nothing")):
        assert response.headers["Cache-Control"] == "no-store"


async def test_json_is_utf_8_whatever_it_says(api: Api) -> None:
    admin = await api.register()
    created = await admin.request("POST", "/properties", json=LISTING | {"city": "Zürich 😀 \u2028"})
    assert created.headers["Content-Type"] == "application/json"
    assert json.loads(created.content.decode())["city"] == "Zürich 😀"
    assert "Zürich" in created.content.decode()


# --- 5xx -------------------------------------------------------------------------------------------------------


async def test_503_says_when_to_come_again(
    database: TestDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served_api(database, tmp_path, db_pool_min=1, db_pool_max=1) as api:
        admin = await api.register()
        async with api.database.acquire():
            monkeypatch.setattr(db, "MAX_WAITING", 0)
            response = await admin.request("GET", "/properties")
            monkeypatch.undo()
        assert response.status_code == 503
        assert response.headers["Retry-After"] == "1"
        assert envelope(response)["type"] == "DatabaseError"
        assert response.headers["Cache-Control"] == "private, no-cache"
        assert (await admin.request("GET", "/properties")).status_code == 200


async def test_without_its_database_the_service_says_503(fresh_database: TestDatabase, tmp_path: Path) -> None:
    async with served_api(fresh_database, tmp_path) as other:
        admin = await other.register()
        await admin.post("/properties", json=LISTING)
        end_all = (
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s and pid <> pg_backend_pid()"
        )
        async with asyncio.timeout(20):
            with psycopg.connect(fresh_database.superuser_dsn) as conn:
                conn.execute(end_all, [fresh_database.name])
            answers = [await admin.request("GET", "/properties") for _ in range(20)]
        statuses = [answer.status_code for answer in answers]
        assert set(statuses) <= {200, 503}
        assert statuses[-1] == 200
        for answer in answers:
            if answer.status_code == 503:
                assert envelope(answer)["type"] == "DatabaseError"
                assert answer.headers["Retry-After"] == "1"


async def test_500_says_nothing_of_the_inside(fresh_database: TestDatabase, tmp_path: Path) -> None:
    async with served_api(fresh_database, tmp_path) as api:
        admin = await api.register()
        await api.value("alter table properties rename column city to town")
        response = await admin.request("POST", "/properties", json=LISTING)
        assert response.status_code == 500
        error = envelope(response)
        assert (error["type"], error["message"], error["details"]) == (
            "InternalServerError", "An internal error occurred.", {},
        )  # fmt: skip
        await api.value("alter table properties rename column town to city")
        await admin.post("/properties", json=LISTING)


@pytest.mark.unit
@pytest.mark.parametrize("error", [asyncpg.DiskFullError(), asyncpg.TooManyConnectionsError()])
def test_a_database_that_has_no_room_is_503(error: Exception) -> None:
    assert as_reos_error(error).status == 503
