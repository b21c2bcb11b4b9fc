"""What recipients do with campaign mails, by the links that the mails themselves held; and what providers report."""

from __future__ import annotations

import asyncio
import hmac
import json
import re
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass
from email.message import EmailMessage
from html import unescape
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from api import Api, Client, served_api
from conftest import TestDatabase
from crm import add_lead, audited
from event_streams import until
from job_queue import running_worker
from mail_sink import MailSink
from test_campaign_sending import add_campaign, assert_counters_equal_rows, recipients, send, until_status

pytestmark = pytest.mark.integration

SECRET = "a secret of the provider"
TARGET = "https://example.com/a b/ü?x=1&y={{email}}#z"
CONTENT = f'<p>Dear {{{{first_name}}}}</p><a href="{TARGET}">Look</a> <a href="mailto:x@example.com">Write</a>'


@dataclass
class Mailing:
    """A campaign that was sent to one lead, and the mail as it came in."""

    api: Api
    admin: Client
    path: str
    message: EmailMessage

    @property
    def html(self) -> str:
        part = self.message.get_body(("html",))
        assert part is not None
        return str(part.get_content())

    def link(self, kind: str) -> str:
        """The path of the first link of a kind: o, c or u."""
        found = re.search(f'"{re.escape(self.api.settings.base_url)}(/t/{kind}/[^"]+)"', self.html)
        assert found is not None, self.html
        return unescape(found.group(1))

    async def recipient(self) -> dict[str, Any]:
        (row,) = await recipients(self.admin, self.path)
        return row

    async def campaign(self) -> dict[str, Any]:
        found: dict[str, Any] = await self.admin.get(self.path)
        return found


@pytest.fixture(scope="module")
async def sink() -> AsyncIterator[MailSink]:
    async with MailSink() as sink:
        yield sink


