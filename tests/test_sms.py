"""Text messages: the providers against a real HTTP receiver, quiet hours, and campaigns that a real worker sends."""

from __future__ import annotations

import asyncio
import json
import socket
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from aiohttp import web
from api import Api, served_api
from conftest import TestDatabase
from crm import add_lead
from event_streams import make_settings
from job_queue import running_worker, until
from test_campaign_sending import add_campaign, assert_counters_equal_rows, recipients, send, until_status

from reos.errors import SMSServiceError
from reos.integrations.sms import (
    HttpTexter,
    OutboxTexter,
    TwilioTexter,
    make_texter,
    plain_number,
    quiet_until,
    zone_of,
)
from reos.settings import Settings, SettingsError


@dataclass
class Receiver:
    """A provider's HTTP service, which keeps what it is sent and answers as told."""

    url: str = ""
    status: int = 200
    answer: dict[str, Any] = field(default_factory=dict)
    hangs_up: bool = False
    requests: list[dict[str, Any]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        is_json = request.content_type == "application/json"
        content = await request.json() if is_json else dict(await request.post())
        self.requests.append(
            {"path": request.path, "authorization": request.headers.get("Authorization"), "content": content}
        )
        if self.hangs_up:
            assert request.transport is not None
            request.transport.abort()
        return web.json_response(self.answer, status=self.status)


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/{path:.*}", receiver.handle)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    sock = socket.create_server(("127.0.0.1", 0))
    receiver.url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    await web.SockSite(runner, sock).start()
    try:
        yield receiver
    finally:
        await runner.cleanup()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


def sms_settings(tmp_path: Path, **values: Any) -> Settings:
    return make_settings("postgresql://", tmp_path, **values)


async def failure(texter: Any) -> SMSServiceError:
    with pytest.raises(SMSServiceError) as caught:
        await texter.send("+15125550100", "Hello", "<r@x>")
    return caught.value


# Providers


@pytest.mark.integration
async def test_the_outbox_holds_whole_messages(tmp_path: Path) -> None:
    texter = make_texter(sms_settings(tmp_path))
    assert isinstance(texter, OutboxTexter)
    name = await texter.send("+1", "Grüße\n😀", "<r@x>")
    (path,) = (tmp_path / "outbox" / "sms").iterdir()
    assert path.name == f"{name}.json"
    assert json.loads(path.read_text()) == {"to": "+1", "text": "Grüße\n😀", "reference": "<r@x>"}
    assert path.stat().st_mode & 0o077 == 0
    await texter.close()


@pytest.mark.integration
async def test_twilio_is_spoken_to_as_its_api_says(tmp_path: Path, receiver: Receiver) -> None:
    settings = sms_settings(
        tmp_path, sms_provider="twilio", sms_api_key="AC1", sms_api_secret="token", sms_from_number="+15005550006",
        sms_api_url=receiver.url,
    )  # fmt: skip
    texter = make_texter(settings)
    assert isinstance(texter, TwilioTexter)
    receiver.status, receiver.answer = 201, {"sid": "SM123", "status": "queued"}
    assert await texter.send("+15125550100", "Hello & more", "<r@x>") == "SM123"
    assert receiver.requests == [
        {
            "path": "/2010-04-01/Accounts/AC1/Messages.json",
            "authorization": f"Basic {b64encode(b'AC1:token').decode()}",
            "content": {"To": "+15125550100", "From": "+15005550006", "Body": "Hello & more"},
        }
    ]
    receiver.status, receiver.answer = 400, {"code": 21211, "message": "The 'To' number is not valid."}
    error = await failure(texter)
    assert (error.message, error.temporary, error.concerns_recipient) == (
        "The SMS provider refused the message (400, 21211).",
        False,
        True,
    )
    await texter.close()


@pytest.mark.integration
async def test_any_http_service_takes_messages(tmp_path: Path, receiver: Receiver) -> None:
    settings = sms_settings(
        tmp_path, sms_provider="http", sms_api_url=f"{receiver.url}/messages", sms_api_key="key", sms_from_number="reos"
    )
    texter = make_texter(settings)
    assert isinstance(texter, HttpTexter)
    receiver.answer = {"id": 7}
    assert await texter.send("+1", "Hello", "<r@x>") == "7"
    assert receiver.requests == [
        {
            "path": "/messages",
            "authorization": "Bearer key",
            "content": {"to": "+1", "from": "reos", "text": "Hello", "reference": "<r@x>"},
        }
    ]
    for status, is_temporary, is_own, is_known in (
        (400, False, True, True),
        (401, True, False, True),
        (302, True, False, True),
        (429, True, False, True),
        (503, True, False, True),
    ):
        receiver.status = status
        error = await failure(texter)
        assert (error.temporary, error.concerns_recipient, not error.unknown) == (is_temporary, is_own, is_known), (
            status
        )
    receiver.hangs_up = True
    error = await failure(texter)
    assert (error.unknown, error.message) == (True, "The SMS provider did not answer.")
    await texter.close()


@pytest.mark.integration
async def test_an_answer_that_comes_in_pieces_is_read_to_its_end(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = b'{"id": "m1"}'
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
        for place in range(len(body)):
            writer.write(body[place : place + 1])
            await writer.drain()
            await asyncio.sleep(0)  # The client reads meanwhile.
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        texter = make_texter(sms_settings(tmp_path, sms_provider="http", sms_api_url=url))
        assert await texter.send("+1", "Hello", "<r@x>") == "m1"
        await texter.close()


@pytest.mark.unit
@pytest.mark.parametrize(
    ("phone", "number"),
    [
        ("+1 (512) 555-0100", "+15125550100"),
        ("(+1) 512 555 0100", "+15125550100"),
        ("512.555.0100", "5125550100"),
        ("5125550100 +7", "51255501007"),
    ],
)
def test_a_number_keeps_its_plus(phone: str, number: str) -> None:
    assert plain_number(phone) == number


@pytest.mark.integration
async def test_a_provider_that_is_away_has_taken_nothing(tmp_path: Path) -> None:
    async with receiving() as receiver:
        url = receiver.url
    texter = make_texter(sms_settings(tmp_path, sms_provider="http", sms_api_url=url))
    error = await failure(texter)
    assert (error.message, error.temporary, error.unknown) == ("The SMS provider could not be reached.", True, False)
    await texter.close()


@pytest.mark.unit
@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"sms_provider": "http"}, "SMS_API_URL"),
        ({"sms_provider": "twilio", "sms_api_secret": "x", "sms_from_number": "1"}, "SMS_API_KEY"),
        ({"sms_provider": "twilio", "sms_api_key": "x", "sms_from_number": "1"}, "SMS_API_SECRET"),
        ({"sms_provider": "twilio", "sms_api_key": "x", "sms_api_secret": "x"}, "SMS_FROM_NUMBER"),
    ],
)
def test_a_setting_that_is_missing_is_named(tmp_path: Path, values: dict[str, Any], name: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name}: "):
        make_texter(sms_settings(tmp_path, **values))


