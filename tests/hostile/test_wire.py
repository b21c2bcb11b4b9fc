"""What is wrong below a request's fields: where it ends, headers that stand there twice, paths, forms, signatures.

Sent byte for byte. A request whose end two readers could find at different places is refused, and is the last of its
connection: what follows it may be its body, and never gets an answer of its own.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any

import pytest
from api import Api, Client, served_api
from conftest import TestDatabase
from fuzzing import fuzz
from hypothesis import example, given
from hypothesis import strategies as st
from raw_http import RawAnswer, RawClient, raw_client, read_answer
from route_walk import picture

from reos.middleware import bodies
from reos.schemas.common import ErrorEnvelope
from reos.server import DeadlineProtocol

pytestmark = [pytest.mark.integration]

SECRET = "a secret of the provider"
NEXT = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Request-ID: smuggled\r\n\r\n"
ANSWER_SECONDS = 20


@pytest.fixture(scope="module")
async def api(database: TestDatabase, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    """The app on the protocol that it is served on, which the other tests leave out."""
    async with served_api(database, tmp_path_factory.mktemp("data"), DeadlineProtocol, bounce_secret=SECRET) as api:
        yield api


@pytest.fixture(scope="module")
async def admin(api: Api) -> Client:
    return await api.register()


@pytest.fixture(scope="module")
async def raw(api: Api) -> AsyncIterator[RawClient]:
    async with raw_client(api.url, 4) as raw:
        yield raw


def check(answer: RawAnswer, *, is_head: bool = False) -> RawAnswer:
    """Nothing of the inside, and in the envelope if it refuses."""
    assert answer.status < 500, (answer.status, answer.body[:300])
    if answer.status >= 400 and not is_head:
        assert answer.header("content-type") == "application/json"
        ErrorEnvelope.model_validate_json(answer.body)
    return answer


# --- where a request ends ----------------------------------------------------------------------------------------

POST = b"POST /api/v1/properties HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%AUTH%"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
ENDLESS: dict[str, bytes] = {
    "no path": POST.replace(b"/api/v1/properties", b"%2fapi") + b"Content-Length: 60\r\n\r\n{}",
    "a length and chunks": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and a length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\n" + NEXT,
    "chunks and a length of nothing": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 2\r\nContent-Length: 60\r\n\r\n{}",
    "two lengths, the larger first": POST + b"Content-Length: 60\r\nContent-Length: 2\r\n\r\n{}",
    "a list of lengths": POST + b"Content-Length: 2, 60\r\n\r\n{}",
    "two codings": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "another coding first": POST + b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a coding behind a tab": POST + b"Transfer-Encoding:\tchunked, identity\r\n\r\n0\r\n\r\n",
    "a coding that is none": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "a coding in quotes": POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "a space before the colon": POST + b"Content-Length : 2\r\n\r\n{}",
    "a folded coding": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a length behind a bare line end": POST + b"X-A: b\nContent-Length: 2\r\n\r\n{}",
    "a coding behind a bare return": POST + b"X-A: b\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a length with a sign": POST + b"Content-Length: +2\r\n\r\n{}",
    "a length in hex": POST + b"Content-Length: 0x2\r\n\r\n{}",
    "a length with an underscore": POST + b"Content-Length: 0_2\r\n\r\n{}",
    "a length in other digits": POST + b"Content-Length: \xd9\xa2\r\n\r\n{}",
    "a length of 2^64 and 2": POST + b"Content-Length: 18446744073709551618\r\n\r\n{}",
    "a chunk with a sign": CHUNKED + b"+2\r\n{}\r\n0\r\n\r\n",
    "a negative chunk": CHUNKED + b"-1\r\n{}\r\n0\r\n\r\n",
    "a chunk of 0x": CHUNKED + b"0x2\r\n{}\r\n0\r\n\r\n",
    "a chunk with an underscore": CHUNKED + b"0_2\r\n{}\r\n0\r\n\r\n",
    "a chunk in other digits": CHUNKED + b"\xd9\xa2\r\n{}\r\n0\r\n\r\n",
    "a chunk with a space": CHUNKED + b" 2\r\n{}\r\n0\r\n\r\n",
    "a chunk of no size": CHUNKED + b"\r\n{}\r\n0\r\n\r\n",
    "a chunk of a word": CHUNKED + b"two\r\n{}\r\n0\r\n\r\n",
    "a chunk of 2^64 and 2": CHUNKED + b"10000000000000002\r\n{}\r\n0\r\n\r\n",
    "a chunk longer than it says": CHUNKED + b"2\r\n{}{}\r\n0\r\n\r\n",
    "a chunk size behind a bare line end": CHUNKED + b"2\n{}\n0\n\n",
    "a chunk with an endless extension": CHUNKED + b"2;" + b"a" * 100_000 + b"\r\n{}\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("shape", ENDLESS, ids=lambda shape: str(shape).replace(" ", "-"))
async def test_what_follows_an_unsure_end_gets_no_answer(api: Api, admin: Client, shape: str) -> None:
    for authorization in (b"", f"Authorization: {admin.headers['Authorization']}\r\n".encode()):
        answers = await converse(api, ENDLESS[shape].replace(b"%AUTH%", authorization) + NEXT)
        assert len(answers) == 1, [answer.status for answer in answers]
        assert answers[0].status in (400, 401, 408, 413), answers[0]
        check(answers[0])
        assert answers[0].header("x-request-id") != "smuggled"


async def test_a_body_that_is_framed_well_is_followed_by_the_next(api: Api, admin: Client) -> None:
    """So that the test above does not pass because nothing is ever answered twice."""
    authorization = f"Authorization: {admin.headers['Authorization']}\r\n".encode()
    for good in (
        POST + b"Content-Length: 2\r\n\r\n{}",
        CHUNKED + b"2\r\n{}\r\n0\r\n\r\n",
        CHUNKED + b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
    ):
        answers = await converse(api, good.replace(b"%AUTH%", authorization) + NEXT, wanted=2)
        assert [answer.status for answer in answers] == [422, 200]
        assert answers[1].header("x-request-id") == "smuggled"


async def test_a_client_that_waits_for_a_word_gets_it_before_its_chunks(api: Api, admin: Client) -> None:
    head = POST.replace(b"%AUTH%", f"Authorization: {admin.headers['Authorization']}\r\n".encode())
    host, port = api.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    async with asyncio.timeout(ANSWER_SECONDS):
        writer.write(head + b"Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        for part in (b"1", b";a=b\r", b"\n{\r\n00001", b"\r\n}", b"\r\n0\r\n", b"\r\n"):
            writer.write(part)
            await writer.drain()
        assert (await read_answer(reader)).status == 422
    writer.close()


async def test_a_body_that_does_not_come_is_the_end_of_its_connection(
    api: Api, admin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "BODY_DEADLINE", 0.2)
    head = POST.replace(b"%AUTH%", f"Authorization: {admin.headers['Authorization']}\r\n".encode())
    (answer,) = await converse(api, head + b"Content-Length: 20\r\n\r\n{", 1)
    assert (check(answer).status, answer.header("connection")) == (408, "close")


async def converse(api: Api, data: bytes, wanted: int | None = None) -> list[RawAnswer]:
    """All answers on a new connection, until the server closes it or there are as many as wanted."""
    host, port = api.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    answers: list[RawAnswer] = []
    try:
        writer.write(data)
        async with asyncio.timeout(ANSWER_SECONDS):
            while wanted is None or len(answers) < wanted:
                answers.append(await read_answer(reader))
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()
    return answers


REQUEST_LINES = (
    b"get /api/v1/properties HTTP/1.1", b"GET  /api/v1/properties HTTP/1.1", b"GET /api/v1/properties",
    b"GET /api/v1/properties HTTP/1.2", b"GET /api/v1/properties HTTP/2.0", b"GET /api/v1/properties HTTP/9",
    b"GET /api/v1/properties http/1.1", b"GET /api/v1/pro perties HTTP/1.1", b"GET\t/api/v1/properties\tHTTP/1.1",
    b"GET /\x00 HTTP/1.1", b"G\x00T / HTTP/1.1", b"\xff\xfe / HTTP/1.1", b"GET /\xff HTTP/1.1", b"", b" ", b"\x16\x03",
    b"PRI * HTTP/2.0", b"TRACE /api/v1/properties HTTP/1.1", b"CONNECT x.test:443 HTTP/1.1", b"OPTIONS * HTTP/1.1",
    b"GET * HTTP/1.1", b"GET http://x.test/api/v1/properties HTTP/1.1", b"GET //x.test/api/v1/properties HTTP/1.1",
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1", b"A" * 100_000 + b" / HTTP/1.1",
    b"GET /?" + b"a&" * 20_000 + b" HTTP/1.1",
    b"GET /api/v1/properties#x HTTP/1.1", b"GET ?page=1 HTTP/1.1", b"GET @x.test/ HTTP/1.1", b"GET \\ HTTP/1.1",
    b"GET http://x.test HTTP/1.1", b"GET http://x.test?page=1 HTTP/1.1", b"OPTIONS http://x.test HTTP/1.1",
)  # fmt: skip


async def test_no_request_line_breaks_the_service(api: Api, admin: Client) -> None:
    headers = f"\r\nHost: x\r\nAuthorization: {admin.headers['Authorization']}\r\nConnection: close\r\n\r\n".encode()
    for line in REQUEST_LINES:
        answers = await converse(api, line + headers)
        assert len(answers) <= 1, (line[:60], answers)
        for answer in answers:
            check(answer)
    assert (await admin.get("/properties"))["items"] == []


async def test_an_address_without_a_path_is_the_root(api: Api) -> None:
    rest = b" HTTP/1.1\r\nHost: x.test\r\nConnection: close\r\n\r\n"
    (root,) = await converse(api, b"GET /" + rest)
    for address in (b"http://x.test", b"http://x.test?a=b"):
        (answer,) = await converse(api, b"GET " + address + rest)
        assert (answer.status, answer.body) == (root.status, root.body)


# --- headers -----------------------------------------------------------------------------------------------------

TWICE = (
    "Authorization", "Content-Type", "Idempotency-Key", "If-Match", "If-None-Match", "X-Request-ID", "Host", "Accept",
    "Last-Event-ID", "Range", "Origin", "Cookie", "X-Forwarded-For", "Connection", "Expect",
)  # fmt: skip


async def test_a_header_may_stand_there_twice(admin: Client, raw: RawClient) -> None:
    body = json.dumps({"name": "x"}).encode()
    for name in TWICE:
        for first, second in (("a", "b"), ("a", "a"), ("", "a"), ('"a"', "*"), (admin.headers["Authorization"], "b")):
            for method, path in (("GET", "/api/v1/properties"), ("POST", "/api/v1/portfolios")):
                headers: dict[str, str | bytes] = {**admin.headers, "Content-Type": "application/json"}
                headers = {known: value for known, value in headers.items() if known != name}
                headers[name] = f"{first}\r\n{name}: {second}".encode()
                check(await raw.request(method, path, headers, body if method == "POST" else None))


RANGES = ("bytes=0-0", "bytes=-1", "bytes=5-1", "bytes=0-,1-,2-" + ",3-" * 500, "bytes=99999999999999999999-", "x=1")


async def test_ranges_of_a_file(admin: Client, raw: RawClient) -> None:
    address = {"address": "1 Main St", "city": "A", "state": "B", "zip_code": "1", "property_type": "land"}
    house = (await admin.post("/properties", json=address))["id"]
    made = await admin.post(f"/properties/{house}/images", files={"file": ("a.png", picture())})
    target = "/files/" + made["url"].partition("/files/")[2]
    whole = check(await raw.request("GET", target))
    assert whole.status == 200 and whole.body
    for text in (*RANGES, "", "bytes=", "bytes", "\u00e4", "bytes=a-b", "bytes=-", "bytes=1_0-2"):
        for method in ("GET", "HEAD"):
            answer = check(await raw.request(method, target, {"Range": text.encode()}), is_head=method == "HEAD")
            assert answer.status in (200, 206, 400, 416), answer.status
            assert method == "HEAD" or answer.status != 200 or answer.body == whole.body


# --- paths -------------------------------------------------------------------------------------------------------

PATHS = (
    "/api/v1/../v1/properties", "//api/v1/properties", "/api//v1/properties", "/api/v1//properties",
    "/api/v1/properties%2f1", "/api/v1/properties%2F..%2Fleads", "/api/v1/properties/%2e%2e/leads",
    "/api/v1/properties/%252e%252e/leads", "/api/v1/properties/..;/leads", "/api/v1/properties;a=b",
    "/api/v1/properties%00", "/api/v1/properties%0d%0aX:%20y", "/api/v1/properties%3fpage=1", "/api/v1/properties%23x",
    "/API/V1/properties", "/api/v1/PROPERTIES", "%2fapi%2fv1%2fproperties", "/api%5cv1%5cproperties",
    "/api/v1/properties/%c0%af", "/api/v1/properties/%e0%80%af", "/api/v1/properties/%uff0f", "/api/v1/properties\\1",
    "/api/v1/properties/.%2e/leads", "/api/v1/properties/%ef%bc%8f", "/files/..%2f..%2fjwt_secret_key",
    "/files/%2e%2e/%2e%2e/jwt_secret_key", "/files/" + "A" * 20_000, "/t/o/%00", "/t/c/" + "%41" * 5000, "/t/u/..",
    "/docs/../jwt_secret_key", "/docs/%2e%2e/settings.py", "/static/..%2f..%2fsettings.py", "/dev/outbox/..%2f..",
    "%2fapi", "*", "?page=1", "@x.test/", "\\", "api/v1/properties", "//",
    "/" + "a/" * 3000, "/api/v1/" + "../" * 2000, "/%" * 1000,
)  # fmt: skip


async def test_no_spelling_of_a_path_leads_elsewhere(api: Api, admin: Client, raw: RawClient) -> None:
    secret = api.settings.jwt_secret_key.encode()
    for path in PATHS:
        for method in ("GET", "POST", "DELETE"):
            answer = check(await raw.request(method, path, dict(admin.headers), b"{}"))
            assert secret not in answer.body and b"import annotations" not in answer.body
            assert answer.status in (200, 400, 404, 405, 413, 414, 415, 422), (method, path[:60], answer.status)
            # Only what is another way of writing the list's own path may be the list, and of the start page, that.
            is_page = str(answer.header("content-type")).startswith("text/html")
            assert answer.status != 200 or (path in ("//", "*") if is_page else answer.json()["items"] is not None), (
                path
            )


# --- forms -------------------------------------------------------------------------------------------------------

B = b"----x"
NAMES = (
    b'form-data; name="file"; filename="../../etc/passwd"', b'form-data; name="file"; filename="a\\"b.png"',
    b"form-data; name=file; filename=a.png", b'form-data; name="file"; filename=""',
    b'form-data; name="file"; filename="' + "\U0001f600".encode() + b'"', b'form-data; name="file"; filename="\xff"',
    b"form-data; name=\"file\"; filename*=UTF-8''%ff%00", b"form-data; name=\"file\"; filename*=no-such''a",
    b"form-data; name*=UTF-8''file; filename=a", b'form-data; name="fi\x00le"; filename="a"',
    b'form-data; filename="a"',
    b'form-data; name=""; filename="a"', b'attachment; name="file"; filename="a"', b"form-data", b"", b";;;", b"=",
    b'form-data; name="file"; filename="' + b"a" * 3000 + b'"', b'form-data; name="file"; name="title"; filename="a"',
    b'form-data; name="file"; filename="a"; filename="b"', b'FORM-DATA; NAME="file"; FILENAME="a.png"',
    b'form-data; name="file%0D%0AX: y"; filename="a"', b'form-data; name="file"; filename="a\rb"',
)  # fmt: skip


MORE = (
    b"", b"Content-Transfer-Encoding: base64\r\n", b"Content-Type: multipart/mixed; boundary=y\r\n",
    b"Content-Type: text/plain; charset=utf-7\r\n", b"Content-Disposition: form-data; name=title\r\n",
)  # fmt: skip


async def test_no_name_in_a_form_breaks_the_service(admin: Client, raw: RawClient) -> None:
    address = {"address": "1 Main St", "city": "A", "state": "B", "zip_code": "1", "property_type": "land"}
    house = (await admin.post("/properties", json=address))["id"]
    path, kind = f"/api/v1/properties/{house}/images", b"multipart/form-data; boundary=" + B
    for name in NAMES:
        for more in MORE:
            head = b"--" + B + b"\r\nContent-Disposition: " + name + b"\r\n" + more + b"\r\n"
            data = head + picture() + b"\r\n--" + B + b"--\r\n"
            answer = check(await raw.request("POST", path, {**admin.headers, "Content-Type": kind}, data))
            assert answer.status in (201, 400, 415, 422), (name[:60], answer.status)


BOUNDARIES = (
    b"", b'""', b" ", b"a" * 70, b"a" * 71, b'"a b"', b'"a "', b"a;b", b'"a', b"a\xff", b'"\xc3\xa4"', b"a\x00b", b"--",
    b"a; boundary=b", b"b; boundary=a", b"a, b", b"'a'", b"a/b", b"(a)", b"a%0d%0ab", b"*", b"a; charset=utf-16",
)  # fmt: skip


async def test_no_boundary_breaks_the_service(admin: Client, raw: RawClient) -> None:
    address = {"address": "1 Main St", "city": "A", "state": "B", "zip_code": "1", "property_type": "land"}
    house = (await admin.post("/properties", json=address))["id"]
    for boundary in BOUNDARIES:
        for name in (b"boundary=", b"BOUNDARY=", b"boundary =", b"boundary*="):
            line = boundary.strip(b'"')
            part = b'\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + picture() + b"\r\n--"
            data = b"--" + line + part + line + b"--\r\n"
            headers = {**admin.headers, "Content-Type": b"multipart/form-data; " + name + boundary}
            answer = check(await raw.request("POST", f"/api/v1/properties/{house}/images", headers, data))
            assert answer.status in (201, 400, 415), (boundary, answer.status)


# --- signatures --------------------------------------------------------------------------------------------------

# A field's value may hold any byte but these.
VALUE = st.binary(max_size=30).map(lambda data: data.translate(None, b"\r\n\x00"))
STAMP = VALUE | st.sampled_from((b"0", b"-1", b"NaN", b"1e9", b"9" * 5000, b"\xd9\xa1", b"\xb2", b"1_0", b"+1", b" "))
SIGNATURE = VALUE | st.sampled_from(
    (b"v1,", b"v1", b"v1,====", b"v1," + b"A" * 44, b"v2,x v1,y", b"\xff", b"v1,\xc3\xa9")
)
REPORT = json.dumps({"bounces": [{"message_id": "<x@y>", "type": "bounce"}]}).encode()


def signed(report_id: bytes, stamp: bytes, data: bytes) -> bytes:
    return b"v1," + b64encode(hmac.digest(SECRET.encode(), report_id + b"." + stamp + b"." + data, "sha256"))


@pytest.mark.property
@fuzz(100)
@given(report_id=VALUE, stamp=STAMP, signature=SIGNATURE, data=st.just(REPORT) | st.binary(max_size=30))
@example(report_id=b"\xff", stamp=b"1", signature=b"v1,x", data=REPORT)
@example(report_id=b"a", stamp=b"\xff", signature=b"v1,\xff", data=REPORT)
def test_only_what_is_signed_is_taken(
    loop: asyncio.AbstractEventLoop, raw: RawClient, report_id: bytes, stamp: bytes, signature: bytes, data: bytes
) -> None:
    """Whatever the three headers hold, it is 401, also where the signature would be right over an old or odd time."""

    def send(given_id: bytes, given_stamp: bytes, given_signature: bytes) -> int:
        headers: dict[str, Any] = {
            "webhook-id": given_id, "webhook-timestamp": given_stamp, "webhook-signature": given_signature
        }  # fmt: skip
        return check(loop.run_until_complete(raw.request("POST", "/bounces/generic", headers, data))).status

    now = str(int(time.time())).encode()
    assert send(report_id, stamp, signature) == 401
    assert send(report_id, now, signature) == 401
    assert send(b"id", stamp, signed(b"id", stamp, data)) == 401
    assert send(b"id", now, signature + b" " + signed(b"id", now, data)) == (200 if data == REPORT else 400)


async def test_the_service_still_stands(api: Api, admin: Client) -> None:
    assert (await api.http.get("/ready")).status_code == 200
    assert await admin.get("/auth/me")
