"""Exports: CSV that any reader takes and no spreadsheet runs, complete, page by page, and without holding anything."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import logging
import re
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
from api import Api, Client
from crm import add_deal, add_lead, add_property, audited
from event_streams import change, until
from loguru import logger
from raw_http import Line

from reos.db import begin_tenant
from reos.handlers import exports
from reos.queries import deals, leads, properties
from reos.queries.listing import FEW_ROWS, PageRequest

pytestmark = pytest.mark.integration

# Path, resource in the audit log, name of the file.
EXPORTS = [
    ("/properties/export", "property", "properties"),
    ("/leads/export", "lead", "leads"),
    ("/deals/export", "deal", "deals"),
    ("/analytics/revenue/export", "transaction", "revenue"),
]
PATHS = [path for path, _, _ in EXPORTS]


async def export(client: Client, path: str, **params: Any) -> list[dict[str, str]]:
    """The rows of an export."""
    response = await client.request("GET", path, params=params)
    assert response.status_code == 200, response.text
    return list(csv.DictReader(io.StringIO(response.content.decode(), newline=""), strict=True))


async def listed(client: Client, path: str, **params: Any) -> list[dict[str, Any]]:
    """The items of all pages of a list."""
    items: list[dict[str, Any]] = []
    while True:
        page = await client.get(path, params={**params, "skip": len(items), "limit": 100})
        items += page["items"]
        if not page["has_more"]:
            return items


def cell(value: Any) -> str:
    """A value of the API's JSON as it stands in a cell, formulas aside."""
    if value is None:
        return ""
    return json.dumps(value) if isinstance(value, dict | list) else str(value)


# --- the form ----------------------------------------------------------------------------------------------------

NASTY = ['say "hi", please', "two\nlines", "a\ttab", ",", '"', "Größe 漢字 🏠", "semi;colon", "'quoted'", " x ", "null"]


async def test_rows_are_the_items_of_the_list(api: Api) -> None:
    admin = await api.register()
    for number, text in enumerate(NASTY):
        house = await add_property(
            admin,
            address="12 Oak, Street",
            description=text,
            latitude=-30.25 - number,
            longitude=-97.7430608,
            bathrooms=2.5,
            price="1234567.80" if number % 2 else None,
            features=[text.strip().replace("\n", " ").replace("\t", " "), "b"],
            metadata={"a": [1, None, {text: text}], "b": 1.5},
        )
        lead = await add_lead(admin, notes=text, company="Smith, Jones & Co", score=number, metadata={text: True})
        deal = await add_deal(
            admin, house["id"], lead_id=lead["id"], notes=text, commission_rate="2.5", expected_close_date="2026-12-01"
        )
        body = {"transaction_type": "expense", "amount": "-12.50", "transaction_date": "2026-03-04"}
        await admin.post(f"/deals/{deal['id']}/transactions", json=body | {"description": text})
    for path in ("/properties", "/leads", "/deals"):
        items = await listed(admin, path)
        rows = await export(admin, f"{path}/export")
        assert len(items) == len(NASTY)
        for row, item in zip(rows, items, strict=True):
            assert list(row) == [name for name in item if name != "distance_km"]
            assert plain(row) == {name: plain_value(value) for name, value in item.items() if name != "distance_km"}

    rows = await export(admin, "/analytics/revenue/export")
    assert [row["amount"] for row in rows] == ["-12.50"] * len(NASTY)
    assert {row["description"] for row in rows} == {text.strip() for text in NASTY}
    assert {(row["deal_type"], row["transaction_date"]) for row in rows} == {("sell", "2026-03-04")}


def plain(row: dict[str, str]) -> dict[str, Any]:
    """A row whose JSON is parsed, so that the spaces in it do not matter."""
    return {name: json.loads(text) if name in ("metadata", "features") else text for name, text in row.items()}


def plain_value(value: Any) -> Any:
    return value if isinstance(value, dict | list) else cell(value)


