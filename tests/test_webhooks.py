"""Webhooks with real receivers and a real worker: signatures, retries, rotation, and where they never go."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from api import Api, Client, served_api
from conftest import TestDatabase
from event_streams import until
from job_queue import running_worker
from test_properties import LISTING
from webhook_receiver import Receiver, is_signed, receiving

from reos.db import plain_transaction, tenant_transaction
from reos.integrations import webhooks as integration
from reos.integrations.webhooks import RefusedUrlError, WebhookClient, is_public
from reos.queries import events, webhooks

pytestmark = pytest.mark.integration


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


@pytest.fixture(scope="module")
async def local(database: TestDatabase, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    """A service whose webhooks may go to this machine, and come again at once."""
    settings: dict[str, Any] = {
        "webhook_allow_private": True,
        "webhook_retry_seconds": (0,),
        "webhook_max_attempts": 3,
    }
    async with served_api(database, tmp_path_factory.mktemp("data"), **settings) as api, running_worker(api.settings):
        yield api


async def subscribe(client: Client, receiver: Receiver, *types: str) -> dict[str, Any]:
    body = {"url": receiver.url, "event_types": list(types or ("property.created",))}
    webhook: dict[str, Any] = await client.post("/webhooks", json=body)
    return webhook


async def sweep(api: Api) -> None:
    """What `retry_failed_webhooks` does every ten seconds."""
    async with plain_transaction(api.database) as conn:
        due = await webhooks.list_due(conn, 100)
    for row in due:
        async with tenant_transaction(api.database, row["organization_id"]) as conn:
            await webhooks.wake(conn, [row["webhook_id"]])


async def delivery_of(api: Api, client: Client, webhook: dict[str, Any], status: str) -> dict[str, Any]:
    """The webhook's only delivery, once it stands so."""
    found: list[dict[str, Any]] = []

    async def stands() -> bool:
        await sweep(api)
        found[:] = (await client.get(f"/webhooks/{webhook['id']}/deliveries"))["items"]
        return [item["status"] for item in found] == [status]

    await until(stands)
    return found[0]


# --- the resource ----------------------------------------------------------------------------------------------


async def test_the_secret_is_shown_once(local: Api, receiver: Receiver) -> None:
    admin = await local.register()
    response = await admin.request("POST", "/webhooks", json={"url": receiver.url, "event_types": ["lead.created"]})
    created = response.json()
    secret = created.pop("secret")
    assert secret.startswith("whsec_")
    assert len(base64.b64decode(secret.removeprefix("whsec_"))) == 32
    read = await admin.request("GET", f"/webhooks/{created['id']}")
    assert read.json() == created
    assert read.headers["ETag"] == response.headers["ETag"]
    assert (await admin.get("/webhooks"))["items"] == [created]
    sealed = await local.value("select secret from webhook_secrets where webhook_endpoint_id = $1", created["id"])
    assert secret.encode() not in sealed
    assert not [row for row in await local.audits(admin) if secret in str(row["changes"])]


async def test_a_webhook_is_changed_and_deleted_for_good(local: Api, receiver: Receiver) -> None:
    admin = await local.register()
    webhook = await subscribe(admin, receiver)
    changed = await admin.patch(f"/webhooks/{webhook['id']}", json={"is_active": False, "description": "off"})
    assert (changed["is_active"], changed["description"]) == (False, "off")
    await admin.post("/properties", json=LISTING)
    assert (await admin.get(f"/webhooks/{webhook['id']}/deliveries"))["total"] == 0
    await admin.delete(f"/webhooks/{webhook['id']}")
    await admin.get(f"/webhooks/{webhook['id']}", status=404)
    assert [row["action"] for row in await local.audits(admin)] == ["create", "update", "create", "delete"]


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("event_types", [], "too_short"),
        ("event_types", ["lead.created", "lead.created"], "not_unique"),
        ("event_types", ["notification"], "enum"),
        ("event_types", ["campaign.progress"], "enum"),
        ("url", "ftp://example.com", None),
    ],
)
async def test_bad_fields(local: Api, field: str, value: Any, code: str | None) -> None:
    admin = await local.register()
    body = {"url": "https://example.invalid/hook", "event_types": ["lead.created"], field: value}
    ((name, found),) = (await admin.fields_refused("POST", "/webhooks", json=body)).items()
    assert name.startswith(field)
    assert code in (None, found)