# Quiet hours


@pytest.mark.unit
@pytest.mark.parametrize(
    ("zone", "now", "until"),
    [
        ("UTC", "2026-03-04T08:00:00Z", None),
        ("UTC", "2026-03-04T20:59:59Z", None),
        ("UTC", "2026-03-04T21:00:00Z", "2026-03-05T08:00:00Z"),
        ("UTC", "2026-03-04T07:59:59Z", "2026-03-04T08:00:00Z"),
        ("UTC", "2026-03-04T00:00:00Z", "2026-03-04T08:00:00Z"),
        ("America/New_York", "2026-01-10T12:59:00Z", "2026-01-10T13:00:00Z"),
        ("America/New_York", "2026-01-10T13:00:00Z", None),
        ("America/New_York", "2026-03-08T03:00:00Z", "2026-03-08T12:00:00Z"),  # the clocks go forward meanwhile
        ("Asia/Tokyo", "2026-03-04T12:30:00Z", "2026-03-04T23:00:00Z"),
    ],
)
def test_quiet_hours_are_from_21_to_8_by_the_clock_there(zone: str, now: str, until: str | None) -> None:
    expected = None if until is None else datetime.fromisoformat(until)
    assert quiet_until(datetime.fromisoformat(now), ZoneInfo(zone)) == expected


@pytest.mark.unit
def test_what_is_no_time_zone_is_the_organisations() -> None:
    assert zone_of("Europe/Berlin", "UTC").key == "Europe/Berlin"
    for wrong in (None, "", "Mars/Base", "../../etc/passwd", "/etc/localtime", "x" * 1000, "Europe", "a b"):
        assert zone_of(wrong, "Asia/Tokyo").key == "Asia/Tokyo"
    assert zone_of("Mars/Base", "also none").key == "UTC"


def zone_where_it_is(hour: int) -> str:
    """A time zone where it is that hour now, more or less."""
    offset = (hour - datetime.now(UTC).hour + 12) % 24 - 12  # from -12 to 11
    return f"Etc/GMT{-offset:+d}" if offset else "Etc/UTC"