@pytest.mark.parametrize("path", PATHS)
async def test_the_form_is_that_of_rfc_4180(api: Api, path: str) -> None:
    admin = await api.register()
    house = await add_property(admin, description='two\nlines, "quoted"')
    lead = await add_lead(admin, notes='two\nlines, "quoted"')
    deal = await add_deal(admin, house["id"], lead_id=lead["id"], notes='two\nlines, "quoted"')
    body = {"transaction_type": "sale", "amount": "1", "transaction_date": "2026-03-04"}
    await admin.post(f"/deals/{deal['id']}/transactions", json=body | {"description": 'two\nlines, "quoted"'})

    response = await admin.request("GET", path)
    assert response.headers["Content-Type"] == "text/csv; charset=utf-8"
    text = response.content.decode("utf-8")
    assert '"two\nlines, ""quoted"""' in text
    # Lines end in CRLF, the last one too; what is between quotes is no end of a line.
    lines = re.sub(r'"[^"]*"', "", text).split("\r\n")
    assert lines[-1] == ""
    assert len(lines) == 3
    assert not any("\n" in line or "\r" in line for line in lines)
    assert len({line.count(",") for line in lines[:-1]}) == 1


@pytest.mark.parametrize("path", PATHS)
async def test_an_empty_export_has_its_header(api: Api, path: str) -> None:
    response = await (await api.register()).request("GET", path)
    assert response.text.startswith("id,")
    assert response.text.count("\r\n") == 1


FORMULAS = ["=1+1", "+1 555 0100", "-1", "@sum(a1)", "＝1", "－1", "=HYPERLINK(\"http://x\",\"y\")", "-"]  # fmt: skip


async def test_no_cell_is_a_formula(api: Api) -> None:
    """Also what could not have come in by the API: texts that begin with a tab or an end of a line."""
    admin = await api.register()
    for text in FORMULAS:
        await add_property(admin, address=text, description=text)
    house = await add_property(admin, latitude=-1, longitude=-0.5)
    for text in ("\t=1", "\r=1", "\n=1"):
        await api.fetch("update properties set description = $2 where id = $1", house["id"], text)
        (row,) = await export(admin, "/properties/export", search="12 Oak")
        assert row["description"] == f"'{text}"
        assert (row["latitude"], row["longitude"]) == ("-1.0", "-0.5")
    rows = await export(admin, "/properties/export", sort="created_at")
    assert [row["address"] for row in rows[:-1]] == [f"'{text}" for text in FORMULAS]
    assert [row["description"] for row in rows[:-1]] == [f"'{text}" for text in FORMULAS]


# --- which rows --------------------------------------------------------------------------------------------------


FILL = (
    """
    insert into properties (organization_id, address, city, state, zip_code, property_type, status, price, bedrooms,
        latitude, longitude, created_at, deleted_at)
    select $1, n || ' Main Street', 'City ' || n % 3, 'TX', '78701', 'condo', (array['available', 'sold'])[1 + n % 2],
        case when n % 4 > 0 then n % 7 end, nullif(n % 5, 0), 30 + n / 1000.0, -97.7, now() - n / 3 * interval '1 hour',
        case when n % 10 = 0 then now() end
    from generate_series(1, $2::int) n
    """,
    """
    insert into leads (organization_id, first_name, last_name, source, status, score, budget, created_at,
        last_contacted_at, deleted_at)
    select $1, 'First ' || n, 'Last ' || n % 9, 'website', (array['new', 'lost'])[1 + n % 2], n % 11,
        case when n % 4 > 0 then n % 7 end, now() - n / 3 * interval '1 hour',
        case when n % 3 > 0 then now() - n % 13 * interval '1 day' end, case when n % 10 = 0 then now() end
    from generate_series(1, $2::int) n
    """,
    """
    insert into deals (organization_id, property_id, deal_type, stage, value, probability, expected_close_date,
        created_at, deleted_at)
    select organization_id, id, 'sell', (array['lead', 'proposal'])[1 + n % 2], n % 7, n % 11,
        case when n % 3 > 0 then date '2027-01-01' + n % 5 end, now() - n / 3 * interval '1 hour',
        case when n % 10 = 0 then now() end
    from (select row_number() over (order by id)::int as n, * from properties where organization_id = $1) p
    where n <= $2
    """,
)