# --- delivery --------------------------------------------------------------------------------------------------


async def test_an_event_arrives_signed(local: Api, receiver: Receiver) -> None:
    admin, stranger = await local.register(), await local.register()
    webhook = await subscribe(admin, receiver)
    await stranger.post("/properties", json=LISTING)
    created = await admin.post("/properties", json=LISTING)
    await admin.patch(f"/properties/{created['id']}", json={"price": "1.00"})  # nobody asked for that
    delivery = await delivery_of(local, admin, webhook, "delivered")
    ((path, headers, body),) = receiver.requests
    assert path == "/hook"
    assert headers["content-type"] == "application/json"
    assert headers["webhook-id"] == str(delivery["id"])
    assert is_signed(webhook["secret"], headers, body)
    assert not is_signed(webhook["secret"], headers, body + b" ")
    payload = json.loads(body)
    assert payload == delivery["payload"]
    assert (payload["type"], payload["data"]) == ("property.created", created)
    assert (delivery["attempts"], delivery["response_status"], delivery["response_body"]) == (1, 200, "thank you")
    assert delivery["next_attempt_at"] is None


async def test_a_rolled_back_change_sends_nothing(local: Api, receiver: Receiver) -> None:
    admin = await local.register()
    webhook = await subscribe(admin, receiver)

    class Rollback(Exception):
        pass

    event = events.Event(type="property.created", resource_type="property", resource_id=1, data={})
    with pytest.raises(Rollback):
        async with tenant_transaction(local.database, admin.organization_id) as conn:
            await events.record_changes(conn, [], [event])
            raise Rollback
    assert (await admin.get(f"/webhooks/{webhook['id']}/deliveries"))["total"] == 0


@pytest.mark.slow
async def test_failures_are_tried_again_under_the_same_id(local: Api, receiver: Receiver) -> None:
    admin = await local.register()
    webhook = await subscribe(admin, receiver)
    receiver.answer = lambda number: web.Response(status=500 if number < 3 else 204)
    await admin.post("/properties", json=LISTING)
    delivery = await delivery_of(local, admin, webhook, "delivered")
    assert delivery["attempts"] == 3
    assert receiver.ids() == [str(delivery["id"])] * 3


async def test_after_the_last_attempt_a_delivery_is_repeated_by_hand(local: Api, receiver: Receiver) -> None:
    admin = await local.register()
    webhook = await subscribe(admin, receiver)
    receiver.answer = lambda _: web.Response(status=503, text="x" * 5000)
    await admin.post("/properties", json=LISTING)
    failed = await delivery_of(local, admin, webhook, "failed")
    assert (failed["attempts"], failed["response_status"], failed["error"]) == (3, 503, "The endpoint answered 503.")
    assert len(failed["response_body"]) == 1024
    assert (await admin.get(f"/webhooks/{webhook['id']}"))["failing_since"] is not None
    receiver.answer = lambda _: web.Response()
    path = f"/webhooks/{webhook['id']}/deliveries/{failed['id']}"
    await admin.post(f"{path}/redeliver", status=200)
    delivered = await delivery_of(local, admin, webhook, "delivered")
    assert delivered["id"] == failed["id"]
    assert set(receiver.ids()) == {str(failed["id"])}
    assert (await admin.get(f"/webhooks/{webhook['id']}"))["failing_since"] is None
    assert "retry" in [row["action"] for row in await local.audits(admin)]


async def test_a_redirect_is_a_failure_and_not_followed(local: Api, receiver: Receiver) -> None:
    admin = await local.register()
    webhook = await subscribe(admin, receiver)
    receiver.answer = lambda _: web.Response(status=302, headers={"Location": "/elsewhere"})
    await admin.post("/properties", json=LISTING)
    failed = await delivery_of(local, admin, webhook, "failed")
    assert failed["error"] == "The endpoint answered 302. Redirects are not followed."
    assert {path for path, _, _ in receiver.requests} == {"/hook"}