@pytest.fixture(scope="module")
async def api(database: TestDatabase, sink: MailSink, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    directory: Path = tmp_path_factory.mktemp("data")
    settings = {"smtp_host": "127.0.0.1", "smtp_port": sink.port, "bounce_secret": SECRET}
    async with served_api(database, directory, **settings) as api, running_worker(api.settings):
        yield api


@pytest.fixture
async def mailing(api: Api, sink: MailSink) -> Mailing:
    admin = await api.register()
    await add_lead(admin, first_name="Ann", email=f"Ann{admin.organization_id}@example.com")
    path = await add_campaign(admin, content=CONTENT)
    await send(admin, path)
    await until_status(admin, path, "completed")
    mail = await sink.find(lambda mail: mail.recipient == f"Ann{admin.organization_id}@example.com")
    return Mailing(api, admin, path, mail.message)


# Opening and clicking


async def test_an_opening_is_counted_once(api: Api, mailing: Mailing) -> None:
    path = mailing.link("o")
    assert (await api.http.head(path)).status_code == 200
    assert (await mailing.recipient())["opened_at"] is None, "HEAD does not count"
    response = await api.http.get(path)
    assert (response.status_code, response.headers["content-type"]) == (200, "image/gif")
    assert response.content.startswith(b"GIF89a")
    assert response.headers["cross-origin-resource-policy"] == "cross-origin"
    assert "no-store" in response.headers["cache-control"]
    opened = (await mailing.recipient())["opened_at"]
    assert opened is not None
    await api.http.get(path)
    assert (await mailing.recipient())["opened_at"] == opened
    assert (await mailing.campaign())["opened_count"] == 1
    await assert_counters_equal_rows(mailing.admin, mailing.path)


async def test_a_click_leads_to_what_the_mail_contained(api: Api, mailing: Mailing) -> None:
    path = mailing.link("c")
    email = f"Ann{mailing.admin.organization_id}@example.com"
    assert f'"https://example.com/a b/ü?x=1&y={email}#z"' not in unescape(mailing.html)
    assert "mailto:x@example.com" in mailing.html, "only web addresses are counted"
    assert (await api.http.head(path)).status_code == 302
    assert (await mailing.recipient())["clicked_at"] is None
    response = await api.http.get(path)
    assert response.status_code == 302
    assert response.headers["location"] == f"https://example.com/a%20b/%C3%BC?x=1&y={email}#z"
    row = await mailing.recipient()
    assert row["clicked_at"] is not None
    assert row["opened_at"] is not None, "who clicks has opened"
    campaign = await mailing.campaign()
    assert (campaign["clicked_count"], campaign["opened_count"]) == (1, 1)
    await mailing.admin.delete(mailing.path)
    assert (await api.http.get(path)).status_code == 302, "links of mails that are out go on working"


async def test_a_token_is_good_for_its_purpose_alone(api: Api, mailing: Mailing) -> None:
    tokens = {kind: mailing.link(kind).rpartition("/")[2] for kind in "ocu"}
    for kind, token in tokens.items():
        others = [other for name, other in tokens.items() if name != kind]
        for wrong in [*others, "x", token[:-1], token + "A", token[::-1], "%00", "A" * 4000, "preview"]:
            for method in ("GET", "HEAD"):
                response = await api.http.request(method, f"/t/{kind}/{wrong}")
                assert response.status_code == 404, (kind, wrong)
    assert (await api.http.post(f"/t/u/{tokens['o']}")).status_code == 404
    row = await mailing.recipient()
    assert (row["opened_at"], row["clicked_at"], row["unsubscribed_at"]) == (None, None, None)


# Unsubscribing


async def test_a_page_asks_and_a_post_unsubscribes(api: Api, mailing: Mailing) -> None:
    path = mailing.link("u")
    page = await api.http.get(path)
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert '<form method="post">' in page.text
    assert "form-action 'self'" in page.headers["content-security-policy"]
    assert (await mailing.recipient())["unsubscribed_at"] is None, "a GET changes nothing"
    done = await api.http.post(path)
    assert done.status_code == 200
    assert "You are unsubscribed" in done.text
    assert "You are unsubscribed" in (await api.http.get(path)).text
    assert (await mailing.recipient())["unsubscribed_at"] is not None
    assert (await mailing.campaign())["unsubscribed_count"] == 1
    (suppression,) = (await mailing.admin.get("/suppressions"))["items"]
    assert (suppression["email"], suppression["reason"], suppression["created_by"]) == (
        f"Ann{mailing.admin.organization_id}@example.com",
        "unsubscribed",
        None,
    )
    await api.http.post(path)
    assert len(await audited(api, mailing.admin, "suppression")) == 1
    again = await add_campaign(mailing.admin)
    sent = await send(mailing.admin, again)
    assert (sent["suppressed_count"], sent["total_recipients"]) == (1, 1)


async def test_one_click_works_as_rfc_8058_has_it(api: Api, mailing: Mailing) -> None:
    assert mailing.message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    url = mailing.message["List-Unsubscribe"].strip("<>")
    path = url.removeprefix(api.settings.base_url)
    content = {"List-Unsubscribe": "One-Click"}
    async with httpx.AsyncClient(base_url=api.url, verify=False) as stranger:
        assert (await stranger.post(path, data=content)).status_code == 200
    assert (await mailing.recipient())["unsubscribed_at"] is not None
    files = {"List-Unsubscribe": (None, "One-Click")}
    assert (await api.http.post(path, files=files)).status_code == 200


async def test_headers_are_whole_in_the_mail_as_it_was_sent(
    fresh_database: TestDatabase, tmp_path: Path, sink: MailSink
) -> None:
    """A long address must not be cut up or encoded: nobody decodes it there."""
    url = "https://campaigns." + "a-long-company-name." * 4 + "example.com/below/a/path"
    settings = {"smtp_host": "127.0.0.1", "smtp_port": sink.port, "public_url": url}
    async with served_api(fresh_database, tmp_path, **settings) as api, running_worker(api.settings):
        admin = await api.register()
        await add_lead(admin, email="long@example.com")
        path = await add_campaign(admin)
        await send(admin, path)
        await until_status(admin, path, "completed")
    raw = (await sink.find(lambda mail: mail.recipient == "long@example.com")).raw
    assert re.search(rb"\r\nList-Unsubscribe: <" + re.escape(url.encode()) + rb"/t/u/[A-Za-z0-9_-]+>\r\n", raw)
    assert re.search(rb"\r\nMessage-ID: <[A-Za-z0-9_-]+@localhost>\r\n", raw)


# Bounces


def signed(content: Any, *, secret: bytes = SECRET.encode(), at: float | None = None, **headers: str) -> dict[str, Any]:
    """The options of a request with a report."""
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    timestamp = str(int(time.time() if at is None else at))
    digest = hmac.digest(secret, f"r1.{timestamp}.".encode() + data, "sha256")
    sent = {
        "Content-Type": "application/json",
        "webhook-id": "r1",
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1,AAAA v1,{b64encode(digest).decode()}",
    }
    return {"content": data, "headers": sent | {name.replace("_", "-"): value for name, value in headers.items()}}


def report(mailing: Mailing, **fields: Any) -> dict[str, Any]:
    return {"bounces": [{"message_id": mailing.message["Message-ID"], "type": "bounce"} | fields]}


async def test_a_bounce_is_the_end_of_a_mail(api: Api, mailing: Mailing) -> None:
    response = await api.http.post("/bounces/generic", **signed(report(mailing, reason="550 no such user")))
    assert (response.status_code, response.json()) == (200, {"accepted": 1})
    row = await mailing.recipient()
    assert (row["status"], row["error_message"]) == ("bounced", "550 no such user")
    assert row["bounced_at"] is not None
    campaign = await mailing.campaign()
    assert (campaign["sent_count"], campaign["delivered_count"], campaign["bounced_count"]) == (1, 0, 1)
    (suppression,) = (await mailing.admin.get("/suppressions"))["items"]
    assert suppression["reason"] == "bounced"
    assert (await api.http.post("/bounces/generic", **signed(report(mailing)))).json() == {"accepted": 1}
    await assert_counters_equal_rows(mailing.admin, mailing.path)


async def test_a_bounce_tells_what_became_of_an_unknown_mail(api: Api, mailing: Mailing) -> None:
    row = await mailing.recipient()
    await api.value("update campaign_recipients set status = 'unknown', sent_at = null where id = $1", row["id"])
    assert (await mailing.campaign())["unknown_count"] == 1
    await api.http.post("/bounces/generic", **signed(report(mailing)))
    assert (await mailing.recipient())["sent_at"] is not None
    campaign = await mailing.campaign()
    assert (campaign["unknown_count"], campaign["sent_count"], campaign["bounced_count"]) == (0, 1, 1)
    await assert_counters_equal_rows(mailing.admin, mailing.path)


async def test_a_complaint_suppresses_and_what_is_not_permanent_does_nothing(api: Api, mailing: Mailing) -> None:
    soft = report(mailing, is_permanent=False)
    assert (await api.http.post("/bounces/generic", **signed(soft))).json() == {"accepted": 0}
    assert (await mailing.recipient())["status"] == "sent"
    complaint = report(mailing, type="complaint")
    complaint["bounces"].append({"message_id": "<of-somebody-else@example.com>", "type": "bounce"})
    assert (await api.http.post("/bounces/generic", **signed(complaint))).json() == {"accepted": 1}
    row = await mailing.recipient()
    assert row["status"] == "sent"
    assert row["unsubscribed_at"] is not None
    assert [item["reason"] for item in (await mailing.admin.get("/suppressions"))["items"]] == ["complained"]


async def test_who_has_asked_not_to_be_written_to_has_more_than_bounced(api: Api, mailing: Mailing) -> None:
    """That mails bounce keeps nobody out of a letter; that somebody wants none does, whichever came first."""

    async def reasons() -> list[str]:
        return [item["reason"] for item in (await mailing.admin.get("/suppressions"))["items"]]

    bounce, complaint = (signed(report(mailing, type=kind)) for kind in ("bounce", "complaint"))
    await api.http.post("/bounces/generic", **bounce)
    assert await reasons() == ["bounced"]
    page = await api.http.get(mailing.link("u"))
    assert '<form method="post">' in page.text, "nobody has unsubscribed yet"
    assert "You are unsubscribed" in (await api.http.post(mailing.link("u"))).text
    assert await reasons() == ["unsubscribed"]
    (suppression,) = (await mailing.admin.get("/suppressions"))["items"]
    assert await audited(api, mailing.admin, "suppression") == [
        ("update", "suppression", suppression["id"], {"reason": ["bounced", "unsubscribed"]})
    ]
    assert "You are unsubscribed" in (await api.http.get(mailing.link("u"))).text
    for later in (complaint, bounce):
        await api.http.post("/bounces/generic", **later)
        assert await reasons() == ["unsubscribed"]
    await mailing.admin.delete(f"/suppressions/{suppression['id']}")
    for later in (bounce, complaint, bounce):
        await api.http.post("/bounces/generic", **later)
    assert await reasons() == ["complained"]


async def test_a_report_of_one_address_in_two_campaigns_keeps_the_complaint(api: Api, mailing: Mailing) -> None:
    path = await add_campaign(mailing.admin)
    await send(mailing.admin, path)
    await until_status(mailing.admin, path, "completed")
    (again,) = await recipients(mailing.admin, path)
    message_id = await api.value("select message_id from campaign_recipients where id = $1", again["id"])
    both = report(mailing)["bounces"] + [{"message_id": message_id, "type": "complaint"}]
    assert (await api.http.post("/bounces/generic", **signed({"bounces": both}))).json() == {"accepted": 2}
    assert [item["reason"] for item in (await mailing.admin.get("/suppressions"))["items"]] == ["complained"]


@pytest.mark.auth
async def test_a_report_has_to_be_signed(api: Api, mailing: Mailing) -> None:
    content = report(mailing)
    now = time.time()
    for options in (
        {"json": content},
        signed(content, secret=b"another"),
        signed(content, at=now - 400),
        signed(content, at=now + 400),
        signed(content, webhook_id="other"),
        signed(content, webhook_id=""),
        signed(content, webhook_timestamp="now"),
        signed(content, webhook_signature="v1,"),
        {**signed(content), "content": b"{}"},
    ):
        response = await api.http.post("/bounces/generic", **options)
        assert (response.status_code, response.json()["error"]["type"]) == (401, "InvalidTokenError")
    assert (await mailing.recipient())["status"] == "sent"
    assert (await api.http.post("/bounces/mailgun", **signed(content))).status_code == 404
    assert (await api.http.get("/bounces/generic")).status_code == 405


async def test_a_report_is_checked(api: Api, mailing: Mailing) -> None:
    for content, status in (
        (b"", 400),
        (b"[]", 400),
        (b"\xff", 400),
        ({}, 422),
        ({"bounces": []}, 422),
        (report(mailing, type="other"), 422),
        (report(mailing, reason="\x00"), 422),
        (report(mailing, message_id=""), 422),
        ({"bounces": [{"message_id": "<a@b>", "type": "bounce"}] * 1001}, 422),
    ):
        assert (await api.http.post("/bounces/generic", **signed(content))).status_code == status, content
    large = signed(b" " * (api.settings.max_body_bytes + 1))
    assert (await api.http.post("/bounces/generic", **large)).status_code == 413


async def test_without_a_secret_no_bounces_are_taken(fresh_database: TestDatabase, tmp_path: Path) -> None:
    async with served_api(fresh_database, tmp_path) as api:
        response = await api.http.post("/bounces/generic", **signed({"bounces": []}, secret=b""))
        assert response.status_code == 404


# Beside the job that sends


@pytest.mark.parametrize("what", ["o", "c", "u", "bounce", "complaint"])
async def test_what_recipients_do_waits_for_the_campaign_before_it_takes_them(
    api: Api, mailing: Mailing, what: str
) -> None:
    """The job locks the campaign and then its recipients. Who did it the other way round would meet it half-way."""
    conn = await asyncpg.connect(api.owner_dsn)
    try:
        await conn.execute("set role reos_owner; begin")
        recipient_id = (await mailing.recipient())["id"]
        campaign_id = int(mailing.path.rpartition("/")[2])
        await conn.execute("select from campaigns where id = $1 for no key update", campaign_id)
        asking = asyncio.create_task(_do(api, mailing, what))
        await until(lambda: _is_waiting(conn))
        await conn.execute("update campaign_recipients set attempts = attempts where id = $1", recipient_id)
        await conn.execute("commit")
        assert (await asking).status_code in (200, 302)
    finally:
        await conn.close()
    row = await mailing.recipient()
    name = {"o": "opened_at", "c": "clicked_at", "bounce": "bounced_at"}.get(what, "unsubscribed_at")
    assert row[name] is not None
    await assert_counters_equal_rows(mailing.admin, mailing.path)


async def _do(api: Api, mailing: Mailing, what: str) -> httpx.Response:
    if what == "u":
        return await api.http.post(mailing.link("u"))
    if what in ("o", "c"):
        return await api.http.get(mailing.link(what))
    return await api.http.post("/bounces/generic", **signed(report(mailing, type=what)))


async def _is_waiting(conn: asyncpg.Connection) -> bool:
    return bool(await conn.fetchval("select count(*) from pg_locks where not granted"))