async def fill(api: Api, client: Client, number: int) -> None:
    """So many properties, leads and deals, alike in some columns and null in others; every tenth is deleted."""
    for statement in FILL:
        await api.fetch(statement, client.organization_id, number)


SELECTIONS: dict[str, list[dict[str, Any]]] = {
    "/properties": [
        {},
        {"search": "main 1"},
        {"search": "1"},
        {"city": "city 1", "status": "sold", "sort": "-price"},
        {"min_price": 2, "max_price": 5, "min_bedrooms": 2, "sort": "bedrooms,-price"},
        {"near": "30.01,-97.7", "radius_km": 4},
        {"near": "30.01,-97.7", "search": "main", "sort": "-distance"},
        {"updated_since": "2100-01-01"},
        *({"sort": name} for name in properties.LISTING.sort_keys if name != "distance"),
    ],
    "/leads": [
        {"status": "lost", "min_score": 3, "sort": "-score,last_name"},
        {"search": "first 1", "sort": "budget"},
        *({"sort": f"-{name}"} for name in leads.LISTING.sort_keys),
    ],
    "/deals": [
        {"stage": "lead", "min_value": 2, "sort": "-value"},
        {"search": "main 3"},
        *({"sort": name} for name in deals.LISTING.sort_keys),
    ],
}