async def test_410_switches_the_webhook_off_and_tells_its_creator(local: Api, receiver: Receiver) -> None:
    admin = await local.register()
    webhook = await subscribe(admin, receiver)
    receiver.answer = lambda _: web.Response(status=410)
    await admin.post("/properties", json=LISTING)
    await delivery_of(local, admin, webhook, "failed")
    after = await admin.get(f"/webhooks/{webhook['id']}")
    assert (after["is_active"], after["disabled_reason"]) == (False, "gone")
    told = json.loads((await local.events(admin))[-1]["data"])
    assert (told["user_id"], told["type"]) == (admin.user_id, "webhook_disabled")
    again = await admin.patch(f"/webhooks/{webhook['id']}", json={"is_active": True})
    assert (again["is_active"], again["disabled_reason"], again["failing_since"]) == (True, None, None)


async def test_failing_for_days_switches_the_webhook_off(local: Api, receiver: Receiver) -> None:
    admin = await local.register()
    webhook = await subscribe(admin, receiver)
    receiver.answer = lambda _: web.Response(status=500)
    statement = "update webhook_endpoints set failing_since = now() - interval '6 days' where id = $1"
    await local.value(statement, webhook["id"])
    await admin.post("/properties", json=LISTING)
    await delivery_of(local, admin, webhook, "failed")
    after = await admin.get(f"/webhooks/{webhook['id']}")
    assert (after["is_active"], after["disabled_reason"]) == (False, "failing")


async def test_one_slow_endpoint_does_not_delay_another_organisation(local: Api, receiver: Receiver) -> None:
    slow_admin, admin = await local.register(), await local.register()
    receiver.gate = asyncio.Event()
    slow = await subscribe(slow_admin, receiver)
    await slow_admin.post("/properties", json=LISTING)

    async def is_held() -> bool:
        return bool(receiver.requests)

    await until(is_held)
    async with receiving() as quick:
        webhook = await subscribe(admin, quick)
        await admin.post("/properties", json=LISTING)
        await delivery_of(local, admin, webhook, "delivered")
        (held,) = (await slow_admin.get(f"/webhooks/{slow['id']}/deliveries"))["items"]
        assert held["status"] == "sending"
    receiver.gate.set()
    await delivery_of(local, slow_admin, slow, "delivered")