# Campaigns


@pytest.fixture
async def crm(fresh_database: TestDatabase, tmp_path: Path, receiver: Receiver) -> AsyncIterator[Api]:
    settings = {"sms_provider": "http", "sms_api_url": receiver.url, "sms_from_number": "reos"}
    async with served_api(fresh_database, tmp_path, **settings) as api:
        yield api


TEXT = {"campaign_type": "sms", "subject": None, "content": "Hi {{first_name}} & co <3"}


async def set_time_zone(admin: Any, zone: str) -> None:
    await admin.put("/organization", json={"settings": {"timezone": zone}})


@pytest.mark.integration
async def test_a_text_goes_once_to_each_number(crm: Api, receiver: Receiver) -> None:
    admin = await crm.register()
    await set_time_zone(admin, zone_where_it_is(12))
    await add_lead(admin, first_name="Ann", phone="+1 (512) 555-0100")
    await add_lead(admin, first_name="Twin", phone="1512-555-0100")
    await add_lead(admin, first_name="Bob", phone="+1 512 555 0101")
    await add_lead(admin, first_name="Cy", phone="none", email="cy@example.com")
    await admin.post("/suppressions", json={"phone": "15125550101"})
    receiver.answer = {"id": "m1"}
    path = await add_campaign(admin, **TEXT)
    async with running_worker(crm.settings):
        await send(admin, path)
        campaign = await until_status(admin, path, "completed")
    assert (campaign["sent_count"], campaign["suppressed_count"], campaign["total_recipients"]) == (1, 2, 3)
    (request,) = receiver.requests
    assert (request["content"]["to"], request["content"]["text"]) == ("+15125550100", "Hi Ann & co <3")
    await assert_counters_equal_rows(admin, path)


@pytest.mark.integration
async def test_nobody_is_woken(crm: Api, receiver: Receiver) -> None:
    """By the recipient's clock, or else by the organisation's."""
    admin = await crm.register()
    await set_time_zone(admin, zone_where_it_is(23))
    awake = await add_lead(admin, phone="1", metadata={"timezone": zone_where_it_is(12)})
    asleep = await add_lead(admin, phone="2", metadata={"timezone": zone_where_it_is(3)})
    unknown = await add_lead(admin, phone="3", metadata={"timezone": ["no", "zone"]})
    path = await add_campaign(admin, **TEXT)

    async def is_settled() -> bool:
        rows = {row["lead_id"]: row for row in await recipients(admin, path)}
        late = [rows[lead["id"]]["next_attempt_at"] for lead in (asleep, unknown)]
        return rows[awake["id"]]["status"] == "sent" and all(late)

    async with running_worker(crm.settings):
        await send(admin, path)
        await until(is_settled)
        assert [request["content"]["to"] for request in receiver.requests] == ["1"]
        rows = {row["lead_id"]: row for row in await recipients(admin, path)}
        for lead in (asleep, unknown):
            assert (rows[lead["id"]]["status"], rows[lead["id"]]["attempts"]) == ("pending", 0)
        at = datetime.fromisoformat(rows[asleep["id"]]["next_attempt_at"])
        assert at.astimezone(ZoneInfo(zone_where_it_is(3))).hour == 8
        assert (await admin.get(path))["status"] == "in_progress"

        async def job_waits() -> bool:
            jobs = (await admin.get("/jobs", params={"kind": "send_campaign", "state": "queued"}))["items"]
            return [datetime.fromisoformat(job["scheduled_at"]) for job in jobs] == [
                min(datetime.fromisoformat(rows[lead["id"]]["next_attempt_at"]) for lead in (asleep, unknown))
            ]

        await until(job_waits)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("prepare", "status", "message"),
    [
        (lambda r: setattr(r, "status", 400), "failed", "The SMS provider refused the message (400)."),
        (lambda r: setattr(r, "hangs_up", True), "unknown", "The SMS provider did not answer."),
    ],
)
async def test_what_became_of_a_text_is_kept(
    crm: Api, receiver: Receiver, prepare: Callable[[Receiver], None], status: str, message: str
) -> None:
    admin = await crm.register()
    await set_time_zone(admin, zone_where_it_is(12))
    await add_lead(admin, phone="1")
    prepare(receiver)
    path = await add_campaign(admin, **TEXT)
    async with running_worker(crm.settings):
        await send(admin, path)
        await until_status(admin, path, "completed")
    (row,) = await recipients(admin, path)
    assert (row["status"], row["error_message"]) == (status, message)
    assert len(receiver.requests) == 1