@pytest.mark.parametrize("path", SELECTIONS)
async def test_rows_and_their_order_are_those_of_the_list(api: Api, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the size of the pages."""
    admin = await api.register()
    await fill(api, admin, 90)
    await fill(api, await api.register(), 20)
    for params in SELECTIONS[path]:
        expected = await listed(admin, path, **params)
        for rows, text in ((1000, 10**6), (7, 10**6), (1000, 1), (81, 10**6)):
            monkeypatch.setattr(exports, "PAGE_ROWS", rows)
            monkeypatch.setattr(exports, "PAGE_TEXT", text)
            found = await export(admin, f"{path}/export", **params)
            assert [int(row["id"]) for row in found] == [item["id"] for item in expected], (params, rows, text)
    if path == "/properties":
        near = {"near": "30.01,-97.7", "radius_km": "3"}
        found = await export(admin, "/properties/export", **near)
        assert [float(row["distance_km"]) for row in found] == [
            item["distance_km"] for item in await listed(admin, path, **near)
        ]


async def test_the_transactions_of_a_range(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    admin = await api.register()
    await admin.put("/organization", json={"settings": {"timezone": "Asia/Tokyo"}})
    kept, deleted = await add_deal(admin, deal_type="rental"), await add_deal(admin)
    days = ["2026-02-28", "2026-03-01", "2026-03-01", "2026-03-31", "2026-04-01"]
    for deal in (kept, deleted):
        for day in days:
            body = {"transaction_type": "deposit", "amount": "5", "transaction_date": day}
            await admin.post(f"/deals/{deal['id']}/transactions", json=body)
    await admin.delete(f"/deals/{deleted['id']}")
    for rows in (1000, 2):
        monkeypatch.setattr(exports, "PAGE_ROWS", rows)

        async def exported(**params: str) -> list[str]:
            found = await export(admin, "/analytics/revenue/export", **params)
            assert {row["deal_id"] for row in found} <= {str(kept["id"])}
            assert {row["deal_type"] for row in found} <= {"rental"}
            return [row["transaction_date"] for row in found]

        assert await exported() == days[::-1]
        assert await exported(start_date="2026-03-01", end_date="2026-03-31") == days[3:0:-1]
        # In Tokyo this is the first of April.
        assert await exported(start_date="2026-03-31T15:00:01Z") == days[4:]
        assert await exported(end_date="2020-01-01") == []


# --- who, and what is left of it ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "resource_type", "name"), EXPORTS)
async def test_an_export_is_audited_and_a_head_is_not(api: Api, path: str, resource_type: str, name: str) -> None:
    admin = await api.register()
    for zone in ("Pacific/Kiritimati", "Pacific/Pago_Pago"):  # Between the two it is always another day.
        await admin.put("/organization", json={"settings": {"timezone": zone}})
        got, head = await admin.request("GET", path), await admin.request("HEAD", path)
        today = datetime.now(ZoneInfo(zone)).date()
        assert got.headers["Content-Disposition"] == f'attachment; filename="{name}-{today}.csv"'
        assert (head.status_code, head.content) == (200, b"")
        assert told(head) == told(got)
        assert got.headers["Cache-Control"] == "private, no-store"
    assert await audited(api, admin, resource_type) == [("export", resource_type, None, {"rows": [None, 0]})] * 2


@pytest.mark.parametrize("path", PATHS)
async def test_a_head_leaves_no_complaint_and_its_connection_goes_on(
    api: Api, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    admin = await api.register()
    house = await add_property(admin)
    await add_lead(admin)
    deal = await add_deal(admin, house["id"])
    body = {"transaction_type": "sale", "amount": "1", "transaction_date": "2026-03-04"}
    await admin.post(f"/deals/{deal['id']}/transactions", json=body)
    complaints: list[str] = []
    number = logger.add(complaints.append, level="WARNING")
    caplog.clear()
    url = httpx.URL(api.url)
    line, writers = Line(url.host, url.port or 0), set()
    fields = "".join(f"{name}: {value}\r\n" for name, value in admin.headers.items())
    try:
        for method in ("HEAD", "HEAD", "GET", "HEAD", "GET"):
            request = f"{method} /api/v1{path} HTTP/1.1\r\nHost: x\r\n{fields}\r\n"
            answer = await line.exchange(request.encode(), is_head=method == "HEAD")
            assert (answer.status, answer.header("transfer-encoding")) == (200, "chunked")
            assert answer.body.count(b"\r\n") == (2 if method == "GET" else 0)
            writers.add(line.writer)
    finally:
        await line.close()
        logger.remove(number)
    assert len(writers) == 1
    # Sanic tells what it has met in the standard library's log.
    assert complaints + [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


def told(response: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name not in ("date", "x-request-id")}


async def test_the_audit_row_says_what_was_asked_for_and_how_many_rows_there_were(api: Api) -> None:
    admin = await api.register()
    for city in ("Austin", "Boston", "Austin"):
        await add_property(admin, city=city)
    await export(admin, "/properties/export", city="aus", max_price="600000", sort="-price")
    (*_, (action, resource_type, resource_id, changes)) = await audited(api, admin, "property")
    assert (action, resource_type, resource_id) == ("export", "property", None)
    assert changes == {
        "rows": [None, 2],
        "city": [None, "aus"],
        "max_price": [None, "600000.00"],
        "sort": [None, "-price"],
    }
    await export(admin, "/analytics/revenue/export", start_date="2026-01-01T00:00:00Z")
    assert await audited(api, admin, "transaction") == [
        ("export", "transaction", None, {"rows": [None, 0], "start_date": [None, "2026-01-01"]})
    ]


@pytest.mark.parametrize("path", PATHS)
async def test_refusals_come_before_the_first_byte(api: Api, path: str) -> None:
    admin = await api.register()
    for method in ("GET", "HEAD"):
        assert (await api.anonymous.request(method, path)).status_code == 401
        assert (await api.anonymous.request(method, path, params={"ticket": "x"})).status_code == 401
    agent = await api.add_user(admin, "Agent")
    error = await agent.error("GET", f"{path}?nonsense=1", status=403)
    assert error["details"] == {"required_permission": "report:export"}
    manager = await api.add_user(admin, "Manager")
    for query in ("nonsense=1", "page=1", "page_size=10", "cursor=x", "fields=id", "include_total=false", "%FF=1"):
        assert await manager.fields_refused("GET", f"{path}?{query}")
    if path == "/analytics/revenue/export":
        params = {"start_date": "2026-03-02", "end_date": "2026-03-01"}
        assert await manager.fields_refused("GET", path, params=params) == {"end_date": "date_range"}
    else:
        assert await manager.fields_refused("GET", path, params={"sort": "nonsense"}) == {"sort": "unknown_sort_key"}
        assert await manager.fields_refused("GET", path, params={"updated_since": "x"})
    if path == "/properties/export":
        assert await manager.fields_refused("GET", path, params={"sort": "distance"}) == {
            "sort": "distance_without_near"
        }
        assert await manager.fields_refused("GET", path, params={"near": "91,0"}) == {"near": "near"}
    assert [row["action"] for row in await api.audits(admin)] == ["denied"]
    assert (await manager.request("GET", path)).status_code == 200


async def test_an_export_passes_the_first_and_the_last_day(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    admin = await api.register()
    path = f"/deals/{(await add_deal(admin))['id']}/transactions"
    booked = []
    for day in ["0001-01-01"] * 5 + ["9999-12-31"] * 5:
        body = {"transaction_type": "sale", "amount": "1", "transaction_date": day}
        booked.append(str((await admin.post(path, json=body))["id"]))
    newest_first = booked[::-1]
    monkeypatch.setattr(exports, "PAGE_ROWS", 2)

    async def exported(**params: str) -> list[str]:
        # What goes wrong here has no end.
        async with asyncio.timeout(10):
            return [row["id"] for row in await export(admin, "/analytics/revenue/export", **params)]

    assert await exported() == newest_first
    assert await exported(start_date="9999-12-31", end_date="9999-12-31") == newest_first[:5]
    assert await exported(start_date="9999-12-31") == newest_first[:5]
    assert await exported(start_date="0001-01-01", end_date="0001-01-01") == newest_first[5:]
    assert await exported(end_date="0001-01-01") == newest_first[5:]


# --- large ones --------------------------------------------------------------------------------------------------

LARGE = 12_000  # properties
TEXT = 1000  # characters of each


@pytest.fixture(scope="module")
async def large(api: Api) -> Client:
    """An organisation with more than all buffers on the way hold."""
    admin = await api.register()
    await api.fetch(
        "insert into properties (organization_id, address, city, state, zip_code, property_type, description)"
        " select $1, n || ' Main Street', 'Austin', 'TX', '78701', 'condo', repeat('x', $3)"
        " from generate_series(1, $2::int) n",
        admin.organization_id,
        LARGE,
        TEXT,
    )
    return admin


@asynccontextmanager
async def stalled(api: Api, client: Client, path: str) -> AsyncIterator[asyncio.StreamReader]:
    """A connection whose client has asked for something, and takes no more of it than it has to."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    sock.setblocking(False)
    url = httpx.URL(api.url)
    await asyncio.get_running_loop().sock_connect(sock, (url.host, url.port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=65536)
    head = "".join(f"{name}: {value}\r\n" for name, value in client.headers.items())
    writer.write(f"GET /api/v1{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{head}\r\n".encode())
    try:
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
        yield reader
    finally:
        writer.close()


async def rest(reader: asyncio.StreamReader) -> tuple[int, bool]:
    """How many lines come, and whether the end of the chunked body does."""
    data = b""
    try:
        while part := await reader.read(65536):
            data += part
    except ConnectionError:
        pass  # Cut off: what matters is that the end is missing.
    return len(re.findall(rb" Main Street,", data)), data.endswith(b"0\r\n\r\n")


async def test_a_slow_client_holds_no_connection(api: Api, large: Client) -> None:
    async with AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(stalled(api, large, "/properties/export")) for _ in range(12)]
        await until(lambda: api.database.busy == 0)
        # They are more than there are connections, and all others are served.
        assert len(readers) > api.settings.db_pool_max
        assert (await large.get("/properties", params={"page_size": 1}))["total"] == LARGE
        assert await rest(readers[0]) == (LARGE, True)
    await until(lambda: api.database.busy == 0)


async def test_it_ends_with_the_session_and_the_client_can_tell(api: Api, large: Client) -> None:
    manager = await api.add_user(large, "Manager")
    async with stalled(api, manager, "/properties/export?sort=-price") as reader:
        await until(lambda: api.database.busy == 0)
        assert manager.account is not None
        await change(
            api.database,
            manager.account,
            "update sessions set revoked_at = now() where id = $1",
            manager.account.session_id,
        )
        lines, is_whole = await rest(reader)
        assert 0 < lines < LARGE
        assert not is_whole
    with pytest.raises(httpx.RemoteProtocolError):
        await cut_off(api, await api.add_user(large, "Manager"))


async def cut_off(api: Api, client: Client) -> None:
    """Read an export whose session ends after the first page."""
    assert client.account is not None
    async with client.http.stream("GET", "/api/v1/properties/export", headers=client.headers) as response:
        assert response.status_code == 200
        await change(
            api.database,
            client.account,
            "update sessions set revoked_at = now() where id = $1",
            client.account.session_id,
        )
        async for _ in response.aiter_bytes():
            pass


async def test_every_row_comes_once(api: Api, large: Client) -> None:
    rows = await export(large, "/properties/export")
    assert len({row["id"] for row in rows}) == len(rows) == LARGE
    assert {len(row["description"]) for row in rows} == {TEXT}
    changes = (await audited(api, large, "property"))[-1][3]
    assert changes == {"rows": [None, LARGE]}


async def test_a_page_ends_early_when_its_rows_are_long(api: Api) -> None:
    admin = await api.register()
    await api.fetch(
        "insert into leads (organization_id, first_name, last_name, source, metadata)"
        " select $1, 'Grace', 'Hopper', 'website', jsonb_build_object('text', repeat('x', 100000))"
        " from generate_series(1, 120)",
        admin.organization_id,
    )
    sort, sizes, after = (("created_at", True),), [], None
    begin = begin_tenant(admin.organization_id, read_only=True)
    while True:
        async with api.database.transaction(begin) as conn:
            page = PageRequest(exports.PAGE_ROWS, sort, after=after, include_total=False, max_text=exports.PAGE_TEXT)
            rows = await leads.list_leads(conn, page, {}, listing=leads.EXPORT)
        sizes.append(len(rows.items))
        if rows.last is None:
            break
        after = rows.last
    assert max(sizes) == FEW_ROWS
    assert sum(sizes) == 120
    assert len(await export(admin, "/leads/export")) == 120


async def test_what_changes_meanwhile_neither_stops_nor_doubles_rows(api: Api) -> None:
    """Rows that are made, changed and deleted while an export goes on; those that stay as they were come once."""
    admin = await api.register()
    await fill(api, admin, 3000)
    seen: list[str] = []
    async with admin.http.stream("GET", "/api/v1/leads/export", headers=admin.headers) as response:
        lines = response.aiter_lines()
        seen += [(await anext(lines)).split(",")[0] for _ in range(10)]
        await add_lead(admin)
        await api.fetch("update leads set score = 99 where organization_id = $1 and id % 2 = 0", admin.organization_id)
        await api.fetch("update leads set deleted_at = now() where id = $1", int(seen[5]))
        seen += [line.split(",")[0] async for line in lines]
    assert len(seen) == len(set(seen)) == 2701


async def test_times_are_utc(api: Api) -> None:
    admin = await api.register()
    lead = await add_lead(admin)
    at = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
    await api.fetch("update leads set last_contacted_at = $2 where id = $1", lead["id"], at)
    (row,) = await export(admin, "/leads/export")
    assert row["last_contacted_at"] == "2026-03-04T05:06:07Z"
    assert row["created_at"] == lead["created_at"]
    assert datetime.fromisoformat(row["created_at"]) > datetime.now(UTC) - timedelta(minutes=5)