async def test_an_endpoint_that_does_not_answer_in_time(
    local: Api, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = await local.register()
    webhook = await subscribe(admin, receiver)
    monkeypatch.setattr(integration, "TIMEOUT_SECONDS", 0.3)
    receiver.gate = asyncio.Event()
    tested = await admin.post(f"/webhooks/{webhook['id']}/test", status=200)
    assert (tested["ok"], tested["response_status"]) == (False, None)
    assert tested["error"] == "There was no answer within 0.3 seconds."


async def test_a_test_is_sent_at_once_and_is_no_delivery(local: Api, receiver: Receiver) -> None:
    admin = await local.register()
    webhook = await subscribe(admin, receiver)
    tested = await admin.post(f"/webhooks/{webhook['id']}/test", status=200)
    assert (tested["ok"], tested["response_status"], tested["response_body"]) == (True, 200, "thank you")
    ((_, headers, body),) = receiver.requests
    assert headers["webhook-id"].startswith("test_")
    assert json.loads(body)["type"] == "webhook.test"
    assert is_signed(webhook["secret"], headers, body)
    assert (await admin.get(f"/webhooks/{webhook['id']}/deliveries"))["total"] == 0


async def test_while_the_secret_is_rotated_both_count(local: Api, receiver: Receiver) -> None:
    admin = await local.register()
    webhook = await subscribe(admin, receiver)
    rotated = await admin.post(f"/webhooks/{webhook['id']}/rotate-secret", status=200)
    assert rotated["secret"] != webhook["secret"]
    await admin.post(f"/webhooks/{webhook['id']}/test", status=200)
    _, headers, body = receiver.requests[-1]
    assert is_signed(rotated["secret"], headers, body, 0)
    assert is_signed(webhook["secret"], headers, body, 1)
    statement = "update webhook_secrets set previous_until = now() where webhook_endpoint_id = $1"
    await local.value(statement, webhook["id"])
    await admin.post(f"/webhooks/{webhook['id']}/test", status=200)
    assert len(receiver.requests[-1][1]["webhook-signature"].split(" ")) == 1


async def test_many_events_arrive_once_each(local: Api, receiver: Receiver) -> None:
    admin = await local.register()
    webhook = await subscribe(admin, receiver, "property.created", "property.updated")
    async with running_worker(local.settings):
        made = await asyncio.gather(*(admin.post("/properties", json=LISTING) for _ in range(40)))

        async def have_come() -> bool:
            await sweep(local)
            page = await admin.get(f"/webhooks/{webhook['id']}/deliveries", params={"status": "delivered"})
            return bool(page["total"] == len(made))

        await until(have_come, 20)
    assert len(receiver.requests) == len(set(receiver.ids())) == 40


# --- where they never go ---------------------------------------------------------------------------------------

PRIVATE = [
    "http://127.0.0.1/", "http://localhost/", "http://[::1]/", "http://10.1.2.3/", "http://172.16.0.1/",
    "http://192.168.1.1/", "http://169.254.169.254/latest/meta-data", "http://100.64.0.1/", "http://0.0.0.0/",
    "http://[::ffff:127.0.0.1]/", "http://[64:ff9b::7f00:1]/", "http://[2002:7f00:1::]/", "http://[fc00::1]/",
    "http://[fe80::1]/", "http://224.0.0.1/", "http://[ff02::1]/", "http://[2001:0:7f00:1::]/", "http://[::]/",
]  # fmt: skip
MALFORMED = [
    "http://2130706433/", "http://0x7f000001/", "http://0177.0.0.1/", "http://127.1/", "http://127.0.0.1.:80/",
    "http://user:password@example.com/", "http://1.1.1.1:25/", "https://1.1.1.1:22/",
]  # fmt: skip


@pytest.mark.parametrize("url", [*PRIVATE, *MALFORMED])
async def test_what_is_not_public_is_refused_at_save(api: Api, url: str) -> None:
    admin = await api.register()
    refused = await admin.fields_refused("POST", "/webhooks", json={"url": url, "event_types": ["lead.created"]})
    assert list(refused) == ["url"]


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111"])
def test_public_addresses(address: str) -> None:
    assert is_public(address)


async def test_a_name_that_turns_private_is_refused_at_connect(receiver: Receiver) -> None:
    """DNS rebinding: the name was public when the webhook was saved."""
    answers = [["93.184.216.34"], ["127.0.0.1"], ["93.184.216.34", "127.0.0.1"]]
    client = WebhookClient()

    async def find_addresses(host: str, port: int) -> list[str]:
        return answers.pop(0)

    client.find_addresses = find_addresses
    url = f"http://rebinding.example:{receiver.port}/"
    try:
        await client.check(url)
        for _ in range(2):
            outcome = await client.post(url, {}, b"{}")
            assert (outcome.status, outcome.error) == (None, "The address is not public.")
        literal = await client.post(receiver.url, {}, b"{}")
        assert literal.error == "The address is not public."
        with pytest.raises(RefusedUrlError):
            await client.check(receiver.url)
    finally:
        await client.close()
    assert receiver.requests == []


async def test_the_name_is_looked_up_once_and_that_address_is_used(receiver: Receiver) -> None:
    client = WebhookClient(allow_private=True)
    asked: list[str] = []

    async def find_addresses(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    client.find_addresses = find_addresses
    try:
        outcome = await client.post(f"http://hooks.example:{receiver.port}/", {}, b"{}")
    finally:
        await client.close()
    assert outcome.is_success
    assert asked == ["hooks.example"]
    assert receiver.requests[0][1]["host"] == f"hooks.example:{receiver.port}"
